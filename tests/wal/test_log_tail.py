"""What stands behind the last frame: adopted, quarantined, or refused. E4 to E18 name cases of the design review."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import closing
from typing import TypeVar, cast

import pytest

from wal import (
    InDoubtError,
    LogCorruptionError,
    MemoryPosix,
    MemoryStorage,
    PoisonedError,
    Record,
    WriteAheadLog,
    open_log,
)
from wal.checkpoint import Checkpoint
from wal.format import FRAME_HEADER, SEGMENT_HEADER, WORD
from wal.frame import encode_batch, encode_seal
from wal.head import HeadFile, new_head
from wal.names import Names
from wal.segment import SegmentHeader
from wal.testing.boundary import ALL_CALLS, Boundary, Call, Recorder
from wal.testing.faults import Crash, Crashing, CrashStorage, Failing, FaultyStorage
from wal.testing.log_tools import add, bodies, files_of

T = TypeVar("T")

NAMES = Names(".wal")
ONE = NAMES.segment(1)


def crc_at(disk: MemoryPosix, lsn: int) -> tuple[int, int, int]:
    """(segment, offset, CRC) of the tail behind batch `lsn`."""
    log = open_log(MemoryStorage(disk), read_only=True)
    tail = log.chain.tail  # type: ignore[attr-defined]
    assert tail.lsn == lsn
    log.close()
    return tail.number, tail.offset, tail.crc


def segment(disk: MemoryPosix) -> bytes:
    """The content of the first segment."""
    return MemoryStorage(disk).read(ONE).data


def put(disk: MemoryPosix, name: str, data: bytes, offset: int) -> None:
    file = MemoryStorage(disk).open_file(name, writable=True)
    file.pwrite(data, offset)
    file.close()


def made(batches: int = 3) -> MemoryPosix:
    disk = MemoryPosix()
    log = open_log(MemoryStorage(disk), create=True)
    for number in range(batches):
        add(log, b"%d" % number)
    log.close()
    return disk


def frame_after(disk: MemoryPosix, lsn: int, body: bytes) -> tuple[bytes, int, int]:
    """(frame, offset, CRC) of a batch that would follow."""
    _, offset, previous = crc_at(disk, lsn)
    frame, crc = encode_batch(lsn + 1, previous, [Record(b"", body)])
    return frame, offset, crc


def test_a_whole_frame_that_nobody_acknowledged_is_adopted_by_the_next_opener() -> None:
    disk = made()
    frame, offset, _ = frame_after(disk, 3, b"unacknowledged")
    put(disk, ONE, frame, offset)
    log = open_log(MemoryStorage(disk))
    assert log.tail_report.adopted == 1
    assert bodies(log, 3) == [b"unacknowledged"]
    log.close()


def test_E4_a_living_handle_rewrites_and_flushes_what_it_finds_before_it_appends() -> None:
    disk = made()
    calls = FaultyStorage(Failing(10**9), disk)
    seen: list[str] = []
    around = calls.around
    calls.around = lambda call, run, tear: (seen.append(call.method), around(call, run, tear))[1]  # type: ignore[method-assign]
    log = open_log(MemoryStorage(calls))
    frame, offset, _ = frame_after(disk, 3, b"its flush had failed")
    put(disk, ONE, frame, offset)
    put(disk, NAMES.head, WORD.pack(4, 4 ^ (2**64 - 1)), 32 + 16)  # it had announced its batch
    seen.clear()
    assert add(log, b"mine").lsn == 5
    assert seen.index("fdatasync") > seen.index("pwrite")
    assert seen.count("fdatasync") == 2
    assert bodies(log, 3) == [b"its flush had failed", b"mine"]
    log.close()


def test_E4b_a_torn_tail_is_kept_in_quarantine_zeroed_and_reported() -> None:
    disk = made()
    frame, offset, _ = frame_after(disk, 3, b"torn" * 100)
    head = HeadFile(MemoryStorage(disk).open_file(NAMES.head, writable=True))
    head.announce(4)
    put(disk, ONE, frame[:100], offset)
    log = open_log(MemoryStorage(disk))
    report = log.tail_report
    assert (report.quarantined, report.adopted, len(report.quarantine)) == (100, 0, 1)
    assert files_of(MemoryStorage(disk))[report.quarantine[0]] == frame[:100]
    assert head.state() == (3, 3), "settled: nobody has to look behind the last frame again"
    assert log.verify().problems == ()
    assert add(log, b"next").lsn == 4
    log.close()
    again = open_log(MemoryStorage(disk))
    assert again.tail_report.quarantined == 0
    again.close()


@pytest.mark.parametrize("kept", [slice(100), slice(512, 600)], ids=["its end is lost", "its first sector is lost"])
def test_E4b_what_a_living_handle_settles_nobody_has_to_look_at_again(kept: slice) -> None:
    disk = made()
    log = open_log(MemoryStorage(disk))
    frame, offset, _ = frame_after(disk, 3, b"torn" * 200)
    head = HeadFile(MemoryStorage(disk).open_file(NAMES.head, writable=True))
    head.announce(4)
    put(disk, ONE, frame[kept], offset + (kept.start or 0))
    log.settle()
    assert head.state() == (3, 3)
    assert not any(segment(disk)[offset:])
    log.close()


def test_E4b_zeros_are_not_the_end_when_bytes_follow_them() -> None:
    disk = made()
    frame, offset, _ = frame_after(disk, 3, b"the first sector is lost" * 100)
    put(disk, ONE, bytes(512) + frame[512:], offset)
    log = open_log(MemoryStorage(disk))
    assert log.tail_report.quarantined > 0
    add(log, b"x")
    assert log.verify().problems == ()
    log.close()


def test_E4b_a_later_intact_frame_makes_a_bad_one_corruption() -> None:
    disk = made()
    frame, offset, crc = frame_after(disk, 3, b"bad")
    later, _ = encode_batch(5, crc, [Record(b"", b"good")])
    put(disk, ONE, bytes(len(frame)) + later, offset)
    before = files_of(MemoryStorage(disk))
    with pytest.raises(LogCorruptionError) as caught:
        open_log(MemoryStorage(disk))
    assert (caught.value.file, caught.value.offset) == (ONE, offset)
    assert files_of(MemoryStorage(disk)) == before


def test_an_intact_frame_that_follows_another_one_is_not_the_next_batch() -> None:
    """The CRC before it is that of another chain: an older life of these bytes, or another log."""
    disk = made()
    _, offset, previous = frame_after(disk, 3, b"")
    stranger, _ = encode_batch(4, previous ^ 1, [Record(b"", b"a stranger")])
    put(disk, ONE, stranger, offset)
    log = open_log(MemoryStorage(disk))
    assert log.tail_report.quarantined and not log.tail_report.adopted
    assert bodies(log) == [b"0", b"1", b"2"]
    log.close()


def test_E5_a_head_word_above_the_last_intact_frame_is_corruption() -> None:
    disk = made()
    _, offset, _ = crc_at(disk, 3)
    put(disk, NAMES.head, WORD.pack(4, 4 ^ (2**64 - 1)), 32)
    for read_only in (False, True):
        with pytest.raises(LogCorruptionError) as caught:
            open_log(MemoryStorage(disk), read_only=read_only)
        assert (caught.value.file, caught.value.offset) == (ONE, offset)


def test_E4c_a_handle_with_the_old_segment_open_finds_the_seal() -> None:
    disk = MemoryPosix()
    first = open_log(MemoryStorage(disk), create=True, segment_size=300)
    second = open_log(MemoryStorage(disk), segment_size=300)
    for number in range(20):
        add(first, b"%d" % number * 10)
    assert add(second, b"behind the seals").lsn == 21
    assert bodies(first)[-1] == b"behind the seals"
    assert first.verify().problems == ()
    first.close()
    second.close()


def orphan(disk: MemoryPosix, content: bytes = b"") -> None:
    """The successor of an interrupted rotation: segment 1 has no seal."""
    log = open_log(MemoryStorage(disk), read_only=True)
    _, _, crc = crc_at(disk, 3)
    _, seal_crc = encode_seal(3, crc, 2)
    header = SegmentHeader(bytes.fromhex(log.id), 2, 4, seal_crc)
    log.close()
    data = bytearray(header.encode().ljust(4096, b"\0"))
    data[SEGMENT_HEADER : SEGMENT_HEADER + len(content)] = content
    MemoryStorage(disk).publish(NAMES.segment(2), bytes(data), b"", durable=True)


def test_E4c_an_empty_successor_without_a_seal_is_replaced() -> None:
    disk = made()
    orphan(disk)
    log = open_log(MemoryStorage(disk), segment_size=400)
    for number in range(10):
        add(log, b"%d" % number * 30)
    assert len(bodies(log)) == 13
    assert log.verify().problems == ()
    log.close()


def test_E4c_an_empty_successor_with_a_damaged_header_is_corruption_and_stays() -> None:
    disk = made()
    orphan(disk)
    put(disk, NAMES.segment(2), b"?", 30)
    before = files_of(MemoryStorage(disk))
    with pytest.raises(LogCorruptionError, match="header is damaged") as caught:
        open_log(MemoryStorage(disk))
    assert caught.value.file == NAMES.segment(2)
    assert files_of(MemoryStorage(disk)) == before


def test_verify_compares_the_head_with_the_batches_before_an_empty_successor() -> None:
    disk = made(2)
    _, offset, _ = crc_at(disk, 2)
    with closing(open_log(MemoryStorage(disk))) as log:
        add(log, b"2")
        orphan(disk)
        assert log.verify().problems == ()
        put(disk, ONE, bytes(len(segment(disk)) - offset), offset)
        (problem,) = log.verify().problems
        assert problem == f"batch 3 cannot be read, and 3 had been flushed (file {ONE}, offset {offset})"


def rotated(disk: MemoryPosix) -> None:
    """Another process appends until the segment that it goes on in is the second one."""
    with closing(open_log(MemoryStorage(disk), segment_size=400)) as log:
        for _ in range(10):
            add(log, b"theirs" * 5)
        assert log.chain.tail.number > 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("look", ["headers", "hint"])
def test_E4c_who_has_looked_at_an_empty_successor_reads_the_one_that_replaced_it(look: str) -> None:
    disk = made()
    with closing(open_log(MemoryStorage(disk))) as log:
        log.trim(2)
    orphan(disk)
    if look == "hint":  # of a damaged checkpoint, which leads there
        hint = Checkpoint(log.id, 2, 2, SEGMENT_HEADER).encode()
        MemoryStorage(disk).publish(NAMES.checkpoint, hint, b"", durable=True)
    with closing(open_log(MemoryStorage(disk), read_only=True)) as reader:
        assert bodies(reader) == [None, None, b"2"]
        rotated(disk)
        assert bodies(reader, 2) == [b"2", *[b"theirs" * 5] * 10]


def test_E4c_who_has_met_an_empty_successor_behind_a_gap_appends_to_the_one_that_replaces_it() -> None:
    disk = MemoryPosix()
    with closing(open_log(MemoryStorage(disk), create=True, segment_size=400)) as log:
        while log.chain.tail.number < 3:  # type: ignore[attr-defined]
            add(log, b"x" * 50)
        log.trim(log.head())
        tail = log.chain.tail  # type: ignore[attr-defined]
        header = SegmentHeader(bytes.fromhex(log.id), 4, tail.lsn + 1, encode_seal(tail.lsn, tail.crc, 4)[1])
        MemoryStorage(disk).publish(NAMES.segment(4), header.encode(), b"", durable=True)
        MemoryStorage(disk).erase(NAMES.history(2))
        with pytest.raises(LogCorruptionError, match="are missing"):
            bodies(log)
        for _ in range(10):
            add(log, b"next" * 10)
        with closing(open_log(MemoryStorage(disk), read_only=True)) as reader:
            assert bodies(reader, tail.lsn) == [b"next" * 10] * 10


def test_E4c_a_successor_with_records_and_no_seal_is_corruption() -> None:
    disk = made()
    orphan(disk, b"something")
    with pytest.raises(LogCorruptionError) as caught:
        open_log(MemoryStorage(disk))
    assert caught.value.file == ONE


def test_E4c_a_whole_segment_that_follows_another_end_is_corruption() -> None:
    disk = MemoryPosix()
    log = open_log(MemoryStorage(disk), create=True, segment_size=200)
    while NAMES.segment(2) not in files_of(MemoryStorage(disk)):
        add(log, b"x" * 20)
    last, log_id = log.head(), bytes.fromhex(log.id)
    log.close()
    stranger, _ = encode_batch(last, 999, [Record(b"h", b"a stranger")])
    put(disk, NAMES.segment(2), SegmentHeader(log_id, 2, last, 999).encode() + stranger, 0)
    for read_only in (True, False):
        with pytest.raises(LogCorruptionError, match="does not follow the one before") as caught:
            open_log(MemoryStorage(disk), read_only=read_only)
        assert caught.value.file == NAMES.segment(2)


def test_E4c_a_segment_missing_in_the_middle_is_corruption() -> None:
    disk = MemoryPosix()
    log = open_log(MemoryStorage(disk), create=True, segment_size=200)
    for number in range(10):
        add(log, b"%d" % number * 20)
    log.close()
    MemoryStorage(disk).erase(NAMES.segment(2))
    for read_only in (False, True):
        with pytest.raises(LogCorruptionError) as caught:
            open_log(MemoryStorage(disk), read_only=read_only)
        assert caught.value.file == NAMES.segment(2)


def test_E4c_a_batch_larger_than_a_segment_gets_one_of_its_own_size() -> None:
    disk = MemoryPosix()
    log = open_log(MemoryStorage(disk), create=True, segment_size=1000)
    add(log, b"small")
    add(log, b"large" * 10_000)
    add(log, b"small")
    assert MemoryStorage(disk).entry(NAMES.segment(2)).size > 50_000  # type: ignore[union-attr]
    assert [len(body or b"") for body in bodies(log)] == [5, 50_000, 5]
    log.close()


def test_E18_a_reader_serves_a_frame_beyond_the_head_word_only_after_a_flush() -> None:
    disk = made()
    frame, offset, _ = frame_after(disk, 3, b"beyond")
    put(disk, ONE, frame, offset)
    faulty = FaultyStorage(Failing(1, errno.EIO), disk, counted=frozenset({"fdatasync"}))
    with pytest.raises(OSError, match="error"):
        open_log(MemoryStorage(faulty), read_only=True)
    refusing = FaultyStorage(Failing(1, errno.EROFS), disk, counted=frozenset({"fdatasync"}))
    reader = open_log(MemoryStorage(refusing), read_only=True)
    assert bodies(reader) == [b"0", b"1", b"2", b"beyond"]
    assert len(refusing.failed) == 1
    reader.close()


def test_E18_a_reader_leaves_a_torn_tail_alone() -> None:
    disk = made()
    frame, offset, _ = frame_after(disk, 3, b"torn")
    put(disk, ONE, frame[:40], offset)
    before = files_of(MemoryStorage(disk))
    reader = open_log(MemoryStorage(disk), read_only=True)
    assert reader.head() == 3
    assert reader.verify().problems == (), "somebody may be writing it"
    reader.close()
    assert files_of(MemoryStorage(disk)) == before


def test_E18_a_reader_extends_to_the_head_word_only() -> None:
    disk = made()
    reader = open_log(MemoryStorage(disk), read_only=True)
    frame, offset, _ = frame_after(disk, 3, b"being written")
    put(disk, ONE, frame, offset)
    assert reader.head() == 3
    assert len(bodies(reader)) == 3
    put(disk, NAMES.head, WORD.pack(4, 4 ^ (2**64 - 1)), 32)
    assert bodies(reader, 3) == [b"being written"]
    reader.close()


def test_a_failed_flush_is_in_doubt_and_poisons_and_the_next_opener_settles_it() -> None:
    disk = made()
    faulty = FaultyStorage(Failing(3, errno.EIO), disk, counted=frozenset({"fdatasync"}))
    log = open_log(MemoryStorage(faulty))
    assert faulty.count == 1, "opening rewrote the last frame"
    add(log, b"fine")
    with pytest.raises(InDoubtError):
        add(log, b"doubtful")
    with pytest.raises(PoisonedError):
        add(log, b"no")
    with pytest.raises(PoisonedError):
        log.trim(1)
    other = open_log(MemoryStorage(disk))
    assert other.tail_report.adopted == 1
    assert bodies(other)[-1] == b"doubtful"
    assert add(other, b"goes on").lsn == other.head()
    assert bodies(log)[-1] == b"goes on", "a poisoned handle still reads"
    log.close()
    other.close()


@pytest.mark.parametrize("short", [False, True], ids=["nothing written", "a part written"])
def test_a_full_disk_appends_nothing_and_the_handle_goes_on(short: bool) -> None:
    disk = made()
    recorder = Recorder(disk)
    faulty = FaultyStorage(Failing(10**9, errno.ENOSPC), recorder, counted=frozenset({"pwrite"}))
    log = open_log(MemoryStorage(faulty))
    _, offset, _ = crc_at(disk, 3)
    faulty.plan = Failing(faulty.count + 2, errno.ENOSPC, short=short)  # the first is the announcement
    recorder.calls.clear()
    with pytest.raises(OSError, match="space") as caught:
        add(log, b"no room")
    assert caught.value.__cause__ is None, "the system's error itself"
    assert faulty.failed[0].path.endswith(".log")
    assert not any(segment(disk)[offset:])
    steps = [(method, path.rpartition("/")[2]) for method, path in recorder.trace()]
    assert steps[-3:] == [("pwrite", ONE[5:]), ("fdatasync", ONE[5:]), ("pwrite", "head")], "zeros, durable; announced"
    assert HeadFile(MemoryStorage(disk).open_file(NAMES.head, writable=False)).state() == (3, 3)
    assert add(log, b"room again").lsn == 4
    assert bodies(log)[3:] == [b"room again"]
    assert log.verify().problems == ()
    log.close()


class SmallDisk(Boundary):
    """A disk on which the log's segments can grow by so many bytes: a write takes what fits, the next one fails."""

    def __init__(self, disk: MemoryPosix, free: int, number: int) -> None:
        super().__init__(disk)
        self.end, self.number = len(segment(disk)) + free, number

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.method == "pwrite" and call.path.endswith(".log"):
            fd, data, offset = call.arguments
            fits = self.end - offset  # type: ignore[operator]
            if fits <= 0:
                raise OSError(self.number, os.strerror(self.number))
            if fits < len(data):  # type: ignore[arg-type]
                return self.inner.pwrite(fd, data[:fits], offset)  # type: ignore[arg-type, index, return-value]
        return run()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_log_that_cannot_grow_gives_back_what_it_took_and_small_batches_go_on(number: int) -> None:
    disk = made()
    length = len(segment(disk))
    log = open_log(MemoryStorage(SmallDisk(disk, 300_000, number)))
    for _ in range(2):  # neither attempt takes the space of the files
        with pytest.raises(OSError, match=re.escape(os.strerror(number))):
            add(log, bytes(length + 60_000))
        assert len(segment(disk)) == length
    add(log, b"x" * (length - 4_000))  # up to the end of what is there
    assert len(segment(disk)) == length
    for count in range(1, 4):  # the usual step does not fit, but what a deletion needs does
        add(log, b"y" * 4_000)
        assert length < len(segment(disk)) <= length + count * 8192
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        add(log, b"z" * 60_000)
    assert len(bodies(log)) == 7 and log.verify().problems == ()
    log.close()


