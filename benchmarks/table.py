"""The table that people read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.measure import Outcome, Result, Workload, ratio

METATREES = ("metatree", "metatree background")


def table(workload: Workload, results: Sequence[Result]) -> Iterator[str]:
    """One line for each contestant, with how many times as fast Metatree is."""
    width = max(len(result.name) for result in results) + 2
    yield f"\n{workload.name}  {workload.title}"
    yield (
        f"    {'':<{width}}{'median ' + workload.unit:>14}{'spread of rounds':>28}{'mean':>12}"
        f"{'metatree is':>14}{'background is':>15}  durable"
    )
    for result in results:
        if result.absent:
            yield f"    {result.name:<{width}}{result.absent}"
        else:
            spread = f"{min(result.rounds):,.1f} – {max(result.rounds):,.1f}"
            first, second = (times(results, name, result) for name in METATREES)
            yield (
                f"    {result.name:<{width}}{result.median:>14,.1f}{spread:>28}{result.mean:>12,.1f}"
                f"{first:>14}{second:>15}  {promise(result)}"
            )


def times(results: Sequence[Result], of: str, other: Result) -> str:
    """How many times as fast one of Metatree's two ways is, in the same variant of the workload."""
    name = f"{of}, {other.variant}" if other.variant else of
    faster = ratio(results, name, other.name)
    return "" if faster is None or other.peer in METATREES else f"{faster:.2f} ×"


def promise(result: Result) -> str:
    """What is known of "what was acknowledged is there": losing is worse than not flushing."""
    words = [result.durable]
    if result.outcome.lost:
        words = [f"no: loses {result.outcome.lost:.1%}"]
    if result.outcome != Outcome(result.outcome.lost):
        words.append(f"refuses {result.outcome.refused:.1%}")
    return ", ".join(filter(None, words))
