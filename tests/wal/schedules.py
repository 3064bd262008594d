"""Deterministic interleavings: actors are greenlets, each storage call is a point at which another may go on.

A schedule is the list of who goes on at each point. `explore` tries all of them with at most so many preemptions,
`wander` draws them from a seed. A finding names its scenario and its schedule, and `replay` runs just that.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import greenlet

from wal import parallel

SEED = int(os.environ.get("METATREE_SCHEDULES_SEED", "20261126"))
TIMES = int(os.environ.get("METATREE_SCHEDULES_TIMES", "1"))  # how many times as many schedules are drawn from the seed
LONGEST = 3000  # points of one run; more is an endless loop


class Endless(Exception):
    """A run did not come to its end."""


@dataclass(slots=True)
class Point:
    """One choice that was made."""

    current: int | None  # who was running; None: its work was done
    alive: tuple[int, ...]
    chosen: int


@dataclass(slots=True)
class Run:
    """One run of several actors."""

    prefix: Sequence[int] = ()  # whom to choose; then `draw` decides, else whoever runs goes on
    draw: random.Random | None = None
    points: list[Point] = field(default_factory=list)
    _main: Any = None
    _active: bool = False

    def point(self) -> None:
        """Called by actors (elsewhere it does nothing): another may go on here."""
        if self._active and greenlet.getcurrent() is not self._main:
            self._main.switch()

    def play(self, works: Sequence[Callable[[], None]]) -> None:
        """Run the actors to their ends. Raises what one of them raised."""
        self._main, self._active = greenlet.getcurrent(), True
        actors = [greenlet.greenlet(work, self._main) for work in works]
        current: int | None = None
        try:
            while True:
                alive = tuple(number for number, actor in enumerate(actors) if not actor.dead)
                if not alive:
                    return
                if current is not None and actors[current].dead:
                    current = None
                chosen = self._choose(current, alive)
                self.points.append(Point(current, alive, chosen))
                current = chosen
                if len(self.points) > LONGEST:
                    raise Endless(f"more than {LONGEST} points")
                actors[chosen].switch()
        finally:
            self._active = False
            for actor in actors:
                if not actor.dead:
                    actor.throw()

    def _choose(self, current: int | None, alive: tuple[int, ...]) -> int:
        at = len(self.points)
        if at < len(self.prefix):
            return self.prefix[at] if self.prefix[at] in alive else alive[0]
        if self.draw is not None:
            return self.draw.choice(alive)
        return alive[0] if current is None else current

    def fault(self, chance: float) -> str:
        """In schedules that are drawn: "before" or "after", now and then; else ""."""
        if self.draw is None or not self._active or self.draw.random() >= chance:
            return ""
        return self.draw.choice(("before", "after"))

    def choices(self) -> list[int]:
        """The schedule that was run."""
        return [point.chosen for point in self.points]


Scenario = Callable[[Run], None]
"""Plays one run and checks what came of it: AssertionError if it is wrong."""


def explore(name: str, scenario: Scenario, preemptions: int) -> int:
    """Every schedule with at most so many preemptions; how many there were. `name`: the scenario as an expression."""
    waiting: list[tuple[int, ...]] = [()]
    done = 0
    while waiting:
        run = Run(waiting.pop())
        _try(name, scenario, run)
        done += 1
        waiting += _others(run, preemptions)
    return done


def _others(run: Run, preemptions: int) -> Iterator[tuple[int, ...]]:
    """The schedules that part from this run at a point behind its prefix."""
    spent = 0
    chosen = run.choices()
    for at, point in enumerate(run.points):
        preempted = point.current is not None
        if at >= len(run.prefix) and spent + preempted <= preemptions:
            for other in point.alive:
                if other != point.chosen:
                    yield (*chosen[:at], other)
        spent += preempted and point.chosen != point.current


def wander(name: str, scenario: Scenario, seed: int, count: int) -> int:
    """`count` schedules, each drawn from the seed and its number."""
    for number in range(count):
        try:
            scenario(_drawn(seed, number))
        except BaseException as error:
            error.add_note(f"replay: with one_thread(): replay_drawn({name}, {seed}, {number})")
            raise
    return count


def _drawn(seed: int, number: int) -> Run:
    return Run(draw=random.Random(f"{seed}/{number}"))


def replay_drawn(scenario: Scenario, seed: int, number: int) -> None:
    """One drawn schedule again."""
    scenario(_drawn(seed, number))


def replay(scenario: Scenario, choices: Sequence[int]) -> None:
    """One schedule again, as a finding printed it."""
    scenario(Run(choices))


def _try(name: str, scenario: Scenario, run: Run) -> None:
    try:
        scenario(run)
    except BaseException as error:
        error.add_note(f"replay: with one_thread(): replay({name}, {run.choices()})")
        raise


class _NoThreads:
    """In place of the module `threading`: nothing can be started, as when the interpreter is ending."""

    Lock = threading.Lock

    class Thread:
        def __init__(self, **_: Any) -> None: ...

        def start(self) -> None:
            raise RuntimeError("one thread only: greenlets cannot be switched from another")


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block requests that would go out together go one after the other, from the caller's thread."""
    parallel.threading = _NoThreads  # type: ignore[assignment]
    try:
        yield
    finally:
        parallel.threading = threading