class FullDisk(Boundary):
    """A disk that holds so many bytes more than it does."""

    def __init__(self, disk: MemoryPosix, free: int) -> None:
        super().__init__(disk)
        self.size = self._used() + free

    def _used(self) -> int:
        return sum(map(len, files_of(MemoryStorage(self.inner)).values()))  # type: ignore[arg-type]

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.method == "pwrite":
            fd, data, offset = call.arguments
            grows = offset + len(data) - self.inner.fstat(fd).st_size  # type: ignore[operator, arg-type]
            if grows > self.size - self._used():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return run()


def test_small_batches_go_on_in_a_new_segment_on_a_disk_that_is_nearly_full() -> None:
    disk = MemoryPosix()
    with closing(open_log(MemoryStorage(disk), create=True, segment_size=65_536)) as log:
        add(log, b"x" * 63_000)  # the next one does not fit
    with closing(open_log(MemoryStorage(FullDisk(disk, 20_000)), segment_size=65_536)) as log:
        for _ in range(3):
            add(log, b"y" * 4_000)
        with pytest.raises(OSError, match="space"):
            add(log, b"z" * 20_000)
        assert log.chain.tail.number == 2  # type: ignore[attr-defined]
        assert len(bodies(log)) == 4 and log.verify().problems == ()


