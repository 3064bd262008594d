"""Committers of one tree on several hosts, stopped, overtaken and resumed between any two storage calls (I2 to I6).

A finding names its schedule, and the line that replays it.
"""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Callable, Hashable, Iterator

import pytest

from metatree import ApplyPendingWarning
from tests.figures import Layer
from tests.tree.committers import ACTORS, DRAWN, World
from tests.tree.shared import KINDS, TTL, WINDOW
from tests.wal.schedules import SEED, Endless, Run, explore, one_thread, wander

NAME = "schedules of committers of a tree"
PAIR = ("checkpoint", "update")
PAIRS = (
    PAIR,
    ("checkpoint", "update, checkpoint"),
    ("checkpoint", "make again"),
    ("checkpoint", "update, and die"),
    ("checkpoint", "look"),
    ("update, checkpoint", "drop, checkpoint"),
    ("update, checkpoint", "open late"),
    ("make again", "move"),
    ("recover", "drop, checkpoint"),
)
ONCE = {"mount": (9, 600), "objects": (9, 680), "objects, versions of content": (1, 75)}  # pairs, schedules
TWICE = {"mount": 1_050, "objects": 1_300}
PACES = ((0.5, 5.0), (0.9, TTL), (0.9, 0.5), (0.97, TTL))  # how long one goes on, and how patient others are
WANDERED, NIGHT = 150, 200_000


def scenario(kind: str, *names: str, deep: bool = False, commits: int = len(WINDOW)) -> Callable[[Run], None]:
    """The first of the actors has had the right last. See `World`."""

    right: set[Hashable] = set()

    def play(run: Run) -> None:
        run.stays, ttl = (0.0, TTL) if run.draw is None else run.draw.choice(PACES)
        world = World(kind, run, deep=deep, ttl=ttl, commits=commits)
        works = []
        for name in names:
            works.append(DRAWN[name](world))
            if len(world.hosts) == 1 and len(works) == 1:
                world.hosts[0].hold()
        for host in world.hosts:
            host.tree.children("a")  # it holds the window's records, whatever is trimmed
        try:
            run.play(works)
        except Endless:
            if run.draw is None:
                raise
            return  # nobody promises that hosts get on which overtake each other all the time
        world.check(right)

    return play


@pytest.fixture(autouse=True)
def inline() -> Iterator[None]:
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ApplyPendingWarning)
        yield


def told(layer: Layer, done: int, *, floor: int, night: int = 0, note: str = "") -> None:
    layer.report(NAME, done, floor=floor, night=max(floor, night), unit="schedules", note=note)


@pytest.mark.parametrize("kind", KINDS)
def test_each_committer_asleep_once_at_any_call_while_another_does_its_work(kind: str, layer: Layer) -> None:
    pairs, floor = ONCE[kind]
    total = 0
    for pair in PAIRS[:pairs]:
        total += explore(f"scenario({kind!r}, *{pair})", scenario(kind, *pair), 1)
    told(layer, total, floor=floor, note="pairs: all in which one sleeps once")


@pytest.mark.parametrize("kind", TWICE)
def test_a_checkpoint_and_its_successor_each_asleep_once_at_any_pair_of_calls(kind: str, layer: Layer) -> None:
    """The hole that decision 0039 closes is between two such calls."""
    total = explore(f"scenario({kind!r}, *{PAIR}, commits=1)", scenario(kind, *PAIR, commits=1), 2)
    told(layer, total, floor=TWICE[kind], note=f"{' and '.join(PAIR)}: all in which each sleeps once")
    pairs = list(itertools.combinations_with_replacement(ACTORS, 2))
    random.Random(SEED).shuffle(pairs)
    done = total = 0
    while done < len(pairs) and layer.seconds(NAME, len(TWICE)):
        total += explore(f"scenario({kind!r}, *{pairs[done]})", scenario(kind, *pairs[done]), 2)
        done += 1
    if layer.torture:
        told(layer, total, floor=0, note=f"{kind}: the same of {done} of {len(pairs)} pairs, with a longer window")


def test_three_committers_in_schedules_drawn_from_a_seed(layer: Layer) -> None:
    """Also on storage that fails now and then; on a mount others may go on in the midst of a call."""
    places = (("mount", False), ("mount", True), ("objects", False))
    cases = list(itertools.product(itertools.combinations(DRAWN, 3), places))
    random.Random(SEED).shuffle(cases)
    several = {
        f"scenario({kind!r}, *{names}, deep={deep})": scenario(kind, *names, deep=deep) for names, (kind, deep) in cases
    }
    total = wander(several, SEED, lambda done: layer.more(NAME, done, floor=WANDERED, night=NIGHT))
    told(layer, total, floor=WANDERED, night=NIGHT, note=f"METATREE_SCHEDULES_SEED={SEED}")
