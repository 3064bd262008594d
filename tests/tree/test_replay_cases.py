"""The replay cases of the hostile review, one by one: what goes wrong when a record is an operation, when apply eats
its source, when a mark outlives the files it vouches for, when a checkpoint believes a sync that lied.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metatree import ApplyPendingWarning, CommitUnknownError, Metatree, UnavailableError
from metatree.engine import Engine
from metatree.facts import BlobFact, BlobGone, ChildFact, Fact, Inline, KeysFact, NodeFact, NodeGone
from metatree.fold import Effect, fold
from tests.tree.model import (
    BIG,
    LEVELS,
    OPERATIONS,
    OTHER_BIG,
    ROOT,
    Bench,
    Camera,
    DyingStorage,
    State,
    clone,
    dump,
    open_tree,
    plain,
    read,
)
from wal import LockBusyError
from wal.storage.memory import MemoryPosix, MemoryStorage
from wal.testing import ALL_CALLS, MUTATING_CALLS, Boundary, Call, Crash, Crashing

T = TypeVar("T")
Step = Callable[[Metatree], object]

BENCH = Bench()


@contextmanager
def noting(where: object) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"at {where}")
        raise


def recovered(disk: MemoryPosix, allowed: Sequence[State]) -> State:
    """What the first opener makes of a disk; checked, and the same for `ls` and `cat`."""
    with open_tree(disk) as tree:
        found = dump(tree)
        assert found in allowed
        assert plain(disk) == found and tree.unapplied == 0
        report = tree.check(deep=True)
        assert report.ok, str(report)
    return found


# --- E1, E2, E3: windows that a replay of operations would get wrong --------------------------------------------------


def put(location: str, name: str, content: bytes, *, force: bool = False) -> Step:
    return lambda tree: tree.put(location, content, name=name, force=force)


def delete(location: str) -> Step:
    return lambda tree: tree.delete(location, recursive=True)


def move(source: str, target: str) -> Step:
    return lambda tree: tree.move(source, target)


def copy(source: str, target: str) -> Step:
    return lambda tree: tree.copy(source, target)


def folder(location: str, name: str, content: bytes) -> Step:
    """A directory blob."""

    def act(tree: Metatree) -> None:
        with tempfile.TemporaryDirectory(prefix="metatree-test-") as made:
            Path(made, "inner").mkdir()
            Path(made, "inner", "file").write_bytes(content)
            tree.put(location, made, name=name, recursive=True)

    return act


CASES: dict[str, list[Step]] = {
    "E1 drop B, then move A to B": [delete("m/v2"), move("m/v1", "m/v2")],
    "E1 move A to B, then put A again": [move("m/v1", "m/v5"), put("m/v1", "b", b"the new one")],
    "E1 move A to B, put A, move B back elsewhere": [
        move("m/v1", "m/v5"),
        put("m/v1", "big", OTHER_BIG),
        move("m/v5", "m/v6"),
        delete("m/v6/big"),
    ],
    "E1 copy a to b, then force-put a": [
        copy("m/v1/big", "m/v2/big"),
        put("m/v1", "big", OTHER_BIG, force=True),
    ],
    "E1 swap two nodes through a third": [move("m/v1", "m/t"), move("m/v2", "m/v1"), move("m/t", "m/v2")],
    "E1 swap two staged blobs": [
        put("m/v2", "big", OTHER_BIG),
        move("m/v1/big", "m/v1/t"),
        move("m/v2/big", "m/v1/big"),
        move("m/v1/t", "m/v2/big"),
    ],
    "E1 a moved blob and its copy are two": [
        copy("m/v1/big", "m/v1/c"),
        move("m/v1/big", "m/v1/d"),
        put("m/v1", "d", b"replaced", force=True),
    ],
    "E2 drop a blob, put it from a staged file": [delete("m/v1/big"), put("m/v1", "big", OTHER_BIG)],
    "E2 delete the model, then put the version": [delete("m"), put("m/v1", "big", OTHER_BIG)],
    "E2 put staged, delete the model, put staged": [
        put("m/v9", "big", BIG),
        delete("m"),
        put("m/v9", "big", OTHER_BIG),
        put("m/v9", "b", b"beside it"),
    ],
    "E2 force-put twice": [
        put("m/v1", "big", OTHER_BIG, force=True),
        put("m/v1", "big", BIG[:90_000], force=True),
    ],
    "E2 force-put staged, small, staged": [
        put("m/v1", "big", OTHER_BIG, force=True),
        put("m/v1", "big", b"small", force=True),
        put("m/v1", "big", BIG[:90_000], force=True),
    ],
}

# E3: one name, four kinds; every change from one to another, and on to a third
KINDS: dict[str, Step] = {
    "node": put("m/x", "b", b"in a node"),
    "small blob": put("m", "x", b"a blob"),
    "staged blob": put("m", "x", BIG),
    "folder": folder("m", "x", b"in a folder"),
}
CASES |= {
    f"E3 {first}, {second}, {third}": [KINDS[first], delete("m/x"), KINDS[second], delete("m/x"), KINDS[third]]
    for first in KINDS
    for second in KINDS
    for third in KINDS
    if first != second and second != third and third != "small blob"
}


@pytest.mark.parametrize("name", CASES)
def test_a_window_replays_to_the_same_tree_from_wherever_it_was_cut(name: str) -> None:
    """Every commit of the window has been applied, or some have, or half of one: replay begins at its first."""
    disk = BENCH.disk()
    camera = Camera(disk)
    tree = open_tree(camera)
    states = [dump(tree)]
    for number, step in enumerate(CASES[name]):
        camera.start()
        step(tree)
        images = camera.finish()
        states.append(dump(tree))
        assert plain(disk) == states[-1]
        if name.startswith("E3"):  # these are many: the death right after a step, and a few in the middle of the last
            stride = max(1, len(images) // 4) if number + 1 == len(CASES[name]) else len(images)
            images = images[::-1][::stride][::-1]
        for image in images:
            with noting(f"{name}, step {number + 1}, {image.moment}"):
                recovered(image.disk, states[-1:] if image is images[-1] else states[-2:])
    tree.close()


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("E3")])
def test_a_replay_that_is_cut_short_is_replayed_again(name: str) -> None:
    disk = BENCH.disk()
    tree = open_tree(disk)
    for step in CASES[name]:
        step(tree)
    expected = dump(tree)
    image = clone(disk)
    tree.close()
    camera = Camera(image)
    camera.start()
    open_tree(camera).close()
    images = camera.finish()
    for second in images[:: max(1, len(images) // 12)]:
        with noting(f"{name}, recovery cut {second.moment}"):
            recovered(second.disk, [expected])


# --- E1b: a window laid over a file that is ahead of it ---------------------------------------------------------------


@pytest.mark.parametrize("shown", [[], ["x"], ["x", "y"], ["y"], ["y", "z"], ["y", "z", "x"]])
def test_a_child_that_was_dropped_and_made_again_comes_last_over_any_file_of_the_window(shown: list[str]) -> None:
    changes = [("x", True), ("y", True), ("x", False), ("z", True), ("x", True)]
    effect, _ = fold([ChildFact(("m",), name, created) for name, created in changes]).find(("m",))
    assert effect is not None
    assert list(effect.over_children(dict.fromkeys(shown, True))) == ["y", "z", "x"]


def blob(name: str) -> BlobFact:
    return BlobFact((), name, 1, "0" * 64, Inline(b"x"))


FILES_OF_D: dict[str, tuple[list[Fact], set[str]]] = {
    "one more": ([blob("d/x")], {"d/a", "d/sub/b", "d/subs", "d/x"}),
    "another blob's": ([blob("dd/x"), BlobGone((), "dd/x")], {"d/a", "d/sub/b", "d/subs"}),
    "one more and gone again": ([blob("d/x"), BlobGone((), "d/x")], {"d/a", "d/sub/b", "d/subs"}),
    "one less": ([BlobGone((), "d/a")], {"d/sub/b", "d/subs"}),
    "a folder less": ([BlobGone((), "d/sub")], {"d/a", "d/subs"}),
    "one less and again": ([BlobGone((), "d/a"), blob("d/a")], {"d/a", "d/sub/b", "d/subs"}),
    "dropped": ([BlobGone((), "d")], set()),
    "dropped and put": ([BlobGone((), "d"), blob("d/x")], {"d/x"}),
}


@pytest.mark.parametrize("what", FILES_OF_D)
def test_the_files_of_a_directory_blob_after_a_window(what: str) -> None:
    facts, expected = FILES_OF_D[what]
    assert fold(facts).over_blob_files("d", {"d/a", "d/sub/b", "d/subs"}) == expected


def test_the_names_of_blobs_after_a_window() -> None:
    node = [NodeFact(("was",), {}, ()), NodeGone(("was",))]
    effect = fold([blob("new"), BlobGone((), "gone"), BlobGone((), "d/x"), blob("e/x"), *node])
    assert effect.over_names({"old", "gone", "d", "was"}) == {"old", "new", "d", "e"}


def test_a_file_that_is_put_again_after_its_directory_blob_was_dropped_comes_after_that() -> None:
    """A record is made in this order: a draft is such an effect, too."""
    effect = fold([BlobGone((), "d/x"), BlobGone((), "d"), blob("d/x")])
    assert list(effect.blobs) == ["d", "d/x"]
    assert effect.over_names({"d"}) == {"d"}


def test_what_was_below_a_dropped_node_is_known_to_be_gone() -> None:
    effect = fold(
        [NodeGone(("a",)), NodeFact(("a",), {}, ("b",)), NodeFact(("a", "b"), {}, ()), NodeFact(("c",), {}, ())]
    )
    assert [effect.find(path)[1] for path in (("a",), ("a", "b"), ("a", "x"), ("c",), ("c", "x"))] == [True] * 3 + [
        False
    ] * 2


LISTED: list[Fact] = [NodeFact((), {}, ("a", "b")), NodeFact(("a",), {}, ())]
NAMES_OF: dict[str, tuple[list[Fact], tuple[str | None, bool]]] = {
    "a node that was made": (LISTED, ("a", True)),
    "a node that was made and dropped": ([*LISTED, NodeGone(("a",)), NodeFact((), {}, ("b",))], (None, True)),
    "a node that was dropped, its parent whole": ([NodeGone(("a",)), NodeFact((), {}, ("b",))], (None, True)),
    "a node that was dropped": ([NodeGone(("a",)), ChildFact((), "a", False)], (None, True)),
    "a node that was made below a large one": ([ChildFact((), "a", True)], ("a", True)),
    "a node that made way for a blob": ([NodeGone(("a",)), blob("a"), ChildFact((), "a", False)], ("a", True)),
    "a node that made way for its twin": ([NodeGone(("a",)), blob("A"), ChildFact((), "a", False)], ("A", True)),
    "a node that changed": ([KeysFact(("a",), {"n": 1}, ())], (None, False)),
    "a blob": ([blob("a")], ("a", True)),
    "a blob that was dropped": ([BlobGone((), "a")], (None, True)),
    "a directory blob": ([blob("a/x")], ("a", True)),
    "a directory blob of which a file was dropped": ([BlobGone((), "a/x")], (None, False)),
    "something else": ([blob("b")], (None, False)),
}


@pytest.mark.parametrize("what", NAMES_OF)
def test_whether_a_name_is_taken_after_a_window(what: str) -> None:
    """(Who has it; whether the window decides that: if not, the files are asked.)"""
    facts, expected = NAMES_OF[what]
    assert fold(facts).name_taken("a") == expected
    effect = Effect()
    assert effect.name_taken("a") == (None, False)  # from now on the names are kept up to date
    assert fold(facts, effect).name_taken("a") == expected


def test_a_blob_in_the_place_of_a_directory_blob_leaves_nothing_of_it() -> None:
    effect = fold([blob("d/x"), blob("d/sub/y"), blob("e/sub/x"), blob("d"), blob("e/sub"), blob("f")])
    assert effect.blobs == {name: blob(name) for name in ("d", "e/sub", "f")}
    assert effect.cleared == {"d", "e/sub"}
    assert not effect.blob_below("d") and effect.blob_below("e")


NAMES = st.sampled_from(["x", "y", "z", "w", "v"])
EVENTS = st.one_of(
    st.tuples(st.just("create"), NAMES),
    st.tuples(st.just("drop"), NAMES),
    st.tuples(st.just("set"), NAMES),
    st.tuples(st.just("unset"), NAMES),
    st.tuples(st.just("whole"), NAMES),
)


@settings(max_examples=2000, deadline=None)
@given(start=st.lists(NAMES, unique=True), events=st.lists(EVENTS, max_size=12), data=st.data())
def test_any_window_over_any_file_inside_it_gives_the_state_at_its_end(
    start: list[str], events: list[tuple[str, str]], data: st.DataObject
) -> None:
    facts: list[Fact] = []
    states: list[tuple[dict[str, object], list[str]]] = [({}, start)]
    for number, (what, name) in enumerate(events):
        keys, children = dict(states[-1][0]), list(states[-1][1])
        if (what == "create") == (name in children) and what in ("create", "drop"):
            continue  # facts are effective: creating what is there is none
        if what == "create":
            children.append(name)
            facts.append(ChildFact(("m",), name, True))
        elif what == "drop":
            children.remove(name)
            facts.append(ChildFact(("m",), name, False))
        elif what == "set":
            keys[name] = number
            facts.append(KeysFact(("m",), {name: number}, ()))
        elif what == "unset":
            keys.pop(name, None)
            facts.append(KeysFact(("m",), {}, (name,)))
        else:
            facts.append(NodeFact(("m",), dict(keys), tuple(children)))
        states.append((keys, children))
    ahead = data.draw(st.integers(0, len(facts)), label="records the file shows")
    begin = data.draw(st.integers(0, ahead), label="where the window begins")
    effect, _ = fold(facts[begin:]).find(("m",))
    file_keys, file_children = states[ahead]
    if effect is None:
        assert begin == len(facts)
        return
    assert list(effect.over_children(file_children)) == states[-1][1]
    assert effect.over_keys(file_keys) == states[-1][0]
    # Two folds in a row are the fold of both: what a reader does as it goes on.
    split = data.draw(st.integers(begin, len(facts)), label="where the second half begins")
    again, _ = fold(facts[split:], fold(facts[begin:split])).find(("m",))
    assert again is not None
    assert list(again.over_children(file_children)) == states[-1][1]
    assert again.over_keys(file_keys) == states[-1][0]


# --- E3b: what somebody who only has `ls` and `cat` can ever see ------------------------------------------------------


class Onlooker(Boundary):
    """Looks at the folders around every single call, as Triton or a shell script would."""

    def __init__(self, disk: MemoryPosix, look: Callable[[], None]) -> None:
        super().__init__(disk, counted=ALL_CALLS)
        self.look: Callable[[], None] | None = None
        self._look = look

    def start(self) -> None:
        self.look = self._look

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        result = run()
        if self.look is not None and call.number and call.method in MUTATING_CALLS:
            with noting(f"{call.method} {call.path}"):
                self.look()
        return result


ONLOOKED = [name for name in OPERATIONS if name not in ("put of a directory",)]


@pytest.mark.parametrize("name", ONLOOKED)
def test_a_node_is_never_seen_before_it_is_complete_nor_listed_when_it_is_not(name: str) -> None:
    run = BENCH.run(OPERATIONS[name], warm=False)
    whole = [run.before, run.after]
    disk = BENCH.disk()
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        try:
            shown = plain(disk)  # each child that is listed is there and its metadata.json parses
        except FileNotFoundError as error:
            # Dropped and made anew in one transaction: for an instant there is neither the old folder nor the new one.
            assert name == "transaction of 20" and error.filename in (f"{ROOT}/m/v2", f"{ROOT}/m/v3")
            return
        for model in [n for n in disk.listdir(ROOT) if n not in (".wal", ".lock", ".metatree", "metadata.json")]:
            assert any(model in state for state in whole), f"a temporary name: {model}"
            for version in [n for n in disk.listdir(f"{ROOT}/{model}") if n != "metadata.json"]:
                path = f"{model}/{version}"
                known = [state for state in whole if path in state]
                if not known:
                    assert any(version in state.get(model, ({}, (), {}))[2] for state in whole), f"a temporary {path}"
                    continue
                if path in run.after and path not in run.before:
                    assert complete(disk, path, run.after), f"{path} is visible, but not complete"
        for path, (_, _, blobs) in shown.items():
            for blob, content in blobs.items():
                if any(f"{path}/{blob.partition('/')[0]}".lstrip("/") in state for state in whole):
                    continue  # the folder of a node that its parent does not list yet, or any more
                assert any(content == state[path][2].get(blob) for state in whole if path in state), f"{path}/{blob}"

    posix = Onlooker(disk, look)
    tree = BENCH.prepare(posix, OPERATIONS[name], warm=False)
    posix.start()
    OPERATIONS[name].act(tree)
    tree.close()
    assert looks


def complete(disk: MemoryPosix, path: str, state: State) -> bool:
    keys, children, blobs = state[path]
    value = json.loads(read(disk, f"{ROOT}/{path}/metadata.json"))
    names = set(disk.listdir(f"{ROOT}/{path}"))
    return (
        value == ({"children": list(children), **keys} if children else keys)
        and names == {"metadata.json", *blobs, *children}
        and all(read(disk, f"{ROOT}/{path}/{blob}") == content for blob, content in blobs.items())
    )


# --- E5, E6, E8: power cuts, checkpoints, syncs that fail -------------------------------------------------------------


class ForgetfulDisk(MemoryPosix):
    """Knows what was not flushed since it was written. A power cut takes it back; the names stay, and so
    does the head file: the kernel may have written any page back, and the marks being ahead of the files is the worse
    case.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dirty: set[int] = set()
        self.flushed: dict[int, bytes] = {}  # content as of the last flush of files written since

    @classmethod
    def of(cls, disk: MemoryPosix) -> ForgetfulDisk:
        made, copied = cls(), clone(disk)
        made._top, made._numbers = copied._top, copied._numbers
        if isinstance(disk, ForgetfulDisk):
            made.dirty, made.flushed = set(disk.dirty), dict(disk.flushed)
        return made

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        inode = self._opened(fd)
        if inode.number not in self.dirty:
            self.flushed[inode.number] = bytes(inode.data)
            self.dirty.add(inode.number)
        return super().pwrite(fd, data, offset)

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        self.dirty.discard(self.fstat(fd).st_ino)

    fdatasync = fsync

    def syncfs(self, fd: int) -> None:
        super().syncfs(fd)
        self.dirty.clear()

    def lose(self) -> None:
        """Writeback fails: what was not flushed is gone, and its pages are clean now."""
        head = self.stat(f"{ROOT}/.wal/head").st_ino
        for path in self._paths(ROOT):
            inode = self._find(path)
            if inode.number in self.dirty and inode.number != head:
                inode.data[:] = self.flushed[inode.number]
        self.dirty.clear()

    def _paths(self, folder: str) -> Iterator[str]:
        for name in self.listdir(folder):
            path = f"{folder}/{name}"
            if self._find(path).folder:
                yield from self._paths(path)
            else:
                yield path

    def cut(self) -> MemoryPosix:
        """The disk after a power cut now."""
        other = ForgetfulDisk.of(self)
        other.lose()
        return other


