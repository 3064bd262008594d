"""A lock of the system that was not held, was forked past Python, or cannot be looked at once it was taken."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest

from wal import Clock, DeferredInterrupt, LocalStorage, MemoryPosix, MemoryStorage
from wal.rights import Right
from wal.testing.boundary import ALL_CALLS, Boundary, Call, Recorder
from wal.testing.hosts import ManualClock

T = TypeVar("T")


def test_a_lock_that_is_not_held_can_be_given_back() -> None:
    with closing(MemoryStorage().lock("a")) as lock:
        lock.release()
        assert lock.acquire(timeout=0)


@pytest.mark.parametrize("end", ["close", "disown"])
def test_a_held_lock_that_is_closed_or_disowned_is_free_and_can_be_taken_again(end: str) -> None:
    disk = MemoryPosix()
    with closing(MemoryStorage(disk).lock("a")) as lock, closing(MemoryStorage(disk).lock("a")) as other:
        assert lock.acquire(timeout=0)
        getattr(lock, end)()
        assert other.acquire(timeout=0)
        other.release()
        assert lock.acquire(timeout=0)


def test_a_child_that_was_forked_past_python_does_not_release_its_parents_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork in C calls none of Python's hooks; all that tells is the process's number."""
    disk = MemoryPosix()
    with closing(MemoryStorage(disk).lock("a")) as lock, closing(MemoryStorage(disk).lock("a")) as other:
        assert lock.acquire(timeout=0)
        monkeypatch.setattr(disk, "close", lambda fd: None)  # the parent still has it open
        monkeypatch.setattr(os, "getpid", lambda: -1)
        lock.release()
        assert not other.acquire(timeout=0)
        monkeypatch.undo()


def test_a_child_that_was_forked_past_python_locks_a_descriptor_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the one that it shares with its parent, both would have the lock at once."""
    disk = MemoryPosix()
    with closing(MemoryStorage(disk).lock("a")) as lock:
        assert lock.acquire(timeout=0)
        lock.release()
        before = set(disk._open)
        monkeypatch.setattr(disk, "close", lambda fd: None)
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert lock.acquire(timeout=0)
        assert set(disk._open) > before
        monkeypatch.undo()


def test_a_child_that_never_uses_an_inherited_lock_does_not_hold_it_beyond_its_parents_death(tmp_path: Path) -> None:
    lock, other = (LocalStorage(tmp_path).lock("a") for _ in range(2))
    assert lock.acquire(timeout=0)
    (forked, tell), (wait, end) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        os.write(tell, b"x")
        os.read(wait, 1)
        os._exit(0)
    assert os.read(forked, 1) == b"x"
    lock.disown()  # closed and not released, as by the system when its holder dies
    assert other.acquire(timeout=0)
    for fd in (end, wait, forked, tell):
        os.close(fd)
    os.waitpid(pid, 0)
    other.close()


def test_a_lock_may_have_the_descriptor_0_and_a_closed_one_is_forgotten() -> None:
    disk = MemoryPosix()
    storage = MemoryStorage(disk)
    before = set(disk._open)
    disk._descriptors = itertools.count(0)
    lock = storage.lock("a")
    for _ in range(2):
        assert lock.acquire(timeout=0)
        assert set(disk._open) == before | {0}
        lock.release()
    lock.close()
    assert set(disk._open) == before
    gone = weakref.ref(lock)
    del lock
    assert gone() is None
    storage.close()


def test_a_program_without_standard_input_leaves_no_lock_open(tmp_path: Path) -> None:
    """Its first descriptor is 0."""
    code = (
        "import os, sys; from wal import LocalStorage; lock = LocalStorage(sys.argv[1]).lock('a'); os.close(0)\n"
        "lock.acquire(); os.fstat(0); lock.close()\n"
        "try: os.fstat(0)\nexcept OSError: print('closed')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("closed\n", "")


class Blind(Boundary):
    """Fails the look at what was just locked, or its release."""

    failing = ""

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.method == self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return run()


def test_a_lock_that_cannot_be_looked_at_when_it_was_taken_is_given_back() -> None:
    disk = MemoryPosix()
    posix = Blind(disk, counted=ALL_CALLS)
    with closing(MemoryStorage(posix).lock("a")) as lock, closing(MemoryStorage(disk).lock("a")) as other:
        posix.failing = "fstat"
        with pytest.raises(OSError, match="Input/output"):
            lock.acquire(timeout=0)
        assert other.acquire(timeout=0), "nobody holds it"
        other.release()
        posix.failing = ""
        assert lock.acquire(timeout=0)


def test_a_lock_that_cannot_be_released_is_released_by_closing_it() -> None:
    disk = MemoryPosix()
    posix = Blind(disk, counted=ALL_CALLS)
    with closing(MemoryStorage(posix).lock("a")) as lock, closing(MemoryStorage(disk).lock("a")) as other:
        assert lock.acquire(timeout=0)
        posix.failing = "funlock"
        lock.release()
        assert other.acquire(timeout=0)
        other.release()
        posix.failing = ""
        assert lock.acquire(timeout=0)


class Interrupted(Boundary):
    """A signal handler does `act` when a lock is released."""

    def __init__(self, disk: MemoryPosix) -> None:
        super().__init__(disk, counted=ALL_CALLS)
        self.acts: list[Callable[[], None]] = []

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.method == "funlock" and self.acts:
            self.acts.pop()()
        return run()


def test_a_storage_that_its_own_thread_closes_while_it_releases_a_lock_releases_it_once() -> None:
    disk = MemoryPosix()
    posix = Interrupted(disk)
    storage = MemoryStorage(posix)
    lock = storage.lock("a")
    assert lock.acquire(timeout=0)
    posix.acts.append(storage.close)
    lock.release()
    assert not posix.acts and not disk._open
    with closing(MemoryStorage(disk).lock("a")) as other:
        assert other.acquire(timeout=0)


class Waiting(Boundary):
    """Its holder gives the lock back as soon as somebody waits for it without a limit."""

    waited: Callable[[], None]

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.method == "flock" and call.arguments[-1] is True:
            self.waited()
        return run()


def test_who_waits_without_a_limit_sleeps_in_the_system_until_the_holder_gives_it_back() -> None:
    disk = MemoryPosix()
    posix = Waiting(disk, counted=ALL_CALLS)
    with closing(MemoryStorage(posix).lock("a")) as lock, closing(MemoryStorage(disk).lock("a")) as other:
        released: list[str] = []
        posix.waited = lambda: (released.append("once"), other.release())[1]
        assert lock.acquire()
        assert released == [], "it was free"
        lock.release()
        assert other.acquire()
        assert lock.acquire(timeout=None)
        assert released == ["once"]
        assert not other.acquire(timeout=0)


def test_who_waits_with_a_limit_asks_less_and_less_often() -> None:
    """A thousand times a second at most, once it has waited for a moment."""
    disk, clock = MemoryPosix(), ManualClock()
    posix = Recorder(disk, counted=ALL_CALLS)
    with closing(MemoryStorage(posix, clock=clock).lock("a")) as lock, closing(MemoryStorage(disk).lock("a")) as other:
        assert other.acquire()
        assert not lock.acquire(timeout=2.0)
        assert 2.0 <= clock.now < 2.01
        assert 800 < sum(call.method == "flock" for call in posix.calls) < 2020


def test_ctrl_c_ends_the_wait_for_a_lock_of_another_process() -> None:
    disk = MemoryPosix()
    clock = ManualClock(on_sleep=lambda _: signal.raise_signal(signal.SIGINT))
    with closing(MemoryStorage(disk, clock=clock).lock("a")) as lock, closing(MemoryStorage(disk).lock("a")) as other:
        assert other.acquire()
        with pytest.raises(KeyboardInterrupt), DeferredInterrupt():
            lock.acquire(timeout=60)
        assert clock.now < 1


def test_who_has_waited_for_a_thread_waits_so_much_less_for_another_process() -> None:
    class Told(ManualClock):
        def monotonic(self) -> float:
            now = super().monotonic()
            begun.set()
            return now

    disk, begun, got = MemoryPosix(), threading.Event(), list[bool]()
    clock = Told()
    with closing(MemoryStorage(disk, clock=clock).lock("a")) as lock, closing(MemoryStorage(disk).lock("a")) as other:
        assert lock.acquire(shared=True) and other.acquire(shared=True)
        thread = threading.Thread(target=lambda: got.append(lock.acquire(timeout=60)))
        thread.start()
        assert begun.wait(30)
        clock.now = 20.0
        lock.release()
        thread.join()
        assert got == [False]
        assert 60.0 <= clock.now < 60.01


class Asked(Clock):
    """Tells when somebody begins to wait."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    def monotonic(self) -> float:
        self.begun.set()
        return super().monotonic()


