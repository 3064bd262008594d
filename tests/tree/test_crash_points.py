"""The process dies before, after and in the middle of every call that changes something, in every public operation.

Whatever was left is opened three times: by a reader that may change nothing, by a writer that recovers, and by `ls`
and `cat`. All of them must find the state before the operation or the one after it, and the same one.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

import wal
from metatree import Metatree
from metatree.recovery import plan
from tests.figures import Layer
from tests.tree.model import (
    LEVELS,
    OPERATIONS,
    ROOT,
    Bench,
    Camera,
    DyingStorage,
    State,
    clone,
    dump,
    empty_disk,
    open_tree,
    write,
)
from tests.tree.recoveries import Recoveries, left, open_steadily
from wal.storage.memory import MemoryPosix, MemoryStorage
from wal.testing import Boundary, Crash, Crashing

When = Literal["before", "after", "torn"]
WHENS: tuple[When, ...] = ("before", "after", "torn")

PAIRS_SEED = os.environ.get("METATREE_PAIRS_SEED", f"{random.randrange(1 << 32):08x}")
PAIRS, PAIRS_AT_NIGHT = 500, 6_000  # of each operation; a night goes through all there are

CREATE: State = {"": ({}, (), {})}
ADOPTED: State = {
    "": ({}, ("m", "other"), {}),
    "m": ({"active": "v1"}, ("v2", "v1"), {}),
    "m/v1": ({"auc": "0.93"}, (), {"b": b"small one"}),
    "m/v2": ({}, (), {"b": b"small two", "c": b"third"}),
    "other": ({}, (), {}),
}


# --- the disks an opening begins with -------------------------------------------------------------------------------


def bare_disk() -> MemoryPosix:
    """An empty root."""
    disk = MemoryPosix()
    disk.mkdir(ROOT)
    return disk


def old_disk() -> MemoryPosix:
    """A tree as metatreedb 0.2.3 writes it: no log, no attributes, metadata.json in each node, keys in `.metatree`."""
    disk = bare_disk()
    write(disk, f"{ROOT}/.metatree", json.dumps({"keys": list(LEVELS), "locking_enabled": True}).encode())
    for path, (keys, children, blobs) in ADOPTED.items():
        folder = f"{ROOT}/{path}" if path else ROOT
        if path:
            disk.mkdir(folder)
        content = {"children": list(children), **keys} if children else keys
        write(disk, f"{folder}/metadata.json", json.dumps(content).encode())
        for name, data in blobs.items():
            write(disk, f"{folder}/{name}", data)
    return disk


def old_empty_disk() -> MemoryPosix:
    """The same before its first put: the root's metadata.json is empty."""
    disk = bare_disk()
    write(disk, f"{ROOT}/.metatree", json.dumps({"keys": list(LEVELS), "locking_enabled": True}).encode())
    write(disk, f"{ROOT}/metadata.json", b"")
    return disk


def unclean_disk() -> MemoryPosix:
    """A tree whose process died with commits that no checkpoint had made durable: opening it is a recovery."""
    disk = BENCH.disk()
    posix = DyingStorage(Crashing(1 << 40, "before"), disk)
    tree = BENCH.prepare(posix, OPERATIONS["update"], warm=True)
    posix.plan = Crashing(posix.count + 5, "before")
    with pytest.raises(Crash):
        OPERATIONS["transaction of 20"].act(tree)
    return disk


BENCH = Bench()
OPENINGS: dict[str, tuple[Callable[[], MemoryPosix], State | None]] = {
    "create": (bare_disk, CREATE),
    "create on a new log": (empty_disk, CREATE),
    "adopt": (old_disk, ADOPTED),
    "adopt an empty tree": (old_empty_disk, CREATE),
    "recovery": (unclean_disk, None),  # None: whatever a reader finds there
}


# --- one crash --------------------------------------------------------------------------------------------------------


def crash(name: str, call: int, when: When) -> MemoryPosix:
    """The disk that a death leaves behind."""
    disk = BENCH.disk()
    posix = DyingStorage(Crashing(call, when), disk)
    operation = OPERATIONS[name]
    with dying(posix):
        operation.act(BENCH.prepare(posix, operation, warm=False))
    assert posix.crashed is not None, "the operation made fewer calls than the run that counted them"
    return clone(disk)


