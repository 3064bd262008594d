"""How much the append log reads at a time: nothing of it is promised, but for the order of magnitude."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from wal import MemoryPosix, MemoryStorage, Record, WriteAheadLog, open_log
from wal.checkpoint import Checkpoint
from wal.format import BATCH, COUNT, FRAME_FIELDS, FRAME_HEADER, FRAME_MAGIC, LENGTHS, RESERVED
from wal.frame import encode_batch
from wal.names import Names
from wal.segment import frame_at
from wal.testing.boundary import ALL_CALLS, Recorder
from wal.testing.log_tools import add, bodies

KIB, MIB = 2**10, 2**20
SEGMENT = Names(".wal").segment(1)
BATCHES = 300
FRAME = FRAME_HEADER + COUNT.size + LENGTHS.size  # of an empty record


class Reads(Recorder):
    """What was read of the first segment."""

    def taken(self) -> list[tuple[int, int]]:
        """(length, offset) of each read since the last call."""
        calls = [call.arguments for call in self.calls if call.method == "pread" and call.path.endswith(SEGMENT)]
        self.calls.clear()
        return [(length, offset) for _, length, offset in calls if isinstance(length, int) and isinstance(offset, int)]


@pytest.fixture
def disk() -> MemoryPosix:
    return MemoryPosix()


@pytest.fixture
def log(disk: MemoryPosix) -> Iterator[WriteAheadLog]:
    with closing(open_log(MemoryStorage(disk), create=True)) as log:
        yield log


@pytest.mark.parametrize("size", [32 * KIB, 32 * KIB + 1], ids=["that fill what is read", "beyond what is read"])
def test_a_log_is_found_and_read_in_pieces_neither_at_once_nor_batch_by_batch(
    disk: MemoryPosix, log: WriteAheadLog, size: int
) -> None:
    for _ in range(BATCHES):  # in the first segment of 16 MiB
        add(log, bytes(size - FRAME))
    posix = Reads(disk, counted=ALL_CALLS)
    with closing(open_log(MemoryStorage(posix), read_only=True)) as reader:
        found = posix.taken()
        assert max(found)[0] <= 2 * MIB and len(found) < BATCHES / 4
        assert len(bodies(reader)) == BATCHES
        read = posix.taken()
        assert max(read)[0] <= MIB and len(read) < BATCHES / 4


def test_the_zeros_behind_the_last_batch_are_looked_at_in_pieces(disk: MemoryPosix, log: WriteAheadLog) -> None:
    add(log, b"x")
    posix = Reads(disk, counted=ALL_CALLS)
    open_log(MemoryStorage(posix), read_only=True).close()
    zeros = [length for length, offset in posix.taken() if offset + length > MIB / 2]
    assert max(zeros) <= 256 * KIB and len(zeros) < 64


@pytest.mark.parametrize("hinted", [False, True], ids=["met", "named by the checkpoint"])
def test_a_length_beyond_the_file_is_not_read(disk: MemoryPosix, log: WriteAheadLog, hinted: bool) -> None:
    add(log, b"x")
    tail = log.chain.tail  # type: ignore[attr-defined]
    fields = FRAME_FIELDS.pack(FRAME_MAGIC, BATCH, RESERVED, 1 << 30, 2, tail.crc)
    storage = MemoryStorage(disk)
    with closing(storage.open_file(SEGMENT, writable=True)) as file:
        file.pwrite(fields + bytes(4), tail.offset)
    if hinted:
        storage.publish(Names(".wal").checkpoint, Checkpoint(log.id, 1, 1, tail.offset).encode(), b"", durable=True)
    posix = Reads(disk, counted=ALL_CALLS)
    with closing(open_log(MemoryStorage(posix), read_only=True)) as reader:
        assert reader.head() == 1
        assert max(posix.taken())[0] <= 2 * MIB


def test_a_frame_that_ends_with_its_file_is_found_where_the_checkpoint_says() -> None:
    frame, crc = encode_batch(1, 0, [Record(b"", b"x")])
    data = bytes(8) + frame
    found = frame_at(lambda length, offset: data[offset : offset + length], len(data), 8)
    assert found is not None and found.header.crc == crc


def test_who_follows_a_small_batch_of_another_reads_little(disk: MemoryPosix, log: WriteAheadLog) -> None:
    posix = Reads(disk, counted=ALL_CALLS)
    with closing(open_log(MemoryStorage(posix), read_only=True)) as reader:
        posix.taken()
        add(log, b"x")
        assert bodies(reader) == [b"x"]
        assert sum(length for length, _ in posix.taken()) <= 64 * KIB


def test_who_opens_a_log_lists_its_folder_only_to_find_where_the_log_begins(
    disk: MemoryPosix, log: WriteAheadLog
) -> None:
    for lists in (1, 0):  # the redo mark names the segment
        posix = Recorder(disk, counted=ALL_CALLS)
        open_log(MemoryStorage(posix), read_only=True).close()
        assert [call.method for call in posix.calls].count("listdir") == lists
        add(log, b"x")
        log.trim(1)


def test_batches_of_a_later_segment_are_read_together() -> None:
    posix = Recorder(MemoryPosix(), counted=ALL_CALLS)
    with closing(open_log(MemoryStorage(posix), create=True, segment_size=KIB)) as log:
        while log.verify().segments < 2:
            add(log, bytes(100))
        first = log.head()
        for _ in range(4):
            add(log, bytes(100))
        posix.calls.clear()
        assert len(list(log.read(first - 1))) == 5
        second = Names(".wal").segment(2)
        assert [call.method for call in posix.calls if call.path.endswith(second)] == ["pread"]


def test_a_trim_leaves_the_segment_open_that_is_written(disk: MemoryPosix) -> None:
    posix = Recorder(disk, counted=ALL_CALLS)
    with closing(open_log(MemoryStorage(posix), create=True)) as log:
        add(log, b"x")
        log.trim(1)
        posix.calls.clear()
        add(log, b"y")
        assert not [call for call in posix.calls if call.method in ("open", "open_read")]