class At(Boundary):
    """Does something before the calls that `when` picks."""

    def __init__(self, inner: MemoryPosix, when: Callable[[Call], bool], act: Callable[[Call], None]) -> None:
        super().__init__(inner)
        self.armed = False
        self._when = when
        self._act = act

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if self.armed and call.number and self._when(call):
            self.armed = False
            self._act(call)
            self.armed = True
        return run()


@pytest.mark.parametrize("name", [*OPERATIONS, *(n for n in CASES if not n.startswith("E3"))])
def test_files_lost_in_a_power_cut_come_back_from_the_log(name: str) -> None:
    """E5: the applied mark survived, the files it speaks of did not. Every file since the redo mark is replayed."""
    disk = ForgetfulDisk.of(BENCH.disk())
    cuts: list[tuple[str, MemoryPosix]] = []
    posix = At(disk, lambda call: True, lambda call: cuts.append((f"{call.method} {call.path}", disk.cut())))
    if name in OPERATIONS:
        tree = BENCH.prepare(posix, OPERATIONS[name], warm=True)
        steps = [OPERATIONS[name].act]
    else:
        tree, steps = open_tree(posix), CASES[name]
    for step in steps:
        before = dump(tree)
        posix.armed = True
        step(tree)
        posix.armed = False
        cuts.append(("the end", disk.cut()))
        after = plain(disk)
        for moment, cut in cuts:
            with noting(f"{name}: power cut before {moment}"):
                found = recovered(cut, [before, after])
        assert found == after, "what was acknowledged is there"
        cuts.clear()
    assert disk.dirty or name in ("checkpoint", "close"), "nothing was at risk: the test would prove nothing"
    tree.close()