@contextmanager
def dying(posix: DyingStorage) -> Iterator[None]:
    """Whatever is raised once the process is dead reaches nobody."""
    try:
        yield
    except (Crash, Exception):
        if posix.crashed is None:
            raise


@contextmanager
def noting(where: str) -> Iterator[None]:
    """Say in a failure at which point it was."""
    try:
        yield
    except Exception as error:
        error.add_note(f"at {where}")
        raise


def report(layer: Layer, covered: int, total: int) -> None:
    layer.report("crash points", covered, floor=total, night=total, unit="moments, all there are")


def verify(disk: MemoryPosix, allowed: list[State], recoveries: Recoveries) -> State:
    """Open what is left, in all ways; the state found."""
    return recoveries.recovered(disk, [read_only(disk, allowed)])


def read_only(disk: MemoryPosix, allowed: list[State]) -> State:
    """What a reader finds, who may change nothing."""
    with open_tree(disk, read_only=True) as reader:
        seen = dump(reader)
    assert seen in allowed, "a reader finds neither the state before nor the one after"
    return seen


@pytest.mark.parametrize("warm", [False, True], ids=["checkpointed", "with-a-window"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_crash_at_any_call_leaves_the_state_before_or_after(name: str, warm: bool, layer: Layer) -> None:
    run = BENCH.run(OPERATIONS[name], warm=warm)
    assert run.end > run.start, "an operation that changes nothing would prove nothing"
    ends: list[State] = []
    recoveries = Recoveries()
    for image in run.images:
        with noting(f"{name!r}, {'with a window' if warm else 'checkpointed'}, {image.moment}"):
            ends.append(verify(image.disk, [run.before, run.after], recoveries))
    # A returned call stays; before the first step nothing can have happened.
    assert ends[0] == run.before and ends[-1] == run.after
    report(layer, len(ends), len(run.images))


@pytest.mark.parametrize("name", ["put of a staged blob", "update", "delete of a node", "close"])
def test_what_a_death_leaves_is_what_the_camera_kept(name: str, layer: Layer) -> None:
    """The other tests look at images taken in one life. Here the process really stops, and its locks are freed."""
    run, recoveries = BENCH.run(OPERATIONS[name], warm=False), Recoveries()
    for call in range(1, run.end - run.start + 1):
        for when in WHENS:
            with noting(f"{name!r}, {when} call {call}"):
                verify(crash(name, run.start + call, when), [run.before, run.after], recoveries)
    report(layer, len(WHENS) * (run.end - run.start), len(WHENS) * (run.end - run.start))


@pytest.mark.parametrize("name", OPENINGS)
def test_a_crash_at_any_call_of_opening_loses_nothing(name: str, layer: Layer) -> None:
    make, expected = OPENINGS[name]
    start = make()
    if expected is None:
        with open_tree(start, read_only=True) as reader:
            expected = dump(reader)
    boundary = Boundary(clone(start))
    tree = open_tree(boundary)
    calls = boundary.count
    assert calls and dump(tree) == expected
    tree.close()
    points, recoveries = 0, Recoveries()
    for call in range(1, calls + 1):
        for when in WHENS:
            disk = clone(start)
            posix = DyingStorage(Crashing(call, when), disk)
            with dying(posix):
                open_tree(posix)
            assert posix.crashed is not None
            with noting(f"{name!r}, {when} call {call}: {posix.crashed.method} {posix.crashed.path}"):
                recoveries.recovered(clone(disk), [expected])
            points += 1
    report(layer, points, 3 * calls)


@pytest.mark.parametrize("name", ["checkpoint", "close", "put of a staged blob", "transaction with a pack"])
def test_staged_files_and_trash_go_with_the_next_checkpoint(name: str) -> None:
    """Forgotten ones would keep their blocks for ever, also after the blob itself is gone."""
    for image in BENCH.run(OPERATIONS[name], warm=True).images:
        with open_tree(image.disk) as tree:
            tree.update("other", one="more")  # so that there is something to make a checkpoint of
        with noting(f"{name!r}, {image.moment}"):
            assert not left(image.disk, "staged")
            assert not left(image.disk, "trash")


def test_a_folder_is_a_tree_only_when_its_creation_was_complete() -> None:
    """`.metatree` is born last: until then an opener without keys is told that there is no tree, never a half one."""
    boundary = Boundary(bare_disk())
    open_tree(boundary).close()
    verdicts: list[bool] = []
    for call in range(1, boundary.count + 1):
        disk = bare_disk()
        posix = DyingStorage(Crashing(call, "before"), disk)
        with dying(posix):
            open_tree(posix).close()
        left_over = clone(disk)
        whole = ".metatree" in left_over.listdir(ROOT)
        if whole:
            with Metatree(MemoryStorage(left_over)) as tree:
                assert tree.keys == LEVELS and dump(tree) == CREATE
        else:
            with pytest.raises(Exception, match=r"holds no tree|is neither a tree nor empty"):
                Metatree(MemoryStorage(left_over))
        verdicts.append(whole)
    assert verdicts == sorted(verdicts) and verdicts[-1], "once a tree, always a tree"


@pytest.mark.parametrize(
    ("name", "counts"),
    {
        "put into a new version": (2, 1, 0),
        "update": (1, 0, 0),
        "unset": (1, 0, 0),
        "delete of a model": (1, 0, 1),
        "delete of a blob": (0, 0, 1),
        "move of a model": (5, 4, 1),
        "transaction of 20": (10, 10, 3),
    }.items(),
)
def test_the_plan_of_a_recovery_counts_nodes_blobs_and_removals(name: str, counts: tuple[int, int, int]) -> None:
    storage = MemoryStorage(clone(BENCH.run(OPERATIONS[name], warm=False).images[-1].disk))
    log = wal.open_log(storage, read_only=True)
    planned = plan(storage, log, shared=False)
    assert (planned.nodes, planned.blobs, planned.removed) == counts
    log.close()


@pytest.mark.parametrize("change", [lambda tree: tree.update("m", n=2), lambda tree: tree.unset("m", "text")])
def test_the_plan_counts_a_large_node_of_which_only_keys_are_in_the_log(change: Callable[[Metatree], object]) -> None:
    disk = BENCH.disk()
    with open_tree(disk) as tree:
        tree.update("m", text="t" * 20_000, more="t" * 20_000)
        tree.checkpoint()
        change(tree)
        storage = MemoryStorage(clone(disk))
    log = wal.open_log(storage, read_only=True)
    assert plan(storage, log, shared=False).nodes == 1
    log.close()


@pytest.mark.parametrize("name", ["force-put", "force-put of a staged blob", "put into a new version"])
def test_recovery_takes_nothing_that_the_engine_wrote_for_an_edit(name: str) -> None:
    for image in BENCH.run(OPERATIONS[name], warm=False).images:
        with open_tree(image.disk) as tree:
            assert tree.recover().edited == [], image.moment


def test_recovery_counts_what_it_removed() -> None:
    counts = set()
    for image in BENCH.run(OPERATIONS["delete of a node"], warm=False).images:
        with open_tree(image.disk) as tree:
            counts.add(tree.recover().removed)
    assert counts == {0, 1}


# --- two crashes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_second_crash_inside_the_recovery_of_the_first_loses_nothing_either(name: str, layer: Layer) -> None:
    """Every moment of the recovery from a first crash is a second one; first crashes in an order that is drawn. Of the
    last of them as many moments are drawn as are still asked for."""
    again = f"METATREE_PAIRS_SEED={PAIRS_SEED} make test PYTEST_ARGS='{__file__} -k \"second_crash and {name}\"'"
    run = BENCH.run(OPERATIONS[name], warm=True)
    choose, recoveries, pairs = random.Random(f"{PAIRS_SEED} {name}"), Recoveries(), 0
    aims = {"floor": PAIRS, "night": PAIRS_AT_NIGHT}

    def more() -> bool:
        return layer.more("double crash", pairs, **aims, among=len(OPERATIONS))

    for first in itertools.takewhile(lambda _: more(), choose.sample(run.images, len(run.images))):
        seen = read_only(first.disk, [run.before, run.after])
        camera = Camera(first.disk)
        camera.start()
        open_steadily(camera, "whoever comes next").close()
        seconds = camera.finish()
        for second in itertools.takewhile(lambda _: more(), choose.sample(seconds, len(seconds))):
            with noting(f"{name!r}, {first.moment}, then {second.moment}; again: {again}"):
                recoveries.recovered(second.disk, [seen])
            pairs += 1
    layer.report("double crash", pairs, **aims, unit="pairs", note=f"seed {PAIRS_SEED}")
    layer.report("double crash", recoveries.distinct, floor=1, night=0, unit="distinct disks recovered")
