"""A curve, and how it is measured: all sizes are open at once and take turns, so that a busy minute hits each alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from benchmarks.growth.fit import Fit, Growth, fit
from benchmarks.growth.trees import Trees

Step = Callable[[int], object]
"""One operation at one size; gets its number, counted from 0. A float that it returns is its cost."""

Store = Callable[[Trees, int], AbstractContextManager[Step]]
"""Opens what has this size and yields the operation."""

MICROS = "µs"
QUICK = (1, 2, 3)  # sizes


@dataclass(frozen=True, slots=True)
class Curve:
    """What is done, and what grows."""

    name: str
    title: str
    x: str  # what grows
    sizes: tuple[int, ...]
    store: Store
    expected: Growth
    why: str  # it is expected
    steps: int = 40  # operations of one round
    rounds: int = 5
    warmup: int = 1  # operations before the first round
    unit: str = MICROS


@dataclass(frozen=True, slots=True)
class Measured:
    """A curve's outcome."""

    curve: Curve
    sizes: tuple[int, ...]
    costs: tuple[float, ...]  # median of the rounds' medians, in the curve's unit
    rounds: tuple[tuple[float, ...], ...]  # of each size: each round's median

    @property
    def fit(self) -> Fit:
        """How it grows."""
        return fit(self.sizes, self.costs)

    @property
    def met(self) -> bool:
        """Whether it grows no faster than expected."""
        return self.fit.growth <= self.curve.expected


def measure(curve: Curve, trees: Trees, *, quick: bool) -> Measured:
    """`quick`: sizes and rounds at which the figures say nothing."""
    sizes = QUICK if quick else curve.sizes
    rounds, steps = (1, min(2, curve.steps)) if quick else (curve.rounds, curve.steps)
    medians: list[list[float]] = [[] for _ in sizes]
    with ExitStack() as stack:
        opened = [stack.enter_context(curve.store(trees, size)) for size in sizes]
        for step in opened:
            _round(step, range(curve.warmup))
        for number in range(rounds):
            first = curve.warmup + number * steps
            for place in _turned(range(len(sizes)), number):
                medians[place].append(_round(opened[place], range(first, first + steps)))
    costs = tuple(map(statistics.median, medians))
    return Measured(curve, sizes, costs, tuple(map(tuple, medians)))


def _turned(places: Sequence[int], number: int) -> list[int]:
    turn = number % len(places)
    return [*places[turn:], *places[:turn]]


def _round(step: Step, numbers: Sequence[int]) -> float:
    """The median cost of these operations; 0 for none."""
    gc.collect()  # what others have left is not this round's
    costs = []
    for number in numbers:
        begin = time.perf_counter_ns()
        cost = step(number)
        passed = (time.perf_counter_ns() - begin) / 1000
        costs.append(cost if isinstance(cost, float) else passed)
    return statistics.median(costs) if costs else 0.0


def micros(work: Callable[[], object]) -> float:
    """What one call needs, for an operation that measures itself."""
    begin = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - begin) / 1000
