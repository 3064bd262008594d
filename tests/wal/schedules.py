"""Deterministic interleavings: actors are greenlets, each storage call is a point at which another may go on.

A schedule is the list of who goes on at each point. `explore` tries all of them with at most so many preemptions,
`wander` draws them from a seed. A finding names its scenario and its schedule, and `replay` runs just that.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import greenlet

from wal import host_right, parallel, slot, slot_chain

SEED = int(os.environ.get("METATREE_SCHEDULES_SEED", "20261126"))
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
    _alive: tuple[int, ...] = ()
    _chosen: int = 0

    def point(self) -> None:
        """Called by actors (elsewhere it does nothing): another may go on here."""
        if self._active and greenlet.getcurrent() is not self._main:
            current = self._chosen
            self._choose(current)
            if self._chosen != current or len(self.points) > LONGEST:
                self._main.switch()

    def play(self, works: Sequence[Callable[[], None]]) -> None:
        """Run the actors to their ends. Raises what one of them raised."""
        self._main, self._active = greenlet.getcurrent(), True
        actors = [greenlet.greenlet(work, self._main) for work in works]
        self._alive = tuple(range(len(actors)))
        self._choose(None)
        try:
            while True:
                actors[self._chosen].switch()
                if len(self.points) > LONGEST:
                    raise Endless(f"more than {LONGEST} points")
                ended = [number for number in self._alive if actors[number].dead]
                if ended:
                    self._alive = tuple(number for number in self._alive if number not in ended)
                    if not self._alive:
                        return
                    self._choose(None)
        finally:
            self._active = False
            for actor in actors:
                if not actor.dead:
                    actor.throw()

    def _choose(self, current: int | None) -> None:
        at, alive = len(self.points), self._alive
        if at < len(self.prefix):
            self._chosen = self.prefix[at] if self.prefix[at] in alive else alive[0]
        elif self.draw is not None:
            self._chosen = self.draw.choice(alive)
        else:
            self._chosen = alive[0] if current is None else current
        self.points.append(Point(current, alive, self._chosen))

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


def wander(several: dict[str, Scenario], seed: int, more: Callable[[int], bool]) -> int:
    """Schedules drawn from the seed and their numbers, of each scenario in turn, as long as `more` is true of their
    number, which is returned. `several`: by name, an expression."""
    done = 0
    for number in itertools.count():
        for name, scenario in several.items():
            if not more(done):
                return done
            try:
                scenario(_drawn(seed, number))
            except BaseException as error:
                error.add_note(f"replay: with one_thread(): replay_drawn({name}, {seed}, {number})")
                raise
            done += 1
    raise AssertionError("unreachable")


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


class _NoSigns:
    """In place of the module `threading`: who gives signs of life ends at once, as `ManualClock` tells it to."""

    Lock, Event = threading.Lock, threading.Event

    class Thread:
        def __init__(self, **_: Any) -> None: ...

        def start(self) -> None: ...


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block requests that would go out together go one after the other, from the caller's thread, and a slot
    that was decoded is not decoded again."""
    parallel.threading, host_right.threading = _NoThreads, _NoSigns  # type: ignore[assignment]
    slot_chain.decode = cache(slot.decode)
    try:
        yield
    finally:
        parallel.threading = host_right.threading = threading
        slot_chain.decode = slot.decode
