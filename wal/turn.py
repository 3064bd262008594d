"""The turns that the threads of one handle take at something that one of them may have at a time."""

from __future__ import annotations

import threading

from wal.clock import Clock
from wal.errors import LockBusyError
from wal.interrupts import safe_point

_POLL = 0.05  # seconds between checks for an interrupt


class Turn:
    """Not reentrant: a thread that has it already is refused at once. That is a signal handler, or a finalizer, which
    runs in the middle of what its thread does; waiting for that would never end."""

    __slots__ = ("_clock", "_lock", "_taken", "_what")

    def __init__(self, what: str, clock: Clock) -> None:
        """`what` is had, for messages."""
        self._what = what
        self._clock = clock
        self._lock = threading.RLock()  # reentrant, so that a thread finds out that it is the one that has it
        self._taken = False

    def take(self, limit: float) -> float:
        """Take it within `limit` seconds; returns how many of them are left. Raises LockBusyError."""
        if not self._lock.acquire(blocking=False):
            limit = self._wait(limit)
        if self._taken:
            self._lock.release()
            raise LockBusyError(
                f"{self._what} is at work in this very thread, interrupted by a signal: do this after it"
            )
        self._taken = True
        return limit

    def try_take(self, limit: float) -> bool:
        """Take it, if it is free within `limit` seconds; returns whether it was."""
        try:
            self.take(max(0.0, limit))
        except LockBusyError:
            return False
        return True

    def _wait(self, limit: float) -> float:
        deadline = self._clock.monotonic() + limit
        while not self._lock.acquire(timeout=max(0.0, min(_POLL, deadline - self._clock.monotonic()))):
            safe_point()
            if self._clock.monotonic() >= deadline:
                raise LockBusyError(f"{self._what} was not free within {limit} s: a thread of this process has it")
        return max(0.0, deadline - self._clock.monotonic())

    def release(self) -> None:
        """End it; for the thread that has it."""
        self._taken = False
        self._lock.release()
