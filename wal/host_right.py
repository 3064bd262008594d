"""The committer's right where several hosts share a storage: one holder at a time as a rule, and fenced as a law.

Nobody can be sure to be the only holder: one that was paused may wake after another took over. So the right only keeps
committers out of each other's way; that the paused one changes nothing is the storage's fence (`Fence.VERSION`,
`Fence.FOLDER`), and `Tenure.check` tells it as soon as it asks.

A holder renews its claim every third of TTL. Whoever sees a claim unmoved for TTL, by its own clock, takes over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from wal.claim import Claim
from wal.clock import Clock
from wal.errors import LockBusyError, LogClosedError, RightLostError
from wal.interrupts import DeferredInterrupt, safe_point
from wal.storage.base import ChangedError, Storage

_POLL = 0.05  # seconds between looks whether somebody pressed Ctrl-C
_FIRST_PAUSE = 0.02  # seconds between looks at a claim that is held; doubled to at most ...
_LONGEST_PAUSE = 0.2  # no longer: who comes later looks more often, and would be served first again and again
_SHORTEST_PAUSE = 0.001  # a remainder of less than this may not move the clock


class Fencing(Protocol):
    """How a storage keeps a claim; see `lease` and `epoch`. Errors of the storage pass through."""

    def look(self) -> Claim | None:
        """The claim as it is now, or as this handle left it; None if there is none."""
        ...

    def is_own(self, claim: Claim) -> bool:
        """Whether this handle made it."""
        ...

    def take(self, seen: Claim | None) -> bool:
        """Take the right over from `seen`, the last that `look` returned; False if another was faster."""
        ...

    def interrupted(self) -> bool:
        """Whether the take-over of `take` may have cut a holder off, as far as can be seen behind it."""
        ...

    def renew(self) -> None:
        """Give a sign of life. Raises ChangedError, FileNotFoundError or NotADirectoryError if it was taken over."""
        ...

    def give_back(self) -> None:
        """Say that the right is free. Raises as `renew` does."""
        ...

    def storage(self) -> Storage:
        """What the holder publishes through."""
        ...


class HostTenure:
    """See `wal.log.Tenure`."""

    def __init__(self, fencing: Fencing, clock: Clock, ttl: float, renewed: float, *, died: bool) -> None:
        """`renewed`: when the claim was asked for, by `clock`."""
        self.died = died
        self.storage = fencing.storage()
        self._fencing = fencing
        self._clock = clock
        self._ttl = ttl
        self._renewed = renewed
        self._mutex = threading.Lock()
        self._lost: BaseException | None = None
        self._over = threading.Event()

    def check(self, *, now: bool = False) -> None:
        """Raises RightLostError if another has taken over. A request only if the last sign of life is old, or `now`."""
        with self._mutex:
            if self._lost is None and (now or self._clock.monotonic() - self._renewed > self._ttl / 2):
                self._renew()
            self._raise_if_lost()

    def beat(self) -> None:
        """Signs of life, from a thread of its own, until `end`."""
        while not self._clock.wait(self._over, self._ttl / 3):
            with self._mutex:
                if self._lost is not None or self._over.is_set():
                    return
                try:
                    self._renew()
                except OSError:
                    continue  # the storage does not answer: `check` tries again, and tells the holder

    def _renew(self) -> None:
        now = self._clock.monotonic()
        self._attempt(self._fencing.renew)
        self._renewed = now

    def end(self) -> None:
        """Give the right back. Raises RightLostError if it was not ours any more; OSError: that cannot be learned."""
        self._over.set()
        with self._mutex:
            if self._lost is None:
                self._attempt(self._fencing.give_back)
            self._raise_if_lost()

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (ChangedError, FileNotFoundError, NotADirectoryError) as error:
            self._lost = error

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise RightLostError("another committer has taken over") from self._lost


class HostRight:
    """The right of one handle."""

    def __init__(
        self,
        fencing: Fencing,
        what: str,
        timeout: float,
        clock: Clock,
        ttl: float,
        follow: Callable[[], object],
    ) -> None:
        """`follow` is called when the right was taken from another, who can publish nothing any more: it follows the
        log to its head. What he has published comes from records that are there by now; who carried out an older end
        of the log would take that back."""
        self._follow = follow
        self._fencing = fencing
        self._what = what
        self._timeout = timeout
        self._clock = clock
        self._ttl = ttl
        self._mutex = threading.Lock()
        self._closed = False
        self._stamp: tuple[str, int, int] | None = None  # the claim of another that was seen last ...
        self._since = 0.0  # ... and when it was first seen like that; kept over calls that gave up

    @contextmanager
    def hold(self, timeout: float | None) -> Iterator[HostTenure]:
        """The right for a `with` block. Raises LockBusyError, OSError; at the block's end RightLostError, or OSError if
        it cannot be learned whether it was lost."""
        limit = self._timeout if timeout is None else timeout
        with DeferredInterrupt():
            deadline = self._clock.monotonic() + limit
            self._take_turn(limit, deadline)
            try:
                tenure = self._acquire(limit, deadline)
                try:
                    threading.Thread(target=tenure.beat, name="wal-right", daemon=True).start()
                    yield tenure
                except BaseException:
                    self._give_up(tenure)
                    raise
                tenure.end()
            finally:
                self._mutex.release()

    def _give_up(self, tenure: HostTenure) -> None:
        """After an error, which matters more than what becomes of the claim: if it stays, it is overtaken in time."""
        try:
            tenure.end()
        except (OSError, RightLostError):
            return

    def _take_turn(self, limit: float, deadline: float) -> None:
        """Of the threads of this handle, one at a time."""
        while not self._mutex.acquire(timeout=max(0.0, min(_POLL, deadline - self._clock.monotonic()))):
            safe_point()
            if self._clock.monotonic() >= deadline:
                raise LockBusyError(f"{self._what} was not free within {limit} s: a thread of this process has it")

    def _acquire(self, limit: float, deadline: float) -> HostTenure:
        """Wait for the right."""
        pause = _FIRST_PAUSE
        while True:
            if self._closed:
                raise LogClosedError("the log was closed")
            asked = self._clock.monotonic()
            claim = self._fencing.look()
            other = None if claim is None or not claim.held or self._fencing.is_own(claim) else claim
            unmoved = 0.0 if other is None else self._unmoved(other, asked)
            expired = other is not None and unmoved >= self._ttl
            taking = self._clock.monotonic()
            if (other is None or expired) and self._fencing.take(claim):
                if claim is None or not self._fencing.is_own(claim):
                    self._follow()
                died = expired or self._fencing.interrupted()
                return HostTenure(self._fencing, self._clock, self._ttl, taking, died=died)
            # what was free and was taken first by another is looked at again
            if other is not None and asked >= deadline:
                holder = f"{other.holder}, without a sign of life for {unmoved:.0f} s"
                raise LockBusyError(f"{self._what} was not free within {limit} s, held by {holder}")
            safe_point()
            # not longer than until it can be taken over: nobody waits for a dead holder beyond TTL
            if other is not None:
                self._clock.sleep(max(_SHORTEST_PAUSE, min(pause, deadline - asked, self._ttl - unmoved)))
                pause = min(_LONGEST_PAUSE, pause * 2)

    def _unmoved(self, claim: Claim, asked: float) -> float:
        """Seconds for which another's claim has certainly not moved: from the reply that showed it first to the
        question whose reply shows it still. A slow reply makes that less, never more."""
        stamp = (claim.token, claim.epoch, claim.counter)
        if self._stamp != stamp:
            self._stamp, self._since = stamp, self._clock.monotonic()
        return max(0.0, asked - self._since)

    def close(self) -> None:
        """`hold` raises LogClosedError from now on; waits for a holder of this process."""
        held = self._mutex.acquire(timeout=max(0.0, self._timeout))
        self._closed = True
        if held:
            self._mutex.release()
