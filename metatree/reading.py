"""The read-only half of a tree's API, and what both halves use: parsing, asking, the cursor."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TypeVar

import wal

from . import content
from .draft import Draft
from .engine import Engine
from .errors import CorruptionError, InvalidLocationError, UnavailableError
from .location import Location, Path, Segment, parse
from .metadata import Metadata, WatchedMetadata
from .node import Node
from .reads import ReadSet
from .staging import Staging

T = TypeVar("T")
Names = list[str]  # under another name, since `list` is a verb here


_AHEAD = 63  # nodes that a walk reads together with the next one, where each is a request
_PATIENCE = 100  # restarts of one download; each requires a commit in between


class _ChangedMeanwhile(Exception):
    """A directory blob changed between two of its files."""


class Reading:
    """The reading methods of a tree. `Metatree` adds opening it and changing it."""

    _engine: Engine
    _root: str

    @property
    def root(self) -> str:
        """The root as a path or URL."""
        return self._root

    @property
    def location(self) -> str:
        """The path or URL of the node at the cursor: the one that this thread or task found last."""
        return Node(self, self._engine.cursor.get()).location

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The keys of the node at the cursor, as a read-only mapping."""
        return Node(self, self._engine.cursor.get()).metadata

    # --- reading ------------------------------------------------------------------------------------------------------

    def find(self, location: Location) -> Node:
        """The node at a location; also moves the cursor of this thread or task there. Raises NodeNotFoundError."""
        engine = self._engine
        found = engine.warm(location if type(location) is str else self._parse(location))
        path = self._resolve(location) if found is None else found[0]
        if engine.cursor.get() is not path:  # setting one slows down the next look at any ContextVar
            engine.cursor.set(path)
        return Node(self, path)

    def exists(self, location: Location) -> bool:
        """Whether there is a node or a blob at a location."""
        segments = self._parse(location)

        def question(draft: Draft) -> bool:
            path, name = draft.resolve_blob(segments)
            if name:
                draft.reads.name(path, name)
            return not name or draft.view.has_blob(path, name)

        try:
            return self._read(question)
        except (KeyError, InvalidLocationError):  # a reference that leads nowhere
            return False

    def list(self, location: Location | None = None) -> Names:
        """The names of a node's blobs (directory blobs included), sorted. Default: the node at the cursor."""

        segments = self._parse_or_cursor(location)

        def question(draft: Draft) -> Names:
            path = draft.resolve_node(segments)
            draft.reads.names(path)
            return draft.view.blobs(path)

        return self._read(question)

    def children(self, location: Location | None = None) -> Names:
        """The names of a node's child nodes, in the order they were added. Default: the node at the cursor."""

        segments = self._parse_or_cursor(location)

        def question(draft: Draft) -> Names:
            path = draft.resolve_node(segments)
            draft.reads.names(path)
            return [*draft.view.children(path)]

        return self._read(question)

    def walk(self, location: Location | None = None) -> Iterator[Node]:
        """The node and all its descendants in pre-order, children in their order. Each step reads its own committed
        state (up to 64 nodes at once where hosts share the storage); in a transaction all read the transaction's.

        Nodes deleted meanwhile are skipped.
        """
        segments = self._parse_or_cursor(location)
        return self._walk(self._read(lambda draft: draft.resolve_node(segments)))

    def _walk(self, start: Path) -> Iterator[Node]:
        pending: list[Path] = [start]
        known: dict[Path, Names | None] = {}
        while pending:
            path = pending.pop()
            if path not in known:
                ahead = _AHEAD if self._engine.shared and self._engine.active.get() is None else 0
                known = self._children_of([path, *reversed(pending[len(pending) - ahead :])])
            names = known[path]
            if names is not None:
                yield Node(self, path)
                pending.extend((*path, name) for name in reversed(names))

    def _children_of(self, paths: Sequence[Path]) -> dict[Path, Names | None]:
        """The children of each node, None if it does not exist. Raises CorruptionError for the first only: other
        damaged nodes are left out."""

        def question(draft: Draft) -> dict[Path, Names | None]:
            found: dict[Path, Names | None] = {}
            if len(paths) > 1:
                draft.view.reader.bring(paths)
            for path in paths:
                draft.reads.names(path)
                if path:
                    draft.reads.name(path[:-1], path[-1])
                try:
                    found[path] = [*draft.view.children(path)] if draft.view.exists(path) else None
                except CorruptionError:
                    if path == paths[0]:
                        raise
            return found

        return self._read(question)

    def get(
        self, location: Location, outfile: str | bytes | os.PathLike[str] | None = None, *, recursive: bool = False
    ) -> Iterator[bytes]:
        """A blob's content, as a generator of bytes. The last segment is the blob's name or a `<key>` that holds it.

        With `outfile`, the blob is first written there, whole and verified, and the generator reads that file;
        `recursive=True` downloads a directory blob into a new folder (the generator is then empty).
        Raises BlobNotFoundError, NodeNotFoundError (no node that could hold it), InvalidLocationError, BlobExistsError
        (`outfile` exists), OSError (no folder for `outfile`). A stream that does not match its digest ends with
        CorruptionError.
        """
        segments = self._parse(location)
        if outfile is None:
            if recursive:
                raise InvalidLocationError("recursive=True downloads a folder: pass outfile")
            return self._open(segments).chunks()
        from . import downloads  # imported here: only downloads need it

        target = os.fsdecode(outfile)
        downloads.check_target(target)
        if recursive:
            return self._download_all(segments, target)
        blob = self._open(segments)
        downloads.download(blob, target)
        with wal.DeferredInterrupt():  # until the generator owns the file
            return content.OpenBlob(blob.name, io.BufferedReader(io.FileIO(target)), None, blob.sha256).chunks()

    def open(self, location: Location, mode: str = "rb") -> BinaryIO:
        """A blob as a seekable binary file object; `mode` must be "rb". Raises as `get` does."""
        if mode != "rb":
            raise ValueError(f"blobs are opened with 'rb', not {mode!r}; put() writes them")
        return self._open(self._parse(location)).stream

    # --- inside -------------------------------------------------------------------------------------------------------

    def _parse(self, where: Location) -> tuple[Segment, ...]:
        return parse(where, self._engine.levels)

    def _parse_or_cursor(self, where: Location | None) -> tuple[Segment, ...]:
        return self._engine.cursor.get() if where is None else self._parse(where)

    def _read(self, question: Callable[[Draft], T]) -> T:
        with self._engine.translated:
            return self._engine.read(question)

    def _change(self, change: Callable[[Draft], T], staging: Staging | None = None) -> T:
        with wal.DeferredInterrupt(), self._engine.translated:  # what a signal handler raises is not translated
            return self._engine.change(change, staging)

    def _resolve(self, where: Location) -> Path:
        segments = self._parse(where)
        return self._read(lambda draft: draft.resolve_node(segments))

    def _node_at(self, path: Path) -> Node:
        found = self._engine.warm(self._parse(path))
        return Node(self, self._resolve(path) if found is None else found[0])

    def _metadata(self, path: Path) -> Mapping[str, Any]:
        active = self._engine.active.get()

        def question(draft: Draft) -> Mapping[str, Any]:
            draft.require(path)
            keys = draft.view.keys(path)
            if active is None:
                draft.reads.all_keys(path)  # all are returned; in a transaction only those that are read are recorded
                return Metadata(keys)
            draft.view.reader.settle_keys(path)
            return WatchedMetadata(keys, path, active.watching(draft))

        return self._read(question)

    def _open(self, segments: tuple[Segment, ...]) -> content.OpenBlob:
        storage = self._engine.storage
        with self._engine.translated:
            self._engine.let_read()
        return self._read(lambda draft: content.open_blob(storage, draft, *draft.resolve_blob(segments)))

    def _download_all(self, segments: tuple[Segment, ...], target: str) -> Iterator[bytes]:
        from . import downloads

        for _ in range(_PATIENCE):
            try:
                downloads.download_all(self._directory(segments), target)
                return iter(())
            except _ChangedMeanwhile:
                continue
        raise UnavailableError("the directory blob changes faster than it can be downloaded; try again")

    def _directory(self, segments: tuple[Segment, ...]) -> Iterator[tuple[str, content.OpenBlob]]:
        """The files of a directory blob, opened one by one, all in one committed state. Raises _ChangedMeanwhile."""
        reader, storage = self._engine.reader, self._engine.storage
        reads = ReadSet()

        def begin(draft: Draft) -> tuple[Path, str, list[str], int]:
            path, name = draft.resolve_blob(segments)
            return path, name, content.directory_files(draft, path, name), reader.head

        with self._engine.translated:
            self._engine.let_read()
        path, name, files, base = self._read(begin)
        reads.name(path, name)

        def open_one(draft: Draft, file: str) -> content.OpenBlob:
            nonlocal base
            if any(reads.conflict(header.changes) for _, header in reader.since(base)):
                raise _ChangedMeanwhile
            base = reader.head
            return content.open_blob(storage, draft, path, file)

        for file in files:
            yield file[len(name) + 1 :], self._read(lambda draft, file=file: open_one(draft, file))  # type: ignore[misc]
