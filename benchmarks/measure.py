"""Times contestants fairly: rounds are interleaved, each contestant begins in a fresh folder, medians are compared.

Between two turns everything comes to rest: what a contestant put off is finished, and the disk has written what waits.
Absolute figures hold for one machine and one minute; what travels is the ratio within one run.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.base import Measured, NotInstalled, Peer, Store

TURN = 0.5  # seconds after which a turn of a slow contestant ends early

Step = Callable[[int], object]
"""One operation of a workload; gets its number, counted from 0 over all rounds."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the acknowledged, as parts of all (0 to 1)."""

    lost: float = 0.0  # not there any more
    refused: float = 0.0  # not acknowledged: the peer raised


def nothing() -> None: ...


@dataclass(frozen=True, slots=True)
class Ready:
    """A contestant that may begin."""

    step: Step
    rest: Callable[[], object] = nothing  # called after each turn: finishes what was put off
    outcome: Callable[[], Outcome] = Outcome  # asked at the end


@dataclass(frozen=True, slots=True)
class Contestant:
    """A peer in one variant of a workload."""

    peer: str
    open: Callable[[Path], AbstractContextManager[Ready]]  # in an empty folder
    variant: str = ""

    @property
    def name(self) -> str:
        return f"{self.peer}, {self.variant}" if self.variant else self.peer


@dataclass(frozen=True, slots=True)
class Workload:
    """Something that people do, and who does it."""

    name: str  # W1, "W5 get", ...: the first word is the name in docs and issues
    title: str
    contestants: Sequence[Contestant]
    steps: int  # operations timed in one round
    warmup: int = 0  # operations before the first round
    verb: str = ""  # of `Store`, that has to be durable when it returns; empty: nothing is written
    unit: str = "µs"
    rounds: int = 99  # at most, where one round takes long


@dataclass(frozen=True, slots=True)
class Result:
    """What one contestant needed, in the workload's unit."""

    workload: str
    peer: str
    variant: str
    rounds: tuple[float, ...] = ()  # the median operation of each round
    means: tuple[float, ...] = ()  # the mean one: what an operation costs if it is done again and again
    absent: str = ""  # why it was not measured
    outcome: Outcome = Outcome()
    durable: str = ""  # "yes", "no: ...", "not looked at: ..."; empty: nothing is written

    @property
    def name(self) -> str:
        return f"{self.peer}, {self.variant}" if self.variant else self.peer

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def mean(self) -> float:
        return statistics.median(self.means)


def contestant(peer: Peer, prepare: Callable[[Store], Step], variant: str = "") -> Contestant:
    """A peer whose store is open while it is measured; `prepare` fills it and returns the operation."""

    @contextmanager
    def opened(folder: Path) -> Iterator[Ready]:
        with peer.open(folder) as store:
            yield Ready(prepare(store), store.rest)

    return Contestant(peer.name, opened, variant)


def run(workload: Workload, folder: Path, rounds: int, settle: Callable[[], None] = os.sync) -> list[Result]:
    """`rounds` rounds, each contestant once a round, in turning order."""
    medians: dict[str, list[float]] = {each.name: [] for each in workload.contestants}
    means: dict[str, list[float]] = {each.name: [] for each in workload.contestants}
    with _opened(workload, folder) as (ready, absent):
        names = list(ready)
        done = {name: len(_turn(ready[name], 0, workload.warmup, settle)) for name in names}
        for number in range(min(rounds, workload.rounds)):
            turn = number % max(1, len(names))
            for name in names[turn:] + names[:turn]:
                times = _turn(ready[name], done[name], workload.steps, settle)
                medians[name].append(statistics.median(times))
                means[name].append(statistics.fmean(times))
                done[name] += len(times)
        outcomes = {name: ready[name].outcome() for name in names}
    return [
        Result(
            workload.name,
            each.peer,
            each.variant,
            tuple(medians[each.name]),
            tuple(means[each.name]),
            absent.get(each.name, ""),
            outcomes.get(each.name, Outcome()),
        )
        for each in workload.contestants
    ]


@contextmanager
def _opened(workload: Workload, folder: Path) -> Iterator[tuple[Mapping[str, Ready], Mapping[str, str]]]:
    """Those who are there, and why the others are not."""
    with ExitStack() as stack:
        ready, absent = {}, {}
        for number, each in enumerate(workload.contestants):
            place = folder / workload.name.replace(" ", "-") / str(number)
            place.mkdir(parents=True)
            try:
                ready[each.name] = stack.enter_context(each.open(place))
            except NotInstalled as error:
                absent[each.name] = str(error)
        yield ready, absent


def _turn(ready: Ready, first: int, count: int, settle: Callable[[], None]) -> list[float]:
    """What each of up to `count` operations needed."""
    gc.collect()
    times: list[float] = []
    end = time.perf_counter() + TURN
    for number in range(first, first + count):
        begin = time.perf_counter_ns()
        outcome = ready.step(number)
        micros = (time.perf_counter_ns() - begin) / 1000
        times.append(outcome.value if isinstance(outcome, Measured) else micros)
        if time.perf_counter() > end:
            break
    ready.rest()
    settle()
    return times


def ratio(results: Sequence[Result], of: str, to: str) -> float | None:
    """How many times as fast `of` is as `to`: the median over the rounds, each of which had both. None: it had none, or
    `of` took nothing (memory that was there already)."""
    found = {result.name: result.rounds for result in results}
    pairs = zip(found.get(of, ()), found.get(to, ()), strict=False)
    ratios = [other / mine for mine, other in pairs if mine > 0]
    return statistics.median(ratios) if ratios else None
