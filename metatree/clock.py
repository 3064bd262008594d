"""Time, ids and randomness of the tree: the only module of this package that asks for them.

No guarantee depends on the clock: times are for people, ids only have to differ.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

import wal


class Clock(wal.Clock):
    """The system's clock and entropy; tests hand in their own."""

    def now(self) -> str:
        """UTC, ISO 8601 with microseconds, for log headers."""
        return datetime.now(UTC).isoformat(timespec="microseconds")

    def txid(self, base: int) -> str:
        """A new transaction id. It begins with the LSN known when it was made: a search for its record begins there."""
        return f"{base:x}-{self.token(8).hex()}"

    def jitter(self, attempt: int) -> float:
        """Seconds to wait before attempt number `attempt` (0, 1, …): up to 5 ms, doubling up to a second."""
        return (0.2 + 0.8 * os.urandom(1)[0] / 255) * min(1.0, 0.005 * 2.0 ** min(attempt, 8))


def base_of(txid: str) -> int:
    """The LSN a transaction id begins with. Raises ValueError for anything that is not a transaction id."""
    base, dash, rest = txid.partition("-") if isinstance(txid, str) else ("", "", "")
    if not dash or not base or len(rest) != 16:
        raise ValueError(f"{txid!r} is not a transaction id, which looks like '1f-00112233445566aa'")
    return int(base, 16)