def test_a_commit_beside_a_running_checkpoint_survives_whatever_the_checkpoint_trims() -> None:
    """E6: another process commits to the very node the checkpoint is making durable, at each of its calls."""
    moments = At(ForgetfulDisk.of(BENCH.disk()), lambda call: True, lambda call: None)
    tree = BENCH.prepare(moments, OPERATIONS["checkpoint"], warm=True)
    start = moments.count
    tree.checkpoint()
    calls = moments.count - start
    tree.close()
    beside = 0
    for chosen in range(1, calls + 1):
        disk = ForgetfulDisk.of(BENCH.disk())
        other: list[Engine] = []
        returned: list[int] = []

        def commit(call: Call, other: list[Engine] = other, returned: list[int] = returned) -> None:
            # It cannot apply while the checkpoint holds the right, and need not: the commit is what counts.
            with suppress(LockBusyError), warnings.catch_warnings():
                warnings.simplefilter("ignore", ApplyPendingWarning)
                other[0].change(lambda draft: draft.update(("m",), {"beside": call.number}))
                returned.append(call.number)

        target = [0]
        posix = At(disk, lambda call, target=target: call.number == target[0], commit)  # type: ignore[misc]
        tree = BENCH.prepare(posix, OPERATIONS["checkpoint"], warm=True)
        other.append(Engine(MemoryStorage(disk), LEVELS, read_only=False, apply="sync", lock_timeout=0.0))
        target[0] = posix.count + chosen
        before = dump(tree)
        posix.armed = True
        tree.checkpoint()
        posix.armed = False
        expected = dump(tree)
        if expected != before:
            beside += 1
        with noting(f"call {chosen} of the checkpoint"):
            assert [expected["m"][0].get("beside")] == (returned or [None]), "a commit that returned is not there"
            recovered(disk.cut(), [expected])
            tree.checkpoint()
            recovered(disk.cut(), [expected])
        other[0].close()
        tree.close()
    assert beside > calls // 2, "hardly any commit came through: the test would prove little"


