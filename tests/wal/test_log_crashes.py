"""A log whose process dies, or whose system fails, at every call that changes something."""

from __future__ import annotations

import errno
import signal
import sys
from contextlib import closing, suppress
from types import FrameType
from typing import Any

import pytest

from tests.figures import Layer
from wal import InDoubtError, LogMissingError, PoisonedError, Record, WriteAheadLog, open_log
from wal.storage.memory import MemoryPosix, MemoryStorage
from wal.storage.posix import Posix
from wal.testing.boundary import Boundary
from wal.testing.faults import Crash, Crashing, CrashStorage, Failing, FaultyStorage
from wal.testing.log_tools import FixedClock, add, bodies, state

SEGMENT_SIZE = 256
PAIRS = 500  # of each way to die the second time; a night goes through all there are


class Life:
    """A short life of a log: made, appended to over several segments, trimmed, closed, opened and used again."""

    def __init__(self) -> None:
        self.sure: list[bytes] = []  # append returned
        self.unknown: list[bytes] = []  # it raised InDoubtError, or the process died in it
        self.failed: list[BaseException] = []
        self.trimmed = 0  # trim was begun

    def live(self, posix: Posix, *, go_on: bool = False) -> None:
        log = self._open(posix, go_on)
        for number in range(6):
            self._append(log, b"first %d" % number * 3, go_on)
        self.trimmed = 4
        if log is not None:
            with suppress(*([OSError, ValueError] if go_on else [])):
                log.trim(min(4, log.head()))
            log.close()
        log = self._open(posix, go_on)
        for number in range(3):
            self._append(log, b"second %d" % number * 20, go_on)
        if log is not None:
            log.close()

    def _open(self, posix: Posix, go_on: bool) -> WriteAheadLog | None:
        try:
            return open_log(MemoryStorage(posix), create=True, segment_size=SEGMENT_SIZE, clock=FixedClock())
        except OSError as error:
            if not go_on:
                raise
            self.failed.append(error)
            return None

    def _append(self, log: WriteAheadLog | None, body: bytes, go_on: bool) -> None:
        if log is None:
            return
        self.unknown.append(body)
        try:
            log.append(lambda head, mates: Record(b"h", body))
        except (OSError, InDoubtError) as error:
            if not go_on:
                raise
            self.failed.append(error)
            if not isinstance(error, InDoubtError):
                self.unknown.pop()
            return
        self.unknown.pop()
        self.sure.append(body)

    def check(self, posix: Posix) -> None:
        """Open what is left: everything sure is there in order, nothing else but what is unknown, and it works."""
        storage = MemoryStorage(posix)
        try:
            reader = open_log(storage, read_only=True)
        except LogMissingError:
            assert not self.sure
            open_log(storage, create=True, segment_size=SEGMENT_SIZE).close()
            return
        seen = state(reader)
        reader.close()
        log = open_log(storage, segment_size=SEGMENT_SIZE)
        assert state(log) == seen
        assert log.verify().problems == ()
        found = bodies(log)
        kept = log.trimmed()
        assert kept in (0, min(self.trimmed, len(found)))
        assert all(body is None for body in found[:kept])
        everything = [body for body in found[kept:] if body not in self.unknown]
        assert (
            everything
            == [body for body in self.sure if body not in self.unknown][kept - len(found) :][-len(everything) :]
        )
        assert len(found) - len(self.sure) in range(len(self.unknown) + 1)
        self._append(log, b"after all", False)
        log.trim(log.head())
        assert log.verify().problems == ()
        log.close()


def counted() -> int:
    boundary = Boundary(MemoryPosix())
    life = Life()
    life.live(boundary)
    assert len(life.sure) == 9
    life.check(boundary)
    return boundary.count


CALLS = 0


def calls() -> int:
    global CALLS
    CALLS = CALLS or counted()
    return CALLS


@pytest.mark.parametrize("when", ["before", "after", "torn"])
def test_a_crash_at_any_call_loses_nothing_that_was_acknowledged(when: str, layer: Layer) -> None:
    covered = 0
    for call in range(1, calls() + 1):
        disk, life = MemoryPosix(), Life()
        with suppress(Crash, InDoubtError, PoisonedError):
            life.live(CrashStorage(Crashing(call, when), disk))  # type: ignore[arg-type]
        life.check(disk)
        covered += 1
    layer.report("crash points", covered, floor=calls(), night=calls(), unit="moments, all there are")


@pytest.mark.parametrize("second", ["before", "after"])
def test_a_crash_inside_recovery_loses_nothing_either(second: str, layer: Layer) -> None:
    pairs, name, aims = 0, "double crash of a log", {"floor": PAIRS, "night": 3 * PAIRS}
    for call in sorted(range(1, calls() + 1), key=lambda call: call % 3):  # every third one first
        again = 1
        if not layer.more(name, pairs, **aims, among=2):
            break
        while True:
            disk, life = MemoryPosix(), Life()
            with suppress(Crash, InDoubtError, PoisonedError):
                life.live(CrashStorage(Crashing(call, "torn"), disk))
            crashing = CrashStorage(Crashing(again, second), disk)  # type: ignore[arg-type]
            with suppress(Crash, InDoubtError, PoisonedError, LogMissingError):
                open_log(MemoryStorage(crashing), segment_size=SEGMENT_SIZE).close()
            life.check(disk)
            pairs += 1
            if crashing.crashed is None:
                break
            again += 1
    layer.report(name, pairs, **aims, unit="pairs")


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failing_call_is_raised_and_never_tried_again(error: int, lasting: bool) -> None:
    for call in range(1, calls() + 1):
        disk, life = MemoryPosix(), Life()
        faulty = FaultyStorage(Failing(call, error, lasting), disk)
        life.live(faulty, go_on=True)
        if faulty.failed and faulty.failed[0].method == "fdatasync" and faulty.failed[0].path.endswith(".log"):
            assert any(isinstance(raised, PoisonedError | InDoubtError | OSError) for raised in life.failed)
        life.check(disk)


def test_a_full_disk_in_the_middle_of_a_write_leaves_the_log_clean() -> None:
    for call in range(1, calls() + 1):
        disk, life = MemoryPosix(), Life()
        life.live(FaultyStorage(Failing(call, errno.ENOSPC, short=True), disk), go_on=True)
        life.check(disk)


@pytest.mark.parametrize("trimmed", [0, 2])
def test_a_reader_that_is_interrupted_at_any_line_of_what_follows_the_log_reads_on(trimmed: int) -> None:
    at, lines, numbers = 0, 0, [b"%d" % number for number in range(7)]
    while at <= lines:  # until there are fewer lines
        at, lines, disk = at + 1, 0, MemoryPosix()

        def look(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal lines
            if not frame.f_code.co_filename.endswith(("wal/chain.py", "wal/index.py")):
                return look
            lines += event == "line"
            if event == "line" and lines == at:  # noqa: B023  called before the next round
                signal.raise_signal(signal.SIGINT)
            return look

        with closing(open_log(MemoryStorage(disk), create=True, segment_size=SEGMENT_SIZE)) as log:
            for number in numbers[:trimmed]:
                add(log, number)
            log.trim(trimmed)
            with closing(open_log(MemoryStorage(disk), read_only=True)) as reader:
                for number in numbers[trimmed:6]:
                    add(log, number)
                sys.settrace(look)
                with suppress(KeyboardInterrupt):
                    list(reader.read(trimmed))
                sys.settrace(None)
                add(log, numbers[6])
                assert bodies(reader, trimmed) == numbers[trimmed:]
    assert at > 100
