"""Committed reads: files first, log after.

A `Reader` answers from the state after one record, the last it has seen (`head`). What it knows: parsed nodes, brought
forward by every record it meets, and the net effect of its window, laid over whatever a file says. A file may be ahead
of what the reader has seen, so after the files of a question were read the log is extended; if that touched what the
question has read, it is asked again. The nodes read meanwhile are kept, so it converges.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO, TypeVar

import wal

from . import folders, layout
from .errors import UnavailableError
from .facts import BlobFact, Fact, Header
from .location import Path, fold_name
from .nodes import NodeState
from .reads import ReadSet
from .window import Window

T = TypeVar("T")

_PATIENCE = 10_000  # restarts of one question; each needs a commit by somebody else in between


class Moved(Exception):
    """Internal: the log grew while a file was read; ask again."""


class _OutOfDate(Exception):
    """Internal: the question failed on what may be out of date; ask again."""


class Reader:
    """Reads a tree. One per open tree, shared by its threads under `lock`."""

    def __init__(
        self, storage: wal.Storage, log: wal.WriteAheadLog, depth: int, *, trust_applied: bool, shared: bool = False
    ) -> None:
        """`depth`: number of levels. `trust_applied`: see `Window`. `shared`: a look at the log's end is a request, so
        that there is one for each question, after it was answered."""
        self.lock = threading.RLock()
        self._storage = storage
        self._log = log
        self._depth = depth
        self._reads: ReadSet | None = None  # of the question that is being answered
        self._repeatable = False  # it changes nothing, so that it may be asked again for any reason
        self._shared = shared
        self._unsettled = False  # a file was read since the log was looked at
        self._ahead: dict[Path, folders.NodeFile | None] = {}  # files that this question has read before it needs them
        self._looked = True  # the log was looked at since the question was asked, or that is not needed
        self._window = Window(log, trust_applied=trust_applied)
        self._window.begin()

    @property
    def url(self) -> str:
        """Where the tree is, for messages."""
        return self._storage.url

    @property
    def head(self) -> int:
        """The record after which all answers are."""
        return self._window.head

    def reset_after_fork(self) -> None:
        """In a forked child: the lock may have been held by a thread that did not come along."""
        self.lock = threading.RLock()
        self.restart()

    def restart(self) -> bool:
        """Forget everything and begin again at the mark; whether that has moved on."""
        with self.lock:
            before = self._window.floor
            self._window.restart()
            return self._window.floor > before

    # --- answering ----------------------------------------------------------------------------------------------------

    def ask(self, question: Callable[[ReadSet], T], reads: ReadSet | None = None, *, fresh: bool = True) -> T:
        """The answer of `question` in one committed state, at least as new as the call.

        `question` notes what it reads in the set it is given: a new one, and then it may run often; or `reads`, and
        then it has to raise when it runs again after something in that set was changed: it may be a verb, which has
        changed its transaction's draft.
        Not `fresh`: the state may be older, for what is validated later anyway; an error it raises is of a new one.
        """
        with self.lock:
            self._looked = not fresh
            for _ in range(_PATIENCE):
                self._reads, self._repeatable = (ReadSet(), True) if reads is None else (reads, False)
                try:
                    if self._shared:
                        self._window.forget(self._window.mark())
                    elif fresh:
                        self.refresh()
                    self._unsettled, self._ahead = False, {}
                    answer = self._answer(question, self._reads, fresh=fresh)
                    if self._unsettled or (self._shared and not self._looked):
                        self.settled()
                    return answer
                except Moved:
                    continue
                except _OutOfDate:
                    fresh = True
                finally:
                    self._reads = None
        raise UnavailableError("the tree changes faster than it can be read; try again")

    def _answer(self, question: Callable[[ReadSet], T], reads: ReadSet, *, fresh: bool) -> T:
        try:
            return question(reads)
        except Moved:
            raise
        except Exception as error:
            if (fresh and self._looked and not self._unsettled) or not self._extend():
                raise
            raise _OutOfDate from error  # or so may be what the error rests on

    def refresh(self) -> None:
        """Note the mark, then follow the log to its head."""
        mark = self._window.mark()
        self._unsettled, self._looked = False, True
        self._window.extend(self._log.head())
        self._window.forget(mark)

    def follow(self, head: int) -> None:
        """Follow the log to `head`, which somebody has seen already."""
        if head > self._window.head:
            mark = self._window.mark()
            self._window.extend(head)
            self._window.forget(mark)

    def settled(self, also: ReadSet | None = None) -> None:
        """To be called after files were read: extend the log, since they may be ahead. Raises Moved if that touched
        what the question has read so far, or, where it can be asked again for nothing, passed the window by."""
        before, floor = self._window.head, self._window.floor
        if not self._extend():
            return
        if self._reads is None or (self._repeatable and self._window.floor != floor):
            raise Moved
        for _, header in self.since(before):
            if self._reads.conflict(header.changes) or (also is not None and also.conflict(header.changes)):
                raise Moved

    def settle_keys(self, path: Path) -> None:
        """`settled`, for one who hands out all keys of a node though not all of them count as read. Raises Moved."""
        if self._unsettled:
            keys = ReadSet()
            keys.all_keys(path)
            self.settled(keys)

    def _extend(self) -> bool:
        self._looked = True
        fresh, self._unsettled = self._unsettled, False  # files may be ahead of a head that is believed for a while
        grown = self._window.extend(self._log.head(fresh=fresh))
        if self._window.is_long():
            self._window.forget(max(self._window.mark(), self._log.trimmed(fresh=True)))
        return grown

    def since(self, base: int) -> Iterator[tuple[wal.Position, Header]]:
        """Positions and headers of the records after `base`, to the reader's head."""
        return self._window.since(base)

    def facts(self, after: int) -> list[Fact] | None:
        """The facts of the records (after, head]; None if this reader does not hold all of them."""
        return self._window.facts(after)

    # --- nodes --------------------------------------------------------------------------------------------------------

    def node(self, path: Path) -> NodeState | None:
        """A node at the head; None if there is none. Raises Moved, CorruptionError."""
        node = self._window.nodes.get(path)
        if node is not None:
            return node
        if path:
            parent = self.node(path[:-1])
            if parent is None or path[-1] not in parent.children:
                return None
        effect, _ = self._window.effect.find(path)
        if effect is not None and effect.whole:
            node = NodeState.of(dict(effect.keys), effect.children)
        else:
            file = self._read(path)
            node = NodeState(file.keys, dict.fromkeys(file.children, True), file.size, file.edited)
            if effect is not None:
                node.keys, node.children = effect.over_keys(node.keys), effect.over_children(node.children)
        if not node.edited:  # who edited it may put it back
            self._window.nodes.keep(path, node)
        return node

    def names(self, path: Path, node: NodeState) -> dict[str, str]:
        """Folded -> actual name of every child and top-level blob of a node."""
        if node.blobs is None:
            blobs = self.blobs(path, node)
            node.blobs = blobs
            node.names = {fold_name(name): name for name in (*node.children, *blobs)}
        return node.names

    def blobs(self, path: Path, node: NodeState) -> set[str]:
        """The names of a node's top-level blobs, from the folder as it is now."""
        effect, covered = self._window.effect.find(path)
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
        """By a question, of nodes that it is going to ask for: read their files at once, where each is a request. What
        is wrong with one is told when it is asked for."""
        self._unsettled = True
        missing = [path for path in paths if self._window.nodes.get(path) is None]
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
        """What the un-applied records say of a blob: its fact, and whether the file, if any, is out of date."""
        effect, covered = self._window.effect.find(path)
        fact, said = (None, False) if effect is None else effect.blob(name)
        return fact, covered or said

    def has_blob(self, path: Path, name: str) -> bool:
        """Whether a blob (a file, or a directory blob) of this name exists at the head."""
        node = self.node(path)
        if node is None:
            if not self._storage.capabilities.folders:
                return False  # saves two requests; a foreign object is met, and kept, when ours is published
            self._unsettled = True
            return folders.is_foreign_file(self._storage, layout.blob(path, name))
        known = self._knows_blob(path, name)
        if known is None and node.blobs is not None and "/" not in name and not self._storage.capabilities.folders:
            known = name in node.blobs  # saves a request; a foreign file that came since is met when ours is published
        if known is None:
            self._unsettled = True
            entry = self._storage.entry(layout.blob(path, name))
            known = entry is not None and entry.kind is not wal.Kind.OTHER
        return known

    def _knows_blob(self, path: Path, name: str) -> bool | None:
        """What the window says of a blob's existence; None if nothing."""
        effect, _ = self._window.effect.find(path)
        fact, said = self.blob(path, name)
        if fact is not None or (effect is not None and effect.blob_below(name)):
            return True
        return False if said else None

    def blob_files(self, path: Path, name: str) -> set[str]:
        """The files of a directory blob at the head, as blob names; empty if it is none."""
        files: set[str] = set()
        if self.node(path) is None:
            return files
        if not self.blob(path, name)[1]:
            self._unsettled = True
            with suppress(FileNotFoundError, NotADirectoryError):
                files = set(folders.files_below(self._storage, path, name))
        effect, _ = self._window.effect.find(path)
        return files if effect is None else effect.over_blob_files(name, files)

    def open_file(self, path: Path, name: str) -> tuple[BinaryIO, folders.Attribute | None]:
        """A blob's file, which no un-applied record touches, and its attribute. Raises FileNotFoundError, Moved."""
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
            # where it costs a request, the handle has it already
            carried = handle.attribute if hasattr(handle, "attribute") else self._storage.attribute(file)
            attribute = folders.Attribute.decode(carried)
            self.settled()
        except BaseException as error:
            handle.close()
            if isinstance(error, FileNotFoundError):
                raise Moved from None
            raise
        return handle, attribute