def test_a_thread_that_waits_for_a_lock_of_another_gets_it_when_that_gives_it_back() -> None:
    clock, got = Asked(), list[bool]()
    with closing(MemoryStorage(clock=clock).lock("a")) as lock:
        assert lock.acquire(timeout=60) and not clock.begun.is_set(), "it was free: nobody asks for the time"
        thread = threading.Thread(target=lambda: got.append(lock.acquire(timeout=60)))
        thread.start()
        clock.begun.wait()
        lock.release()
        thread.join()
        assert got == [True]
        lock.release()


def test_a_thread_that_waits_without_a_limit_for_another_that_shares_the_lock_gets_it_when_it_is_given_back() -> None:
    with closing(MemoryStorage().lock("a")) as lock:
        assert lock.acquire(timeout=0)
        got: list[bool] = []
        waiter = threading.Thread(target=lambda: got.append(lock.acquire(timeout=None)))
        waiter.start()
        waiter.join(0.1)
        assert not got, "it is held"
        lock.release()
        waiter.join()
        assert got == [True]


class Poor(Boundary):
    """Has once no memory for giving a lock back."""

    poor = False

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.method == "funlock" and self.poor:
            self.poor = False
            raise MemoryError
        return run()


def test_a_lock_for_whose_release_there_was_no_memory_is_held_by_nobody() -> None:
    disk = MemoryPosix()
    posix = Poor(disk, counted=ALL_CALLS)
    with closing(MemoryStorage(posix).lock("a")) as lock, closing(MemoryStorage(disk).lock("a")) as other:
        assert lock.acquire(timeout=0)
        posix.poor = True
        with pytest.raises(MemoryError):
            lock.release()
        assert other.acquire(timeout=0)


def test_a_right_whose_lock_could_not_be_given_back_is_given_back_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryPosix()
    with closing(MemoryStorage(disk).lock("a")) as lock, closing(MemoryStorage(disk).lock("a")) as other:
        right, release, tried = Right(lock, "the right", 1.0, Clock()), lock.release, []

        def poor() -> None:
            tried.append(1)
            if len(tried) == 1:
                raise MemoryError
            release()

        monkeypatch.setattr(lock, "release", poor)
        with pytest.raises(MemoryError), right:
            pass
        assert other.acquire(timeout=0)
        other.release()
        with right:
            assert not other.acquire(timeout=0)
