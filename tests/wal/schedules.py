"""Deterministic interleavings: actors are greenlets, each storage call is a point at which another may go on.

A schedule is the list of who goes on at each point. `explore` tries all of them with at most so many preemptions,
`wander` draws them from a seed. A finding names its scenario and its schedule, and `replay` runs just that.

Of two actors who say at each point what their next step touches, `explore` leaves out what is the same again: to be
preempted after a step that commutes with all that the other then does is to be preempted before it.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import greenlet

from wal import host_right, parallel, slot, slot_chain
from wal.storage.memory import MemoryPosix

SEED = int(os.environ.get("METATREE_SCHEDULES_SEED", "20261126"))
LONGEST = 3000  # points of one run; more is an endless loop


class Endless(Exception):
    """A run did not come to its end."""


@dataclass(frozen=True, slots=True)
class Step:
    """What an actor does between a point and its next one. A name means all below it too, and "" everything."""

    reads: tuple[str, ...]
    changes: tuple[str, ...]

    def commutes(self, other: Step) -> bool:
        """Whether nobody could tell which of two actors' steps came first."""
        return not (
            _meet(self.changes, other.changes) or _meet(self.changes, other.reads) or _meet(self.reads, other.changes)
        )


ANYTHING = Step(("",), ("",))
NOTHING = Step((), ())  # that another could notice


def _meet(ones: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return any(_overlap(one, other) for one in ones for other in others)


def _overlap(one: str, two: str) -> bool:
    return not (one and two) or one == two or one.startswith(f"{two}/") or two.startswith(f"{one}/")


@dataclass(slots=True)
class Point:
    """One choice that was made."""

    current: int | None  # who was running; None: its work was done
    alive: tuple[int, ...]
    chosen: int
    step: Step  # the next of `current`


@dataclass(slots=True)
class Run:
    """One run of several actors."""

    prefix: Sequence[int] = ()  # whom to choose; then `draw` decides, else whoever runs goes on
    draw: random.Random | None = None
    stays: float = 0.0  # how likely it is, if schedules are drawn, that whoever runs just goes on
    points: list[Point] = field(default_factory=list)
    _main: Any = None
    _active: bool = False
    _alive: tuple[int, ...] = ()
    _chosen: int = 0

    def point(self, step: Step = ANYTHING) -> bool:
        """Called by actors (elsewhere it does nothing): another may go on here; returns whether one did. `step`: what
        the caller does next."""
        if not self._active or greenlet.getcurrent() is self._main:
            return False
        current = self._chosen
        self._choose(current, step)
        slept = self._chosen != current
        if slept or len(self.points) > LONGEST:
            self._main.switch()
        return slept

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

    def _choose(self, current: int | None, step: Step = NOTHING) -> None:
        at, alive = len(self.points), self._alive
        if at < len(self.prefix):
            self._chosen = self.prefix[at] if self.prefix[at] in alive else alive[0]
        elif self.draw is None or (current is not None and self.stays and self.draw.random() < self.stays):
            self._chosen = alive[0] if current is None else current
        else:
            self._chosen = self.draw.choice(alive)
        self.points.append(Point(current, alive, self._chosen, step))

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
    """Every schedule with at most so many preemptions, or one that is the same; how many were run. `name`: the scenario
    as an expression."""
    return _explore(name, scenario, preemptions, Run())


def _explore(name: str, scenario: Scenario, preemptions: int, run: Run) -> int:
    """This run, and all that part from it behind its prefix."""
    _try(name, scenario, run)
    done, spent, chosen = 1, 0, run.choices()
    tried: dict[int, list[Step]] = {}  # who went on at an earlier point, which is as good as here: with these steps
    for at, point in enumerate(run.points):
        preempted = point.current is not None
        if at >= len(run.prefix) and spent + preempted <= preemptions:
            for other in point.alive:
                if other != point.chosen and other not in tried:
                    parted = Run((*chosen[:at], other))
                    done += _explore(name, scenario, preemptions, parted)
                    tried[other] = _turn(parted, at)
        if point.chosen == point.current:
            tried = {other: steps for other, steps in tried.items() if all(map(point.step.commutes, steps))}
        else:
            spent += preempted
            tried = {}
    return done


def _turn(run: Run, at: int) -> list[Step]:
    """The steps of the one chosen at this point, until another goes on."""
    chosen = run.points[at].chosen
    steps = [point.step for point in run.points[:at] if point.current == chosen][-1:]  # where it was preempted
    for point in run.points[at + 1 :]:
        if point.current != chosen or point.chosen != chosen:
            break
        steps.append(point.step)
    return steps


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


class PointedDisk(MemoryPosix):
    """With a point before each step that moves a name: a storage's call is several of them."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def rename(self, source: str, target: str) -> None:
        self._run.point()
        super().rename(source, target)

    def link(self, source: str, target: str) -> None:
        self._run.point()
        super().link(source, target)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self._run.point()
        super().mkdir(path, mode)

    def rmdir(self, path: str) -> None:
        self._run.point()
        super().rmdir(path)


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
    slot_chain.decode = lru_cache(1 << 14)(slot.decode)
    try:
        yield
    finally:
        parallel.threading = host_right.threading = threading
        slot_chain.decode = slot.decode
