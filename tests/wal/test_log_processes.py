"""Several processes and threads on one log, and what happens to it when one is killed, forked or interrupted."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from tests.wal.queued import in_one_batch, waiting
from wal import (
    Deferred,
    InDoubtError,
    LocalStorage,
    LockBusyError,
    LogClosedError,
    MemoryPosix,
    MemoryStorage,
    PoisonedError,
    Position,
    Posix,
    Record,
    WriteAheadLog,
    open_log,
)
from wal.append_log import AppendLog
from wal.testing.boundary import ALL_CALLS, Boundary, Call
from wal.testing.faults import Failing, FaultyStorage
from wal.testing.log_tools import add, bodies

T = TypeVar("T")
FORK = multiprocessing.get_context("fork")


def opened(root: Path, **options: object) -> WriteAheadLog:
    return open_log(LocalStorage(root), create=True, **options)  # type: ignore[arg-type]


def child(run: Callable[[], None]) -> int:
    """Run it in a forked child that then dies without any cleaning up."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
        finally:
            os._exit(3)
    return pid


def told(pipe: int) -> None:
    """Wait for the child's word."""
    assert os.read(pipe, 1) == b"x"


def test_four_processes_append_two_hundred_each_in_order_and_none_is_lost(tmp_path: Path) -> None:
    opened(tmp_path).close()

    def run(process: int) -> None:
        log = opened(tmp_path, segment_size=4096)
        for number in range(200):
            add(log, b"%d %d" % (process, number))
        log.close()

    processes = [FORK.Process(target=run, args=(process,)) for process in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    log = opened(tmp_path)
    found = [tuple(map(int, (body or b"").split())) for body in bodies(log)]
    for process in range(4):
        assert [number for who, number in found if who == process] == list(range(200))
    assert log.head() == 800
    assert log.verify().problems == ()
    log.close()


def test_threads_share_flushes(tmp_path: Path) -> None:
    boundary = Boundary(counted=frozenset({"fdatasync"}))
    log = open_log(LocalStorage(tmp_path, boundary), create=True)
    add(log, b"reserves zeros for the others")
    before = boundary.count
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        for _ in range(50):
            add(log, b"x" * 100)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bodies(log)) == 401
    assert boundary.count - before == log.head() - 1 < 400
    log.close()


def test_a_bad_prepare_hurts_only_its_caller(tmp_path: Path) -> None:
    log = opened(tmp_path)
    seen: list[int] = []

    def good(head: int, mates: Sequence[Record]) -> Record:
        seen.append(len(mates))
        return Record(b"", b"good")

    def bad(head: int, mates: Sequence[Record]) -> Record:
        raise KeyError("bad")

    def bodyless(head: int, mates: Sequence[Record]) -> Record:
        return Record(b"", None)

    results = in_one_batch(log, [good, bad, good, bodyless, lambda head, mates: None, good])
    assert results[0] == Position(1, 0)
    assert isinstance(results[1], KeyError)
    assert results[2] == Position(1, 1)
    assert isinstance(results[3], ValueError)
    assert results[4] is None
    assert results[5] == Position(1, 2)
    assert seen == [0, 1, 2]
    log.close()


def test_a_deferred_record_goes_into_the_next_batch(tmp_path: Path) -> None:
    log = opened(tmp_path)

    def alone(head: int, mates: Sequence[Record]) -> Record:
        if mates:
            raise Deferred
        return Record(b"", b"alone")

    def any_(head: int, mates: Sequence[Record]) -> Record:
        return Record(b"", b"any")

    assert in_one_batch(log, [any_, alone, any_]) == [Position(1, 0), Position(2, 0), Position(1, 1)]
    log.close()


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_an_answer_that_rests_on_mates_counts_only_if_these_became_durable(call: str) -> None:
    """The mates' write fails: who was refused, had nothing to append or was deferred because of them is asked again."""
    posix = FaultyStorage(Failing(10**9), MemoryPosix(), counted=frozenset({call}))
    log = open_log(MemoryStorage(posix), create=True)
    add(log, b"reserves zeros")
    posix.plan = Failing(posix.count + (2 if call == "pwrite" else 1), errno.ENOSPC)  # the announcement comes first

    def first(head: int, mates: Sequence[Record]) -> Record:
        return Record(b"", b"first")

    def refused(head: int, mates: Sequence[Record]) -> Record:
        if mates:
            raise KeyError("there is one already")
        return Record(b"", b"refused")

    def nothing(head: int, mates: Sequence[Record]) -> Record | None:
        return None if mates else Record(b"", b"nothing")

    def deferred(head: int, mates: Sequence[Record]) -> Record:
        if mates:
            raise Deferred
        return Record(b"", b"deferred")

    results = in_one_batch(log, [first, refused, nothing, deferred])
    assert len(posix.failed) == 1
    if call == "pwrite":
        assert isinstance(results[0], OSError)
        assert results[1:] == [Position(2, 0), None, Position(3, 0)], "nothing rests on the batch that never was"
        assert bodies(log)[1:] == [b"refused", b"deferred"]
    else:
        assert isinstance(results[0], InDoubtError)
        assert [type(result) for result in results[1:]] == [PoisonedError] * 3, "theirs are not in doubt"
    log.close()


