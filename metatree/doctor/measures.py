"""Tests that need only one process: attributes, round trips, clocks."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from datetime import datetime

import wal
from metatree.clock import Clock

from .findings import ClockDifference
from .races import Verdict

_SAMPLES = 9
_MARK = b'{"lsn": 1, "sha256": "e3b0c442", "text": "\xc3\xa9 %"}'


def attributes(storage: wal.Storage) -> Verdict:
    """Whether a file keeps its attribute, and a replacement gets its own."""
    for mark in (_MARK, _MARK[:-1] + b', "again": true}'):
        storage.publish("marked", b"content", mark, durable=False)
        told = storage.read("marked").attribute, storage.attribute("marked")
        if told != (mark, mark):
            return False, "a file came back " + ("without its attribute" if None in told else "with another attribute")
    return True, "written, replaced and read back"


def round_trips(storage: wal.Storage, clock: wal.Clock) -> dict[str, float]:
    """The time of each operation in milliseconds, one at a time: the median of a few."""
    numbers = range(_SAMPLES)
    small = b"x" * 300  # about a commit's record
    steps: dict[str, Callable[[int], object]] = {
        "create": lambda n: storage.create(f"times/{n}", small),
        "read": lambda n: storage.read(f"times/{n}"),
        "replace": lambda n: storage.publish(f"times/{n}", small, b"mark", durable=True),
        "look": lambda n: storage.entry(f"times/{n}"),
        "list": lambda n: storage.list("times"),
    }
    return {name: statistics.median(_timed(step, n, clock) for n in numbers) for name, step in steps.items()}


def _timed(step: Callable[[int], object], number: int, clock: wal.Clock) -> float:
    begun = clock.monotonic()
    step(number)
    return (clock.monotonic() - begun) * 1000


def clock_difference(storage: wal.Storage, clock: Clock) -> ClockDifference | None:
    """The storage's clock against ours, from the time of a new file; None if the storage reports no time."""
    before = _seconds(clock)
    storage.publish("clock", b"", b"", durable=False)
    after = _seconds(clock)
    told = wal.written_at(storage, "clock")
    if told is None:
        return None
    coarse = 1.0 if told == int(told) else 0.01  # whole seconds; a filesystem's clock ticks every few milliseconds
    return ClockDifference(told + coarse / 2 - (before + after) / 2, (after - before + coarse) / 2)


def _seconds(clock: Clock) -> float:
    return datetime.fromisoformat(clock.now()).timestamp()
