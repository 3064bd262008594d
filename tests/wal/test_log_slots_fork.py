"""A process that forks while it has a log of slots open: the child is another host."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from wal import LocalStorage, LockBusyError, Posix, open_log
from wal.interrupts import DeferredInterrupt, safe_point
from wal.testing.log_tools import add, bodies


def in_a_child(work: Callable[[], None]) -> None:
    """Run `work` in a forked child. Raises AssertionError if it raised there."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  the parent learns of it by the status
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_child_appends_by_itself_and_the_parents_right_stays_with_the_parent(tmp_path: Path) -> None:
    log = open_log(LocalStorage(tmp_path), create=True, kind="slots")
    add(log, b"parent 1")

    def work() -> None:
        log.reset_after_fork()
        assert add(log, b"child").lsn == 2
        with pytest.raises(LockBusyError), log.right(timeout=0):
            pytest.fail("two holders")
        log.close()

    with log.right() as tenure:
        log.store_mark(0, 1)
        in_a_child(work)
        tenure.storage.publish("x", b"parent", b"", durable=True)
    assert add(log, b"parent 2").lsn == 3
    assert bodies(log) == [b"parent 1", b"child", b"parent 2"]
    log.close()


def test_a_child_forked_while_a_thread_of_the_parent_appends_hangs_on_nothing(tmp_path: Path) -> None:
    log = open_log(LocalStorage(tmp_path), create=True, kind="slots")
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        def prepare(head: int, mates: object) -> None:
            inside.set()
            go_on.wait(60)

        log.append(prepare)

    thread = threading.Thread(target=slow)
    thread.start()
    assert inside.wait(60)

    def work() -> None:
        log.reset_after_fork()
        assert add(log, b"child").lsn == 1
        with log.right(timeout=0):
            log.store_mark(0, 1)
        log.close()

    in_a_child(work)
    go_on.set()
    thread.join()
    assert log.head() == 1
    assert add(log, b"parent").lsn == 2
    with log.right(timeout=0) as tenure:
        assert tenure.died is False
        assert log.load_mark(0) == 1
    log.close()


class Meanwhile(Posix):
    """Something happens before the next file is opened."""

    def __init__(self) -> None:
        self.before: Callable[[], None] | None = None

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        before, self.before = self.before, None
        if before is not None:
            before()
        return super().open(path, flags, mode)


def test_of_two_threads_of_a_child_that_reset_the_log_one_does(tmp_path: Path) -> None:
    posix = Meanwhile()
    log = open_log(LocalStorage(tmp_path, posix), create=True, kind="slots")
    add(log, b"parent")

    def work() -> None:
        signal.alarm(60)
        rights: list[object] = []

        def use() -> None:
            log.reset_after_fork()
            rights.append(log._right)  # type: ignore[attr-defined]
            with log.right(timeout=5) as tenure:
                add(log, b"child")
                tenure.check()

        first, second = threading.Thread(target=use), threading.Thread(target=use)

        def meanwhile() -> None:
            second.start()
            second.join(0.2)  # it waits, or it would attach the log as well

        posix.before = meanwhile
        first.start()
        first.join()
        second.join()
        assert len(rights) == 2 and rights[0] is rights[1]
        log.close()

    in_a_child(work)
    assert bodies(log) == [b"parent", b"child", b"child"]
    log.close()


def test_a_reset_that_fails_in_a_child_is_tried_again_by_the_next(tmp_path: Path) -> None:
    posix = Meanwhile()
    log = open_log(LocalStorage(tmp_path, posix), create=True, kind="slots")
    add(log, b"parent")

    def fail() -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    def work() -> None:
        posix.before = fail
        with pytest.raises(OSError, match="No locks available"):
            log.reset_after_fork()
        log.reset_after_fork()
        with log.right(timeout=5):
            assert add(log, b"child").lsn == 2
        log.close()

    in_a_child(work)
    assert bodies(log) == [b"parent", b"child"]
    log.close()


@pytest.mark.parametrize("own", [False, True], ids=["python's handler", "a handler of the program's own"])
def test_a_child_forked_by_a_thread_while_the_main_thread_defers_ctrl_c_can_be_interrupted(own: bool) -> None:
    def handle(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    survived: list[bool] = []

    def work() -> None:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        reached: list[str] = []
        with DeferredInterrupt():
            safe_point()
            reached.append("none is pending")
        if not own:
            with pytest.raises(KeyboardInterrupt), DeferredInterrupt():
                os.kill(os.getpid(), signal.SIGINT)
                reached.append("deferred")
        assert own or reached[1:], "it defers like any process"
        assert signal.getsignal(signal.SIGINT) is (handle if own else signal.default_int_handler)

    def fork() -> None:
        in_a_child(work)
        survived.append(True)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, handle if own else signal.default_int_handler)
    try:
        with DeferredInterrupt():
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert survived