def test_appending_and_the_right_to_apply_are_refused_inside_a_prepare(tmp_path: Path) -> None:
    log = opened(tmp_path)

    def nested(head: int, mates: Sequence[Record]) -> Record:
        with pytest.raises(RuntimeError):
            log.append(lambda head, mates: None)
        with pytest.raises(RuntimeError), log.right():
            pass
        return Record(b"", b"x")

    assert log.append(nested) == Position(1, 0)
    log.close()


def test_a_killed_holder_of_every_lock_delays_nobody(tmp_path: Path) -> None:
    read, write = os.pipe()
    log = opened(tmp_path, lock_timeout=10)

    def hold() -> None:
        mine = opened(tmp_path)
        with mine.right():
            mine.append_right.acquire()  # type: ignore[attr-defined]
            os.write(write, b"x")
            time.sleep(60)

    pid = child(hold)
    told(read)
    with pytest.raises(LockBusyError), log.right(timeout=0):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert add(log, b"x").lsn == 1
    with log.right(timeout=1) as tenure:
        assert tenure.died is True
    log.close()


def test_a_busy_append_right_is_an_error_that_appends_nothing(tmp_path: Path) -> None:
    log, other = opened(tmp_path, lock_timeout=0.05), opened(tmp_path)
    with other.append_right, pytest.raises(LockBusyError, match="append"):  # type: ignore[attr-defined]
        add(log, b"x")
    assert add(log, b"y").lsn == 1
    log.close()
    other.close()


