"""Ctrl-C at any line: the commit is there or not, and said; the same handle goes on; nobody else waits."""

from __future__ import annotations

import gc
import linecache
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import wal
from metatree import Metatree, Transaction
from metatree.engine import Engine
from tests.tree.conftest import LEVELS, assert_clean
from wal.testing import Boundary

SEED = random.randrange(2**32)
POINTS = 60  # an operation; each is one line of the two packages at which SIGINT arrives
PACKAGES = (str(Path(wal.__file__).parent), str(Path(sys.modules["metatree"].__file__ or "").parent))


_FIRST = 4  # bytes: the first instructions of a function, which make its frame ready


def _cannot_be(frame: FrameType) -> bool:
    """What cannot be helped, see decision 14; and where tracing stops but no signal is looked for: on the way from a
    `with` block's last line to its `__exit__`, on the line of the `with` again, and from the last call of a question to
    the `finally` that says so."""
    if frame.f_code is Transaction.__exit__.__code__:
        return frame.f_lasti <= _FIRST
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    if not line.startswith("with "):
        return line == "self._reads = None"
    return frame.f_lasti > min(start for start, _, line in frame.f_code.co_lines() if line == frame.f_lineno)


class LineTracer:
    """SIGINT arrives when the `at`-th line of the packages is about to run; counts the lines if `at` is 0."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.lines = 0
        self.where = ""

    def __enter__(self) -> LineTracer:
        sys.settrace(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGES):
            return None
        if event == "line":
            if _cannot_be(frame):
                return self
            self.lines += 1
            if self.lines == self.at:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                self.arrive()
        return self

    def arrive(self) -> None:
        signal.raise_signal(signal.SIGINT)


def put_inline(tree: Metatree, number: int) -> None:
    tree.put(f"m/v{number}", b"x", name="b")


def put_staged(tree: Metatree, number: int) -> None:
    tree.put(f"m/v{number}", b"x" * 100_000, name="b")


def in_a_transaction(tree: Metatree, number: int) -> None:
    with tree.transaction():
        tree.put(f"m/v{number}", b"x", name="b")
        tree.update("m", newest=number)


def moved(tree: Metatree, number: int) -> None:
    tree.copy("m/v0", f"m/v{number}")


def with_a_checkpoint(tree: Metatree, number: int) -> None:
    tree.put(f"m/v{number}", b"x", name="b")
    tree.checkpoint()


OPERATIONS = [put_inline, put_staged, in_a_transaction, moved, with_a_checkpoint]


# an interrupt between `tree.transaction()` and the `with` that enters it: the warning is right, if not needed
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_an_interrupt_at_any_line_leaves_everything_in_order(
    fast_path: Path, operation: Callable[[Metatree, int], None]
) -> None:
    root = str(fast_path / "tree")
    print(f"seed {SEED}")
    chooser = random.Random(SEED)
    with Metatree(root, LEVELS) as tree, Metatree(root) as other:
        _impatient(tree._engine), _impatient(other._engine)
        tree.put("m/v0", b"x" * 70_000, name="b")
        with LineTracer() as counting:
            operation(tree, 1)
        interrupted = 0
        for number in range(2, POINTS + 2):
            tracer = LineTracer(chooser.randint(1, counting.lines))
            notes: list[str] = []
            returned = False
            try:
                with tracer:
                    operation(tree, number)
                    returned = True
            except KeyboardInterrupt as interrupt:
                interrupted += 1
                notes = getattr(interrupt, "__notes__", [])
            finally:
                sys.settrace(None)
            there = other.exists(f"m/v{number}")
            assert there or not returned, f"returned but absent, {tracer.where}"
            assert there or not any("committed" in note or "durable" in note for note in notes), tracer.where
            other.update("m", by_other=number)
            tree.update("m", by_this=number)
            assert tree.find("m").metadata["by_other"] == number, tracer.where
        assert interrupted > POINTS // 6
        assert tree.check(deep=True).ok
    assert_clean(root)


def opened_and_closed(tree: Metatree, number: int) -> None:
    with Metatree(tree.root):
        pass


def read_only(tree: Metatree, number: int) -> None:
    with Metatree(tree.root, read_only=True) as reader:
        reader.find("m/v0")


def got(tree: Metatree, number: int) -> None:
    list(tree.get("m/v0/b"))
    tree.open("m/v0/b").close()


def downloaded(tree: Metatree, number: int) -> None:
    list(tree.get("m/v0/b", f"{tree.root}.{number}"))


@pytest.mark.filterwarnings("ignore:.*finalize object")  # of a dropped tree: Python only reports what is raised there
@pytest.mark.parametrize(
    "operation",
    [opened_and_closed, read_only, got, downloaded, put_staged, moved, with_a_checkpoint],
    ids=lambda operation: operation.__name__,
)
def test_an_interrupt_at_any_line_leaves_no_descriptor_no_lock_and_no_half_download(
    fast_path: Path, operation: Callable[[Metatree, int], None]
) -> None:
    root = str(fast_path / "tree")
    print(f"seed {SEED}")
    chooser = random.Random(SEED)
    with Metatree(root, LEVELS) as tree:
        tree.put("m/v0", b"x" * 70_000, name="b")
        with LineTracer() as counting:
            operation(tree, 1)
        interrupted = 0
        before = descriptors(root)
        for number in range(2, POINTS + 2):
            tracer = LineTracer(chooser.randint(1, counting.lines))
            try:
                with tracer:
                    operation(tree, number)
            except KeyboardInterrupt:
                interrupted += 1
            finally:
                sys.settrace(None)
            gc.collect()
            assert descriptors(root) == before, tracer.where
            assert not [name for name in os.listdir(fast_path) if name.startswith(".metatree-")], tracer.where
        assert interrupted > POINTS // 6
    with Metatree(root) as alone:
        assert alone._engine.recovered is not None, "whoever opens now is the first: nobody else's lock is left"
    assert_clean(root)


def descriptors(root: str) -> list[str]:
    """What this process has open below a root."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}").partition(" ")[0])
        except OSError:
            continue
    return sorted(path for path in found if path.startswith(root) and not path.endswith(".log"))


