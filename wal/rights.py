"""A storage lock for threads and processes alike, with a time limit and an error that names the holder."""

from __future__ import annotations

import threading
from types import TracebackType

from wal.clock import Clock
from wal.errors import LockBusyError, LogClosedError
from wal.storage.base import Lock


class Right:
    """One lock of this handle. Not reentrant."""

    def __init__(self, lock: Lock, what: str, timeout: float, clock: Clock) -> None:
        self._lock = lock
        self._what = what
        self._timeout = timeout
        self._clock = clock
        self._closed = False
        self._mutex = threading.Lock()  # one storage lock used by two threads would not exclude them

    def acquire(self, timeout: float | None = None) -> None:
        """Take it within `timeout` seconds (None: the handle's limit). Raises LockBusyError."""
        limit = self._timeout if timeout is None else timeout
        if not self._mutex.acquire(blocking=False):
            started = self._clock.monotonic()
            if not self._mutex.acquire(timeout=max(0.0, limit)):
                raise LockBusyError(f"{self._what} was not free within {limit} s: a thread of this process holds it")
            limit = max(0.0, limit - (self._clock.monotonic() - started))
        try:
            if self._closed:
                raise LogClosedError("the log was closed")
            free = self._lock.acquire(timeout=limit)
        except BaseException:
            self._mutex.release()
            raise
        if not free:
            self._mutex.release()
            raise LockBusyError(f"{self._what} was not free within {limit} s, held by {self._lock.holder()}")

    def release(self) -> None:
        """Give it back."""
        try:
            self._lock.release()
        finally:
            self._mutex.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def disown(self) -> None:
        """In a forked child: leave the parent's lock alone."""
        self._lock.disown()

    def close(self) -> None:
        """Close the lock, when no thread of this process holds it any more. `acquire` then raises LogClosedError."""
        held = self._mutex.acquire(timeout=max(0.0, self._timeout))
        self._closed = True
        self._lock.close()
        if held:
            self._mutex.release()
