"""Where hosts share the storage: whether the files lack commits that no program is applying.

No host can know whether a writer lives on another. It can read what the last committer has published of itself: up to
where it has applied the log, whether it holds the right to apply, and a sign of life. A program that lives applies its
commits within seconds, or holds the right while it does; so whoever finds the files behind waits for that long.
"""

from __future__ import annotations

import wal

from . import layout, marks
from .clock import Clock
from .facts import facts_of
from .findings import Finding

_FOLLOWS = 4.0  # seconds after which a program that lives has begun to apply its commits, in the background too
_ENOUGH = 2  # after so many times the time to live, a committer that gives signs of life is at work
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5  # seconds between two looks


def unattended(log: wal.WriteAheadLog, clock: Clock, head: int) -> Finding | None:
    """The finding for commits up to `head` that are not in the files and that nobody is applying. Waits for a program
    that may be about to. Raises LogCorruptionError, CorruptionError."""
    begun = clock.monotonic()
    reached, sign, pause = -1, ("", 0, 0), _FIRST_PAUSE
    seen = free = begun  # when the sign of life was new; since when nobody holds the right and the files did not follow
    while True:
        last = log.applying()
        applied = max(log.trimmed(fresh=True), 0 if last is None else last.marks[marks.APPLIED])
        count = _changes(log, applied, head)
        if not count:
            return None
        now = clock.monotonic()
        if applied > reached:
            reached, free = applied, now
        if last is not None and last.held:
            if last.sign != sign:
                sign, seen = last.sign, now
            if now - seen >= last.ttl:
                return _finding(count)
            if now - begun >= _ENOUGH * last.ttl:
                return None
        elif now - free >= _FOLLOWS:
            return _finding(count)
        clock.sleep(pause)
        pause = min(_LONGEST_PAUSE, pause * 2)


def _changes(log: wal.WriteAheadLog, applied: int, head: int) -> int:
    """How many records (applied, head] change files: a lease takes an empty batch, and an abort is none."""
    if applied >= head:
        return 0
    records = [record for batch in log.read(applied, head) for record in batch.records if record.body is not None]
    return sum(1 for record in records if facts_of(record))


def _finding(count: int) -> Finding:
    commits = "1 commit that is" if count == 1 else f"{count} commits that are"
    reason = (
        f"holds {commits} not in the files, and no program is applying the log: the next that writes to the tree does "
        "so, as metatree-recover does"
    )
    return Finding(layout.LOG, reason, "not-recovered")
