"""Group commit: threads queue their `prepare`; one of them, the leader, writes for all (as in LevelDB's writer queue).

A leader works until its own entry is settled, then hands over to the first in the queue. It hands over however it
ends, so nobody waits for a leader that is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from wal.interrupts import is_deferred, safe_point
from wal.log import Position, Prepare, Record

_BATCH_RECORDS = 1024  # share a batch at most
_POLL = 0.05  # seconds between checks while an interrupt must be noticed or its entry is still being written


class Entry:
    """One call of `append`."""

    __slots__ = ("done", "error", "gate", "leads", "position", "prepare", "record", "taken", "thread")

    def __init__(self, prepare: Prepare) -> None:
        self.prepare = prepare
        self.thread = threading.get_ident()
        self.record: Record | None = None
        self.position: Position | None = None
        self.error: BaseException | None = None
        self.gate = threading.Lock()  # a follower waits for its release
        self.taken = False  # in the batch that is being written
        self.leads = False
        self.done = False

    def settle(self, position: Position | None = None, error: BaseException | None = None) -> None:
        """Set the outcome. The follower sees it when the leader wakes it."""
        self.position = position
        self.error = error
        self.done = True


class Queue(Protocol):
    """The queue as a leader sees it."""

    def take(self) -> list[Entry]:
        """Remove and return the first entries, as many as share a batch; the leader settles them or puts them back."""
        ...

    def give_back(self, entries: Sequence[Entry]) -> None:
        """End a batch, with the append right free again: wake the callers of the settled entries, and return the
        others (deferred, or the leader was interrupted) to the front of the queue."""
        ...


class Flush(Protocol):
    """Writes one batch; see `leader`."""

    def flush(self, queue: Queue) -> None: ...


class Group:
    """The queue of one handle."""

    def __init__(self, leader: Flush) -> None:
        self._work = leader
        self._mutex = threading.Lock()
        self._queue: list[Entry] = []
        self._leader: int | None = None  # the identifier of its thread

    def leading(self) -> bool:
        """Whether this thread is the leader. A caller of `append` that is so is inside a `prepare`."""
        return self._leader == threading.get_ident()

    def submit(self, prepare: Prepare) -> Position | None:
        """Queue an entry, lead or wait, then return its position (None if refused) or raise its error."""
        entry = Entry(prepare)
        if self._leader == entry.thread:
            raise RuntimeError("append was called inside a prepare, perhaps by a signal handler: nothing was appended")
        try:
            with self._mutex:
                if self._leader is None:
                    entry.leads = True
                    self._leader = entry.thread
                else:
                    entry.gate.acquire()
                self._queue.append(entry)
            if not entry.leads:
                self._wait(entry)
            if entry.leads:
                self._lead(entry)
        except BaseException:
            self._abandon(entry)
            raise
        if entry.error is not None:
            raise entry.error
        return entry.position

    def take(self) -> list[Entry]:
        """Called by the leader; see `Queue`."""
        with self._mutex:
            entries = self._queue[:_BATCH_RECORDS]
            for entry in entries:
                entry.taken = True
            del self._queue[: len(entries)]  # at the end and in one step, so that an exception before it loses no entry
            return entries

    def give_back(self, entries: Sequence[Entry]) -> None:
        """Called by the leader; see `Queue`."""
        back = [entry for entry in entries if not entry.done]
        if back:
            with self._mutex:
                for entry in back:
                    entry.taken = False
                self._queue[:0] = back
        for entry in entries:
            if entry.done and not entry.leads:
                entry.gate.release()

    def _lead(self, entry: Entry) -> None:
        while not entry.done:
            self._work.flush(self)
        with self._mutex:
            entry.leads = False
            self._hand_over()

    def _abandon(self, entry: Entry) -> None:
        """Its caller was interrupted: take the entry out of the queue, and hand over if it leads."""
        with self._mutex:
            if entry in self._queue:
                self._queue.remove(entry)
            if entry.leads:
                entry.leads = False
                self._hand_over()

    def _hand_over(self) -> None:
        if not self._queue:
            self._leader = None
            return
        first = self._queue[0]
        self._leader = first.thread
        first.leads = True
        first.gate.release()

    def _wait(self, entry: Entry) -> None:
        """Wait for the outcome or for the lead. An interrupt takes the entry out of the queue, unless it is being
        written already: then the outcome is awaited and added to the interrupt as a note."""
        try:
            while not entry.gate.acquire(timeout=_POLL if is_deferred() else -1):
                safe_point()
        except BaseException as error:
            while self._is_written(entry):
                entry.gate.acquire(timeout=_POLL)
            if entry.position is not None:
                error.add_note(f"the record was committed at LSN {entry.position.lsn} before the interrupt")
            raise

    def _is_written(self, entry: Entry) -> bool:
        """Whether it is being written now; if not, it is out of the queue afterwards."""
        with self._mutex:
            if entry.taken and not entry.done:
                return True
            if entry in self._queue:
                self._queue.remove(entry)
            return False
