"""How a question is answered in one committed state: files first, log after.

A question is answered from the state after one record, the last that was seen (`head`). What is known: parsed nodes,
brought forward by every record that is met, and the net effect of the window, laid over whatever a file says. A file
may be ahead of what was seen, so after the files of a question were read the log is extended; if that touched what the
question has read, it is asked again. The nodes read meanwhile are kept, so it converges.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import wal

from . import folders
from .errors import InvalidLocationError, UnavailableError
from .facts import Fact, Header
from .location import Path, Segment
from .nodes import Found
from .reads import ReadSet
from .window import Window

T = TypeVar("T")

_PATIENCE = 10_000  # restarts of one question; each needs a commit by somebody else in between


class Moved(Exception):
    """Internal: the log grew while a file was read; ask again."""


class _OutOfDate(Exception):
    """Internal: the question failed on what may be out of date; ask again."""


class Asking:
    """Answers questions. What there is to ask is `Reader`'s, which notes every look at a file in `_unsettled`."""

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
        self._window = Window(log, trust_applied=trust_applied, eager=shared)
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

    def warm(self, segments: tuple[Segment, ...]) -> Found | None:
        """The node at a location, if all that leads there is held at the log's head as it is now. None: ask, which also
        finds out what is wrong."""
        window = self._window
        try:
            if self._log.head() != window.head:
                return None
            found = window.nodes.resolved.get(segments)
            if found is not None:
                return found
            with self.lock:  # the head again: it is looked at after the files that what is kept was read from
                return window.nodes.resolve(segments) if self._log.head() == window.head else None
        except (wal.WalError, OSError, InvalidLocationError):
            return None

    def _answer(self, question: Callable[[ReadSet], T], reads: ReadSet, *, fresh: bool) -> T:
        try:
            return question(reads)
        except Exception as error:
            settled = fresh and self._looked and not self._unsettled
            if isinstance(error, Moved) or settled or not self._extend():
                raise
            raise _OutOfDate from error  # or so may be what the error rests on

    def refresh(self, head: int | None = None) -> None:
        """Note the mark, then follow the log to its head (which the caller may know)."""
        mark = self._window.mark()
        self._unsettled, self._looked = False, True
        self._window.extend(self._log.head() if head is None else head)
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
