"""Power cuts: after every call that changes the disk, the states that the model of `wal.testing.power` allows.

Each is recovered and checked, one in eight also read before and opened again. What was acknowledged is there, what was
in flight is there whole or not at all. `METATREE_POWER_SEED` repeats a run.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from metatree import Metatree, MetatreeError
from tests.figures import Layer
from tests.tree.model import BIG, OPERATIONS, OTHER_BIG, ROOT, State, dump, populate
from tests.trust.power import IN_AN_OPERATION, Life, MountPosix, acts, created, existing, open_tree
from wal.testing import PowerPosix

SEED = int(os.environ.get("METATREE_POWER_SEED", str(random.randrange(1 << 32))))
NAME = "power cuts"
NIGHT = 500_000  # distinct states, of all tests together
TESTS = 2 * len(OPERATIONS) + 14  # that go on beyond their floor
PRODUCTS = 6  # combinations that are drawn at each cut
FRUITLESS = 5  # lives in a row that show no new state: there are hardly any more
# Distinct states that each test asks for, of its kind; with IN_AN_OPERATION more than the 20,000 asked of a run.
IN_CREATION, IN_A_ROW, OF_WRITERS, IN_RECOVERY = 300, 930, 900, 3_000

Act = Callable[[Metatree], object]


def lives(layer: Layer, floor: int, bound: int, disks: Iterable[PowerPosix] | None = None) -> Iterator[Life]:
    """One life after another, each on the next disk, as long as more states are asked for and some are found that none
    of them had; what they did is reported at the end."""
    known: dict[bytes, bytes] = {}
    cuts = number = fruitless = 0
    for number, disk in enumerate(iter(PowerPosix, None) if disks is None else disks):
        if fruitless == FRUITLESS or not more(layer, len(known), floor):
            break
        before = len(known)
        life = Life(disk, f"{SEED}, life {number}", PRODUCTS, bound, known=known)
        yield life
        cuts += life.cuts
        fruitless = 0 if len(known) > before else fruitless + 1
    report(layer, len(known), cuts, floor=floor, night=NIGHT // TESTS)


def more(layer: Layer, states: int, floor: int) -> bool:
    return layer.more(NAME, states, floor=floor, night=NIGHT // TESTS, among=TESTS)


def live(life: Life, tree: Metatree, *several: Act, more: Callable[[int], bool] = lambda _: True) -> None:
    """From here on with the power cut again and again, to the end or as long as there are to be `more` states."""
    life.allow(dump(tree))
    life.start()
    try:
        acts(life, tree, itertools.takewhile(lambda _: more(len(life.known)), several))
    finally:
        life.stop()


def report(layer: Layer, states: int, cuts: int, *, floor: int, night: int) -> None:
    layer.report(NAME, states, floor=floor, night=night, unit="distinct states", note=f"seed {SEED}")
    layer.report(NAME, cuts, floor=1, night=0, unit="cuts")


@pytest.mark.parametrize("apply", ["sync", "background"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_power_cut_in_an_operation_leaves_the_state_before_or_after(layer: Layer, name: str, apply: str) -> None:
    operation = OPERATIONS[name]
    for life in lives(layer, IN_AN_OPERATION[name], 10):
        with open_tree(life.disk) as tree:
            populate(tree)
        with open_tree(life.disk, apply=apply) as tree:
            if operation.before is not None:
                operation.before(tree)
            live(life, tree, operation.act, Metatree.flush if name != "close" else Metatree.close)


def test_a_power_cut_while_a_tree_is_created_leaves_nothing_or_the_tree(layer: Layer) -> None:
    disk = PowerPosix()
    disk.mkdir(ROOT)
    life = Life(disk, str(SEED), PRODUCTS, 60, recover=created)
    life.allow({"": ({}, (), {})})
    life.start()
    tree = open_tree(disk)
    report(layer, len(life.known), life.cuts, floor=IN_CREATION, night=IN_CREATION)
    life.known.clear()
    life.recover = existing  # from here on, since it was acknowledged
    life.returned()
    tree.close()
    life.stop()


# --- many commits ---------------------------------------------------------------------------------------------------


def changes(choose: random.Random) -> Iterator[Act]:
    """Changes of every kind; those that cannot be made where the tree stands change nothing."""
    nodes = ["a", "a/v", "a/w", "b/v", "c"]
    while True:
        where, other, number = choose.choice(nodes), choose.choice(nodes), choose.randrange(100)
        content = choose.choice([b"", b"small", BIG[: 66_000 + number], OTHER_BIG[: 70_000 + number]])
        yield from choose.sample(
            [
                lambda tree, w=where, c=content: tree.put(w, c, name="x", force=True),
                lambda tree, w=where, n=number: tree.update(w, n=n, text="t" * 40 * n),
                lambda tree, w=where: tree.unset(w, "n"),
                lambda tree, w=where: tree.delete(w, recursive=True),
                lambda tree, w=where, o=other: tree.move(w, o),
                lambda tree, w=where, o=other: tree.copy(w, o),
                lambda tree, w=where, o=other: several(tree, w, o),
                lambda tree: tree.checkpoint(),
            ],
            2,
        )


def several(tree: Metatree, where: str, other: str) -> None:
    with tree.transaction():
        tree.put(where, b"of a transaction", name="y", force=True)
        tree.update(where, both=1)
        tree.put(other, BIG[:66_000], name="x", force=True)
        tree.update(other, both=1)


def tried(change: Act) -> Act:
    def act(tree: Metatree) -> None:
        with suppress(MetatreeError):
            change(tree)

    return act


@pytest.mark.parametrize("apply", ["sync", "background"])
@pytest.mark.parametrize("number", range(5))
def test_a_power_cut_in_a_row_of_commits_keeps_what_was_acknowledged(layer: Layer, number: int, apply: str) -> None:
    """Commit after commit, with checkpoints and full segments between them, nothing made sure by hand."""
    for life in lives(layer, IN_A_ROW, 5):
        row = changes(random.Random(f"{life.seed} {number}"))
        with open_tree(life.disk, apply=apply) as tree:
            live(life, tree, *(tried(next(row)) for _ in range(20)), more=lambda seen: more(layer, seen, IN_A_ROW))


def test_a_power_cut_of_the_server_of_a_mount_keeps_what_was_acknowledged(layer: Layer) -> None:
    for life in lives(layer, OF_WRITERS, 3, iter(MountPosix, None)):
        row = changes(random.Random(life.seed))
        several = (Metatree.checkpoint if n == 5 else tried(next(row)) for n in range(11))
        with open_tree(life.disk) as tree:
            live(life, tree, *several, more=lambda seen: more(layer, seen, OF_WRITERS))


def test_two_writers_and_a_power_cut_at_any_moment(layer: Layer) -> None:
    for life in lives(layer, OF_WRITERS, 20):
        with open_tree(life.disk) as one, open_tree(life.disk, apply="background") as two:
            populate(one)
            in_turn: list[tuple[Metatree, Act]] = [
                (two, lambda tree: tree.update("m", by="two")),
                (one, lambda tree: tree.put("m/v8", BIG, name="x")),
                (two, lambda tree: tree.delete("m/v1", recursive=True)),
                (one, lambda tree: tree.put("m/v1", b"", name="x")),
                (one, Metatree.checkpoint),
                (two, lambda tree: tree.update("m", by="two again")),
            ]
            life.allow(dump(one))
            life.start()
            for tree, act in in_turn:
                acts(life, tree, [act])
            life.stop()


WRITERS = ("m", "m/v1", "other/v1")


def test_writers_at_once_and_a_power_cut_at_any_moment(layer: Layer) -> None:
    """Two threads of one handle and another handle, at once: each counts in a node of its own."""
    for life in lives(layer, OF_WRITERS, 8):
        count_at_once(life)


def count_at_once(life: Life) -> None:
    with open_tree(life.disk) as one, open_tree(life.disk, apply="background") as two:
        populate(one)
        for writer in WRITERS:
            one.update(writer, count=0)
        base = dump(one)
        told = dict.fromkeys(WRITERS, (0,))

        def tell(writer: str, *numbers: int) -> None:
            with life.disk._changed:
                told[writer] = numbers
                life.allow(*(counted(base, chosen) for chosen in itertools.product(*told.values())))

        def count(tree: Metatree, writer: str) -> None:
            for number in range(1, 6):
                tell(writer, number - 1, number)
                tree.update(writer, count=number)
                tell(writer, number)

        tell(WRITERS[0], 0)
        life.start()
        with ThreadPoolExecutor() as pool:
            several = [pool.submit(count, *who) for who in zip((one, one, two), WRITERS, strict=True)]
        life.returned()
        life.stop()
        for writer in several:
            writer.result()


def counted(base: State, numbers: tuple[int, ...]) -> State:
    state = dict(base)
    for writer, number in zip(WRITERS, numbers, strict=True):
        keys, children, blobs = base[writer]
        state[writer] = {**keys, "count": number}, children, blobs
    return state


def test_a_power_cut_in_the_recovery_after_a_power_cut_loses_nothing_either(layer: Layer) -> None:
    choose = random.Random(SEED)
    first = Life(PowerPosix(), str(SEED), PRODUCTS, 3)
    left: list[PowerPosix] = []
    first.recover = lambda disk, *, closely: left.append(PowerPosix(disk)) or {}  # type: ignore[func-returns-value]
    with open_tree(first.disk) as tree:
        populate(tree)
        first.allow({})
        first.start()
        for name in ("transaction of 20", "checkpoint", "put of a staged blob", "delete of a model"):
            OPERATIONS[name].act(tree)
        first.stop()
    for life in lives(layer, IN_RECOVERY, 6, choose.sample(left, len(left))):
        with open_tree(life.disk, read_only=True) as reader:
            life.allow(dump(reader))
        life.start()
        open_tree(life.disk).close()
        life.stop()


# --- that it would be noticed -----------------------------------------------------------------------------------------


class Forgetful(PowerPosix):
    """A disk whose user believes that he has synced what he has not."""

    def __init__(self, forgotten: str, kind: str) -> None:
        super().__init__()
        self._forgotten, self._kind = forgotten, kind
        self._paths: dict[int, str] = {}

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        fd = super().open(path, flags, mode)
        self._paths[fd] = path
        return fd

    def _sync(self, fd: int, *, attributes: bool) -> None:
        kind = "folder" if self._opened(fd).folder else "file"
        if self.cut is None or not (self._forgotten in self._paths[fd] and kind == self._kind):
            super()._sync(fd, attributes=attributes)

    def syncfs(self, fd: int) -> None:
        if self.cut is None or self._kind != "filesystem":
            super().syncfs(fd)


LARGE: dict[str, Act] = {  # a node whose file is changed in place of being written anew from the log
    "a large node": lambda tree: tree.update("m", text="t" * 20_000),
    "a key of it": lambda tree: tree.update("m", n=2),
}
FORGOTTEN: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "the flush of the log": (".log", "file", ("update",)),
    "the staged blob": ("/staged/", "file", ("put of a staged blob",)),
    "the folder of the staged blob": ("/staged/", "folder", ("put of a staged blob",)),
    "the folder of staging folders": ("/staged", "folder", ("put of a staged blob",)),
    "the filesystem, at a checkpoint": ("", "filesystem", ("put of a staged blob", "checkpoint")),
    "a new segment": ("/tmp/", "file", ()),
    "the folder of the log": ("/.wal", "folder", ()),
    "the file of a large node": (
        "/tmp/",
        "file",
        ("a large node", "checkpoint", "a key of it", "checkpoint", "a key of it"),
    ),
    "what a checkpoint writes": ("/tmp/", "file", ("update", "checkpoint", "update", "checkpoint")),
}


@pytest.mark.parametrize("what", FORGOTTEN)
def test_a_sync_that_is_forgotten_is_noticed(what: str) -> None:
    forgotten, kind, names = FORGOTTEN[what]
    life = Life(Forgetful(forgotten, kind), str(SEED), PRODUCTS, 20)
    tree = open_tree(life.disk)
    if names:
        populate(tree)
    full: list[Act] = [lambda tree, n=n: tree.update((), text="t" * 3_000, n=n) for n in range(8)]
    row = [LARGE[name] if name in LARGE else OPERATIONS[name].act for name in names] or full
    with pytest.raises((AssertionError, MetatreeError)):
        live(life, tree, *row)
    assert life.failure is not None, "an error, but not of a state that a cut left"
    tree.close()