def test_a_log_that_cannot_grow_for_another_reason_gives_back_what_it_took_too() -> None:
    disk = made()
    length = len(segment(disk))
    log = open_log(MemoryStorage(SmallDisk(disk, 300_000, errno.EIO)))
    add(log, b"x" * (length - 4_000))
    with pytest.raises(OSError, match="Input/output"):
        add(log, b"y" * 4_000)
    assert len(segment(disk)) == length
    log.close()


@pytest.mark.parametrize("body", [b"end", b"end" + bytes(100)], ids=["plain", "zeros at its end"])
def test_without_a_head_file_a_later_batch_still_proves_that_the_one_before_it_was_flushed(body: bytes) -> None:
    disk = made(1)
    log = open_log(MemoryStorage(disk))
    second = add(log, b"second")
    add(log, body)
    log.close()
    MemoryStorage(disk).erase(NAMES.head)
    before = files_of(MemoryStorage(disk))[ONE]
    put(disk, ONE, b"S", before.index(b"second"))
    damaged = files_of(MemoryStorage(disk))[ONE]
    with pytest.raises(LogCorruptionError, match=f"batch {second.lsn} cannot be read, but a later one is intact"):
        open_log(MemoryStorage(disk))
    assert files_of(MemoryStorage(disk))[ONE] == damaged