class AfterSync(Boundary):
    """Does something as soon as a sync is through, while its caller does not know yet."""

    act: Callable[[], None] | None = None

    def syncfs(self, fd: int) -> None:
        super().syncfs(fd)
        if self.act is not None:
            act, self.act = self.act, None
            act()


def engine_on(disk: MemoryPosix) -> Engine:
    """Another process, which waits for nothing."""
    return Engine(MemoryStorage(disk), LEVELS, read_only=False, apply="sync", lock_timeout=0.0)


def test_nobody_waits_for_a_checkpoints_sync() -> None:
    """E14: others apply, and make checkpoints of their own, while one syncs; whoever is second has nothing to trim."""
    disk = ForgetfulDisk.of(BENCH.disk())
    posix = AfterSync(disk)
    tree, other = open_tree(posix), engine_on(disk)
    tree.put("m/v9", b"nine", name="b")
    inside: list[int] = []

    def act() -> None:
        other.change(lambda draft: draft.update(("m",), {"beside": 1}))
        assert other.committer.unapplied() == 0
        assert plain(disk)["m"][0]["beside"] == 1
        inside.append(other.checkpointer.run())

    posix.act = act
    lsn = tree.checkpoint()
    assert inside == [lsn] == [tree.lsn], "the other one's was newer, and stays"
    recovered(disk.cut(), [dump(tree)])
    other.close()
    tree.close()


