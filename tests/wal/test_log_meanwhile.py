"""What other handles, and other threads of one handle, do to an append log between two steps of its user."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import TypeVar

import pytest

from wal import (
    Clock,
    LockBusyError,
    LogClosedError,
    LogCorruptionError,
    MemoryPosix,
    MemoryStorage,
    Record,
    WriteAheadLog,
    open_log,
)
from wal.checkpoint import Checkpoint
from wal.frame import encode_batch, encode_seal
from wal.group import Entry
from wal.head import HeadFile
from wal.interrupts import is_deferred
from wal.leader import ask
from wal.names import Names
from wal.segment import SegmentHeader
from wal.shelf import Shelf
from wal.testing.boundary import ALL_CALLS, Boundary, Call, Recorder
from wal.testing.faults import Crash, Crashing, CrashStorage
from wal.testing.hosts import ManualClock
from wal.testing.log_tools import add, bodies, files_of
from wal.turn import Turn

T = TypeVar("T")
NAMES = Names(".wal")
SIZE = 300  # of a segment: two or three batches


class Meanwhile(Boundary):
    """Does `happen` once, before (or `after`) the next call of `method` on a path that ends with `ending`."""

    def __init__(self, disk: MemoryPosix) -> None:
        super().__init__(disk, counted=ALL_CALLS)
        self.seen: list[tuple[str, str]] = []
        self.written: list[bytes] = []  # to segments
        self.plan("", "", lambda: None)

    def plan(self, method: str, ending: str, happen: Callable[[], object], *, after: bool = False) -> None:
        self._method, self._ending, self._happen, self._after = method, ending, happen, after
        self.happened = False

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        self.seen.append((call.method, call.path))
        if call.method == "pwrite" and call.path.endswith(".log"):
            self.written.append(call.arguments[1])
        if self.happened or call.method != self._method or not call.path.endswith(self._ending):
            return run()
        self.happened = True
        if self._after:
            result = run()
            self._happen()
            return result
        self._happen()
        return run()


def made(disk: MemoryPosix, batches: int = 12) -> WriteAheadLog:
    log = open_log(MemoryStorage(disk), create=True, segment_size=SIZE)
    for number in range(batches):
        add(log, b"%d" % number * 20, b"%d" % number)
    return log


def headers(log: WriteAheadLog) -> list[bytes]:
    return [record.header for batch in log.read(0) for record in batch.records]


# --- opened, read and freed at once ---------------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [True, False])
def test_an_opener_whose_checkpoint_grew_old_while_it_looked_begins_at_the_new_one(read_only: bool) -> None:
    disk = MemoryPosix()
    log = made(disk)
    posix = Meanwhile(disk)
    storage = MemoryStorage(posix)
    # its first look at the checkpoint finds the log's id, the second where to begin
    posix.plan("open_read", NAMES.checkpoint, lambda: posix.plan(*second, after=True), after=True)
    second = ("open_read", NAMES.checkpoint, lambda: log.trim(10))
    with closing(open_log(storage, read_only=read_only, segment_size=SIZE)) as opened:
        assert headers(opened) == [b"%d" % number for number in range(12)]
        assert bodies(opened, 10) == [b"%d" % number * 20 for number in (10, 11)]
    log.close()


def test_a_reader_that_crosses_a_segment_learns_of_the_trim_and_lets_freed_segments_go() -> None:
    disk = MemoryPosix()
    log = made(disk, 8)
    with closing(open_log(MemoryStorage(disk), read_only=True)) as reader:
        assert len(bodies(reader)) == 8
        log.trim(8)
        for number in range(8, 12):
            add(log, b"%d" % number * 20, b"%d" % number)
        assert reader.trimmed() == 0
        assert bodies(reader, 8) == [b"%d" % number * 20 for number in range(8, 12)]
        assert reader.trimmed() == 8
        assert headers(reader) == [b"%d" % number for number in range(12)]
    log.close()


def test_a_reader_that_crosses_a_segment_up_to_the_redo_mark_keeps_nothing_of_what_lies_before() -> None:
    disk = MemoryPosix()
    log = made(disk, 2)
    with closing(open_log(MemoryStorage(disk), read_only=True)) as reader:
        assert len(bodies(reader)) == 2
        for number in range(2, 12):
            add(log, b"%d" % number * 20, b"%d" % number)
        free, log.history.free = log.history.free, lambda redo: None  # type: ignore[attr-defined]
        log.trim(12)
        batches = reader.read(0)
        assert reader.trimmed() == 12
        log.history.free = free  # type: ignore[attr-defined]
        log.trim(12)
        assert all(opened.inode.links for opened in disk._open.values()), "a freed segment is still open"
        assert [batch.lsn for batch in batches] == list(range(1, 13))
    log.close()


def test_a_reader_that_asks_for_less_than_was_trimmed_meanwhile_gets_the_headers() -> None:
    disk = MemoryPosix()
    log = made(disk, 2)
    with closing(open_log(MemoryStorage(disk), read_only=True)) as reader:
        for number in range(2, 12):
            add(log, b"%d" % number * 20, b"%d" % number)
        log.trim(12)
        assert [batch.lsn for batch in reader.read(0, 5)] == [1, 2, 3, 4, 5]
        assert headers(reader) == [b"%d" % number for number in range(12)]
    log.close()


@pytest.mark.parametrize("trimmed", range(3, 13))
def test_what_is_freed_between_the_index_and_the_read_comes_from_the_history(trimmed: int) -> None:
    for after in range(trimmed):
        disk = MemoryPosix()
        log = made(disk)
        with closing(open_log(MemoryStorage(disk), read_only=True)) as reader:
            reader.chain.shelf.retire_before(99)  # type: ignore[attr-defined]  it reads with fresh handles
            log.trim(trimmed)
            assert [batch.lsn for batch in reader.read(after)] == list(range(after + 1, 13))
        log.close()


def test_what_is_freed_under_one_reader_changes_nothing_for_another() -> None:
    """Two threads of one handle: the one that asked for less finds that a segment was freed."""
    disk = MemoryPosix()
    log = made(disk)
    with closing(open_log(MemoryStorage(disk), read_only=True)) as reader:
        one, other = reader.read(0, 5), reader.read(0)
        log.trim(10)
        reader.chain.shelf.retire_before(99)  # type: ignore[attr-defined]  as a third thread does that learns of it
        assert [batch.lsn for batch in one] == [1, 2, 3, 4, 5]
        assert [batch.lsn for batch in other] == list(range(1, 13))
    log.close()


def test_a_reader_under_which_a_segment_is_freed_does_not_lead_a_writer_of_its_handle_back() -> None:
    """The writer has followed to the log's end, and appends there."""
    disk = MemoryPosix()
    other = made(disk)
    with closing(open_log(MemoryStorage(disk), segment_size=SIZE)) as log:
        batches = log.read(0, 5)
        other.trim(10)

        def prepare(head: int, mates: object) -> Record:
            log.chain.shelf.retire_before(99)  # type: ignore[attr-defined]  as a third thread does that learns of it
            assert [batch.lsn for batch in batches] == [1, 2, 3, 4, 5]
            return Record(b"", b"appended")

        log.append(prepare)
        assert bodies(other, 10) == [b"10" * 20, b"11" * 20, b"appended"]
        assert log.trimmed() == 10
    other.close()


