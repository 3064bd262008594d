"""Answers each question from one committed state: reads files first, the log after.

A question is answered from the state after one record, the last that was read (`head`). The reader holds parsed nodes,
which it updates with every record, and the net effect of the window, which it overlays on the content of files. A file
may be ahead of `head`, so after a question has read files the log is read again; if the new records touch what the
question has read, it is asked again. The nodes read so far are kept, so the repetition converges.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import wal

from . import folders
from .errors import InvalidLocationError, MetatreeError, UnavailableError, is_from_handler, raise_from_handler
from .facts import Fact, Header
from .location import Path, parse_string
from .nodes import Found, Where
from .reads import ReadSet
from .window import Window

T = TypeVar("T")

_PATIENCE = 10_000  # restarts of one question; each requires a new commit by another process or thread


class Moved(Exception):
    """Internal: the log grew while a file was read; ask again."""


class _OutOfDate(Exception):
    """Internal: the question raised an error from a state that may be out of date; ask again."""


class Asking:
    """Answers questions. `Reader` provides what they ask, and sets `_unsettled` whenever it reads a file."""

    def __init__(
        self, storage: wal.Storage, log: wal.WriteAheadLog, depth: int, *, trust_applied: bool, shared: bool = False
    ) -> None:
        """`depth`: number of levels. `trust_applied`: see `Window`. `shared`: reading the log's end is a request, so
        each question makes one, after it was answered."""
        self.lock = threading.RLock()
        self._storage = storage
        self._log = log
        self._depth = depth
        self._reads: ReadSet | None = None  # of the question that is being answered
        self._repeatable = False  # it changes nothing, so it may be asked again at any time
        self._shared = shared
        self._unsettled = False  # a file was read since the log's end was read
        self._ahead: dict[Path, folders.NodeFile | None] = {}  # files read ahead for this question
        self._looked = True  # the log's end was read since the question was asked, or need not be
        self.window = Window(log, trust_applied=trust_applied, eager=shared)
        self.window.begin()

    @property
    def url(self) -> str:
        """The URL of the tree, for messages."""
        return self._storage.url

    @property
    def head(self) -> int:
        """The LSN of the state that answers describe."""
        return self.window.head

    def reset_after_fork(self) -> None:
        """In a forked child: the lock may have been held by a thread that does not exist here."""
        self.lock = threading.RLock()
        self._reads = None  # a question of a thread that does not exist here either
        self.restart()

    def restart(self) -> bool:
        """Forget everything and begin again at the mark; returns whether the mark has moved on."""
        with self.lock:
            before = self.window.floor
            self.window.restart()
            return self.window.floor > before

    # --- answering ----------------------------------------------------------------------------------------------------

    def ask(self, question: Callable[[ReadSet], T], reads: ReadSet | None = None, *, fresh: bool = True) -> T:
        """The answer of `question` in one committed state, at least as new as the call.

        `question` records what it reads in the set it is given. Without `reads` this is a new set for each run, and
        the question may run often. With `reads`, it may be a verb that has changed its transaction's draft, so it must
        raise when it runs again after something in that set was changed.
        Not `fresh`: the answer may be older than the call, for what is validated later anyway; an error never is.
        Raises UnavailableError after too many restarts.
        """
        with self.lock:
            if self._reads is not None:  # the window would move under that question
                raise RuntimeError("this thread is reading the tree, interrupted by a signal handler: read after it")
            self._looked = not fresh
            for _ in range(_PATIENCE):
                try:
                    self._reads, self._repeatable = (ReadSet(), True) if reads is None else (reads, False)
                    if self._shared:
                        self.window.forget(self.window.mark())
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

    def hold(self, where: Where) -> Found | None:
        """The node at a location, if every node that leads to it is held in memory at the log's present head. None:
        call `ask`, which also raises the error if there is one."""
        window = self.window
        try:
            if isinstance(where, str):
                parse_string(where)  # what is no location is refused before any look at the storage
            with self.lock:  # the head is read after the files from which these nodes come
                if self._reads is not None or self._log.head() != window.head:
                    return None
                return window.nodes.resolve(where)
        except (wal.WalError, OSError, InvalidLocationError) as error:
            raise_from_handler(error)
            return None

    def _answer(self, question: Callable[[ReadSet], T], reads: ReadSet, *, fresh: bool) -> T:
        try:
            return question(reads)
        except (Moved, MetatreeError, wal.WalError, OSError) as error:
            settled = fresh and self._looked and not self._unsettled
            if isinstance(error, Moved) or is_from_handler(error) or settled or not self._extend():
                raise
            raise _OutOfDate from error  # the error may rest on an old state

    def refresh(self, head: int | None = None) -> None:
        """Read the mark, then follow the log to its head, which the caller may know."""
        mark = self.window.mark()
        self._unsettled, self._looked = False, True
        self.window.extend(self._log.head() if head is None else head)
        self.window.forget(mark)
        self._forget_trimmed()

    def follow(self, head: int) -> None:
        """Follow the log to `head`, which is known to exist."""
        if head > self.window.head:
            mark = self.window.mark()
            self.window.extend(head)
            self.window.forget(mark)

    def settled(self, also: ReadSet | None = None) -> None:
        """To be called after files were read, since they may be ahead: follow the log. Raises Moved if new records
        touch what the question has read so far or, for a repeatable question, if the window's beginning has moved."""
        before, floor = self.window.head, self.window.floor
        if not self._extend():
            return
        if self._reads is None or (self._repeatable and self.window.floor != floor):
            raise Moved
        for _, header in self.since(before):
            if self._reads.conflict(header.changes) or (also is not None and also.conflict(header.changes)):
                raise Moved

    def settle_keys(self, path: Path) -> None:
        """`settled` for a caller that returns all keys of a node although not all count as read. Raises Moved."""
        if self._unsettled:
            keys = ReadSet()
            keys.all_keys(path)
            self.settled(keys)

    def _extend(self) -> bool:
        self._looked = True
        fresh, self._unsettled = self._unsettled, False  # files may be ahead of a cached head
        grown = self.window.extend(self._log.head(fresh=fresh))
        self._forget_trimmed()
        return grown

    def _forget_trimmed(self) -> None:
        if self.window.is_long():
            self.window.forget(max(self.window.mark(), self._log.trimmed(fresh=True)))

    def since(self, base: int) -> Iterator[tuple[wal.Position, Header]]:
        """Positions and headers of the records after `base`, to the reader's head."""
        return self.window.since(base)

    def facts(self, after: int) -> list[Fact] | None:
        """The facts of the records (after, head]; None if this reader does not hold all of them."""
        return self.window.facts(after)