def test_a_disk_without_room_for_the_zeros_ahead_appends_nothing_and_leaves_no_announcement() -> None:
    """Which would make the next writer look at every byte behind the end."""
    disk = made()
    faulty = FaultyStorage(Failing(10**9, errno.ENOSPC), disk, counted=frozenset({"pwrite"}))
    log = open_log(MemoryStorage(faulty))
    size = MemoryStorage(disk).entry(ONE).size  # type: ignore[union-attr]
    faulty.plan = Failing(faulty.count + 2, errno.ENOSPC)  # the first is the announcement
    with pytest.raises(OSError, match="space"):
        add(log, bytes(size + 60_000))
    assert faulty.failed[0].path.endswith(".log")
    head = HeadFile(MemoryStorage(disk).open_file(NAMES.head, writable=False))
    assert head.state() == (3, 3)
    head.close()
    assert add(log, b"small").lsn == 4
    assert add(log, bytes(size)).lsn == 5
    assert log.verify().problems == ()
    log.close()


def test_a_write_that_cannot_be_taken_back_is_in_doubt() -> None:
    disk = made()
    faulty = FaultyStorage(Failing(10**9), disk, counted=frozenset({"pwrite", "fdatasync"}))
    log = open_log(MemoryStorage(faulty))
    faulty.plan = Failing(faulty.count + 2, errno.EIO, lasting=True)
    with pytest.raises(InDoubtError):
        add(log, b"x")
    with pytest.raises(PoisonedError):
        add(log, b"y")
    log.close()
    again = open_log(MemoryStorage(disk))
    assert len(bodies(again)) == 3
    again.close()