def test_a_reader_under_which_more_is_freed_than_it_has_followed_goes_on_behind_the_redo_mark() -> None:
    disk = MemoryPosix()
    log = made(disk, 5)
    with closing(open_log(MemoryStorage(disk), read_only=True)) as reader:
        batches = reader.read(0, 3)
        add(log, b"5" * 20, b"5")
        log.trim(6)
        reader.chain.shelf.retire_before(99)  # type: ignore[attr-defined]  it reads with fresh handles
        assert [batch.lsn for batch in batches] == [1, 2, 3]
        assert headers(reader) == [b"%d" % number for number in range(6)]
        assert reader.size_after(6) == 0
        add(log, b"6" * 20, b"6")
        assert bodies(reader, 6) == [b"6" * 20]
    log.close()


@pytest.mark.parametrize("trimmed", [0, 3])
@pytest.mark.parametrize("known", [True, False])
def test_a_reader_flushes_what_it_finds_unless_that_is_known_to_be_durable(trimmed: int, known: bool) -> None:
    disk = MemoryPosix()
    log = made(disk, 3)
    log.trim(trimmed)
    log.close()
    if not known:
        MemoryStorage(disk).erase(NAMES.head)
    posix = Recorder(disk)
    with closing(open_log(MemoryStorage(posix), read_only=True)) as reader:
        assert len(headers(reader)) == 3
    flushes = [path for method, path in posix.trace() if method == "fdatasync"]
    assert bool(flushes) == (not known and not trimmed)


def test_a_segment_that_is_gone_though_nobody_trimmed_it_is_corruption() -> None:
    disk = MemoryPosix()
    made(disk).close()
    with closing(open_log(MemoryStorage(disk), read_only=True)) as reader:
        reader.chain.shelf.retire_before(99)  # type: ignore[attr-defined]
        MemoryStorage(disk).erase(NAMES.segment(2))
        with pytest.raises(LogCorruptionError, match="a segment is missing") as caught:
            bodies(reader)
        assert caught.value.file == NAMES.segment(2)


def test_a_segment_that_is_gone_behind_what_a_reader_has_followed_is_corruption_and_leads_it_nowhere() -> None:
    disk = MemoryPosix()
    log = made(disk, 2)
    with closing(open_log(MemoryStorage(disk), read_only=True)) as reader:
        for number in range(2, 12):
            add(log, b"%d" % number * 20)
        MemoryStorage(disk).erase(NAMES.segment(2))
        with pytest.raises(LogCorruptionError, match="a segment is missing") as caught:
            bodies(reader)
        assert caught.value.file == NAMES.segment(2)
        assert [batch.lsn for batch in reader.read(0, 2)] == [1, 2]
    log.close()