@pytest.mark.parametrize("dies", [True, False], ids=["and then dies", "and then finishes"])
def test_a_rewrite_beside_a_checkpoints_sync_is_synced_before_anything_is_trimmed(dies: bool) -> None:
    """E6: the rewrite takes the whole content of a node from a record that the checkpoint is about to trim."""
    disk = ForgetfulDisk.of(BENCH.disk())
    posix = AfterSync(disk)
    tree = open_tree(posix)
    tree.put("m/v9", b"nine", name="b")
    tree.update("m/v9", small="x")
    other = engine_on(disk)  # opened later: it cannot vouch for these and writes them again

    def act() -> None:
        other.change(lambda draft: draft.update(("m", "v9"), {"large": "x" * 20_000}))
        window = other.checkpointer._begin()
        if not dies:
            other.checkpointer._sync(window)
            assert other.checkpointer._finish(window) is not None

    posix.act = act
    tree.checkpoint()
    expected = dump(tree)
    assert expected["m/v9"][0].keys() == {"small", "large"}
    recovered(disk.cut(), [expected])
    other.close()
    tree.close()


def test_two_checkpoints_that_both_write_again_do_not_disturb_each_other_for_ever() -> None:
    disk = ForgetfulDisk.of(BENCH.disk())
    writer = open_tree(disk)
    writer.put("m/v9", b"nine", name="b")
    first, second = AfterSync(disk), AfterSync(disk)
    one, two = open_tree(first), open_tree(second)
    two_windows = []
    first.act = lambda: two_windows.append(two._engine.checkpointer._begin())
    second.act = lambda: two_windows.append(one._engine.checkpointer._begin())
    assert one.checkpoint() == two.checkpoint() == writer.lsn
    assert two_windows
    recovered(disk.cut(), [dump(writer)])
    for tree in (one, two, writer):
        tree.close()


