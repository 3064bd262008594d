"""A storage lock for threads and processes, with a time limit and an error that names the holder."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, NoReturn

from wal.clock import Clock
from wal.errors import LockBusyError, LogClosedError
from wal.head import HeadFile
from wal.interrupts import DeferredInterrupt
from wal.storage.base import Lock, Storage
from wal.turn import Turn


class Right:
    """One lock of this handle. Not reentrant."""

    def __init__(self, lock: Lock, what: str, timeout: float, clock: Clock) -> None:
        self._lock = lock
        self._what = what
        self._timeout = timeout
        self.closed = False  # set by `close`: a holder should end
        self._deferred = DeferredInterrupt()  # of the holder
        self._turn = Turn(what, clock)  # a storage lock does not exclude threads that share it

    def acquire(self, timeout: float | None = None) -> None:
        """Take it within `timeout` seconds (None: the handle's limit). Raises LockBusyError, LogClosedError."""
        limit = self._timeout if timeout is None else timeout
        limit = self._turn.take(limit)
        try:
            if self.closed:
                raise LogClosedError("the log was closed")
            free = self._lock.acquire(timeout=limit)
        except BaseException:
            self._turn.release()
            raise
        if not free:
            self._turn.release()
            raise LockBusyError(f"{self._what} was not free within {limit} s, held by {self._lock.holder()}")

    def release(self) -> None:
        """Release it."""
        try:
            self._lock.release()
        except BaseException:
            self._lock.release()  # again, after an error such as lack of memory: kept, it would exclude all others
            raise
        finally:
            try:
                if self.closed:
                    self._lock.close()
            finally:
                self._turn.release()

    def __enter__(self) -> None:
        self.enter(None)

    def enter(self, timeout: float | None) -> None:
        """`acquire`, with signals deferred until `__exit__` has released it."""
        deferred = DeferredInterrupt()
        deferred.__enter__()
        try:
            self.acquire(timeout)
        except BaseException as error:
            deferred.__exit__(type(error), error)
            raise
        self._deferred = deferred

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        deferred = self._deferred
        try:
            self.release()
        finally:
            deferred.__exit__(kind, error, trace)

    def disown(self) -> None:
        """In a forked child: leave the parent's lock alone."""
        self._lock.disown()

    def close(self) -> None:
        """Close the lock, when no thread of this process holds it any more. `acquire` then raises LogClosedError.

        A holder that exceeds the limit keeps the lock until it releases it: without the lock it could not go on alone.
        """
        held = self._turn.try_take(self._timeout)
        self.closed = True
        if held:
            try:
                self._lock.close()
            finally:
                self._turn.release()


class LockTenure(NamedTuple):
    """See `wal.log.Tenure`: a system lock is lost only with its process."""

    died: bool
    storage: Storage
    right: Right

    def check(self, *, now: bool = False) -> None:
        """Raises LogClosedError if the log was closed, since its storage will be closed next."""
        if self.right.closed:
            raise LogClosedError("the log was closed")


class Holding:
    """The right to apply, for a `with` block. The head file records it, so that the next holder learns of a death."""

    def __init__(
        self,
        right: Right,
        head: HeadFile,
        begin: Callable[[], None],
        timeout: float | None,
        storage: Storage,
        translate: Callable[[OSError], NoReturn],
    ) -> None:
        """`translate` raises an OSError, or what it means for the log."""
        self._translate = translate
        self._storage = storage
        self._right = right
        self._head = head
        self._begin = begin
        self._timeout = timeout

    def __enter__(self) -> LockTenure:
        try:
            self._right.enter(self._timeout)
            try:
                self._begin()
                return LockTenure(self._head.take(), self._storage, self._right)
            except BaseException as error:
                self._right.__exit__(type(error), error, error.__traceback__)
                raise
        except OSError as error:
            self._translate(error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._head.release()
        except OSError as failure:
            self._translate(failure)
        except LogClosedError:
            if error is None or isinstance(error, OSError):  # an error of the block matters more
                raise
        finally:
            self._right.__exit__(kind, error, trace)