@pytest.mark.parametrize("followed", range(1, 7))
def test_a_reader_whose_segment_was_freed_goes_on_behind_the_redo_mark_even_if_that_is_just_where_it_was(
    followed: int,
) -> None:
    disk = MemoryPosix()
    log = made(disk, followed)
    with closing(open_log(MemoryStorage(disk), read_only=True)) as reader:
        for number in range(followed, 12):
            add(log, b"%d" % number * 20)
        log.trim(followed)
        reader.chain.shelf.retire_before(99)  # type: ignore[attr-defined]  it reads with fresh handles
        assert bodies(reader, followed) == [b"%d" % number * 20 for number in range(followed, 12)]
    log.close()


def test_segments_that_are_freed_while_they_are_listed_are_not_missing() -> None:
    disk = MemoryPosix()
    log = made(disk, 2)
    posix = Meanwhile(disk)
    with closing(open_log(MemoryStorage(posix), read_only=True)) as reader:

        def free() -> None:
            for number in range(12):
                add(log, b"%d" % number * 20, b"%d" % number)
            log.trim(14)

        posix.plan("listdir", NAMES.folder, free, after=True)
        assert not reader.verify().problems
        assert posix.happened
    log.close()


@pytest.mark.parametrize("call", ["open_read", "pread", "listdir"])
def test_segments_that_are_freed_while_they_are_verified_are_not_missing(call: str) -> None:
    for at in range(1, 6):
        disk = MemoryPosix()
        log = made(disk)
        posix = Meanwhile(disk)
        with closing(open_log(MemoryStorage(posix), read_only=True)) as reader:
            posix.plan(call, NAMES.segment(at) if call != "listdir" else NAMES.folder, lambda: log.trim(11), after=True)  # noqa: B023
            assert reader.verify().problems == ()
            assert posix.happened
        log.close()


def test_a_segment_that_nobody_freed_is_missing_though_it_was_listed() -> None:
    disk = MemoryPosix()
    made(disk).close()
    posix = Meanwhile(disk)
    with closing(open_log(MemoryStorage(posix), read_only=True)) as reader:
        posix.plan("open_read", NAMES.segment(2), lambda: MemoryStorage(disk).erase(NAMES.segment(2)))
        (problem,) = reader.verify().problems
        assert "No such file" in problem and NAMES.segment(2) in problem


def test_headers_of_a_log_whose_segments_and_history_are_gone_are_not_just_none() -> None:
    disk = MemoryPosix()
    log = made(disk)
    log.trim(11)
    log.close()
    with closing(open_log(MemoryStorage(disk), read_only=True)) as reader:
        for name in files_of(MemoryStorage(disk)):
            if name.endswith(".log") or name.startswith(NAMES.history_folder):
                MemoryStorage(disk).erase(name)
        with pytest.raises(LogCorruptionError, match="the log's segments are missing") as caught:
            headers(reader)
        assert caught.value.file == NAMES.segment(1)


@pytest.mark.parametrize("call", ["open_read", "pread"])
def test_two_that_trim_free_the_same_segments(call: str) -> None:
    """Each finds some of them gone, at whatever step."""
    for at in range(1, 6):
        disk = MemoryPosix()
        other = made(disk)
        posix = Meanwhile(disk)
        with closing(open_log(MemoryStorage(posix), segment_size=SIZE)) as log:
            posix.plan(call, NAMES.segment(at), lambda: other.trim(11))  # noqa: B023
            log.trim(11)
            assert headers(log) == [b"%d" % number for number in range(12)]
            assert log.verify().problems == ()
        other.close()


def test_a_header_is_read_from_the_history_when_its_segment_goes_before_it_is_opened() -> None:
    disk = MemoryPosix()
    log = made(disk)
    log.history.free = lambda redo: None  # type: ignore[attr-defined]  trimmed, and not freed yet
    log.trim(11)
    del log.history.free  # type: ignore[attr-defined]
    posix = Meanwhile(disk)
    with closing(open_log(MemoryStorage(posix), read_only=True)) as reader:
        posix.plan("open_read", NAMES.segment(1), lambda: log.trim(11))
        assert headers(reader) == [b"%d" % number for number in range(12)]
        assert posix.happened
    log.close()


def test_who_takes_the_right_learns_of_a_trim_at_whichever_step_its_process_died() -> None:
    step, ended = 0, False
    while not ended:
        step += 1
        disk = MemoryPosix()
        made(disk, 3).close()
        other = open_log(MemoryStorage(disk), segment_size=SIZE)
        posix = CrashStorage(Crashing(10**9, "after"), disk)
        log = open_log(MemoryStorage(posix), segment_size=SIZE)
        posix.plan = Crashing(posix.count + step, "after")
        with suppress(Crash):
            log.trim(2)
            log.close()
            ended = True
        with other.right():
            assert other.trimmed() == Checkpoint.decode(MemoryStorage(disk).read(NAMES.checkpoint).data, "").redo, step
        other.close()
    assert step > 8


def test_a_trim_stops_at_a_segment_without_a_seal() -> None:
    """A rotation that was cut short has left its successor: nothing is freed that is still being written."""
    disk = MemoryPosix()
    log = made(disk, 1)
    tail = log.chain.tail  # type: ignore[attr-defined]
    _, crc = encode_seal(1, tail.crc, 2)
    data = SegmentHeader(bytes.fromhex(log.id), 2, 2, crc).encode()
    MemoryStorage(disk).publish(NAMES.segment(2), data, b"", durable=True)
    log.trim(1)
    assert not any(name.startswith(NAMES.history_folder) for name in files_of(MemoryStorage(disk)))
    assert add(log, b"next").lsn == 2
    assert bodies(log) == [None, b"next"]
    log.close()