def test_a_torn_head_word_is_never_believed() -> None:
    disk = made()
    log = open_log(MemoryStorage(disk))
    put(disk, NAMES.head, b"\xff", 32)
    put(disk, NAMES.head, b"\xff", 32 + 3 * 16)
    reader = open_log(MemoryStorage(disk), read_only=True)
    assert log.head() == reader.head() == 3
    assert log.load_mark(0) == 0
    assert add(log, b"x").lsn == reader.head() == 4, "the next append puts it right"
    log.close()
    reader.close()


def word(disk: MemoryPosix, number: int) -> tuple[int, int]:
    """A word of the head file, and its complement."""
    value, complement = WORD.unpack_from(files_of(MemoryStorage(disk))[NAMES.head], 32 + number * WORD.size)
    return value, complement


def test_a_holder_that_died_with_the_right_is_told_to_the_next() -> None:
    disk = made()
    log = open_log(MemoryStorage(disk))
    head = HeadFile(MemoryStorage(disk).open_file(NAMES.head, writable=True))
    head.take()
    assert word(disk, 2) == (1, 2**64 - 2)
    with log.right() as tenure:
        assert tenure.died is True
    with log.right() as tenure:
        assert tenure.died is False
    head.close()
    log.close()


def test_a_holder_of_whom_nothing_can_be_read_any_more_may_have_died() -> None:
    """Its word is torn, the head file is made anew: a claim that nobody died would leave what it had half done."""
    disk = made()
    put(disk, NAMES.head, b"torn", 32 + 2 * WORD.size)
    put(disk, NAMES.head, b"torn", 32)  # and the durable word: so the next opener makes all of it anew
    log = open_log(MemoryStorage(disk))
    with log.right() as tenure:
        assert tenure.died is True
    with log.right() as tenure:
        assert tenure.died is False
    log.close()