def test_a_fault_beside_a_checkpoints_sync_makes_it_write_and_sync_again() -> None:
    disk = ForgetfulDisk.of(BENCH.disk())
    posix = AfterSync(disk)
    tree, other = open_tree(posix), engine_on(disk)
    tree.put("m/v9", b"nine", name="b")
    expected = plain(disk)

    def act() -> None:
        disk.lose()  # a failed writeback, told to the other one only
        other.committer.fault()

    posix.act = act
    disk.syncfs = lambda fd: None if posix.act else ForgetfulDisk.syncfs(disk, fd)  # type: ignore[method-assign]
    assert tree.checkpoint() == tree.lsn
    del disk.syncfs
    assert plain(disk) == expected
    recovered(disk.cut(), [dump(tree)])
    other.close()
    tree.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_death_beside_a_checkpoints_sync_costs_nothing(when: Literal["before", "after"]) -> None:
    """A committer dies at each of its calls while another one's checkpoint syncs."""
    for call in range(1, 100):
        disk = ForgetfulDisk.of(BENCH.disk())
        posix, dying = AfterSync(disk), DyingStorage(Crashing(1 << 40, "before"), disk)
        tree, victim = open_tree(posix), open_tree(dying)
        tree.put("m/v9", b"nine", name="b")

        def act(call: int = call, victim: Metatree = victim, dying: DyingStorage = dying) -> None:
            dying.plan = Crashing(dying.count + call, when)
            with suppress(Crash, CommitUnknownError):
                victim.update("m", n=5)
                victim.checkpoint()

        posix.act = act
        tree.checkpoint()
        tree.flush()
        with noting(f"the other died {when} call {call}: {dying.crashed}"):
            assert plain(disk) == dump(tree)
            recovered(disk.cut(), [dump(tree)])
        tree.close()
        if dying.crashed is None:
            dying.plan = Crashing(1 << 40, when)
            victim.close()
            return
    raise AssertionError("the victim never came to its end")