def test_an_opener_that_finds_the_segments_removed_while_it_looked_says_so() -> None:
    disk = MemoryPosix()
    made(disk, 1).close()
    posix = Meanwhile(disk)
    posix.plan("open_read", NAMES.head, lambda: MemoryStorage(disk).erase(NAMES.segment(1)))
    with pytest.raises(LogCorruptionError, match="is missing") as caught:
        open_log(MemoryStorage(posix), read_only=True)
    assert caught.value.file == NAMES.segment(1)


# --- the log's end --------------------------------------------------------------------------------------------------


def sealed(disk: MemoryPosix, log: WriteAheadLog) -> None:
    """Another process rotated, and it did not come to a batch in the new segment."""
    tail = log.chain.tail  # type: ignore[attr-defined]
    seal, crc = encode_seal(tail.lsn, tail.crc, tail.number + 1)
    storage = MemoryStorage(disk)
    header = SegmentHeader(bytes.fromhex(log.id), tail.number + 1, tail.lsn + 1, crc)
    storage.publish(NAMES.segment(tail.number + 1), header.encode(), b"", durable=True)
    with closing(storage.open_file(NAMES.segment(tail.number), writable=True)) as file:
        file.pwrite(seal, tail.offset)


@pytest.mark.parametrize("trimmed", [1, 2])
def test_a_seal_that_may_not_be_durable_is_written_again(trimmed: int) -> None:
    """With the last batch, or alone behind the redo mark: whoever builds on its successor flushes it first."""
    disk = MemoryPosix()
    log = made(disk, 2)
    log.trim(trimmed)
    tail = log.chain.tail  # type: ignore[attr-defined]
    seal, _ = encode_seal(2, tail.crc, tail.number + 1)
    sealed(disk, log)
    log.close()
    posix = Meanwhile(disk)
    with closing(open_log(MemoryStorage(posix), segment_size=SIZE)) as again:
        calls = [method for method, path in posix.seen if path.endswith(NAMES.segment(tail.number))]
        assert calls[calls.index("pwrite") :].count("fdatasync") == 1
        assert posix.written[-1].endswith(seal)
        assert add(again, b"next").lsn == 3
        assert again.verify().problems == ()


@pytest.mark.parametrize("who", ["the same handle", "another process"])
@pytest.mark.parametrize("empty", [False, True], ids=["a segment with batches", "an empty segment"])
def test_after_a_trim_up_to_the_end_an_append_that_somebody_was_killed_in_is_settled_without_what_was_freed(
    who: str, empty: bool
) -> None:
    disk = MemoryPosix()
    log = made(disk, 3)
    other = log if who == "the same handle" else open_log(MemoryStorage(disk), segment_size=SIZE)
    if empty:
        sealed(disk, log)
        log.settle()
    log.chain.shelf.retire_before(99)  # type: ignore[attr-defined]  nothing is open any more
    other.trim(3)
    assert NAMES.segment(1) not in files_of(MemoryStorage(disk))
    with closing(HeadFile(MemoryStorage(disk).open_file(NAMES.head, writable=True))) as head:
        head.announce(4)
    assert add(log, b"next").lsn == 4
    assert bodies(log, 3) == [b"next"]
    assert log.verify().problems == ()
    log.close()
    other.close()


def test_a_segment_whose_seal_may_not_be_durable_and_that_nobody_freed_is_missing() -> None:
    disk = MemoryPosix()
    with closing(made(disk, 2)) as log:
        sealed(disk, log)
        log.settle()
        log.chain.shelf.retire_before(99)  # type: ignore[attr-defined]
        MemoryStorage(disk).erase(NAMES.segment(1))
        with closing(HeadFile(MemoryStorage(disk).open_file(NAMES.head, writable=True))) as head:
            head.announce(3)
        with pytest.raises(FileNotFoundError):
            add(log, b"next")


@pytest.mark.parametrize("batches", range(1, 6))
def test_the_last_batch_is_written_again_whole_whichever_segment_it_is_in(batches: int) -> None:
    disk = MemoryPosix()
    log = made(disk, batches)
    tail = log.chain.tail  # type: ignore[attr-defined]
    log.close()
    frame, _ = encode_batch(batches + 1, tail.crc, [Record(b"", b"its flush may have failed")])
    with closing(MemoryStorage(disk).open_file(NAMES.segment(tail.number), writable=True)) as file:
        file.pwrite(frame, tail.offset)
    posix = Meanwhile(disk)
    with closing(open_log(MemoryStorage(posix), segment_size=SIZE)) as log:
        assert log.tail_report.adopted == 1
        assert posix.written == [frame]


