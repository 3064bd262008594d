"""Looks into the queue of those who append at once."""

from __future__ import annotations

from wal import WriteAheadLog


def waiting(log: WriteAheadLog) -> int:
    """How many calls of `append` wait for the next batch."""
    return sum(not entry.taken for entry in log._group._queue)  # type: ignore[attr-defined]