def test_a_checkpoint_whose_sync_was_interrupted_is_followed_by_one_that_writes_again() -> None:
    """The sync may have failed: its error was told to nobody, and would not be told again."""
    disk = ForgetfulDisk.of(BENCH.disk())
    posix = AfterSync(disk)
    tree = open_tree(posix)
    tree.put("m/v9", b"nine", name="b")
    expected = plain(disk)

    def fail(call: Call) -> None:
        disk.lose()
        raise KeyboardInterrupt

    failing = At(disk, lambda call: call.method == "syncfs", fail)
    tree._engine.storage._posix = failing  # type: ignore[attr-defined]
    failing.armed = True
    with pytest.raises(KeyboardInterrupt):
        tree.checkpoint()
    failing.armed = False
    tree.checkpoint()
    assert plain(disk) == expected
    recovered(disk.cut(), [expected])
    tree.close()


def test_after_a_failed_sync_the_window_is_written_again_before_it_is_trimmed() -> None:
    """E8: the first sync fails, and the kernel has dropped the pages; the second one says "ok" and means nothing."""
    disk = ForgetfulDisk.of(BENCH.disk())
    failing = True

    def fail(call: Call) -> None:
        if failing:
            disk.lose()
            raise OSError(5, "writeback failed", call.path)

    posix = At(disk, lambda call: call.method == "syncfs", fail)
    tree = open_tree(posix)
    tree.put("m/v9", BIG, name="big")
    tree.put("m/v8", b"eight", name="b")
    tree.update("m", n=8)
    expected = plain(disk)
    assert disk.dirty
    posix.armed = True
    with pytest.raises(UnavailableError):
        tree.checkpoint()
    recovered(disk.cut(), [expected])  # nothing was trimmed
    failing = False
    tree.checkpoint()
    assert plain(disk) == expected, "trimmed, but the files do not hold it"
    recovered(disk.cut(), [expected])
    tree.close()