def test_where_all_headers_were_pruned_and_the_last_segment_is_empty_nothing_is_read() -> None:
    """A rotation to whose first batch it did not come; then the segment before was freed, and its headers removed."""
    disk = MemoryPosix()
    log = made(disk, 2)
    log.trim(2)
    sealed(disk, log)
    log.close()
    storage = MemoryStorage(disk)
    with closing(open_log(storage, segment_size=SIZE)) as again:
        again.trim(2)
        assert headers(again) == [b"0", b"1"]
        storage.erase(NAMES.history(1))
        assert headers(again) == []
        assert add(again, b"next", b"2").lsn == 3
        assert headers(again) == [b"2"]
        assert again.verify().problems == ()


def test_bytes_behind_the_end_that_nobody_announced_are_settled_before_an_append() -> None:
    """The frame reached the disk, the announcement before it did not."""
    disk = MemoryPosix()
    log = made(disk, 2)
    tail = log.chain.tail  # type: ignore[attr-defined]
    frame, _ = encode_batch(3, tail.crc, [Record(b"", b"unannounced")])
    file = MemoryStorage(disk).open_file(NAMES.segment(tail.number), writable=True)
    file.pwrite(frame, tail.offset)
    file.close()
    assert add(log, b"next").lsn == 4
    assert bodies(log, 2) == [b"unannounced", b"next"]
    log.close()


def test_evidence_that_is_in_quarantine_already_is_never_overwritten() -> None:
    disk = MemoryPosix()
    log = made(disk, 2)
    tail = log.chain.tail  # type: ignore[attr-defined]
    kept = []
    for torn in (b"first", b"second", b"second"):
        file = MemoryStorage(disk).open_file(NAMES.segment(tail.number), writable=True)
        file.pwrite(torn, tail.offset)
        file.close()
        log.close()
        log = open_log(MemoryStorage(disk), segment_size=SIZE)
        kept += log.tail_report.quarantine
    log.close()
    assert kept == [NAMES.quarantine(tail.number, tail.offset, attempt) for attempt in (0, 1, 1)]
    files = files_of(MemoryStorage(disk))
    assert [files[name] for name in kept[:2]] == [b"first", b"second"]


def test_a_batch_that_another_thread_met_while_it_was_flushed_is_indexed_once() -> None:
    """The head word cannot be read for a moment, so that thread reads the log itself."""
    disk = MemoryPosix()
    made(disk, 1).close()
    posix = Meanwhile(disk)
    log = open_log(MemoryStorage(posix), segment_size=SIZE)

    def look() -> None:
        head = disk.open(f"/disk/{NAMES.head}", 2)
        disk.pwrite(head, b"\xff", 32)
        disk.close(head)
        assert log.head() == 2

    posix.plan("fdatasync", ".log", look, after=True)
    assert add(log, b"met").lsn == 2
    assert posix.happened
    assert bodies(log, 1) == [b"met"]
    assert (add(log, b"next").lsn, add(log, b"last").lsn) == (3, 4)
    assert bodies(log, 1) == [b"met", b"next", b"last"]
    assert log.verify().problems == ()
    log.close()


def test_a_filesystem_that_fails_a_readers_flush_lets_it_serve_nothing_unless_it_never_flushes() -> None:
    for number, served in ((errno.EIO, False), (errno.EBADF, True)):
        disk = MemoryPosix()
        log = made(disk, 1)
        log.close()
        MemoryStorage(disk).erase(NAMES.head)  # so that the reader must look, and flush what it finds
        posix = Meanwhile(disk)

        def fail(number: int = number) -> None:
            raise OSError(number, "no flush")

        posix.plan("fdatasync", ".log", fail)
        if served:
            with closing(open_log(MemoryStorage(posix), read_only=True)) as reader:
                assert len(bodies(reader)) == 1
        else:
            with pytest.raises(OSError, match="no flush"):
                open_log(MemoryStorage(posix), read_only=True)
        assert posix.happened


# --- openers --------------------------------------------------------------------------------------------------------


def test_a_creator_that_finds_the_log_made_while_it_waited_opens_that() -> None:
    disk = MemoryPosix()
    posix, made_there = Meanwhile(disk), []
    posix.plan("flock", ".wal", lambda: made_there.append(made(disk, 3)))
    with closing(open_log(MemoryStorage(posix), create=True, segment_size=SIZE)) as log:
        assert log.id == made_there[0].id
        assert len(bodies(log)) == 3
    made_there[0].close()


def test_an_opener_that_is_not_let_in_names_the_lock() -> None:
    disk = MemoryPosix()
    made(disk, 1).close()
    with closing(MemoryStorage(disk).lock(NAMES.alive)) as alive:
        assert alive.acquire()
        with pytest.raises(LockBusyError, match="alive was not free"):
            open_log(MemoryStorage(disk), lock_timeout=0)


def test_who_opens_a_log_that_others_have_open_or_asks_for_them_waits_for_nobody_and_finds_nothing_to_repair() -> None:
    disk = MemoryPosix()
    log, clock = made(disk, 1), ManualClock()
    with closing(open_log(MemoryStorage(disk, clock=clock), clock=clock)) as second:
        assert second.tail_report == (0, (), 0)
    with closing(open_log(MemoryStorage(disk, clock=clock), read_only=True, clock=clock)) as reader:
        assert reader.attended() is True
    assert clock.now == 0.0
    log.close()


