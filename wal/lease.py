"""The committer's right on object stores: one lease object, replaced by compare-and-set (`Fence.VERSION`).

The object is never deleted. If it is missing or damaged, or its holder did not release it, the successor first takes
a slot of the log; its LSN is the new epoch, so that no epoch is ever used twice, whatever happens to the object.

Not guaranteed: a request of a paused holder that is in flight is not stopped. Each such request names the version that
it replaces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from wal.claim import Claim
from wal.log import LSN
from wal.process import whoami
from wal.storage.base import ChangedError, Storage


class Lease:
    """The lease object of one handle's log; see `host_right.Fencing`."""

    def __init__(self, storage: Storage, name: str, log: str, token: str, marks: list[int], occupy: Callable[[], LSN]):
        """`marks`: the handle's list, handed on with the right. `occupy`: takes a slot and returns its LSN."""
        self._storage = storage
        self._name = name
        self._marks = marks
        self._occupy = occupy
        self._claim = Claim.of_nobody(log, token, marks)
        self._version = ""  # of the object, as `look` read it or as we wrote it
        self._left = False  # we released it, and have not seen that another took it
        self._interrupted = False

    def look(self) -> Claim | None:
        if self._left:
            return self._claim
        try:
            stored = self._storage.read(self._name)
        except FileNotFoundError:
            self._version = ""
            return None
        self._version = stored.version
        claim = Claim.decode(stored.data)
        return claim if claim is not None and claim.log == self._claim.log else None

    def is_own(self, claim: Claim) -> bool:
        return claim.token == self._claim.token

    def take(self, seen: Claim | None) -> bool:
        if seen is None:
            epoch, counter = self._occupy(), self._claim.counter
            # with epoch 1 this slot is the log's first, so there was no holder; else one may be at work or have died
            self._interrupted = bool(self._version) or epoch > 1
        else:
            self._interrupted = seen.held and not self.is_own(seen)
            epoch = self._occupy() if self._interrupted else seen.epoch
            counter = max(seen.counter, self._claim.counter)
            self._marks[:] = map(max, self._marks, seen.marks)
        self._claim = replace(self._claim, holder=whoami(), epoch=epoch, counter=counter)
        try:
            self._publish(held=True)
        except (ChangedError, FileNotFoundError):  # taken by another, or gone
            return False
        return True

    def interrupted(self) -> bool:
        return self._interrupted

    def renew(self) -> None:
        self._publish(held=True)

    def release(self) -> None:
        self._publish(held=False)
        self._left = True

    def storage(self) -> Storage:
        return self._storage

    def _publish(self, *, held: bool) -> None:
        self._left = False
        claim = replace(self._claim, counter=self._claim.counter + 1, held=held, marks=tuple(self._marks))
        try:
            self._version = self._store(claim)
        except ChangedError:
            stored = self._storage.read(self._name)  # perhaps our own write, whose reply was lost
            there = Claim.decode(stored.data)
            if there is None or not self.is_own(there):
                raise
            self._version = stored.version
            claim = replace(claim, counter=there.counter + 1)  # waiters must see the counter move
            self._version = self._store(claim)
        self._claim = claim

    def _store(self, claim: Claim) -> str:
        return self._storage.publish(self._name, claim.encode(), b"", durable=True, expect=self._version)
