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

TTL = 15.0  # seconds without a sign of life after which a holder is overtaken
_FIRST_PAUSE = 0.02  # seconds between looks at a claim that is held; doubled to at most ...
_LONGEST_PAUSE = 1.0


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

    def __init__(self, fencing: Fencing, clock: Clock, ttl: float, *, died: bool) -> None:
        self.died = died
        self.storage = fencing.storage()
        self._fencing = fencing
        self._clock = clock
        self._ttl = ttl
        self._renewed = clock.monotonic()
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
        while not self._over.wait(self._ttl / 3):
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
        """Give the right back. Raises RightLostError if it was not ours any more."""
        self._over.set()
        with self._mutex:
            if self._lost is None:
                self._attempt(self._fencing.give_back)
            self._raise_if_lost()

    def _attempt(self, step: object) -> None:
        try:
            step()  # type: ignore[operator]
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

    @contextmanager
    def hold(self, timeout: float | None) -> Iterator[HostTenure]:
        """The right for a `with` block. Raises LockBusyError; at the block's end RightLostError."""
        limit = self._timeout if timeout is None else timeout
        with DeferredInterrupt():
            if not self._mutex.acquire(timeout=max(0.0, limit)):
                raise LockBusyError(f"{self._what} was not free within {limit} s: a thread of this process has it")
            try:
                died = self._acquire(limit)
                tenure = HostTenure(self._fencing, self._clock, self._ttl, died=died)
                threading.Thread(target=tenure.beat, name="wal-right", daemon=True).start()
                try:
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

    def _acquire(self, limit: float) -> bool:
        """Wait for the right; whether its holder before died with it."""
        deadline = self._clock.monotonic() + limit
        stamp: tuple[str, int, int] | None = None
        since, pause = 0.0, _FIRST_PAUSE
        while True:
            if self._closed:
                raise LogClosedError("the log was closed")
            claim = self._fencing.look()
            now = self._clock.monotonic()
            held = claim is not None and claim.held and not self._fencing.is_own(claim)
            if claim is not None and held and stamp != (claim.token, claim.epoch, claim.counter):
                stamp, since = (claim.token, claim.epoch, claim.counter), now
            expired = held and now - since >= self._ttl
            if (not held or expired) and self._fencing.take(claim):
                if claim is None or not self._fencing.is_own(claim):
                    self._follow()
                return expired
            if now >= deadline:
                holder = _describe(claim, now - since)
                raise LockBusyError(f"{self._what} was not free within {limit} s, held by {holder}")
            safe_point()
            if held:  # not longer than until it can be taken over: nobody waits for a dead holder beyond TTL
                self._clock.sleep(max(0.0, min(pause, deadline - now, since + self._ttl - now)))
                pause = min(_LONGEST_PAUSE, pause * 2)

    def disown(self) -> None:
        """In a forked child: the parent's tenure is not ours."""
        self._mutex = threading.Lock()

    def close(self) -> None:
        """`hold` raises LogClosedError from now on; waits for a holder of this process."""
        held = self._mutex.acquire(timeout=max(0.0, self._timeout))
        self._closed = True
        if held:
            self._mutex.release()


def _describe(claim: Claim | None, age: float) -> str:
    if claim is None:
        return "nobody who is known"
    return f"{claim.holder}, without a sign of life for {age:.0f} s"