@pytest.mark.parametrize("known", [True, False])
def test_who_takes_the_right_learns_of_a_trim_by_another_also_if_the_head_file_does_not_tell(known: bool) -> None:
    disk = made()
    one, two = (open_log(MemoryStorage(disk)) for _ in range(2))
    for body in (b"x", b"y"):
        add(one, body)
    one.trim(one.head())
    head = HeadFile(MemoryStorage(disk).open_file(NAMES.head, writable=True))
    assert head.trimmed() == one.head() > two.trimmed()
    if not known:
        head.forget_trimmed()
    with two.right():
        assert two.trimmed() == one.head()
    head.close()
    one.close()
    two.close()


class Torn(Boundary):
    """The next reads of a file meet a write in progress."""

    left = 0

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.method != "pread" or not self.left:
            return run()
        self.left -= 1
        return cast(T, b"torn".ljust(cast(int, call.arguments[1]), b"?"))


@pytest.mark.parametrize(("ask", "tries"), [(HeadFile.trimmed, 3), (HeadFile.state, 3), (HeadFile.durable, 4)])
def test_a_word_that_cannot_be_read_is_unknown_after_some_tries(ask: Callable[[HeadFile], object], tries: int) -> None:
    posix = Torn(made(), counted=ALL_CALLS)
    head = HeadFile(MemoryStorage(posix).open_file(NAMES.head, writable=False))
    known = ask(head)
    for torn, found in ((tries - 1, known), (tries, None)):
        posix.left = torn
        assert ask(head) == found
        assert posix.left == 0
    head.close()