def _impatient(engine: Engine) -> None:
    """So that a lock that was left behind is an error soon, and not a hanging test."""
    for right in (engine.log.append_right, engine.log._apply_right):  # type: ignore[attr-defined]
        right._timeout = 5.0


class Busy(Boundary):
    """Somebody else commits whenever a blob is opened for reading."""

    commit: Callable[[], None] | None = None

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        if self.commit is not None and path.endswith(".bin"):
            commit, self.commit = self.commit, None
            commit()
            self.commit = commit
        return super().open(path, flags, mode)


@pytest.mark.parametrize("verb", ["copy", "move"])
def test_a_copy_goes_on_while_others_commit_elsewhere_all_the_time(fast_path: Path, verb: str) -> None:
    root = str(fast_path / "tree")
    with Metatree(root, LEVELS) as other:
        for number in range(20):
            other.put("m/v", b"%02d" % number * 40_000, name=f"{number}.bin")
        other.checkpoint()
        posix = Busy(wal.Posix())
        with Metatree(wal.LocalStorage(root, posix=posix)) as tree:
            posix.commit = lambda: other.update("elsewhere", n=other.lsn) if other.exists("elsewhere") else _make(other)
            with tree.transaction() as txn:
                getattr(tree, verb)("m/v", "m/w")
                posix.commit = None
                staged = list(Path(root, ".wal", "staged", txn.txid).iterdir())
            assert len(staged) == 20, "each blob is staged once"
            assert tree.list("m/w") == sorted(f"{number}.bin" for number in range(20))
    assert_clean(root)


def _make(tree: Metatree) -> None:
    tree.put("elsewhere", b"", name="b")


def test_a_question_is_asked_again_only_if_what_it_read_was_touched(fast_path: Path) -> None:
    root = str(fast_path / "tree")
    with Metatree(root, LEVELS) as other:
        other.put("m/v", b"1", name="1.bin")
        other.put("elsewhere", b"", name="b")
        posix = Busy(wal.Posix())
        with Metatree(wal.LocalStorage(root, posix=posix)) as tree:
            opened: list[int] = []

            def elsewhere() -> None:
                opened.append(1)
                other.update("elsewhere", n=len(opened))

            posix.commit = elsewhere
            assert b"".join(tree.get("m/v/1.bin")) == b"1"
            assert len(opened) == 1

            def same() -> None:
                opened.append(1)
                if len(opened) < 4:
                    other.put("m/v", b"%d" % len(opened), name="1.bin", force=True)

            posix.commit = same
            assert b"".join(tree.get("m/v/1.bin")) == b"3"
            posix.commit = None
