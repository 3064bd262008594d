"""Nodes whose metadata.json is large: logged as changes, flushed before its rename, and allowed to follow later."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metatree import CorruptionError, Metatree
from metatree.apply import apply
from metatree.engine import Engine
from metatree.facts import KeysFact
from metatree.fold import fold
from tests.tree.model import LEVELS, ROOT, clone, dump, empty_disk, open_tree, plain, read
from wal import Batch, LocalStorage, open_log
from wal.storage.memory import MemoryPosix, MemoryStorage
from wal.testing import Boundary, Crashing, CrashStorage, Recorder

MANY = 20_000
RECORD = 4 << 10  # bytes of log that one put may cost, whatever the size of its parent
FILLER = "f" * 20_000  # a value that makes a node large


@pytest.fixture(scope="module")
def many() -> MemoryPosix:
    """A disk with a tree whose node `m` has 20,000 children."""
    disk = empty_disk()
    with open_tree(disk) as tree, tree.transaction("many"):
        for number in range(MANY):
            tree.put(f"m/v{number}", b"", name="b")
    return disk


def names(path: Path | str, posix: MemoryPosix | None = None) -> list[str]:
    """The children as they stand in the file."""
    data = read(posix, f"{ROOT}/{path}/metadata.json") if posix else Path(path, "metadata.json").read_bytes()
    return list(json.loads(data).get("children", []))


def last_batch(posix: MemoryPosix) -> Batch:
    log = open_log(MemoryStorage(posix), read_only=True)
    try:
        *_, last = log.read(log.head() - 1)
        return last
    finally:
        log.close()


def wait_until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.005)


def test_a_put_below_a_huge_node_logs_one_childs_name(many: MemoryPosix) -> None:
    """E7 a: neither the whole node nor an image of it is logged, however many children it has."""
    disk = clone(many)
    tree = open_tree(disk)
    for what in (
        lambda: tree.put("m/new", b"content", name="b"),
        lambda: tree.update("m", active="new"),
        lambda: tree.unset("m", "active"),
        lambda: tree.delete("m/v7", recursive=True),
        lambda: tree.move("m/v8", "m/moved"),
    ):
        what()
        (record,) = last_batch(disk).records
        assert record.body is not None
        assert len(record.header) + len(record.body) < RECORD
    tree.flush()
    expected = [f"v{n}" for n in range(MANY) if n not in (7, 8)]
    assert tree.children("m") == names("m", disk)
    assert tree.children("m") == [*expected[:7], *expected[7:], "new", "moved"]
    tree.close()
    with open_tree(disk) as again:
        assert again.children("m") == [*expected, "new", "moved"]


def test_small_files_are_in_place_at_return_and_the_large_one_follows(many: MemoryPosix) -> None:
    """`apply="sync"`: everything but the large metadata.json is there; readers of the library see all of it."""
    disk = clone(many)
    tree = open_tree(disk)
    tree.put("m/new", b"content", name="b")
    assert "new" in disk.listdir(f"{ROOT}/m")
    assert set(disk.listdir(f"{ROOT}/m/new")) == {"metadata.json", "b"}
    assert tree.children("m")[-1] == "new"
    with open_tree(disk, read_only=True) as reader:
        assert reader.children("m")[-1] == "new"
    wait_until(lambda: tree.unapplied == 0)
    assert names("m", disk)[-1] == "new"
    tree.close()


def test_a_large_file_is_flushed_before_it_takes_its_name(many: MemoryPosix) -> None:
    """The log holds only its changes: an empty file after a power cut could not be made up from them."""
    disk = clone(many)
    recorder = Recorder(disk)
    tree = open_tree(recorder)
    tree.put("m/new", b"content", name="b")
    tree.flush()
    tree.close()
    calls = recorder.calls
    renames = [i for i, call in enumerate(calls) if call.method == "rename" and call.path == f"{ROOT}/m/metadata.json"]
    assert renames
    for index in renames:
        source = calls[index].arguments[0]
        assert any(call.method == "fdatasync" and call.path == source for call in calls[:index])


# --- E7: deferral against marks, and kills in between ---------------------------------------------------------------


@pytest.fixture
def large(fast_path: Path) -> str:
    """A tree on the real disk: `m` is larger than 16 KiB and has a few children."""
    root = str(fast_path / "tree")
    with Metatree(root, LEVELS) as tree:
        for number in range(5):
            tree.put(f"m/v{number}", b"content", name="b")
        tree.update("m", filler=FILLER)
    return root


def die_in(root: str, work: Callable[[Metatree], object], call: int) -> bool:
    """Do `work` in a child process that is really killed before its `call`-th changing call; False if it finished."""
    child = os.fork()
    if child == 0:
        try:
            warnings.simplefilter("ignore")
            posix = CrashStorage(Crashing(1 << 40, "before", "kill"))
            tree = Metatree(LocalStorage(root, posix))
            posix.plan = Crashing(posix.count + call, "before", "kill")
            work(tree)
            tree.close()
            os._exit(0)
        except BaseException:  # noqa: BLE001  a child never returns into the test of its parent
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed"
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


WORK: dict[str, Callable[[Metatree], object]] = {
    "put": lambda tree: tree.put("m/new", b"content", name="b"),
    "update": lambda tree: tree.update("m", active="v1"),
    "delete of a child": lambda tree: tree.delete("m/v3", recursive=True),
    "delete and put": lambda tree: (tree.delete("m/v3", recursive=True), tree.put("m/v3", b"again", name="b")),
    "shrink and grow": lambda tree: (tree.update("m", filler="s"), tree.update("m", filler=FILLER + "g", n=1)),
}


@pytest.mark.parametrize("name", WORK)
def test_a_kill_between_the_small_files_and_the_large_one_loses_neither(name: str, large: str, fast_path: Path) -> None:
    """E7 b: the mark never says that a file shows what was put off. Killed at every call, real processes."""

    def state(root: str) -> object:
        with Metatree(root) as tree:
            found = dump(tree)
            assert tree.check(deep=True).ok
            return found

    reference = str(fast_path / "reference")
    shutil.copytree(large, reference)
    states = []

    def note(tree: Metatree) -> object:
        states.append(dump(tree))
        return tree

    with Metatree(reference) as tree:
        note(tree)
        for step in _steps(name):
            step(tree)
            note(tree)
    call = 0
    while True:
        call += 1
        root = str(fast_path / f"copy{call}")
        shutil.copytree(large, root)
        killed = die_in(root, WORK[name], call)
        found = state(root)
        assert found in (states if killed else states[-1:]), f"killed before call {call}"
        shutil.rmtree(root)
        if not killed:
            break
    assert call > 10


def _steps(name: str) -> Iterator[Callable[[Metatree], object]]:
    if name == "delete and put":
        yield lambda tree: tree.delete("m/v3", recursive=True)
        yield lambda tree: tree.put("m/v3", b"again", name="b")
    elif name == "shrink and grow":
        yield lambda tree: tree.update("m", filler="s")
        yield lambda tree: tree.update("m", filler=FILLER + "g", n=1)
    else:
        yield WORK[name]


def test_what_a_large_parent_still_lists_is_still_there(many: MemoryPosix) -> None:
    """E7 c: a removal below a node whose file is put off waits for that file."""
    disk = clone(many)
    seen: list[bool] = []

    class Onlooker(Boundary):
        def rename(self, source: str, target: str) -> None:
            super().rename(source, target)
            listed, there = "v9" in names("m", disk), "v9" in disk.listdir(f"{ROOT}/m")
            assert there or not listed, "m lists a child whose folder is gone"
            seen.append(there)

    tree = open_tree(Onlooker(disk))
    tree.put("m/new", b"1", name="b")
    tree.delete("m/v9", recursive=True)
    tree.flush()
    assert seen[0] and not seen[-1]
    tree.close()


def test_another_process_reads_a_large_node_whose_file_is_behind(many: MemoryPosix) -> None:
    """The reader overlays from the mark that holds for everything, not from the one for small files."""
    disk = clone(many)
    first = Engine(MemoryStorage(disk), LEVELS, read_only=False, apply="sync")
    tree = open_tree(disk)
    with first.log.right():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            writer = Engine(MemoryStorage(disk), LEVELS, read_only=False, apply="sync", lock_timeout=0.01)
            writer.change(lambda draft: draft.update(("m",), {"late": True}))
        assert "late" not in plain_keys(disk)
        assert tree.find("m").metadata["late"] is True
        with open_tree(disk, read_only=True) as reader:
            assert reader.find("m").metadata["late"] is True
    for closing in (writer, first):
        closing.close()
    tree.close()
    assert plain_keys(disk)["late"] is True


def plain_keys(disk: MemoryPosix) -> dict[str, object]:
    return dict(json.loads(read(disk, f"{ROOT}/m/metadata.json")))


def test_a_node_that_shrinks_and_grows_in_one_window_is_flushed_when_it_must_be() -> None:
    """From large to small to large: which rule holds is decided by the log, not by the size of what is written."""
    disk = empty_disk()
    tree = open_tree(disk)
    tree.put("m/v1", b"1", name="b")
    tree.update("m", filler=FILLER)
    tree.checkpoint()
    for round_ in range(3):
        tree.update("m", filler="small", n=round_)
        tree.put(f"m/s{round_}", b"s", name="b")
        tree.update("m", filler=FILLER + str(round_), n=round_)
        tree.put(f"m/l{round_}", b"l", name="b")
    expected = dump(tree)
    with open_tree(clone(disk)) as survivor:
        assert dump(survivor) == expected
        assert survivor.check(deep=True).ok
    tree.flush()
    assert plain(disk) == expected
    assert expected["m"][1] == ("v1", "s0", "l0", "s1", "l1", "s2", "l2")
    tree.close()
    with open_tree(disk) as again:
        assert dump(again) == expected
        assert again.check(deep=True).ok


def test_the_order_of_children_survives_the_way_from_small_to_large() -> None:
    disk = empty_disk()
    expected: list[str] = []
    with open_tree(disk) as tree:
        for number in range(30):
            name = f"child-{number:03d}-" + "n" * 180
            tree.put(f"{name}", b"", name="b")
            tree.put(f"m/{name}", b"", name="b")
            expected.append(name)
            if number % 7 == 3:
                gone = expected.pop(number // 2)
                tree.delete(f"m/{gone}", recursive=True)
                tree.put(f"m/{gone}", b"again", name="b")
                expected.append(gone)
        tree.update("m", filler=FILLER)
        tree.move(f"m/{expected[0]}", "m/last")
        expected = [*expected[1:], "last"]
        assert tree.children("m") == expected
        with open_tree(clone(disk)) as survivor:
            assert survivor.children("m") == expected
            assert survivor.check(deep=True).ok
    assert names("m", disk) == expected


def test_changes_of_a_node_whose_folder_is_missing_make_none_of_themselves_alone() -> None:
    disk = empty_disk()
    outcome = apply(MemoryStorage(disk), fold([KeysFact(("m",), {"n": 1}, ())]), 0, 1)
    assert isinstance(outcome.failed["m"], CorruptionError)
    assert "m" not in disk.listdir(ROOT)