def test_who_opens_a_log_in_the_middle_of_an_append_that_then_ends_well_finds_nothing_to_repair() -> None:
    disk = MemoryPosix()
    log = made(disk, 3)
    posix = Meanwhile(disk)
    head = log.head_file  # type: ignore[attr-defined]
    head.announce(4)
    posix.plan("flock", ".wal", lambda: head.announce(3))
    with closing(open_log(MemoryStorage(posix), segment_size=SIZE)) as second:
        assert posix.happened
        assert second.tail_report == (0, (), 0)
    log.close()


def test_whether_a_log_is_attended() -> None:
    disk = MemoryPosix()
    log = made(disk, 1)
    with closing(open_log(MemoryStorage(disk), read_only=True, lock_timeout=0)) as reader:
        assert log.attended() is reader.attended() is True
        log.close()
        assert reader.attended() is False
        with closing(MemoryStorage(disk).lock(NAMES.opening)) as opening:
            assert opening.acquire()
            assert reader.attended() is True, "somebody recovers it"
        for name in (NAMES.alive, NAMES.opening):
            MemoryStorage(disk).erase(name)
            before = files_of(MemoryStorage(disk))
            assert reader.attended() is False
            assert files_of(MemoryStorage(disk)) == before
            MemoryStorage(disk).publish(name, b"", b"", durable=False)


def test_a_log_that_cannot_be_locked_tells_nothing_of_who_attends_it() -> None:
    disk = MemoryPosix()
    made(disk, 1).close()
    posix = Meanwhile(disk)
    with closing(open_log(MemoryStorage(posix), read_only=True)) as reader:

        def fail() -> None:
            raise OSError(errno.EACCES, "no lock for you")

        posix.plan("flock", "opening", fail)
        assert reader.attended() is None
        assert posix.happened


# --- threads of one handle ------------------------------------------------------------------------------------------


class Elsewhere:
    """A thread that stays inside `block` until the end of the with block."""

    def __init__(self, block: object) -> None:
        self._block, self._inside, self._go = block, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self._block:  # type: ignore[attr-defined]
            self._inside.set()
            self._go.wait(60)

    def go(self) -> None:
        self._go.set()
        self._thread.join()

    def __enter__(self) -> Elsewhere:
        self._thread.start()
        assert self._inside.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.go()


@pytest.mark.parametrize("limit", range(4, 12))
def test_a_reader_that_learns_of_a_mark_beyond_what_it_has_followed_finds_each_batch_behind_it(limit: int) -> None:
    """It follows to a head that it asked for earlier, meets another segment, and looks how far was trimmed by then."""
    disk = MemoryPosix()
    other = made(disk, 1)
    posix = Meanwhile(disk)
    log = open_log(MemoryStorage(posix), read_only=True)
    for number in range(12):
        add(other, b"%d" % number * 20)
    posix.plan("open_read", NAMES.checkpoint, lambda: other.trim(limit + 1))
    assert [batch.lsn for batch in log.read(0, limit)] == [*range(1, limit + 1)]
    assert posix.happened
    found = list(log.read(limit))
    assert [batch.lsn for batch in found] == [*range(limit + 1, 14)]
    assert [batch.records[0].body for batch in found[1:]] == [b"%d" % n * 20 for n in range(limit, 12)]
    log.close()
    other.close()


def test_a_right_that_another_thread_of_the_handle_has_is_waited_for_and_then_said_to_be_busy() -> None:
    log = made(MemoryPosix(), 1)
    with (
        Elsewhere(log.right()),
        pytest.raises(LockBusyError, match="a thread of this process has it"),
        log.right(timeout=0.12),
    ):
        pass
    assert not is_deferred()
    with Elsewhere(log.right()) as other:
        threading.Timer(0.12, other.go).start()
        with log.right(timeout=60):
            assert is_deferred()
    assert not is_deferred()
    log.close()


def test_who_has_waited_for_a_turn_has_so_much_less_time_left() -> None:
    class Asked(ManualClock):
        def monotonic(self) -> float:
            now = super().monotonic()
            asked.set()
            return now

    asked, left = threading.Event(), list[float]()
    clock = Asked()
    turn = Turn("it", clock)
    turn.take(1.0)
    other = threading.Thread(target=lambda: left.append(turn.take(60.0)))
    other.start()
    assert asked.wait(30)
    clock.now = 20.0
    turn.release()
    other.join()
    assert left == [40.0]


