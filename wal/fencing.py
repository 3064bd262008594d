"""How handles of a slot log claim the right to apply, and what is known of the last claim. The two ways: `lease`,
`epoch`."""

from __future__ import annotations

from collections.abc import Callable

from wal.claim import Claim
from wal.epoch import Epochs
from wal.lease import Lease
from wal.log import LSN, Applying
from wal.names import Names
from wal.settings import Settings
from wal.storage.base import Fence


def claimant(
    settings: Settings, names: Names, log: str, token: str, marks: list[int], occupy: Callable[[], LSN]
) -> Lease | Epochs:
    """A claimant of the right to apply the log `log`. `token`: 32 hex digits, its own; the others: see `Lease`."""
    if settings.storage.capabilities.fence is Fence.VERSION:
        return Lease(settings.storage, names.apply, log, token, marks, occupy)
    return Epochs(settings.storage, names, log, token, marks)


def at_once(settings: Settings, names: Names) -> Claim | None:
    """The last committer's claim, if one request is enough to read it. Its marks can be trusted: they are published
    after the work that they describe, which is durable by then."""
    if settings.done is None or settings.storage.capabilities.fence is not Fence.VERSION:
        return None
    try:
        return Claim.decode(settings.storage.read(names.apply).data)
    except FileNotFoundError:
        return None


def applying(claimant: Lease | Epochs, log: str, ttl: float) -> Applying | None:
    """The last committer's claim on the log `log`, read now; None if there is none."""
    claim = claimant.look()
    if claim is None or claim.log != log:
        return None
    return Applying(claim.marks, claim.held, (claim.token, claim.epoch, claim.counter), ttl)
