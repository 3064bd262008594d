"""Times contestants fairly: rounds are interleaved, each contestant begins in a fresh folder, medians are compared.

Absolute figures hold for one machine and one minute; what travels is the ratio within one run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

Step = Callable[[int], object]
"""One operation of a workload; gets its number, counted from 0 over all rounds."""


@dataclass(frozen=True, slots=True)
class Timed:
    """Returned by an operation that measured itself."""

    micros: float


Contestant = Callable[[Path], AbstractContextManager[Step]]
"""Opens a store in an empty folder and yields the operation to be timed."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Something that people do, and who does it."""

    name: str  # W1, W3, ... as in docs and issues
    title: str
    contestants: Mapping[str, Contestant]
    steps: int  # operations timed in one round
    warmup: int  # operations before the first round


@dataclass(frozen=True, slots=True)
class Result:
    """What one contestant needed, in microseconds."""

    workload: str
    contestant: str
    micros: float  # median over rounds
    rounds: tuple[float, ...]  # median time of an operation in each round


def run(workload: Workload, folder: Path, rounds: int) -> list[Result]:
    """`rounds` rounds, each contestant once a round, in turning order."""
    with _opened(workload, folder) as steps:
        names = list(steps)
        done = dict.fromkeys(names, 0)
        medians: dict[str, list[float]] = {name: [] for name in names}
        for name in names:
            done[name] = _warm_up(steps[name], workload.warmup)
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                medians[name].append(_round(steps[name], done[name], workload.steps))
                done[name] += workload.steps
    return [Result(workload.name, name, statistics.median(medians[name]), tuple(medians[name])) for name in names]


@contextmanager
def _opened(workload: Workload, folder: Path) -> Iterator[dict[str, Step]]:
    with ExitStack() as stack:
        steps = {}
        for number, (name, contestant) in enumerate(workload.contestants.items()):
            place = folder / f"{workload.name}-{number}"
            place.mkdir()
            steps[name] = stack.enter_context(contestant(place))
        yield steps


def _warm_up(step: Step, count: int) -> int:
    for number in range(count):
        step(number)
    return count


def _round(step: Step, first: int, count: int) -> float:
    """The median time of `count` operations in microseconds."""
    times = []
    for number in range(first, first + count):
        begin = time.perf_counter_ns()
        outcome = step(number)
        micros = (time.perf_counter_ns() - begin) / 1000
        times.append(outcome.micros if isinstance(outcome, Timed) else micros)
    return statistics.median(times)


def ratio(results: Sequence[Result], of: str, to: str) -> float | None:
    """How many times as fast `of` is as `to`, in the same workload."""
    found = {result.contestant: result.micros for result in results}
    return found[to] / found[of] if of in found and to in found else None
