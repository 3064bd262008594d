"""A handle that is closed while a thread is at work in it, at any of its system calls: the thread is told that, in one
word and never by an error of a descriptor, and what it was told about its record is true."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import TypeVar

import pytest

from wal import (
    InDoubtError,
    LockBusyError,
    LogClosedError,
    MemoryPosix,
    MemoryStorage,
    Record,
    WriteAheadLog,
    open_log,
)
from wal.testing import ALL_CALLS, Boundary, Call
from wal.testing.log_tools import add, bodies

T = TypeVar("T")
SIZE = 300  # bytes of a segment: two or three batches
_PATIENCE = 0.2  # seconds for a closer that may have to wait for us: then it comes later


class ClosedAt(Boundary):
    """Has another thread close something at the n-th call from now."""

    def __init__(self, disk: MemoryPosix) -> None:
        super().__init__(disk, counted=ALL_CALLS)
        self._left = 0
        self._close: Callable[[], object] = lambda: None
        self.closers: list[threading.Thread] = []

    def plan(self, call: int, close: Callable[[], object]) -> None:
        self._left, self._close = call, close

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if self._left > 0:
            self._left -= 1
            if not self._left:
                closer = threading.Thread(target=self._close)
                self.closers.append(closer)
                closer.start()
                closer.join(_PATIENCE)
        return run()


def hold(log: WriteAheadLog) -> None:
    with log.right():
        log.store_mark(0, log.load_mark(0) + 1)


WORK: dict[str, Callable[[WriteAheadLog], object]] = {
    "append": lambda log: add(log, b"new" * 40),
    "rotate": lambda log: add(log, b"new" * 90),
    "settle": lambda log: log.settle(),
    "trim": lambda log: log.trim(3),
    "right": hold,
    "head": lambda log: log.head(),
    "read": bodies,
    "verify": lambda log: log.verify(),
    "trimmed": lambda log: log.trimmed(fresh=True),
}


def opened(disk: MemoryPosix) -> tuple[ClosedAt, MemoryStorage, WriteAheadLog]:
    posix = ClosedAt(disk)
    storage = MemoryStorage(posix)
    log = open_log(storage, create=True, segment_size=SIZE, lock_timeout=0.0)
    for number in range(4):
        add(log, b"%d" % number * 20)
    return posix, storage, log


@pytest.mark.parametrize("storage_too", [False, True], ids=["log", "log and storage"])
@pytest.mark.parametrize("name", WORK)
def test_whoever_is_at_work_in_a_log_that_is_closed_learns_that(name: str, storage_too: bool) -> None:
    call, ended = 0, False
    while not ended:
        call += 1
        disk = MemoryPosix()
        posix, storage, log = opened(disk)

        def close(log: WriteAheadLog = log, storage: MemoryStorage = storage) -> None:
            log.close()
            if storage_too:
                storage.close()

        posix.plan(call, close)
        told: Exception | None = None
        try:
            WORK[name](log)
        except (LogClosedError, InDoubtError) as error:
            told = error
        ended = not posix.closers
        for closer in posix.closers:
            closer.join()
        close()
        assert name in ("append", "rotate") or not isinstance(told, InDoubtError)
        with_it = reread(disk)
        if name in ("append", "rotate") and not isinstance(told, InDoubtError):
            assert with_it == 4 + (told is None), f"call {call}: {told!r}"
    assert call > 1, "it was never closed"


def reread(disk: MemoryPosix) -> int:
    storage = MemoryStorage(disk)
    log = open_log(storage)  # nobody has kept a lock
    try:
        assert not log.verify().problems
        return log.head()
    finally:
        log.close()
        storage.close()


def test_a_holder_beyond_the_limit_keeps_the_others_out_until_it_has_given_back() -> None:
    disk = MemoryPosix()
    posix, storage, log = opened(disk)
    right = log.right()
    tenure = right.__enter__()
    tenure.check()
    log.close()
    with pytest.raises(LogClosedError):  # it should not go on: the storage is closed next
        tenure.check()
    other = open_log(MemoryStorage(disk), lock_timeout=0.0)
    with pytest.raises(LockBusyError), other.right():
        pass
    with pytest.raises(LogClosedError):
        log.store_mark(0, 1)
    with pytest.raises(LogClosedError):
        log.load_mark(0)
    with pytest.raises(LogClosedError):  # it is told that what it did was not noted as done
        right.__exit__(None, None, None)
    with other.right() as tenure:
        assert tenure.died
    other.close()
    assert not posix.closers
    storage.close()


def test_a_thread_beyond_the_limit_keeps_its_right_though_the_storage_is_closed_too() -> None:
    disk = MemoryPosix()
    _, storage, log = opened(disk)
    inside, go = threading.Event(), threading.Event()

    def work() -> None:
        with suppress(LogClosedError), log.right():
            inside.set()
            go.wait()

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    log.close()
    storage.close()
    others = MemoryStorage(disk)
    other = open_log(others, lock_timeout=0.0)
    try:
        with pytest.raises(LockBusyError), other.right():
            pass
    finally:
        go.set()
        thread.join()
    with other.right() as tenure:
        assert tenure.died
    other.close()
    others.close()
    assert not disk._open, "a descriptor is left open"


def test_a_lock_of_a_thread_that_ended_is_released_with_its_storage() -> None:
    disk = MemoryPosix()
    storage = MemoryStorage(disk)
    lock = storage.lock("lock")
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
    storage.close()
    assert MemoryStorage(disk).lock("lock").acquire(timeout=0)


def test_who_gives_back_the_right_of_a_closed_log_closes_its_lock() -> None:
    disk = MemoryPosix()
    storage = MemoryStorage(disk)
    log = open_log(storage, create=True, segment_size=SIZE, lock_timeout=0.0)
    right = log.right()
    right.__enter__()
    log.close()
    assert len(disk._open) == 2, "the storage's folder, and the lock, which is held"
    with pytest.raises(LogClosedError):
        right.__exit__(None, None, None)
    assert len(disk._open) == 1
    storage.close()


def test_an_error_of_the_holders_own_is_not_hidden_by_the_closing() -> None:
    _, storage, log = opened(MemoryPosix())
    with pytest.raises(ValueError, match="its own"), log.right():
        log.close()
        raise ValueError("its own")
    storage.close()


def test_an_append_that_waits_for_its_turn_learns_that_the_log_was_closed() -> None:
    disk = MemoryPosix()
    _, storage, log = opened(disk)
    inside, go = threading.Event(), threading.Event()
    outcomes: list[object] = []

    def prepare(_head: int, _mates: object) -> Record:
        inside.set()
        assert go.wait(60)
        return Record(b"", b"late")

    def work() -> None:
        try:
            outcomes.append(log.append(prepare))
        except Exception as error:  # noqa: BLE001  it is looked at below
            outcomes.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(60)
    log.close()
    go.set()
    thread.join()
    (outcome,) = outcomes
    assert isinstance(outcome, LogClosedError), repr(outcome)
    with suppress(OSError):
        storage.close()
    assert reread(disk) == 4


class FailsToClose(Boundary):
    """Closes the n-th descriptor from now, and says that it could not."""

    left = 0

    def closing(self, fd: int) -> None:
        super().closing(fd)
        self.left -= 1
        if not self.left:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_one_descriptor_that_cannot_be_closed_leaves_no_other_open() -> None:
    count = 0
    while True:
        count += 1
        disk = MemoryPosix()
        posix = FailsToClose(disk)
        storage = MemoryStorage(posix)
        log = open_log(storage, create=True, segment_size=SIZE)
        for number in range(4):
            add(log, b"%d" % number * 20)
        with log.right():
            pass
        others = MemoryStorage(disk)
        held = storage.lock("held"), storage.open_file(".wal/head", writable=False)
        assert held[0].acquire()
        before = len(disk._open)
        posix.left = count
        with suppress(OSError):
            log.close()
        assert others.lock(".wal/alive").acquire(timeout=0), "it is held, as if the writer lived"
        others.close()
        with suppress(OSError):
            storage.close()
        assert not disk._open, f"left open after descriptor {count} of {before}"
        if posix.left > 0:
            break
    assert count > 7


def test_a_lock_that_cannot_be_closed_keeps_no_thread_waiting() -> None:
    """The holder, who outlives the closing, closes it; and the one that closes it does."""
    for while_held in (True, False):
        posix = FailsToClose(MemoryPosix())
        storage = MemoryStorage(posix)
        log = open_log(storage, create=True, lock_timeout=0.0)
        right = log._apply_right  # type: ignore[attr-defined]
        right.acquire()
        if while_held:
            right.close()
            posix.left = 1
            with pytest.raises(OSError, match="Input/output"):
                right.release()
        else:
            right.release()
            posix.left = 1
            with pytest.raises(OSError, match="Input/output"):
                right.close()
        with pytest.raises(LogClosedError):
            right.acquire()
        log.close()
        storage.close()


class Broken(Boundary):
    """The system says of one descriptor that there is none."""

    broken = False

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if self.broken and call.method == "pread":
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return run()


def test_a_descriptor_that_is_none_in_a_log_that_was_not_closed_is_not_said_to_be_closed() -> None:
    posix = Broken(MemoryPosix(), counted=ALL_CALLS)
    with closing(open_log(MemoryStorage(posix), create=True)) as log:
        posix.broken = True
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
            log.head()
        posix.broken = False
        assert not isinstance(caught.value, LogClosedError)
        assert log.head() == 0
