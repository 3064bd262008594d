"""A program's own handlers, as `sys.exit` for SIGTERM or one that raises TimeoutError for SIGALRM: what they raise
comes out as it is, wherever the signal arrives, and the handle, its other threads and other handles go on."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, TypeVar

import pytest

import wal
from metatree import ClosedError, Metatree, MetatreeError
from tests.tree.conftest import LEVELS, assert_clean
from tests.tree.storages import Elsewhere
from tests.tree.test_interrupts import LineTracer, put_inline, with_a_checkpoint
from wal.testing.boundary import Boundary, Call

T = TypeVar("T")
SEED = random.randrange(2**32)
POINTS = 40  # lines of an operation, about evenly spread


class Swift(Metatree):
    """So that a lock that was left behind is an error soon, and not a hanging test."""

    _tuning: ClassVar[dict[str, Any]] = {"lock_timeout": 5.0}


class Raising:
    """A handler; keeps what it raised."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind
        self.raised: BaseException | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.raised = self.kind("of the handler")
        raise self.raised


@contextmanager
def installed(number: int, handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


class AtLine(LineTracer):
    def arrive(self) -> None:
        signal.raise_signal(signal.SIGALRM)


def updated(tree: Metatree, number: int) -> None:
    tree.update("m", **{f"v{number}": number})


def in_a_transaction(tree: Metatree, number: int) -> None:
    with tree.transaction():
        tree.update("m", newest=number)
        tree.update("m/v0", newest=number)


def local(root: str) -> Metatree:
    return Swift(root, LEVELS)


def mount(root: str) -> Metatree:
    return Swift(wal.LocalStorage(root, posix=Elsewhere()), LEVELS)


def in_a_thread(function: Callable[[], object]) -> None:
    """Run it in another thread; raises what it raises, and if it hangs."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001  raised below
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it hangs"
    if failed:
        raise failed[0]


@pytest.mark.parametrize("kind", [TimeoutError, SystemExit])
@pytest.mark.parametrize("operation", [updated, put_inline, in_a_transaction, with_a_checkpoint])
@pytest.mark.parametrize("opened", [local, mount])
def test_what_a_handler_raises_at_any_line_of_a_commit_comes_out_and_everybody_goes_on(
    opened: Callable[[str], Metatree],
    operation: Callable[[Metatree, int], None],
    kind: type[BaseException],
    fast_path: Path,
) -> None:
    root = str(fast_path / "tree")
    wal.LocalStorage.make_root(root)
    print(f"seed {SEED}")
    handler = Raising(kind)
    with installed(signal.SIGALRM, handler), opened(root) as tree, opened(root) as other:
        tree.put("m/v0", b"x", name="b")
        operation(tree, 1)
        with AtLine() as counting:
            operation(tree, 2)
        step = counting.lines / POINTS
        offset = random.Random(SEED).random() * step
        for number in range(POINTS):
            tracer = AtLine(int(offset + number * step) + 1)
            handler.raised = caught = None
            try:
                with tracer:
                    operation(tree, number + 3)
            except BaseException as error:  # noqa: BLE001  compared below
                caught = error
            finally:
                sys.settrace(None)
            assert caught is handler.raised, tracer.where
            assert signal.getsignal(signal.SIGALRM) is handler, tracer.where
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, tracer.where
            in_a_thread(lambda number=number: tree.update("m", by_thread=number))  # type: ignore[misc]
            other.update("m", by_other=number)
            tree.update("m", by_this=number)
            assert other.find("m").metadata["by_thread"] == number
        assert tree.check(deep=True).ok
    assert_clean(root)


# --- at one call ----------------------------------------------------------------------------------------------------


class Arriving(Boundary):
    """A signal arrives right after the next call of a method."""

    def __init__(self, number: int = signal.SIGALRM) -> None:
        super().__init__(counted=frozenset({"open", "pread", "fdatasync"}))
        self.number = number
        self.at: Callable[[str, Sequence[object]], bool] | None = None

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        done = run()
        if self.at is not None and self.at(call.method, call.arguments):
            self.at = None
            signal.raise_signal(self.number)
        return done


def test_sys_exit_during_the_flush_ends_the_program_with_the_commit_done(fast_path: Path) -> None:
    root = str(fast_path / "tree")
    posix = Arriving(signal.SIGTERM)
    wal.LocalStorage.make_root(root)
    with Metatree(wal.LocalStorage(root, posix=posix), LEVELS) as tree:
        tree.put("m/v", b"x", name="b")
        posix.at = lambda method, _: method == "fdatasync"
        with installed(signal.SIGTERM, lambda *_: sys.exit(7)), pytest.raises(SystemExit) as caught:
            tree.update("m", n=1)
        assert caught.value.code == 7
        assert any("committed at LSN 2" in note for note in caught.value.__notes__)
        tree.update("m", k=2)
        assert dict(tree.find("m").metadata) == {"n": 1, "k": 2}


def test_a_time_out_during_the_flush_of_an_adoption_leaves_what_was_adopted(fast_path: Path) -> None:
    root = str(fast_path / "tree")
    posix, handler = Arriving(), Raising(TimeoutError)
    wal.LocalStorage.make_root(root)
    with Metatree(wal.LocalStorage(root, posix=posix), LEVELS) as tree:
        tree.put("m/v", b"x", name="b")
        tree.checkpoint()
        Path(root, "m/v/new").write_bytes(b"by hand" * 20_000)
        posix.at = lambda method, _: method == "fdatasync" and bool(tree._engine.log._group._queue)  # type: ignore[attr-defined]
        with installed(signal.SIGALRM, handler), pytest.raises(TimeoutError) as caught:
            tree.repair(edits="adopt", deep=True)
        assert caught.value is handler.raised and "committed at LSN 2" in str(caught.value.__notes__)
        assert b"".join(tree.get("m/v/new")) == b"by hand" * 20_000
        assert tree.check(deep=True).clean


def test_a_time_out_is_not_taken_for_an_error_of_a_warm_look(fast_path: Path) -> None:
    root = str(fast_path / "tree")
    posix, handler = Arriving(), Raising(TimeoutError)
    wal.LocalStorage.make_root(root)
    with Metatree(wal.LocalStorage(root, posix=posix), LEVELS) as tree:
        tree.put("m/v", b"x", name="b")
        tree.find("m")
        posix.at = lambda method, _: method == "pread"
        with installed(signal.SIGALRM, handler), pytest.raises(TimeoutError) as caught:
            tree.find("m")
        assert caught.value is handler.raised


def test_a_time_out_of_the_leader_is_its_own_and_not_that_of_those_behind_it(fast_path: Path) -> None:
    root = str(fast_path / "tree")
    handler = Raising(TimeoutError)
    followed: list[BaseException | None] = []
    with Metatree(root, LEVELS) as tree, Metatree(root) as other:
        tree.put("m/v", b"x", name="b")
        queue = tree._engine.log._group._queue  # type: ignore[attr-defined]

        def follow() -> None:
            try:
                while not queue:  # until this thread leads
                    time.sleep(0.001)
                tree.update("m", by="a follower")
                followed.append(None)
            except BaseException as error:  # noqa: BLE001  looked at below
                followed.append(error)

        def free() -> None:
            while len(queue) < 2:
                time.sleep(0.001)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
            while len(queue) > 1:
                time.sleep(0.001)
            release.set()

        def hold() -> None:
            with other._engine.log.append_right:  # type: ignore[attr-defined]
                held.set()
                release.wait(20)

        held, release = threading.Event(), threading.Event()
        threads = [threading.Thread(target=run, daemon=True) for run in (hold, follow, free)]
        with installed(signal.SIGALRM, handler):
            for thread in threads:
                thread.start()
            held.wait()
            with pytest.raises(TimeoutError) as caught:
                tree.update("m", by="the leader")
        assert caught.value is handler.raised
        for thread in threads:
            thread.join(20)
        assert followed == [None]
        assert tree.find("m").metadata["by"] == "a follower"


# --- a handler that uses the tree -----------------------------------------------------------------------------------


class Small(Metatree):
    _tuning: ClassVar[dict[str, Any]] = {"segment_size": 4096}


READS: dict[str, Callable[[str, Sequence[object]], bool]] = {
    "right after the opening of a segment": lambda method, arguments: (
        method.startswith("open") and str(arguments[0]).endswith(".log")
    ),
    "right after a read of the log": lambda method, arguments: method == "pread" and int(str(arguments[1])) > 4000,
}


@pytest.mark.parametrize("at", READS)
def test_a_handler_that_reads_in_the_middle_of_a_read_is_refused_and_disturbs_nothing(at: str, fast_path: Path) -> None:
    root = str(fast_path / "tree")
    posix = Arriving()
    wal.LocalStorage.make_root(root)
    refused: list[RuntimeError] = []

    def reads(number: int, frame: FrameType | None) -> None:
        try:
            reader.find("m/v").list()
        except RuntimeError as error:
            refused.append(error)

    with Small(root, LEVELS) as writer, Small(wal.LocalStorage(root, posix=posix)) as reader:
        writer.put("m/v", b"x", name="b")
        assert not reader.find("m").metadata
        for number in range(40):
            writer.update("m", n=number, text="x" * 300)
        posix.at = READS[at]
        with installed(signal.SIGALRM, reads):
            assert reader.find("m").metadata["n"] == 39
        assert posix.at is None
        assert "signal handler" in str(refused[0])
        reader.update("m", last=True)
        assert writer.find("m").metadata["last"]
        assert reader.check(deep=True).ok


WHILE_WAITING: dict[str, Callable[[Metatree, Metatree], object]] = {
    "read": lambda tree, _: tree.find("m").metadata["n"],
    "update": lambda tree, _: tree.update("m", n=2),
    "update by another handle": lambda _, other: other.update("m", n=2),
    "checkpoint": lambda tree, _: tree.checkpoint(),
    "open": lambda tree, _: Metatree(tree.root).close(),
    "close": lambda tree, _: tree.close(),
    "close another handle": lambda _, other: other.close(),
}


@pytest.mark.filterwarnings("ignore::metatree.ApplyPendingWarning")  # of the thread whose tree is closed
@pytest.mark.parametrize("what", WHILE_WAITING)
def test_what_a_handler_does_while_its_thread_waits_is_done_or_refused_and_never_hangs(
    what: str, fast_path: Path
) -> None:
    """The main thread waits for another one, which leads and flushes."""
    root = str(fast_path / "tree")
    wal.LocalStorage.make_root(root)
    flushing, go_on = threading.Event(), threading.Event()

    class Slow(Boundary):
        def fdatasync(self, fd: int) -> None:
            if threading.current_thread() is leader:
                flushing.set()
                go_on.wait(20)
            super().fdatasync(fd)

    def handler(number: int, frame: FrameType | None) -> None:
        threading.Timer(0.2, go_on.set).start()
        try:
            answers.append(WHILE_WAITING[what](tree, other))
        except (RuntimeError, MetatreeError) as error:
            answers.append(error)

    answers: list[object] = []
    leader = threading.Thread(target=lambda: tree.update("m", by="the leader"), daemon=True)
    with Swift(wal.LocalStorage(root, posix=Slow()), LEVELS) as tree, Metatree(root) as other:
        tree.put("m/v", b"x", name="b")
        tree.update("m", n=1)
        leader.start()
        flushing.wait()
        with installed(signal.SIGALRM, handler):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            own = ended(lambda: tree.update("m", own=1))
        leader.join()
    print(answers, own)
    assert len(answers) == 1
    with Metatree(root) as tree:
        found = dict(tree.find("m").metadata)
        assert found.pop("by") == "the leader"
        assert found.pop("n") == (2 if what.startswith("update") and answers == [None] else 1)
        assert found == ({} if own else {"own": 1}), own
    assert_clean(root)


def ended(change: Callable[[], object]) -> ClosedError | None:
    """Whether it was made (None), or refused since the tree was closed."""
    try:
        change()
    except ClosedError as error:
        return error
    return None
