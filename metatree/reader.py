"""Committed reads: files first, log after.

A `Reader` answers from the state after one record, the last it has seen (`head`). What it knows: parsed nodes, brought
forward by every record it meets, and the net effect of the window (`floor`, `head`], laid over whatever a file says.
A file may be ahead of what the reader has seen, so after each file it reads the log is extended; if that moved the
head, the question is asked again (`Moved`). The nodes read meanwhile are kept, so it converges.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import takewhile
from typing import BinaryIO, TypeVar

import wal

from . import folders, layout, marks
from .errors import UnavailableError
from .facts import BlobFact, Fact, Header, decode_facts, decode_header
from .fold import Effect, fold
from .location import Path, fold_name
from .nodes import NodeCache, NodeState
from .reads import ReadSet

T = TypeVar("T")

RECENT = 4096  # headers kept to validate transactions without reading the log again ...
RECENT_BYTES = 8 << 20  # ... and as many bytes of them
_PATIENCE = 10_000  # restarts of one question; each needs a commit by somebody else in between


class Moved(Exception):
    """Internal: the log grew while a file was read; ask again."""


class Reader:
    """Reads a tree. One per open tree, shared by its threads under `lock`."""

    def __init__(self, storage: wal.Storage, log: wal.WriteAheadLog, depth: int, *, trust_applied: bool) -> None:
        """`depth`: number of levels. `trust_applied`: a writer lives (this one), so the applied mark may be believed; a
        mere reader starts from the redo mark (E18)."""
        self.lock = threading.RLock()
        self._storage = storage
        self._log = log
        self._depth = depth
        self._trust_applied = trust_applied
        self.floor = 0  # what is known begins after this LSN ...
        self.head = 0  # ... and ends with this one
        self._reads: ReadSet | None = None  # of the question that is being answered
        self.restart()

    @property
    def url(self) -> str:
        """Where the tree is, for messages."""
        return self._storage.url

    def reset_after_fork(self) -> None:
        """In a forked child: the lock may have been held by a thread that did not come along."""
        self.lock = threading.RLock()
        self.restart()

    def restart(self) -> bool:
        """Forget everything and begin again at the mark; whether that has moved on."""
        with self.lock:
            before = self.floor
            self.floor = self.head = max(self._mark(), self._log.trimmed(fresh=True))
            self._window: deque[tuple[int, tuple[Fact, ...]]] = deque()  # (LSN, facts) of the records after `floor`
            self._effect, self._nodes = Effect(), NodeCache()
            self._recent: deque[tuple[wal.Position, Header, int]] = deque()
            self._recent_bytes = 0
            return self.floor > before

    # --- following the log --------------------------------------------------------------------------------------------

    def ask(self, question: Callable[[ReadSet], T], reads: ReadSet | None = None) -> T:
        """The answer of `question` in one committed state, at least as new as the call.

        `question` notes what it reads in the set it is given: `reads`, or else a new one. It may run often.
        """
        with self.lock:
            for _ in range(_PATIENCE):
                self._reads = ReadSet() if reads is None else reads
                try:
                    self.refresh()
                    return question(self._reads)
                except Moved:
                    continue
                finally:
                    self._reads = None
        raise UnavailableError("the tree changes faster than it can be read; try again")

    def refresh(self) -> None:
        """Note the mark, then follow the log to its head."""
        mark = self._mark()
        self._extend()
        if mark > self.floor and self._window:
            self._forget(mark)

    def settled(self) -> None:
        """To be called after a file was read: extend the log, since the file may be ahead. Raises Moved if that touched
        what the question has read so far, or passed the window by."""
        before, floor = self.head, self.floor
        if not self._extend():
            return
        if (
            self.floor != floor
            or self._reads is None
            or any(self._reads.conflict(header.changes) for _, header in self.since(before))
        ):
            raise Moved

    def since(self, base: int) -> Iterator[tuple[wal.Position, Header]]:
        """Positions and headers of the records after `base`, to the reader's head."""
        if base >= self.head:
            return
        oldest = self._recent[0][0] if self._recent else None
        if oldest is not None and (oldest.lsn <= base or (oldest.lsn == base + 1 and oldest.index == 0)):
            later = list(takewhile(lambda recent: recent[0].lsn > base, reversed(self._recent)))
            yield from ((position, header) for position, header, _ in reversed(later))
            return
        for batch in self._log.read(base):
            for index, record in enumerate(batch.records):
                yield wal.Position(batch.lsn, index), decode_header(record.header)

    def window(self, after: int) -> list[Fact] | None:
        """The facts of the records (after, head]; None if this reader does not hold all of them."""
        if after < self.floor:
            return None
        return [fact for lsn, facts in self._window if lsn > after for fact in facts]

    def _mark(self) -> int:
        if self._trust_applied:
            return max(self._log.load_mark(marks.APPLIED), self._log.trimmed())
        return self._log.trimmed()

    def _extend(self) -> bool:
        if self._log.head() == self.head:
            return False
        for batch in self._log.read(self.head):
            if any(record.body is None for record in batch.records):
                self._jump(batch)
            else:
                self._take(batch)
            self.head = batch.lsn
        return True

    def _take(self, batch: wal.Batch) -> None:
        for index, record in enumerate(batch.records):
            self._note(wal.Position(batch.lsn, index), record)
            facts = tuple(decode_facts(record.body or b""))
            self._window.append((batch.lsn, facts))
            fold(facts, self._effect)
            for fact in facts:
                self._nodes.forward(fact)

    def _jump(self, batch: wal.Batch) -> None:
        """A trimmed record: what it did is in the files, and what was cached may be older."""
        self.floor = batch.lsn
        self._window.clear()
        self._effect, self._nodes = Effect(), NodeCache()
        for index, record in enumerate(batch.records):
            self._note(wal.Position(batch.lsn, index), record)

    def _note(self, position: wal.Position, record: wal.Record) -> None:
        self._recent.append((position, decode_header(record.header), len(record.header)))
        self._recent_bytes += len(record.header)
        while len(self._recent) > RECENT or (self._recent_bytes > RECENT_BYTES and len(self._recent) > 1):
            self._recent_bytes -= self._recent.popleft()[2]

    def _forget(self, mark: int) -> None:
        """Drop the records up to `mark` from the window, once that is most of it (folding again costs the rest)."""
        if mark < self.head and self._window[len(self._window) // 2][0] > mark:
            return
        # The floor first: interrupted between two of these steps, the reader claims to know too little, never too much.
        self.floor = max(self.floor, min(mark, self.head))
        while self._window and self._window[0][0] <= mark:
            self._window.popleft()
        self._effect = fold(fact for _, facts in self._window for fact in facts)

    # --- nodes --------------------------------------------------------------------------------------------------------

    def node(self, path: Path) -> NodeState | None:
        """A node at the head; None if there is none. Raises Moved, CorruptionError."""
        node = self._nodes.get(path)
        if node is not None:
            return node
        if path:
            parent = self.node(path[:-1])
            if parent is None or path[-1] not in parent.children:
                return None
        effect, _ = self._effect.find(path)
        if effect is not None and effect.whole:
            node = NodeState.of(dict(effect.keys), effect.children)
        else:
            file = self._read(path)
            effect, _ = self._effect.find(path)  # again, since the log may have been extended
            node = NodeState(file.keys, dict.fromkeys(file.children, True), file.size, file.edited)
            if effect is not None:
                node.keys, node.children = effect.over_keys(node.keys), effect.over_children(node.children)
        if not node.edited:  # who edited it may put it back
            self._nodes.keep(path, node)
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
        effect, covered = self._effect.find(path)
        names: set[str] = set()
        if not covered:
            try:
                names = folders.top_names(self._storage, path, node.children, leaf=len(path) >= self._depth)
            except (FileNotFoundError, NotADirectoryError) as error:
                self.settled()
                if effect is None:
                    raise folders.missing(path) from error
            self.settled()
        effect, _ = self._effect.find(path)
        names = names if effect is None else effect.over_names(names)
        return names - node.children.keys()

    def _read(self, path: Path) -> folders.NodeFile:
        try:
            file = folders.read_node(self._storage, path)
        except (FileNotFoundError, NotADirectoryError) as error:
            self.settled()
            raise folders.missing(path) from error
        self.settled()
        return file

    # --- blobs --------------------------------------------------------------------------------------------------------

    def blob(self, path: Path, name: str) -> tuple[BlobFact | None, bool]:
        """What the un-applied records say of a blob: its fact, and whether the file, if any, is out of date."""
        effect, covered = self._effect.find(path)
        fact, said = (None, False) if effect is None else effect.blob(name)
        return fact, covered or said

    def has_blob(self, path: Path, name: str) -> bool:
        """Whether a blob (a file, or a directory blob) of this name exists at the head."""
        if self.node(path) is None:
            return folders.is_foreign_file(self._storage, layout.blob(path, name))
        known, entry = self._knows_blob(path, name), None
        if known is None:
            entry = self._storage.entry(layout.blob(path, name))
            self.settled()
            known = self._knows_blob(path, name)
        return known if known is not None else entry is not None and entry.kind is not wal.Kind.OTHER

    def _knows_blob(self, path: Path, name: str) -> bool | None:
        """What the window says of a blob's existence; None if nothing."""
        effect, _ = self._effect.find(path)
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
            with suppress(FileNotFoundError, NotADirectoryError):
                files = set(folders.files_below(self._storage, path, name))
            self.settled()
        effect, _ = self._effect.find(path)
        return files if effect is None else effect.over_blob_files(name, files)

    def open_file(self, path: Path, name: str) -> tuple[BinaryIO, folders.Attribute | None]:
        """A blob's file, which no un-applied record touches, and its attribute. Raises FileNotFoundError, Moved."""
        file = layout.blob(path, name)
        if self.node(path) is None:
            raise FileNotFoundError(file)
        try:
            handle = self._storage.open(file)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self.settled()
            raise FileNotFoundError(file) from None
        try:
            attribute = folders.Attribute.decode(self._storage.attribute(file))
            self.settled()
        except BaseException as error:
            handle.close()
            if isinstance(error, FileNotFoundError):
                raise Moved from None
            raise
        return handle, attribute
