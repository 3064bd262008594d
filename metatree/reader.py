"""Committed reads: nodes and blobs in the state after one record, from the files and the records not applied yet.

Questions that `ask` runs call these methods: see `asking.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO

import wal

from . import folders, layout
from .asking import Asking, Moved
from .facts import BlobFact
from .location import Path, fold_name
from .nodes import NodeState


class Reader(Asking):
    """Reads a tree. One per open tree, shared by its threads under `lock`."""

    # --- nodes --------------------------------------------------------------------------------------------------------

    def node(self, path: Path) -> NodeState | None:
        """A node at the head; None if there is none. Raises Moved, CorruptionError."""
        node = self.window.nodes.get(path)
        if node is not None:
            return node
        if path:
            parent = self.node(path[:-1])
            if parent is None or path[-1] not in parent.children:
                return None
        effect, _ = self.window.effect.find(path)
        if effect is not None and effect.whole:
            node = NodeState.of(dict(effect.keys), effect.children)
        else:
            file = self._read(path)
            keys, children = file.keys, dict.fromkeys(file.children, True)
            if effect is not None:
                keys, children = effect.over_keys(keys), effect.over_children(children)
            node = NodeState(keys, children, file.size, file.edited)
        if not node.edited:  # an edited file may be restored without a record, so it is read each time
            self.window.nodes.keep(path, node)
        return node

    def names(self, path: Path, node: NodeState) -> dict[str, str]:
        """Folded name -> actual name of every child and top-level blob of a node."""
        if node.blobs is None:
            blobs = self.blobs(path, node)
            node.set_names(blobs, {fold_name(name): name for name in (*node.children, *blobs)})
            self.window.nodes.recount(path, node)
        return node.names

    def blobs(self, path: Path, node: NodeState) -> set[str]:
        """The names of a node's top-level blobs, from the folder as it is now."""
        effect, covered = self.window.effect.find(path)
        names: set[str] = set()
        if not covered:
            self._unsettled = True
            try:
                names = folders.top_names(self._storage, path, node.children, leaf=len(path) >= self._depth)
            except (FileNotFoundError, NotADirectoryError) as error:
                if effect is None:
                    raise folders.missing(path) from error
        names = names if effect is None else effect.over_names(names)
        return names - node.children.keys()

    def bring(self, paths: Sequence[Path]) -> None:
        """Called by a question for the nodes it will read: read their files in parallel, since each is a request. An
        error is raised when the node is read."""
        self._unsettled = True
        missing = [path for path in paths if self.window.nodes.get(path) is None]
        self._ahead = folders.read_nodes(self._storage, missing)

    def _read(self, path: Path) -> folders.NodeFile:
        self._unsettled = True
        ahead = self._ahead.pop(path, None)
        try:
            return ahead or folders.read_node(self._storage, path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise folders.missing(path) from error

    # --- blobs --------------------------------------------------------------------------------------------------------

    def blob(self, path: Path, name: str) -> tuple[BlobFact | None, bool]:
        """(a blob's fact in the records not applied yet, if any; whether they make its file, if any, out of date)."""
        effect, covered = self.window.effect.find(path)
        fact, said = (None, False) if effect is None else effect.blob(name)
        return fact, covered or said

    def has_blob(self, path: Path, name: str) -> bool:
        """Whether a blob (a file, or a directory blob) of this name exists at the head."""
        node = self.node(path)
        if node is None:
            return self.has_foreign(path, name)
        known = self._knows_blob(path, name)
        if known is not None:
            return known
        if node.blobs is not None and "/" not in name and not self._storage.capabilities.folders:
            return name in node.blobs  # saves a request; a new foreign file is found when ours is published
        self._unsettled = True
        entry = self._storage.entry(layout.blob(path, name))
        return entry is not None and entry.kind is not wal.Kind.OTHER

    def has_foreign(self, path: Path, name: str) -> bool:
        """Whether a file of this name lies where a node does not exist yet."""
        if not self._storage.capabilities.folders:
            return False  # saves two requests; a foreign object is found, and kept, when ours is published
        self._unsettled = True
        return folders.is_foreign_file(self._storage, layout.blob(path, name))

    def is_void(self, path: Path) -> bool:
        """Whether nothing lies in the place of a node that does not exist."""
        if not self._storage.capabilities.folders:
            return True  # as for `has_foreign`
        self._unsettled = True
        return self._storage.entry(layout.folder(path)) is None

    def _knows_blob(self, path: Path, name: str) -> bool | None:
        """Whether a blob exists according to the window; None if the window does not tell."""
        effect, _ = self.window.effect.find(path)
        fact, said = self.blob(path, name)
        if fact is not None or (effect is not None and effect.blob_below(name)):
            return True
        return False if said else None

    def blob_files(self, path: Path, name: str, *, whole: bool = False) -> set[str]:
        """The files of a directory blob at the head, as blob names; empty if it is not one. `whole`: raises
        UnsafePathError if it holds a link."""
        if self.node(path) is None:
            return set()
        files: set[str] = set()
        if not self.blob(path, name)[1]:
            self._unsettled = True
            with suppress(FileNotFoundError, NotADirectoryError):
                files = set(folders.files_below(self._storage, path, name, whole=whole))
        effect, _ = self.window.effect.find(path)
        return files if effect is None else effect.over_blob_files(name, files)

    def open_file(self, path: Path, name: str) -> tuple[BinaryIO, folders.Attribute | None]:
        """A blob's file, which no record waiting to be applied touches, and its attribute. Raises FileNotFoundError,
        Moved."""
        file = layout.blob(path, name)
        if self.node(path) is None:
            raise FileNotFoundError(file)
        self._unsettled = True
        try:
            handle = self._storage.open(file)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self.settled()
            raise FileNotFoundError(file) from None
        try:
            attribute = folders.attribute_of(self._storage, file, handle)
            self.settled()
        except BaseException as error:
            handle.close()
            if isinstance(error, FileNotFoundError):
                raise Moved from None
            raise
        return handle, attribute
