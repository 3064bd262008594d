"""What Metatree should reach: ratios within one run, and a few limits. The one place that holds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.measure import Result, ratio

SYNC = "metatree"
BACKGROUND = "metatree background"


@dataclass(frozen=True, slots=True)
class Target:
    """`of` is at least `faster` times as fast as `than`; or needs at most `limit` of the workload's unit."""

    workload: str
    of: str
    faster: float = 0.0
    than: str = ""
    limit: float = 0.0
    journal: bool | None = None  # only on an ext4 with, or without, a journal


TARGETS = (
    Target("W1", BACKGROUND, 1.5, "sqlite fresh"),
    Target("W1", BACKGROUND, 1.0, "sqlite steady"),
    Target("W1", SYNC, 0.7, "sqlite fresh", journal=False),
    Target("W1", SYNC, 1.0, "sqlite fresh", journal=True),
    Target("W1", SYNC, 5.0, "metatreedb 0.2.3"),
    Target("W2", BACKGROUND, 1.3, "sqlite steady"),
    Target("W2", SYNC, 1 / 1.3, "floor: current"),
    Target("W2 memory", f"{SYNC}, one transaction", limit=32 + 9.8),  # the batch and 32 MiB
    Target("W2 memory", f"{SYNC}, transactions of 100", limit=8),
    Target("W3", BACKGROUND, 1.5, "sqlite fresh"),
    Target("W3", SYNC, 0.8, "sqlite fresh"),
    Target("W4", SYNC, 3.0, "sqlite steady"),
    Target("W4", SYNC, 60.0, "metatreedb 0.2.3"),
    Target("W5 put", SYNC, 0.85, "floor: copy, fsync, rename"),
    Target("W5 large", SYNC, 0.85, "floor: copy, fsync, rename"),
    Target("W5 get", SYNC, 0.9, "plain files"),
    Target("W5 download", SYNC, 0.5, "plain files"),
    Target("W5 memory", SYNC, limit=40),
    Target("W6", f"{SYNC}, many", 1 / 1.3, f"{SYNC}, few"),
    Target("W6", f"{BACKGROUND}, many", 1 / 1.3, f"{BACKGROUND}, few"),
    Target("W7", BACKGROUND, 1.3, "sqlite steady"),
    Target("W7", SYNC, 0.7, "sqlite steady"),
    Target("W8", f"{SYNC}, few", limit=2_000),
    Target("W8", f"{SYNC}, many", limit=2_000),
    Target("W8 import", SYNC, limit=30_000),
    Target("W10", f"{SYNC}, readable", 1 / 2, "sqlite fresh, readable"),
    Target("W10", f"{SYNC}, applied", 1 / 1.3, "floor: parse, write files, applied"),
    Target("W10 outstanding", BACKGROUND, limit=10_000),
    Target("W11", f"{BACKGROUND}, 8 threads", 2.0, f"{BACKGROUND}, single puts"),
    Target("W11", f"{BACKGROUND}, transactions of 10", 5.0, f"{BACKGROUND}, single puts"),
    Target("W11", f"{BACKGROUND}, transactions of 100", 10.0, f"{BACKGROUND}, single puts"),
    Target("W11", f"{BACKGROUND}, transactions of 1,000", 12.0, f"{BACKGROUND}, single puts"),
)


def verdicts(workload: str, results: Sequence[Result], *, journal: bool | None) -> Iterator[str]:
    """One line for each target of a workload. `journal`: of the disk, None if unknown."""
    for target in TARGETS:
        if target.workload == workload and target.journal in (None, bool(journal)):
            yield verdict(target, results)


def verdict(target: Target, results: Sequence[Result]) -> str:
    if target.than:
        found = ratio(results, target.of, target.than)
        wanted = f"{target.of} at least {target.faster:.3g} × as fast as {target.than}"
        missed_by = 0.0 if found is None else 1 - found / target.faster
        shown = "" if found is None else f"{found:.2f} ×"
    else:
        found = next((result.median for result in results if result.name == target.of and result.rounds), None)
        wanted = f"{target.of} at most {target.limit:,g}"
        missed_by = 0.0 if found is None else found / target.limit - 1
        shown = "" if found is None else f"{found:,.1f}"
    if found is None:
        return f"target: {wanted}: not measured"
    return f"target: {wanted}: {shown}, " + ("met" if missed_by <= 0 else f"missed by {missed_by:.0%}")
