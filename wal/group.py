"""Group commit: threads queue their `prepare`; one of them, the leader, writes for all (as in LevelDB's writer queue).

A leader works until its own entry is settled, then hands over to the first in the queue. It hands over however it
ends, so nobody waits for a leader that is gone.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Protocol

from wal.interrupts import is_deferred, safe_point, tell
from wal.log import Position, Prepare, Record

_BATCH_RECORDS = 1024  # share a batch at most
_POLL = 0.05  # seconds between checks while an interrupt must be noticed or its entry is still being written


class Entry:
    """One call of `append`."""

    __slots__ = ("done", "error", "gate", "position", "prepare", "record", "taken", "thread")

    def __init__(self, prepare: Prepare) -> None:
        self.prepare = prepare
        self.thread = threading.get_ident()
        self.record: Record | None = None
        self.position: Position | None = None
        self.error: BaseException | None = None
        self.gate = threading.Lock()  # a follower waits for its release
        self.taken = False  # in the batch that is being written
        self.done = False

    def wake(self) -> None:
        """Let a follower go on that waits. Called with the queue's mutex."""
        if self.gate.locked():
            self.gate.release()

    def settle(self, position: Position | None = None, error: BaseException | None = None) -> None:
        """Set the outcome. The follower sees it when the leader wakes it."""
        self.position = position
        self.error = error
        self.done = True


class Leader(Protocol):
    """Writes one batch."""

    def flush(self, take: Callable[[], list[Entry]]) -> None:
        """Settle what `take` returns: the first entries in the queue, as many as share a batch. Entries that it leaves
        (deferred, or another host was faster) stay in the queue. Takes the append right, and gives it back."""
        ...


class Group:
    """The queue of one handle."""

    def __init__(self, work: Leader) -> None:
        self._work = work
        self._mutex = threading.Lock()
        self._queue: list[Entry] = []
        self._leader: Entry | None = None

    def leading(self) -> bool:
        """Whether this thread is the leader. A caller of `append` that is so is inside a `prepare`."""
        leader = self._leader
        return leader is not None and leader.thread == threading.get_ident()

    def submit(self, prepare: Prepare) -> Position | None:
        """Queue an entry, lead or wait, then return its position (None if refused) or raise its error."""
        entry = Entry(prepare)
        if self.leading() or self._is_waiting(entry.thread):
            raise RuntimeError(
                "append was called in the middle of an append by this very thread, inside a prepare or by a signal "
                "handler: nothing was appended"
            )
        try:
            with self._mutex:
                if self._leader is None:
                    self._leader = entry
                else:
                    entry.gate.acquire()
                self._queue.append(entry)
            if self._leader is not entry:
                self._wait(entry)
            if self._leader is entry:
                while not entry.done:
                    self._flush()
                self._hand_over(entry)
        except BaseException as error:
            if self._leader is entry:
                self._end_batch()
            self._hand_over(entry)
            if entry.position is not None:
                error.add_note(_committed(entry.position))
            raise
        if entry.error is not None:
            tell(f"the append failed before the interrupt: {entry.error}")
            raise entry.error
        if entry.position is not None:
            tell(_committed(entry.position))
        return entry.position

    def _is_waiting(self, thread: int) -> bool:
        """Whether a call of this thread waits for its outcome: then a signal handler has interrupted it."""
        return any(entry.thread == thread and not entry.done for entry in tuple(self._queue))

    def _flush(self) -> None:
        """One batch: from taking the append right to waking the callers."""
        try:
            self._work.flush(self._take)
        except Exception as error:  # noqa: BLE001  whatever it is, no caller in the queue may hang
            batch = [entry for entry in self._queue if entry.taken] or self._take()
            # the outcome of the entries whose records were to be written, if any; the others are asked again
            _fail([entry for entry in batch if entry.record is not None] or batch, error)
        finally:
            self._end_batch()

    def _take(self) -> list[Entry]:
        with self._mutex:
            entries = self._queue[:_BATCH_RECORDS]
            for entry in entries:
                entry.taken = True
                entry.record = None
            return entries

    def _end_batch(self) -> None:
        """With the append right free again: wake the callers of the settled entries. The others stay in the queue."""
        with self._mutex:
            for entry in self._queue:
                entry.taken = False
                if entry.done:
                    entry.wake()
            self._queue[:] = [entry for entry in self._queue if not entry.done]

    def _hand_over(self, entry: Entry) -> None:
        """The entry has its outcome, or its caller was interrupted, perhaps in here: it is out of the queue afterwards,
        and if it led, the first in the queue does. What is done twice does no harm."""
        with self._mutex:
            if entry in self._queue:
                self._queue.remove(entry)
            if self._leader is entry:
                self._leader = self._queue[0] if self._queue else None
            if self._leader is not None:
                self._leader.wake()

    def _wait(self, entry: Entry) -> None:
        """Wait for the outcome or for the lead. An interrupt takes the entry out of the queue, unless it is being
        written already: then the outcome is awaited."""
        try:
            while not entry.gate.acquire(timeout=_POLL if is_deferred() else -1):
                safe_point()
        except BaseException:
            while self._is_written(entry):
                entry.gate.acquire(timeout=_POLL)
            raise

    def _is_written(self, entry: Entry) -> bool:
        """Whether it is being written now; if not, it is out of the queue afterwards."""
        with self._mutex:
            if entry.taken and not entry.done:
                return True
            if entry in self._queue:
                self._queue.remove(entry)
            return False


def _committed(position: Position) -> str:
    return f"the record was committed at LSN {position.lsn} before the interrupt"


def _fail(entries: list[Entry], error: Exception) -> None:
    """Settle what is not settled: this thread's entry with the error itself, the others with a copy."""
    here = threading.get_ident()
    for entry in entries:
        if not entry.done:
            entry.settle(error=error if entry.thread == here else _alike(error))


def _alike(error: Exception) -> Exception:
    """A copy: one exception raised in several threads would collect the tracebacks of all."""
    alike = copy.copy(error)
    alike.__cause__ = error
    return alike