def test_a_mark_is_between_0_and_the_largest_signed_number_of_64_bits(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for value in (2**63 - 1, 0):
        log.store_mark(0, value)
        assert log.load_mark(0) == value
    for value in (-1, 2**63):
        with pytest.raises(ValueError, match="a mark is 0 to"):
            log.store_mark(0, value)
    log.close()


def test_there_are_eight_marks_beside_what_the_log_keeps_for_itself(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for index in range(8):
        log.store_mark(index, index + 1)
    assert [log.load_mark(index) for index in range(8)] == [1, 2, 3, 4, 5, 6, 7, 8]
    with log.right() as tenure:
        assert not tenure.died
    assert (log.head(), log.trimmed(), log.append(lambda head, mates: Record(b"", b"x"))) == (0, 0, (1, 0))
    for index in (-1, 8):
        with pytest.raises(ValueError, match="a mark's index is 0 to 7"):
            log.load_mark(index)
    log.close()


def test_later_openers_wait_for_the_first_to_recover(tmp_path: Path) -> None:
    opened(tmp_path).close()
    order: list[str] = []
    inside, go = threading.Event(), threading.Event()

    def recover(log: WriteAheadLog) -> None:
        inside.set()
        go.wait(10)
        order.append("recovered")
        log.store_mark(0, 9)

    logs: list[WriteAheadLog] = []
    first = threading.Thread(target=lambda: logs.append(opened(tmp_path, recover=recover)))
    first.start()
    inside.wait(10)
    with pytest.raises(LockBusyError):
        opened(tmp_path, lock_timeout=0.05)

    def later() -> None:
        log = opened(tmp_path, recover=lambda log: order.append("recovered twice"))
        order.append(f"mark {log.load_mark(0)}")
        logs.append(log)

    second = threading.Thread(target=later)
    second.start()
    reader = open_log(LocalStorage(tmp_path), read_only=True)  # waits for nobody
    reader.close()
    go.set()
    first.join()
    second.join()
    assert order == ["recovered", "mark 9"]
    for log in logs:
        log.close()


def test_marks_survive_a_killed_writer_as_long_as_another_lives(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.store_mark(0, 5)
    read, write = os.pipe()

    def live() -> None:
        mine = opened(tmp_path)
        mine.store_mark(1, 6)
        os.write(write, b"x")
        time.sleep(60)

    pid = child(live)
    told(read)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert (log.load_mark(0), log.load_mark(1)) == (5, 6)
    log.close()
    again = opened(tmp_path)
    assert (again.load_mark(0), again.load_mark(1)) == (0, 0)
    again.close()


def test_a_forked_child_works_beside_its_parent(tmp_path: Path) -> None:
    log = opened(tmp_path)
    add(log, b"parent")

    def work() -> None:
        log.reset_after_fork()
        with log.right():
            add(log, b"child")
        log.close()
        os._exit(0)

    pid = child(work)
    for number in range(20):
        add(log, b"parent %d" % number)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(bodies(log)) == 22
    with log.right() as tenure:
        assert tenure.died is False
    other = opened(tmp_path, recover=lambda log: pytest.fail("the parent lives"))
    other.close()
    log.close()


class Unlocking(Posix):
    """The lock of `alive` is first taken with a step before it, then as ever."""

    def __init__(self) -> None:
        self.before: Callable[[], None] | None = None

    def flock(self, fd: int, *, shared: bool, block: bool) -> bool:
        before, self.before = self.before, None
        if before is not None:
            before()
        return super().flock(fd, shared=shared, block=block)


def test_of_two_threads_of_a_child_that_reset_the_log_one_does_and_neither_overwrites_the_other(tmp_path: Path) -> None:
    """The second one would let go of the right under which the first one appends."""
    posix = Unlocking()
    log = open_log(LocalStorage(tmp_path, posix), create=True)
    add(log, b"parent")

    def work() -> None:
        signal.alarm(60)

        def use(name: bytes) -> None:
            log.reset_after_fork()
            add(log, name)

        first, second = (threading.Thread(target=use, args=(name,)) for name in (b"first", b"second"))
        during: list[object] = []

        def meanwhile() -> None:
            during.append(log._group)  # type: ignore[attr-defined]
            second.start()
            second.join(0.2)  # it waits, or it would attach the log as well

        posix.before = meanwhile
        first.start()
        first.join()
        second.join()
        assert [log._group] == during  # type: ignore[attr-defined]
        assert sorted(bodies(log)) == [b"first", b"parent", b"second"]
        log.reset_after_fork()
        assert [log._group] == during  # type: ignore[attr-defined]
        log.close()
        os._exit(0)

    assert os.waitpid(child(work), 0)[1] == 0
    assert len(bodies(log)) == 3 and log.verify().problems == ()
    log.close()


@pytest.mark.parametrize("name", ["the opening's lock", "alive"])
def test_a_reset_that_fails_in_a_child_leaves_no_lock_and_is_tried_again_by_the_next(tmp_path: Path, name: str) -> None:
    posix = Unlocking()
    log = open_log(LocalStorage(tmp_path, posix), create=True)
    add(log, b"parent")

    def fail() -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    def later() -> None:
        posix.before = fail

    def work() -> None:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            posix.before = fail if name != "alive" else later
            with pytest.raises(OSError, match="No locks available"):
                log.reset_after_fork()
            with pytest.raises(LogClosedError):
                add(log, b"not yet")
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # the parent's head file, which is dropped
        log.reset_after_fork()
        with log.right():
            add(log, b"child")
        log.close()
        log.reset_after_fork()
        with pytest.raises(LogClosedError):
            log.head()
        os._exit(0)

    assert os.waitpid(child(work), 0)[1] == 0
    add(log, b"parent")
    assert bodies(log) == [b"parent", b"child", b"parent"]
    log.close()


def test_ctrl_c_in_the_middle_of_a_reset_is_raised_after_it_and_the_log_works(tmp_path: Path) -> None:
    posix = Unlocking()
    log = open_log(LocalStorage(tmp_path, posix), create=True)

    def work() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        posix.before = lambda: signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            log.reset_after_fork()
        add(log, b"child")
        log.close()
        os._exit(0)

    assert os.waitpid(child(work), 0)[1] == 0
    assert bodies(log) == [b"child"]
    log.close()


class Interrupting(Boundary):
    """Ctrl-C in the middle of a flush."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(counted=frozenset({"fdatasync"}))
        self.armed, self.fails = False, fails

    def around(self, call, run, tear):  # type: ignore[no-untyped-def]
        if self.armed and call.method == "fdatasync":
            self.armed = False
            os.kill(os.getpid(), signal.SIGINT)
            if self.fails:
                raise OSError(errno.EIO, "flush")
        return run()


def test_an_interrupt_during_a_flush_that_fails_says_so(tmp_path: Path) -> None:
    boundary = Interrupting(fails=True)
    log = open_log(LocalStorage(tmp_path, boundary), create=True)
    add(log, b"brings zeros for the next")
    boundary.armed = True
    with pytest.raises(KeyboardInterrupt) as caught:
        add(log, b"in doubt")
    (note,) = caught.value.__notes__
    assert note.startswith("the append failed before the interrupt: the flush of batch 2 failed")
    log.close()


def test_an_interrupt_during_the_flush_is_delivered_after_it_and_says_what_was_committed(tmp_path: Path) -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    boundary = Interrupting()
    log = open_log(LocalStorage(tmp_path, boundary), create=True)
    add(log, b"brings zeros for the next")
    boundary.armed = True
    with pytest.raises(KeyboardInterrupt) as caught:
        add(log, b"committed")
    assert caught.value.__notes__ == ["the record was committed at LSN 2 before the interrupt"]
    assert bodies(log)[1:] == [b"committed"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert add(log, b"next").lsn == 3
    log.close()


def test_a_handler_of_the_programs_own_for_ctrl_c_is_deferred_and_put_back() -> None:
    code = """
import signal
called = []
own = lambda *_: called.append(1)
signal.signal(signal.SIGINT, own)
from wal.interrupts import DeferredInterrupt, is_deferred
assert not is_deferred()
with DeferredInterrupt():
    assert is_deferred()
    signal.raise_signal(signal.SIGINT)
    assert not called
assert called
assert signal.getsignal(signal.SIGINT) is own
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_leader_that_is_interrupted_leaves_nobody_waiting(tmp_path: Path) -> None:
    log = opened(tmp_path)
    results: list[Position] = []
    threads = [threading.Thread(target=lambda: results.append(add(log, b"follower"))) for _ in range(3)]

    def die(head: int, mates: Sequence[Record]) -> Record:
        for index, thread in enumerate(threads):
            thread.start()
            while waiting(log) <= index:
                time.sleep(0.001)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log.append(die)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert len(results) == 3
    assert bodies(log) == [b"follower"] * 3
    log.close()


def test_an_interrupted_follower_withdraws(tmp_path: Path) -> None:
    log = opened(tmp_path)
    inside, go = threading.Event(), threading.Event()

    def slow(head: int, mates: Sequence[Record]) -> Record:
        inside.set()
        go.wait(10)
        return Record(b"", b"slow")

    leader = threading.Thread(target=lambda: log.append(slow))
    leader.start()
    inside.wait(10)
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        add(log, b"withdrawn")
    go.set()
    leader.join()
    assert bodies(log) == [b"slow"]
    log.close()


@pytest.mark.parametrize("longer", [0, 0.2])  # than it takes until the follower looks, or not
def test_a_follower_that_is_interrupted_while_its_record_is_written_waits_and_says_where_it_is(
    tmp_path: Path, longer: float
) -> None:
    log = opened(tmp_path)
    inside, go = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]

    def leader(number: int) -> threading.Thread:
        def prepare(head: int, mates: Sequence[Record]) -> Record:
            inside[number].set()
            go[number].wait(30)
            return Record(b"", b"%d" % number)

        thread = threading.Thread(target=lambda: log.append(prepare))
        thread.start()
        return thread

    first = leader(0)
    assert inside[0].wait(30)
    second = leader(1)

    def interrupt() -> None:
        while waiting(log) < 2:  # the second leader's, and that of the main thread
            time.sleep(0.01)
        go[0].set()
        assert inside[1].wait(30)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(longer)
        go[1].set()

    while not waiting(log):
        time.sleep(0.01)
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt) as caught:
        add(log, b"committed")
    assert caught.value.__notes__ == ["the record was committed at LSN 2 before the interrupt"]
    first.join()
    second.join()
    assert bodies(log) == [b"0", b"1", b"committed"]
    log.close()


class _Listing(Boundary):
    """Lets something happen after the n-th listing of a folder."""

    def __init__(self, disk: MemoryPosix) -> None:
        super().__init__(disk, counted=ALL_CALLS)
        self.happen: Callable[[], object] | None = None
        self.listings = 0

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        found = run()
        if call.method == "listdir" and self.happen is not None:
            self.listings -= 1
            if self.listings == 0:
                happen, self.happen = self.happen, None
                happen()
        return found


@pytest.mark.parametrize("listing", [1, 2])
def test_no_header_is_missed_though_segments_are_freed_while_they_are_looked_for(listing: int) -> None:
    for after in range(12):
        disk, freed = MemoryPosix(), []
        log = open_log(MemoryStorage(disk), create=True, segment_size=200)
        for number in range(1, 13):
            add(log, b"body", header=bytes([number]))
        log.trim(2)
        assert isinstance(log, AppendLog)
        free, log.history.free = log.history.free, freed.append  # type: ignore[method-assign]
        log.trim(12)
        posix = _Listing(disk)
        reader = open_log(MemoryStorage(posix), read_only=True)
        posix.happen, posix.listings = lambda: free(freed[0]), listing  # noqa: B023
        found = [(batch.lsn, batch.records[0].header) for batch in reader.read(after)]
        assert posix.happen is None, "nothing was freed meanwhile"
        assert found == [(lsn, bytes([lsn])) for lsn in range(after + 1, 13)]
        reader.close()
        log.close()
