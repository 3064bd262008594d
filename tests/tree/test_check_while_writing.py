"""`check` beside a healthy program that never pauses: it ends, finds nothing that is not there, and finds what is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from metatree import Metatree
from metatree.findings import Report
from tests.tree.model import ROOT, MemoryPosix, empty_disk, open_tree, read, write
from wal.storage.files import ATTRIBUTE
from wal.testing import ALL_CALLS, Boundary, Call

T = TypeVar("T")

Step = Callable[[Metatree, int], object]
BIG_BLOB = bytes(range(256)) * 400  # is staged
BIG = {f"key-{n}": "x" * 100 for n in range(300)}  # a large metadata.json, which follows later
CHECKOUT = Path(__file__).resolve().parents[2]
_OLD = re.compile(rf"{re.escape(ROOT)}/b(/metadata\.json|/v(/.*)?|/now-and-then(/.*)?)?")
_STAGED = re.compile(rf"{re.escape(ROOT)}/\.wal/staged/.*")


class Beside(Boundary):
    """Lets a writer do one more thing right before each call for what is there from the beginning: if each new file
    made for another one, no check could end. Or before each call for other paths."""

    def __init__(self, disk: MemoryPosix, step: Callable[[], object], paths: re.Pattern[str] = _OLD) -> None:
        super().__init__(disk, counted=ALL_CALLS)
        self._step = step
        self._paths_of_steps = paths
        self._at_it = True
        self.steps = 0

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if not self._at_it and self._paths_of_steps.fullmatch(call.path):
            self._at_it = True
            self.steps += 1
            self._step()
            self._at_it = False
        return run()

    @contextmanager
    def working(self) -> Iterator[None]:
        self._at_it = False
        yield
        self._at_it = True


def add_a_child(tree: Metatree, n: int) -> None:
    tree.put(f"b/n{n}", b"x", name="f")


def change_a_key(tree: Metatree, n: int) -> None:
    tree.update("b", active=n)


def grow_a_blob(tree: Metatree, n: int) -> None:
    tree.put("b/v", b"x" * (n + 7), name="hot", force=True)


def replace_a_blob_by_one_of_its_size(tree: Metatree, n: int) -> None:
    tree.put("b/v", b"%07d" % n, name="hot", force=True)


def put_and_delete_a_blob(tree: Metatree, n: int) -> None:
    if n % 2:
        tree.put("b/v", b"x", name="now-and-then")
    elif tree.exists("b/v/now-and-then"):
        tree.delete("b/v/now-and-then")


def put_and_delete_a_node(tree: Metatree, n: int) -> None:
    if n % 3:
        tree.put("b/now-and-then", b"x" * n, name="f", force=True)
    elif tree.exists("b/now-and-then"):
        tree.delete("b/now-and-then", recursive=True)


def replace_a_node(tree: Metatree, n: int) -> None:
    with tree.transaction():
        tree.delete("b/v", recursive=True)
        tree.put("b/v", b"x" * n, name="f")


def put_and_delete_a_folder(tree: Metatree, n: int) -> None:
    if tree.exists("b/v/dir"):
        tree.delete("b/v/dir", recursive=True)
        return
    with tempfile.TemporaryDirectory(prefix="metatree-test-") as folder:
        Path(folder, "sub").mkdir()
        Path(folder, "sub", "f").write_bytes(b"x" * n)
        tree.put("b/v", folder, name="dir", recursive=True)


def take_from_what_is_old(tree: Metatree, n: int) -> None:
    """It was put before the last checkpoint: the history of the log says that it must be there, until this commit."""
    if n == 1:
        tree.checkpoint()
    for name in ("w", "hot"):
        if tree.exists(f"b/v/{name}"):
            tree.delete(f"b/v/{name}")
            return
    tree.put("b/v", b"weights", name="w")
    tree.checkpoint()


STEPS = [
    add_a_child,
    change_a_key,
    grow_a_blob,
    replace_a_blob_by_one_of_its_size,
    put_and_delete_a_blob,
    put_and_delete_a_node,
    replace_a_node,
    put_and_delete_a_folder,
    take_from_what_is_old,
]


def filled(disk: MemoryPosix, apply: str, *, large: bool = False) -> Metatree:
    tree = open_tree(disk, apply=apply)
    tree.put("b/v", b"weights", name="w")
    tree.put("b/v", b"weights", name="hot")
    if large:
        tree.update("b", **BIG)
    tree.flush()
    return tree


def checked(disk: MemoryPosix, step: Callable[[], object], *, deep: bool) -> Report:
    """What a reader finds while the writer makes a step before each of its calls."""
    beside = Beside(disk, step)
    with open_tree(beside, read_only=True) as reader:
        with beside.working():
            report = reader.check(deep=deep)
        assert beside.steps > 5, "nothing happened beside it"
    return report


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("trims", [False, True], ids=["", "trims"])
@pytest.mark.parametrize("deep", [False, True], ids=["", "deep"])
@pytest.mark.parametrize("apply", ["sync", "background"])
@pytest.mark.parametrize("step", STEPS)
def test_nothing_is_found_beside_a_healthy_writer(step: Step, apply: str, deep: bool, trims: bool, large: bool) -> None:
    disk = empty_disk()
    with filled(disk, apply, large=large) as writer:
        count = iter(range(1, 1 << 30))

        def act() -> None:
            n = next(count)
            step(writer, n)
            if apply == "background" and n % 2:
                writer.flush()
            if trims and n % 40 == 0:
                writer.checkpoint()

        report = checked(disk, act, deep=deep)
        assert report.ok and report.clean, str(report)


@pytest.mark.parametrize("apply", ["sync", "background"])
def test_a_check_ends_though_the_writer_trims_before_each_of_its_calls(apply: str) -> None:
    disk = empty_disk()
    with filled(disk, apply) as writer:
        count = iter(range(1 << 30))

        def act() -> None:
            grow_a_blob(writer, next(count))
            writer.checkpoint()

        report = checked(disk, act, deep=False)
    assert report.ok, str(report)


@pytest.mark.parametrize("apply", ["sync", "background"])
def test_a_node_that_went_back_is_found_beside_a_writer(apply: str) -> None:
    disk = empty_disk()
    file = f"{ROOT}/b/metadata.json"
    with filled(disk, apply) as writer:
        old, mark = read(disk, file), disk.getxattr(file, ATTRIBUTE)
        writer.update("b", active=1)
        writer.put("b/other", b"x", name="f")
        writer.flush()
        write(disk, file, old)
        disk.setxattr(file, ATTRIBUTE, mark)
        disk.unlink(f"{ROOT}/b/v/metadata.json")
        count = iter(range(1, 1 << 30))
        report = checked(disk, lambda: writer.put("b/v", b"x" * next(count), name="hot", force=True), deep=False)
        found = {(each.path, each.kind) for each in report.problems}
        assert found == {("b/metadata.json", "node-wrong"), ("b/v/metadata.json", "node-missing")}


def test_a_lost_and_a_cut_blob_are_found_beside_a_writer_in_their_node() -> None:
    disk = empty_disk()
    with filled(disk, "sync") as writer:
        disk.unlink(f"{ROOT}/b/v/w")
        write(disk, f"{ROOT}/b/v/hot", b"wei")
        count = iter(range(1, 1 << 30))
        report = checked(disk, lambda: writer.update("b/v", at=next(count)), deep=False)
        found = {(each.path, each.kind) for each in report.problems}
        assert found == {("b/v/w", "blob-missing"), ("b/v/hot", "blob-changed")}


@pytest.mark.parametrize("apply", ["sync", "background"])
def test_a_blob_that_was_lost_after_a_checkpoint_is_found_beside_a_writer_in_its_node(apply: str) -> None:
    disk = empty_disk()
    with filled(disk, apply) as writer:
        writer.checkpoint()
        disk.unlink(f"{ROOT}/b/v/w")
        count = iter(range(1, 1 << 30))
        report = checked(disk, lambda: grow_a_blob(writer, next(count)), deep=False)
        assert {(each.path, each.kind) for each in report.problems} == {("b/v/w", "blob-missing")}


@pytest.mark.parametrize("apply", ["sync", "background"])
def test_staged_content_that_a_checkpoint_clears_beside_every_look_is_not_missing(apply: str) -> None:
    disk = empty_disk()
    with filled(disk, apply) as writer:
        count = iter(range(1 << 30))

        def act() -> None:
            """What the look has seen in the log is cleared away, and the next look finds another of the same name."""
            writer.checkpoint()
            writer.put("b/v", BIG_BLOB + bytes([next(count)]), name="large", force=True)
            writer.flush()

        act()
        beside = Beside(disk, act, _STAGED)
        with open_tree(beside, read_only=True) as reader:
            with beside.working():
                report = reader.check()
            assert beside.steps >= 1, "nothing happened beside it"
            assert report.clean, str(report)


def test_staged_content_that_is_missing_is_found_though_a_checkpoint_runs_beside_the_look() -> None:
    disk = empty_disk()
    with filled(disk, "sync") as writer:
        writer.put("b/v", BIG_BLOB, name="large")
        (staged,) = disk.listdir(f"{ROOT}/.wal/staged")
        for name in disk.listdir(f"{ROOT}/.wal/staged/{staged}"):
            disk.unlink(f"{ROOT}/.wal/staged/{staged}/{name}")
        beside = Beside(disk, lambda: writer.put("b/v", BIG_BLOB, name="other", force=True), _STAGED)
        with open_tree(beside, read_only=True) as reader:
            with beside.working():
                report = reader.check()
            assert beside.steps >= 1, "nothing happened beside it"
            assert [(each.path, each.kind) for each in report.problems] == [("b/v/large", "content-missing")]


def test_a_check_from_a_handle_finds_nothing_beside_another_writer() -> None:
    disk = empty_disk()
    with filled(disk, "background") as writer:
        count = iter(range(1, 1 << 30))
        beside = Beside(disk, lambda: add_a_child(writer, next(count)))
        with open_tree(beside) as tree:
            with beside.working():
                report = tree.check(deep=True)
            assert beside.steps > 5 and report.clean, str(report)


WRITER = """
import sys
from metatree import Metatree
tree = Metatree(sys.argv[1], ("m", "v"), apply=sys.argv[2])
n = 0
while True:
    tree.put(f"b/n{n}", b"x", name="f")
    tree.put("b/hot", b"y" * (n % 7 + 1), name="h", force=True)
    if n % 3 == 0 and n > 3:
        tree.delete(f"b/n{n - 2}", recursive=True)
    n += 1
    if n == 20:
        print("ready", flush=True)
"""


@pytest.mark.parametrize("apply", ["sync", "background"])
def test_nothing_is_found_beside_another_process_that_never_pauses(apply: str, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-W", "error", "-c", WRITER, str(root), apply]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        beside = {False: 0, True: 0}  # deep or not: checks beside which something was committed
        while min(beside.values()) < 3:
            assert writer.poll() is None
            for deep in beside:
                with Metatree(root, read_only=True) as tree:
                    before = tree._engine.log.head(fresh=True)
                    report = tree.check(deep=deep)
                    beside[deep] += tree._engine.log.head(fresh=True) > before
                assert report.clean, str(report)
    finally:
        writer.kill()
        writer.communicate()