def test_a_checkpointer_that_opened_later_writes_the_window_again_first() -> None:
    """E8: somebody else was told of the failed writeback, and the storage opened later cannot be told any more."""
    disk = ForgetfulDisk.of(BENCH.disk())
    first = open_tree(disk)
    first.put("m/v9", b"nine", name="b")
    first.update("m", n=9)
    expected = plain(disk)
    disk.lose()  # told to nobody who still lives
    later = open_tree(disk)
    later.checkpoint()
    assert plain(disk) == expected
    recovered(disk.cut(), [expected])
    later.close()
    first.close()


def test_whoever_takes_over_from_a_dead_committer_writes_the_window_again() -> None:
    """E6: a process died while it held the right to apply; another one lives on and makes the checkpoint."""
    disk = ForgetfulDisk.of(BENCH.disk())
    survivor = open_tree(disk)
    survivor.update("m", n=5)
    applying = 0
    for call in range(1, 40):
        survivor.update("other", n=call)  # behind the mark already, and in no record that the victim leaves un-applied
        posix = DyingStorage(Crashing(1 << 40, "before"), disk)
        with suppress(Crash):
            victim = open_tree(posix)
            posix.plan = Crashing(posix.count + call, "before")
            victim.put(f"m/k{call}", b"k", name="b")
        if posix.crashed is None:
            break
        if "/.wal/" not in posix.crashed.path or "/.wal/tmp/" in posix.crashed.path:
            disk.lose()  # it died in mid-apply, and with it the only one who would have heard of a failed writeback
            applying += 1
        survivor.checkpoint()
        survivor.flush()  # a record that was complete but not acknowledged is adopted by the trim: it is applied now
        with noting(f"victim died before call {call}: {posix.crashed.method} {posix.crashed.path}"):
            assert plain(disk) == dump(survivor)
            recovered(disk.cut(), [dump(survivor)])
    else:
        raise AssertionError("the victim never lived to the end of its put")
    assert applying >= 5
    survivor.close()


def test_what_a_checkpoint_that_died_had_still_to_clear_goes_with_the_next_one_of_whoever_lives() -> None:
    """Nobody recovers while a writer lives: staged files of trimmed records would lie there until all had closed."""
    left = 0
    for call in range(1, 100):
        disk = BENCH.disk()
        survivor = open_tree(disk)
        posix = DyingStorage(Crashing(1 << 40, "before"), disk)
        victim = open_tree(posix)
        victim.put("m/v9", BIG, name="big")
        running = survivor.transaction()
        with running:
            survivor.put("m/v8", BIG, name="big")
            posix.plan = Crashing(posix.count + call, "before")
            with suppress(Crash):
                victim.checkpoint()
            staged = disk.listdir(f"{ROOT}/.wal/staged")
            if len(staged) == 2 and json.loads(read(disk, f"{ROOT}/.wal/checkpoint.json"))["redo"] == survivor.lsn:
                left += 1
            survivor.checkpoint()
            with noting(f"the victim died before call {call}: {posix.crashed}"):
                assert disk.listdir(f"{ROOT}/.wal/staged") == [running.txid], "a running transaction keeps its own"
        survivor.checkpoint()
        assert disk.listdir(f"{ROOT}/.wal/staged") == []
        survivor.close()
        if posix.crashed is None:
            break
    assert posix.crashed is None and left > 0, "it never died between its trim and its clearing"


def test_what_a_checkpoint_that_died_had_still_to_clear_is_cleared_by_the_next_opener() -> None:
    """Without a checkpoint of its own: it may run for long before it makes one."""
    left = 0
    for call in range(1, 100):
        disk = BENCH.disk()
        posix = DyingStorage(Crashing(1 << 40, "before"), disk)
        victim = open_tree(posix)
        victim.put("m/v9", BIG, name="big")
        posix.plan = Crashing(posix.count + call, "before")
        with suppress(Crash):
            victim.checkpoint()
        trimmed = json.loads(read(disk, f"{ROOT}/.wal/checkpoint.json"))["redo"]
        with open_tree(disk) as tree:
            head = tree.lsn
            if trimmed == head and posix.crashed is not None:
                left += "/.wal/staged/" in posix.crashed.path
                with noting(f"the victim died before call {call}: {posix.crashed}"):
                    assert disk.listdir(f"{ROOT}/.wal/staged") == []
            assert tree.exists("m/v9/big")
        if posix.crashed is None:
            break
    assert posix.crashed is None and left > 0, "it never died between its trim and its clearing"