def test_the_head_file_has_the_words_where_the_format_says() -> None:
    data = new_head(bytes(16), 7)
    assert len(data) == 4096
    assert WORD.unpack_from(data, 32) == (7, 2**64 - 8)
    assert WORD.unpack_from(data, 32 + 11 * WORD.size) == (0, 2**64 - 1)
    trimmed = new_head(bytes(16), 7, trimmed=5)
    assert WORD.unpack_from(trimmed, 32 + 11 * WORD.size) == (5, 2**64 - 6)
    assert data[: 32 + 11 * WORD.size] == trimmed[: 32 + 11 * WORD.size]
    assert FRAME_HEADER == 32


class ReadInBetween(FaultyStorage):
    """Before the call that fails, somebody opens the log for reading and looks at all of it."""

    def __init__(self, disk: MemoryPosix) -> None:
        super().__init__(Failing(10**9), disk, counted=frozenset({"pwrite"}))
        self.disk = disk
        self.readers: list[WriteAheadLog] = []
        self.seen: list[list[bytes | None]] = []

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.number == self.plan.call + self.plan.short:
            reader = open_log(MemoryStorage(self.disk), read_only=True)
            self.readers.append(reader)
            self.seen.append(bodies(reader))
        return super().around(call, run, tear)


def test_E18_a_whole_frame_that_a_reader_may_have_served_is_never_taken_back() -> None:
    """A write that took only a part may have left the whole frame all the same, if the rest is zeros as was the place:
    an error of the rest's write must not undo what somebody has read already."""
    disk = made()
    posix = ReadInBetween(disk)
    log = open_log(MemoryStorage(posix))
    posix.plan = Failing(posix.count + 2, errno.ENOSPC, short=True)  # the first is the announcement
    body = b"seen" + bytes(1000)
    assert add(log, body).lsn == 4, "it is there, so it is flushed and acknowledged"
    assert len(posix.failed) == 2, "a short write, and an error for the rest"
    assert posix.seen[0][-1] == body, "the reader was to find it"
    assert add(log, b"next").lsn == 5
    assert bodies(posix.readers[0]) == [b"0", b"1", b"2", body, b"next"]
    assert log.verify().problems == ()
    posix.readers[0].close()
    log.close()


