"""The committer's right where several hosts share a storage: usually one holder at a time; safety is by fencing.

No holder can be sure to be the only one: one that was paused may resume after another took over. So the right only
keeps committers out of each other's way. That a paused one changes nothing is guaranteed by the storage's fence
(`Fence.VERSION`, `Fence.FOLDER`); `Tenure.check` tells it that it was overtaken.

A holder renews its claim every third of TTL, in a thread. A waiter that sees it unchanged for TTL, by its own clock,
takes over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from wal.claim import Claim
from wal.clock import Clock
from wal.errors import LockBusyError, LogClosedError, RightLostError
from wal.interrupts import DeferredInterrupt, safe_point
from wal.storage.base import ChangedError, Storage
from wal.turn import Turn

_FIRST_PAUSE = 0.02  # seconds between reads of a claim that is held; doubled to at most ...
_LONGEST_PAUSE = 0.2  # not longer: waiters that came later read more often, and would be served first
_SHORTEST_PAUSE = 0.001  # a shorter pause may not advance the clock


class Fencing(Protocol):
    """How a storage holds a claim; see `lease` and `epoch`. Errors of the storage pass through."""

    def look(self) -> Claim | None:
        """The claim as stored now, or as this handle left it; None if there is none."""
        ...

    def is_own(self, claim: Claim) -> bool:
        """Whether the claim is this handle's."""
        ...

    def take(self, seen: Claim | None) -> bool:
        """Take the right over from `seen`, the last result of `look`; False if another handle took it first."""
        ...

    def interrupted(self) -> bool:
        """Whether the last `take` may have overtaken a holder that had not released the right."""
        ...

    def renew(self) -> None:
        """Renew the claim. Raises ChangedError, FileNotFoundError or NotADirectoryError if it was taken over."""
        ...

    def release(self) -> None:
        """Release the right. Raises as `renew` does."""
        ...

    def storage(self) -> Storage:
        """The storage through which the holder publishes."""
        ...


class HostTenure:
    """See `wal.log.Tenure`."""

    def __init__(self, fencing: Fencing, clock: Clock, ttl: float, renewed: float, *, died: bool) -> None:
        """`renewed`: when taking the claim began, by `clock`."""
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
        """Raises RightLostError if another holder has taken over. Makes a request only if the last renewal is old, or
        with `now`."""
        with self._mutex:
            if self._lost is None and (now or self._clock.monotonic() - self._renewed > self._ttl / 2):
                self._renew()
            self._raise_if_lost()

    def beat(self) -> None:
        """Renew the claim, in a thread of its own, until `end`."""
        while not self._clock.wait(self._over, self._ttl / 3):
            with self._mutex:
                if self._lost is not None or self._over.is_set():
                    return
                try:
                    self._renew()
                except OSError:
                    continue  # the storage does not answer: `check` tries again, and raises

    def _renew(self) -> None:
        now = self._clock.monotonic()
        self._attempt(self._fencing.renew)
        self._renewed = now

    def end(self) -> None:
        """Release the right. Raises RightLostError if it was lost, OSError if that is unknown."""
        self._over.set()
        with self._mutex:
            if self._lost is None:
                self._attempt(self._fencing.release)
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
        follow: Callable[[], None],
    ) -> None:
        """`follow` is called after the right was taken from another holder, which can publish nothing more. It follows
        the log to its head: what that holder has published comes from records that exist by now, and applying the log
        only up to an older head would undo it. And it reads how far bodies are trimmed: the last marks say that too,
        but a claim may be lost, or of a version that trimmed first."""
        self._follow = follow
        self._fencing = fencing
        self._what = what
        self._timeout = timeout
        self._clock = clock
        self._ttl = ttl
        self._turn = Turn(what, clock)
        self._closed = False
        # What an attempt to take the right found, and then failed: the next finds our own claim.
        self._from_another = self._from_dead = False
        self._stamp: tuple[str, int, int] | None = None  # the last claim of another that was seen ...
        self._since = 0.0  # ... and when it was first seen; kept when a call gives up

    @contextmanager
    def hold(self, timeout: float | None) -> Iterator[HostTenure]:
        """The right for a `with` block. Raises LockBusyError, OSError; at the block's end RightLostError, or OSError if
        it is unknown whether the right was lost."""
        limit = self._timeout if timeout is None else timeout
        with DeferredInterrupt():
            deadline = self._clock.monotonic() + limit
            self._turn.take(limit)
            try:
                tenure = self._acquire(limit, deadline)
                try:
                    # Where no thread can be started, as when the interpreter is ending, only `check` renews the claim,
                    # between two steps. During one that takes longer than TTL another host may take over; then this
                    # one is told, as one that was paused is, and nothing that it does late stays.
                    with suppress(RuntimeError):
                        threading.Thread(target=tenure.beat, name="wal-right", daemon=True).start()
                    yield tenure
                except BaseException:
                    self._give_up(tenure)
                    raise
                tenure.end()
            finally:
                self._turn.release()

    def _give_up(self, tenure: HostTenure) -> None:
        """Release after an error, ignoring further ones: a claim that remains is overtaken after TTL."""
        try:
            tenure.end()
        except (OSError, RightLostError):
            return

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
            if (other is None or expired) and self._take(claim, expired=expired):
                died, self._from_dead = self._from_dead, False
                return HostTenure(self._fencing, self._clock, self._ttl, taking, died=died)
            # a free claim that another took first is read again
            if other is not None and asked >= deadline:
                holder = f"{other.holder}, without a sign of life for {unmoved:.0f} s"
                raise LockBusyError(f"{self._what} was not free within {limit} s, held by {holder}")
            safe_point()
            # at most until it can be taken over: nobody waits for a dead holder beyond TTL
            if other is not None:
                self._clock.sleep(max(_SHORTEST_PAUSE, min(pause, deadline - asked, self._ttl - unmoved)))
                pause = min(_LONGEST_PAUSE, pause * 2)

    def _take(self, claim: Claim | None, *, expired: bool) -> bool:
        self._from_another |= claim is None or not self._fencing.is_own(claim)
        self._from_dead |= expired
        try:
            taken = self._fencing.take(claim)
        finally:
            self._from_dead |= self._fencing.interrupted()
        if not taken:  # whoever was first has seen what we saw
            self._from_another = self._from_dead = False
            return False
        if self._from_another:
            self._follow()
            self._from_another = False
        return True

    def _unmoved(self, claim: Claim, asked: float) -> float:
        """Seconds for which another's claim has certainly not changed: from the first reply that showed it to the last
        request whose reply still shows it. A slow reply makes that shorter, never longer."""
        stamp = (claim.token, claim.epoch, claim.counter)
        if self._stamp != stamp:
            self._stamp, self._since = stamp, self._clock.monotonic()
        return max(0.0, asked - self._since)

    def close(self) -> None:
        """Wait for a holder in this process; `hold` then raises LogClosedError."""
        held = self._turn.try_take(self._timeout)
        self._closed = True
        if held:
            self._turn.release()