class NeverFree:
    """A lock that somebody keeps."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def acquire(self, *, blocking: bool = True, timeout: float = 0.0) -> bool:
        self._clock.now += timeout
        return False


def test_who_waits_for_a_turn_waits_as_long_as_he_may_and_no_longer() -> None:
    clock = ManualClock()
    turn = Turn("it", clock)
    turn._lock = NeverFree(clock)  # type: ignore[assignment]
    assert not turn.try_take(0.12)
    assert clock.now == pytest.approx(0.12)


def test_a_turn_that_was_refused_in_its_own_thread_is_free_when_it_ends() -> None:
    turn, taken = Turn("it", Clock()), list[bool]()
    turn.take(0.0)
    assert not turn.try_take(0.0)
    turn.release()
    thread = threading.Thread(target=lambda: taken.append(turn.try_take(0.0)))
    thread.start()
    thread.join()
    assert taken == [True]


def test_a_right_whose_lock_could_not_be_taken_for_an_error_can_be_taken_later() -> None:
    disk = MemoryPosix()
    made(disk, 1).close()
    posix = Meanwhile(disk)

    def fail() -> None:
        raise OSError(errno.ENOLCK, "no locks")

    with closing(open_log(MemoryStorage(posix))) as log:
        posix.plan("flock", NAMES.apply, fail)
        with pytest.raises(OSError, match="no locks"), log.right():
            pass
        with log.right(timeout=0):
            pass


def test_ctrl_c_ends_the_wait_for_a_right_that_another_thread_of_the_handle_has() -> None:
    clock, limit = Clock(), 20.0
    with closing(made(MemoryPosix(), 1)) as log, Elsewhere(log.right()):
        begun = clock.monotonic()
        threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt), log.right(timeout=limit):
            pass
        assert clock.monotonic() - begun < limit


def test_a_handle_that_is_closed_while_a_thread_has_the_right_closes_and_the_others_learn_it() -> None:
    log = open_log(MemoryStorage(), create=True, lock_timeout=0.05)
    right = log.right(timeout=60)
    inside = log.right()
    inside.__enter__()
    log.close()
    with pytest.raises(LogClosedError):  # it is told that it was not done in time
        inside.__exit__(None, None, None)
    with pytest.raises(LogClosedError), right:
        pass


def test_a_right_that_cannot_begin_is_given_back() -> None:
    disk = MemoryPosix()
    log, other = made(disk, 3), open_log(MemoryStorage(disk))
    other.trim(2)
    checkpoint = MemoryStorage(disk).read(NAMES.checkpoint).data
    MemoryStorage(disk).publish(NAMES.checkpoint, b"?", b"", durable=False)
    with pytest.raises(LogCorruptionError), log.right(timeout=0):
        pass
    MemoryStorage(disk).publish(NAMES.checkpoint, checkpoint, b"", durable=False)
    with other.right(timeout=0), pytest.raises(LockBusyError), log.right(timeout=0):
        pass
    with log.right(timeout=0):
        assert log.trimmed() == 2
    log.close()
    other.close()


def test_who_could_not_say_that_the_right_is_free_again_learns_why_and_the_next_that_he_may_have_died() -> None:
    disk = MemoryPosix()
    made(disk, 1).close()
    posix = Meanwhile(disk)

    def fail() -> None:
        raise OSError(errno.EIO, "no head")

    with closing(open_log(MemoryStorage(posix))) as log:
        with pytest.raises(OSError, match="no head"), log.right():
            posix.plan("pwrite", NAMES.head, fail)
        with log.right(timeout=0) as tenure:
            assert tenure.died


def test_a_segment_that_is_let_go_while_a_thread_reads_it_is_closed_after_that() -> None:
    disk = MemoryPosix()
    log = made(disk)
    posix = Meanwhile(disk)
    with closing(open_log(MemoryStorage(posix), read_only=True)) as reader:
        assert len(bodies(reader)) == 12
        log.trim(12)
        posix.plan("pread", NAMES.segment(1), lambda: reader.trimmed(fresh=True))
        assert headers(reader) == [b"%d" % number for number in range(12)]
        assert posix.happened
        assert all(opened.inode.links for opened in disk._open.values()), "a freed segment is still open"
    log.close()


@pytest.mark.parametrize("use", ["pread", "size", "datasync", "file"])
def test_a_segment_that_is_let_go_after_any_use_is_closed(use: str) -> None:
    disk = MemoryPosix()
    with closing(made(disk, 1)):
        shelf = Shelf(MemoryStorage(disk), NAMES, writable=True)
        before = set(disk._open)
        getattr(shelf, use)(1, *[8, 0][: 2 * (use == "pread")])
        assert len(disk._open) == len(before) + 1
        shelf.retire(1)
        assert set(disk._open) == before


def test_a_reader_opens_nothing_to_write() -> None:
    disk = MemoryPosix()
    log = made(disk)
    log.trim(5)
    posix = Recorder(disk, counted=ALL_CALLS)
    with closing(open_log(MemoryStorage(posix), read_only=True)) as reader:
        assert len(headers(reader)) == 12
        assert not reader.verify().problems
    flags = [int(str(call.arguments[1])) for call in posix.calls if call.method == "open_read"]
    assert len(flags) > 3 and not any(each & (os.O_WRONLY | os.O_RDWR) for each in flags)
    log.close()


def test_what_a_handle_wrote_last_it_reads_from_memory_also_after_others_went_on() -> None:
    disk = MemoryPosix()
    posix = Recorder(disk, counted=ALL_CALLS)
    log, other = (open_log(MemoryStorage(each), create=True) for each in (posix, disk))
    add(log, b"mine")
    add(other, b"theirs")
    assert log.head() == 2
    assert bodies(log, 1) == [b"theirs"]
    posix.calls.clear()
    assert bodies(log, 0)[0] == b"mine"
    offsets = [call.arguments[2] for call in posix.calls if call.method == "pread" and call.path.endswith(".log")]
    assert offsets == [log.chain.index.place(2)[1]]  # type: ignore[attr-defined]
    log.close()
    other.close()


def test_a_log_that_is_closed_during_a_read_ends_it_and_then_says_so() -> None:
    disk = MemoryPosix()
    made(disk).close()
    before = set(disk._open)
    posix = Meanwhile(disk)
    storage = MemoryStorage(posix)
    log = open_log(storage, read_only=True)
    posix.plan("pread", NAMES.segment(1), log.close)
    with pytest.raises(LogClosedError):
        bodies(log)
    assert posix.happened
    storage.close()
    assert set(disk._open) == before, "what was read at that moment is closed after it"


def test_a_log_that_is_closed_while_it_looks_at_the_head_says_so() -> None:
    disk = MemoryPosix()
    other = made(disk, 1)
    posix = Meanwhile(disk)
    log = open_log(MemoryStorage(posix), read_only=True)
    add(other, b"new")
    posix.plan("pread", NAMES.head, log.close, after=True)
    with pytest.raises(LogClosedError):
        log.read(0)
    other.close()


def test_a_batch_ends_where_it_is_large_enough() -> None:
    entries = [Entry(lambda head, mates: Record(b"", bytes(5 << 20))) for _ in range(3)]
    accepted, refused = ask(entries, 0)
    assert (accepted, refused) == (entries[:2], [])


class Huge(bytes):
    """More than a length field can say."""

    def __len__(self) -> int:
        return 1 << 32


def test_a_record_beyond_four_gigabytes_is_refused_and_the_log_goes_on() -> None:
    log = made(MemoryPosix(), 1)
    with pytest.raises(ValueError, match="4 GiB"):
        add(log, Huge())
    assert add(log, b"next").lsn == 2
    log.close()


def test_a_record_without_a_body_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a body"):
        encode_batch(1, 0, [Record(b"header", None)])


def test_an_error_that_names_a_file_travels_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(LogCorruptionError("damaged", file="x.log", offset=7)))
    assert (error.file, error.offset, str(error)) == ("x.log", 7, "damaged (file x.log, offset 7)")


def test_a_log_can_be_asked_what_is_known_settled_and_trimmed_now() -> None:
    disk = MemoryPosix()
    log, other = made(disk, 3), open_log(MemoryStorage(disk))
    assert log.known() == log.head() == 3
    log.settle()
    assert log.head() == 3, "a log of segments has nothing on its way"
    for redo in (1, 2):
        log.trim(redo)
        assert other.trimmed() == redo - 1
        assert other.trimmed(fresh=True) == other.trimmed(fresh=True) == redo
    log.close()
    other.close()


def test_who_learns_of_a_trim_beyond_what_it_has_followed_counts_nothing_behind_it() -> None:
    disk = MemoryPosix()
    log, other = (open_log(MemoryStorage(disk), create=True) for _ in range(2))
    for number in range(5):
        add(log, b"%d" % number)
    log.trim(5)
    assert other.trimmed(fresh=True) == 5
    assert bodies(other) == [None] * 5
    assert other.size_after(5) == 0
    log.close()
    other.close()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_closed_handle_stays_closed_after_a_fork_and_a_reader_goes_on(read_only: bool) -> None:
    disk = MemoryPosix()
    made(disk, 2).close()
    log = open_log(MemoryStorage(disk), read_only=read_only)
    inherited = log.head_file  # type: ignore[attr-defined]
    log._renewal.pid = -1  # type: ignore[attr-defined]
    log.reset_after_fork()
    assert log.head_file is not inherited  # type: ignore[attr-defined]
    assert len(bodies(log)) == 2
    log.close()
    log._renewal.pid = -1  # type: ignore[attr-defined]
    log.reset_after_fork()
    with pytest.raises(LogClosedError):
        log.head()


def test_a_child_that_was_forked_past_python_drops_the_locks_of_its_parent() -> None:
    """A fork in C calls none of Python's hooks. The child would hold for ever what the parent's threads held then, and
    the parent would seem to live as long as the child does."""
    disk = MemoryPosix()
    log = open_log(MemoryStorage(disk), create=True, lock_timeout=0.0)
    log.append_right.acquire()  # type: ignore[attr-defined]
    log._apply_right.acquire()  # type: ignore[attr-defined]
    log._renewal.pid = -1  # type: ignore[attr-defined]
    log.reset_after_fork()
    with log.right():
        assert add(log, b"child").lsn == 1
    log.close()
    with closing(MemoryStorage(disk).lock(NAMES.alive)) as alive:
        assert alive.acquire(timeout=0)


def test_a_log_without_its_folder_has_no_segments() -> None:
    disk = MemoryPosix()
    made(disk, 1).close()
    with closing(open_log(MemoryStorage(disk), read_only=True)) as reader:
        MemoryStorage(disk).erase(".wal")
        (problem, *more) = reader.verify().problems
        assert "checkpoint is missing" in problem
        assert any("segments are missing" in one for one in more)