class Interrupted(Boundary):
    """Another signal's handler raises as soon as a frame was written whole, once a reader has seen it."""

    armed = False
    reader: WriteAheadLog

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        result = run()
        if self.armed and call.method == "pwrite" and call.path.endswith(".log"):
            self.armed = False
            self.reader = open_log(MemoryStorage(self.inner), read_only=True)
            raise SystemExit(143)
        return result


def test_E18_a_whole_frame_whose_write_was_interrupted_is_in_doubt_and_stays() -> None:
    disk = made()
    posix = Interrupted(disk)
    log = open_log(MemoryStorage(posix))
    posix.armed = True
    with pytest.raises(InDoubtError):
        add(log, b"seen")
    assert bodies(posix.reader)[-1] == b"seen"
    other = open_log(MemoryStorage(disk))
    assert add(other, b"next").lsn == 5
    assert bodies(posix.reader) == bodies(other) == [b"0", b"1", b"2", b"seen", b"next"]
    posix.reader.close()
    other.close()
    log.close()


def test_E18_readers_may_differ_about_an_unsettled_batch_until_a_writer_settles_it_and_none_loses_it() -> None:
    """Its writer died between write and flush. Who opens after that serves it; who was open follows the head word."""
    disk = made()
    before = open_log(MemoryStorage(disk), read_only=True)
    dying = CrashStorage(Crashing(10**9, "before"), disk)
    log = open_log(MemoryStorage(dying))
    dying.plan = Crashing(dying.count + 3, "before")  # announced, written
    with pytest.raises((Crash, InDoubtError)):
        add(log, b"unsettled")
    after = open_log(MemoryStorage(disk), read_only=True)
    assert (before.head(), after.head()) == (3, 4)
    writer = open_log(MemoryStorage(disk))
    assert before.head() == after.head() == writer.head() == 4
    assert add(writer, b"next").lsn == 5
    assert bodies(before) == bodies(after) == [b"0", b"1", b"2", b"unsettled", b"next"]
    for handle in (before, after, writer):
        handle.close()
