"""A damaged append log is refused by name, at its opening or when it is read, and `verify` says all that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from zlib import crc32

import pytest

from wal import (
    LogCorruptionError,
    LogFormatError,
    LogMissingError,
    MemoryPosix,
    MemoryStorage,
    UnsupportedError,
    open_log,
)
from wal.checkpoint import Checkpoint
from wal.format import (
    BATCH,
    COUNT,
    CRC,
    FRAME_FIELDS,
    FRAME_MAGIC,
    HEADERS,
    HISTORY_MAGIC,
    RESERVED,
    SEGMENT_HEADER,
    SUCCESSOR,
    padded,
)
from wal.frame import encode_headers, encode_seal
from wal.head import new_head
from wal.log import Record
from wal.names import Names
from wal.segment import SegmentHeader
from wal.testing.log_tools import add, bodies, disk_of, files_of

NAMES = Names(".wal")
SIZE = 300  # of a segment: two or three batches
BATCHES = 12
TRIMMED = 7
ALL = BATCHES
Files = dict[str, bytes]
Damage = Callable[[Files], object]


def written(trimmed: int = 0) -> Files:
    """The files of a log of several segments."""
    disk = MemoryPosix()
    log = open_log(MemoryStorage(disk), create=True, segment_size=SIZE)
    for number in range(BATCHES):
        add(log, b"%d" % number * 20)
    log.trim(trimmed)
    log.close()
    return files_of(MemoryStorage(disk))


def log_id(files: Files) -> bytes:
    return bytes.fromhex(Checkpoint.decode(files[NAMES.checkpoint], NAMES.checkpoint).log)


def flip(files: Files, name: str, offset: int) -> None:
    """Change one byte, counted from the end if negative."""
    data = bytearray(files[name])
    data[offset] ^= 1
    files[name] = bytes(data)


def segments(files: Files) -> list[str]:
    return sorted(name for name in files if name.endswith(".log"))


def histories(files: Files) -> list[str]:
    return sorted(name for name in files if name.startswith(NAMES.history_folder))


def frame(kind: int, lsn: int, previous: int, payload: bytes) -> bytes:
    """A frame whose CRC fits, whatever it holds."""
    fields = FRAME_FIELDS.pack(FRAME_MAGIC, kind, RESERVED, len(payload), lsn, previous)
    data = fields + CRC.pack(crc32(payload, crc32(fields))) + payload
    return data.ljust(padded(len(data)), b"\0")


def tail_of(files: Files) -> tuple[str, int, int]:
    """(segment, offset, CRC) behind the last batch."""
    log = open_log(MemoryStorage(disk_of(files)), read_only=True)
    tail = log.chain.tail  # type: ignore[attr-defined]
    log.close()
    return NAMES.segment(tail.number), tail.offset, tail.crc


def put(files: Files, name: str, data: bytes, offset: int) -> None:
    files[name] = files[name][:offset] + data + files[name][offset + len(data) :]


def refused(files: Files, match: str, *, read_only: bool = False) -> LogCorruptionError:
    with pytest.raises(LogCorruptionError, match=match) as caught:
        open_log(MemoryStorage(disk_of(files)), read_only=read_only)
    return caught.value


@pytest.fixture(params=[True, False], ids=["reader", "writer"])
def read_only(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# --- the checkpoint -------------------------------------------------------------------------------------------------


def signed(**fields: object) -> bytes:
    """A checkpoint file whose checksum fits."""

    def dump(fields: dict[str, object]) -> bytes:
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"

    return dump({**fields, "crc": f"{crc32(dump(fields)):08x}"})


def test_a_checkpoint_of_a_newer_format_asks_for_an_upgrade() -> None:
    files = written()
    files[NAMES.checkpoint] = signed(format=99, log=log_id(files).hex(), redo=0, segment=0, offset=0)
    with pytest.raises(LogFormatError, match="upgrade"):
        open_log(MemoryStorage(disk_of(files)))


@pytest.mark.parametrize(
    "fields",
    [
        {"redo": 0},
        {"log": "00", "redo": 0, "segment": 0, "offset": 0},
        {"log": "no digits", "redo": 0, "segment": 0, "offset": 0},
        {"log": "00" * 16, "redo": -1, "segment": 0, "offset": 0},
        {"log": "00" * 16, "redo": True, "segment": 0, "offset": 0},
        {"log": "00" * 16, "redo": 0, "segment": 0, "offset": 0, "more": 1},
    ],
)
def test_a_checkpoint_with_impossible_fields_is_corruption(fields: dict[str, object]) -> None:
    files = written()
    files[NAMES.checkpoint] = signed(format=1, **fields)
    error = refused(files, "unexpected fields or values")
    assert (error.file, error.offset) == (NAMES.checkpoint, 0)


def test_a_checkpoint_that_is_replaced_by_that_of_another_log_is_found_by_verify_and_by_the_next_trim() -> None:
    disk = disk_of(written())
    log = open_log(MemoryStorage(disk), segment_size=SIZE)
    MemoryStorage(disk).publish(NAMES.checkpoint, Checkpoint("11" * 16, 0).encode(), b"", durable=False)
    (problem,) = log.verify().problems
    assert "the checkpoint belongs to another log" in problem
    with pytest.raises(LogCorruptionError, match="another log"):
        log.trim(1)
    log.close()


def test_the_batch_that_the_redo_mark_names_cannot_be_read(read_only: bool) -> None:
    """The checkpoint's hint leads to it; then the segment is searched, and ends before it."""
    files = written(TRIMMED)
    checkpoint = Checkpoint.decode(files[NAMES.checkpoint], "")
    flip(files, NAMES.segment(checkpoint.segment), checkpoint.offset + 40)
    error = refused(files, f"batch {TRIMMED} cannot be read, and {TRIMMED} had been flushed", read_only=read_only)
    assert (error.file, error.offset) == (NAMES.segment(checkpoint.segment), checkpoint.offset)


@pytest.mark.parametrize("offset", [SEGMENT_HEADER, SEGMENT_HEADER + 1], ids=["another batch", "no batch"])
def test_a_hint_that_leads_elsewhere_is_searched_for(read_only: bool, offset: int) -> None:
    for trimmed in range(3, BATCHES):
        files = written(trimmed)
        checkpoint = Checkpoint.decode(files[NAMES.checkpoint], "")
        files[NAMES.checkpoint] = Checkpoint(checkpoint.log, trimmed, checkpoint.segment, offset).encode()
        log = open_log(MemoryStorage(disk_of(files)), read_only=read_only)
        assert log.trimmed() == trimmed
        assert [batch.lsn for batch in log.read(0)] == list(range(1, BATCHES + 1))
        log.close()


def test_the_segment_that_the_redo_mark_needs_is_missing(read_only: bool) -> None:
    files = written(TRIMMED)
    for name in segments(files)[:-1]:
        del files[name]
    assert refused(files, f"holds batch {TRIMMED + 1} is missing", read_only=read_only).file.endswith(".log")


@pytest.mark.parametrize("trimmed", [0, TRIMMED])
def test_all_segments_are_missing(read_only: bool, trimmed: int) -> None:
    files = written(trimmed)
    for name in segments(files):
        del files[name]
    assert refused(files, "segments are missing", read_only=read_only).file == NAMES.segment(1)


# --- segments -------------------------------------------------------------------------------------------------------


def test_a_first_segment_that_is_chained_to_something_is_corruption(read_only: bool) -> None:
    files = written()
    put(files, NAMES.segment(1), SegmentHeader(log_id(files), 1, 1, 7).encode(), 0)
    assert refused(files, "chained to something", read_only=read_only).file == NAMES.segment(1)


@pytest.mark.parametrize(
    ("changed", "match"), [({"number": 5}, "header says segment 5"), ({"log_id": b"x" * 16}, "belongs to another")]
)
def test_a_segment_from_elsewhere_is_corruption(changed: dict[str, object], match: str) -> None:
    files = written()
    name = NAMES.segment(1)
    fields = {"log_id": log_id(files), "number": 1, "first": 1, "previous": 7, **changed}
    put(files, name, SegmentHeader(**fields).encode(), 0)  # type: ignore[arg-type]
    assert refused(files, match).file == name


def test_a_segment_that_begins_with_another_batch_than_the_next_is_corruption(read_only: bool) -> None:
    files = written()
    name = NAMES.segment(2)
    header = SegmentHeader.decode(files[name], name)
    put(files, name, SegmentHeader(header.log_id, 2, header.first + 1, header.previous).encode(), 0)
    assert refused(files, "does not follow the one before", read_only=read_only).file == name


def test_a_segment_of_another_history_of_this_log_is_corruption(read_only: bool) -> None:
    """From a backup, say, after which the log went on otherwise: the same log, the same numbers, whole in itself."""
    files = written()
    name = NAMES.segment(2)
    header = SegmentHeader.decode(files[name], name)
    put(files, name, SegmentHeader(header.log_id, 2, header.first, header.previous ^ 1).encode(), 0)
    assert refused(files, "does not follow the one before", read_only=read_only).file == name


def test_a_seal_that_names_another_segment_than_the_next_is_corruption(read_only: bool) -> None:
    files = written()
    name, offset, crc = tail_of(files)
    put(files, name, encode_seal(BATCHES, crc, 99)[0], offset)
    error = refused(files, "the seal names segment 99", read_only=read_only)
    assert (error.file, error.offset) == (name, offset)


def test_a_seal_of_another_length_is_corruption(read_only: bool) -> None:
    files = written()
    name, offset, crc = tail_of(files)
    put(files, name, frame(2, BATCHES, crc, SUCCESSOR.pack(2) * 2), offset)
    assert refused(files, "a seal of 16 bytes", read_only=read_only).offset == offset


@pytest.mark.parametrize("payload", [b"", b"\xff" * 4, b"\1\0\0\0" + b"\4\0\0\0" * 2, b"\0\0\0\0more"])
def test_a_batch_whose_checksum_fits_but_whose_payload_is_none_is_corruption(payload: bytes) -> None:
    files = written()
    name, offset, crc = tail_of(files)
    put(files, name, frame(BATCH, BATCHES + 1, crc, payload), offset)
    files[NAMES.head] = new_head(log_id(files), BATCHES + 1)
    log = open_log(MemoryStorage(disk_of(files)), read_only=True)
    with pytest.raises(LogCorruptionError, match=f"batch {BATCHES + 1}") as caught:
        list(log.read(BATCHES))
    assert (caught.value.file, caught.value.offset) == (name, offset)
    log.close()


def test_a_frame_of_headers_behind_the_last_batch_is_no_batch() -> None:
    """Such a frame belongs into a history file."""
    files = written()
    name, offset, crc = tail_of(files)
    stray = encode_headers(BATCHES + 1, crc, [Record(b"header", None)])[0]
    put(files, name, stray, offset)
    log = open_log(MemoryStorage(disk_of(files)), segment_size=SIZE)
    assert log.tail_report.quarantined == len(stray.rstrip(b"\0"))
    assert log.head() == BATCHES
    assert add(log, b"next").lsn == BATCHES + 1
    log.close()


def test_what_no_longer_reads_back_is_named() -> None:
    disk = disk_of(written())
    log = open_log(MemoryStorage(disk))
    file = MemoryStorage(disk).open_file(NAMES.segment(2), writable=True)
    file.pwrite(b"?", SEGMENT_HEADER + 50)
    file.close()
    with pytest.raises(LogCorruptionError, match="no longer reads back") as caught:
        bodies(log)
    assert caught.value.file == NAMES.segment(2)
    log.close()


@pytest.mark.parametrize("kind", [BATCH, HEADERS], ids=["another batch", "headers of the same batch"])
def test_an_intact_frame_in_the_place_of_a_batch_is_not_taken_for_it(kind: int) -> None:
    """A write that was meant for another place, or an older life of the disk."""
    disk = disk_of(written())
    log = open_log(MemoryStorage(disk))
    lsn = 2
    number, offset = log.chain.index.place(lsn)  # type: ignore[attr-defined]
    file = MemoryStorage(disk).open_file(NAMES.segment(number), writable=True)
    file.pwrite(frame(kind, lsn + (kind == BATCH), 7, COUNT.pack(0)), offset)
    file.close()
    with pytest.raises(LogCorruptionError, match=f"batch {lsn} no longer reads back") as caught:
        bodies(log)
    assert (caught.value.file, caught.value.offset) == (NAMES.segment(number), offset)
    log.close()


def test_a_head_file_that_is_damaged_while_others_use_it_lets_nobody_else_in() -> None:
    disk = disk_of(written())
    log = open_log(MemoryStorage(disk))
    file = MemoryStorage(disk).open_file(NAMES.head, writable=True)
    file.pwrite(b"?", 0)
    with pytest.raises(LogCorruptionError, match="while others use it") as caught:
        open_log(MemoryStorage(disk))
    assert caught.value.file == NAMES.head
    file.close()
    log.close()


@pytest.mark.parametrize("words", ["of another log", "damaged", "empty"])
def test_a_head_file_that_is_not_this_logs_is_not_believed_by_a_reader_nor_by_a_first_opener(words: str) -> None:
    """Its word would be that many more batches had been acknowledged."""
    files = written(TRIMMED)
    files[NAMES.head] = {
        "of another log": new_head(b"x" * 16, 99),
        "damaged": b"?" + new_head(log_id(files), 99)[1:],
        "empty": b"",
    }[words]
    disk = disk_of(files)
    with closing(open_log(MemoryStorage(disk), read_only=True)) as reader:
        assert reader.head() == len(list(reader.read(0))) == BATCHES
        assert reader.load_mark(0) == 0
    with closing(open_log(MemoryStorage(disk), segment_size=SIZE)) as log:
        assert log.head() == len(list(log.read(0))) == BATCHES
        assert add(log, b"next").lsn == BATCHES + 1
        assert log.verify().problems == ()


def test_a_head_file_that_was_lost_is_made_again_by_the_first_opener() -> None:
    files = written(TRIMMED)
    del files[NAMES.head]
    disk = disk_of(files)
    with closing(open_log(MemoryStorage(disk), segment_size=SIZE)) as log:
        assert log.head() == len(list(log.read(0))) == BATCHES
        assert add(log, b"next").lsn == BATCHES + 1
        with closing(open_log(MemoryStorage(disk), segment_size=SIZE)) as other:
            assert other.head() == BATCHES + 1, "it is believed by those who come later"
        assert log.verify().problems == ()


def test_a_head_file_that_was_cut_short_is_not_believed_and_grows_again() -> None:
    disk = disk_of(written())
    log = open_log(MemoryStorage(disk), segment_size=SIZE)
    disk.ftruncate(disk.open(f"/disk/{NAMES.head}", 2), 40)
    assert log.head() == BATCHES
    assert add(log, b"next").lsn == log.head() == BATCHES + 1
    log.close()


HOLDER, INTENT = 64, 48  # where these words stand in the head file


def spoil(disk: MemoryPosix, offset: int) -> None:
    """Change a byte of the head file."""
    file = MemoryStorage(disk).open_file(NAMES.head, writable=True)
    file.pwrite(b"?", offset)
    file.close()


@pytest.mark.parametrize("reopened", [False, True])
def test_a_holder_of_the_right_who_cannot_be_read_counts_as_dead(reopened: bool) -> None:
    disk = disk_of(written())
    log = open_log(MemoryStorage(disk), segment_size=SIZE)
    spoil(disk, HOLDER)
    if reopened:
        log.close()
        log = open_log(MemoryStorage(disk), segment_size=SIZE)
    with log.right() as tenure:
        assert tenure.died is True
    with log.right() as tenure:
        assert tenure.died is False
    log.close()


def test_an_announcement_that_was_torn_is_looked_after_though_the_next_place_seems_blank() -> None:
    """Its value is the old one, its complement not: somebody has begun to write, and of what was written the first
    sector was lost."""
    files = written()
    name, offset, _ = tail_of(files)
    disk = disk_of(files)
    log = open_log(MemoryStorage(disk))
    file = MemoryStorage(disk).open_file(name, writable=True)
    file.pwrite(b"the second sector", offset + 512)
    file.close()
    spoil(disk, INTENT + 8)
    assert add(log, b"next").lsn == BATCHES + 1
    assert log.verify().problems == ()
    log.close()


# --- history files --------------------------------------------------------------------------------------------------


def to_another(files: Files) -> None:
    name = histories(files)[0]
    header = SegmentHeader.decode(files[name], name, HISTORY_MAGIC)
    put(files, name, SegmentHeader(b"x" * 16, header.number, header.first, header.previous).encode(HISTORY_MAGIC), 0)


def with_a_batch(files: Files) -> None:
    name = histories(files)[0]
    header = SegmentHeader.decode(files[name], name, HISTORY_MAGIC)
    files[name] = files[name][:SEGMENT_HEADER] + frame(BATCH, header.first, header.previous, bytes(4))


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (to_another, "belongs to another segment or log"),
        (with_a_batch, "a frame of this kind is not valid in this file"),
        (lambda files: files.update({histories(files)[0]: files[histories(files)[0]][:-8]}), "end with its seal"),
        (lambda files: files.pop(histories(files)[1]), "headers after batch [0-9]+ are missing"),
    ],
    ids=["elsewhere", "a batch", "no seal", "missing"],
)
def test_a_damaged_history_is_named_when_it_is_read_and_by_verify(damage: Damage, match: str) -> None:
    files = written(TRIMMED)
    damage(files)
    log = open_log(MemoryStorage(disk_of(files)))
    with pytest.raises(LogCorruptionError, match=match):
        list(log.read(0))
    assert len(bodies(log, TRIMMED)) == BATCHES - TRIMMED
    log.close()


@pytest.mark.parametrize("trimmed", range(6, BATCHES + 1))
def test_a_lost_history_file_is_missed_wherever_the_redo_mark_stands(trimmed: int) -> None:
    files = written(trimmed)
    del files[histories(files)[-1]]
    with (
        closing(open_log(MemoryStorage(disk_of(files)), read_only=True)) as log,
        pytest.raises(LogCorruptionError, match="are missing"),
    ):
        list(log.read(0))


def test_headers_that_were_pruned_are_passed_over_and_those_that_are_kept_are_read() -> None:
    """Whoever removed the oldest history files wanted to forget; nothing is missing then, and nothing invented."""
    files = written(BATCHES)
    first, second = histories(files)[:2]
    kept = SegmentHeader.decode(files[second], second, HISTORY_MAGIC).first
    del files[first]
    with closing(open_log(MemoryStorage(disk_of(files)), read_only=True)) as log:
        assert [batch.lsn for batch in log.read(0)] == list(range(kept, BATCHES + 1))
        assert list(log.read(0, kept - 1)) == []
        assert [batch.lsn for batch in log.read(0, kept)] == [kept]


def test_a_batch_behind_the_last_history_that_cannot_be_read_names_the_segment_it_was_in() -> None:
    """It was trimmed, and its segment not freed, since later batches are in it."""
    files = written(TRIMMED + 1)
    name = segments(files)[0]
    header = SegmentHeader.decode(files[name], name)
    assert header.first == TRIMMED, "the batch of the redo mark can be read"
    flip(files, name, SEGMENT_HEADER + 40)
    with closing(open_log(MemoryStorage(disk_of(files)), read_only=True)) as log:
        with pytest.raises(LogCorruptionError, match=f"headers after batch {header.first - 1} are missing") as caught:
            list(log.read(0))
        assert caught.value.file == name
        assert len(bodies(log, TRIMMED + 1)) == BATCHES - TRIMMED - 1


def test_a_batch_that_cannot_be_read_in_the_only_segment_names_that() -> None:
    disk = MemoryPosix()
    with closing(open_log(MemoryStorage(disk), create=True, segment_size=4096)) as log:
        for number in range(BATCHES):
            add(log, b"%d" % number * 20)
        log.trim(TRIMMED)
    files = files_of(MemoryStorage(disk))
    flip(files, NAMES.segment(1), SEGMENT_HEADER + 40)
    with closing(open_log(MemoryStorage(disk_of(files)), read_only=True)) as log:
        with pytest.raises(LogCorruptionError, match="headers after batch 0 are missing") as caught:
            list(log.read(0))
        assert caught.value.file == NAMES.segment(1)
        assert len(bodies(log, TRIMMED)) == BATCHES - TRIMMED


def test_a_history_that_is_missing_is_named(read_only: bool) -> None:
    files = written(BATCHES)
    lost = histories(files)[1]
    del files[lost]
    with (
        closing(open_log(MemoryStorage(disk_of(files)), read_only=read_only)) as log,
        pytest.raises(LogCorruptionError, match="are missing") as caught,
    ):
        list(log.read(0))
    assert caught.value.file == lost


@pytest.mark.parametrize("kept", [0, 1, SEGMENT_HEADER - 1])
def test_a_history_or_a_segment_that_ends_inside_its_header_is_named(kept: int) -> None:
    for find in (histories, segments):
        files = written(TRIMMED)
        name = find(files)[0]
        files[name] = files[name][:kept]
        with (
            pytest.raises(LogCorruptionError, match="ends inside its header") as caught,
            closing(open_log(MemoryStorage(disk_of(files)), read_only=True)) as log,
        ):
            list(log.read(0))
        assert (caught.value.file, caught.value.offset) == (name, kept)


def test_a_trim_in_a_log_that_lost_a_segment_frees_what_it_can_and_the_loss_is_still_named() -> None:
    disk = disk_of(written())
    with closing(open_log(MemoryStorage(disk), segment_size=SIZE)) as log:
        lost = segments(files_of(MemoryStorage(disk)))[1]
        MemoryStorage(disk).erase(lost)
        log.trim(BATCHES)
        left = files_of(MemoryStorage(disk))
        assert len(segments(left)) == 2, "all but the last, and the one whose successor cannot say that it was sealed"
        assert segments(left)[0] == NAMES.segment(1)
        with pytest.raises(LogCorruptionError, match="are missing"):
            list(log.read(0))
        assert log.verify().problems
        assert add(log, b"next").lsn == BATCHES + 1


def test_a_history_file_that_says_something_else_than_its_segment_keeps_the_segment() -> None:
    files = written()
    files[NAMES.history(1)] = b"something else"
    disk = disk_of(files)
    log = open_log(MemoryStorage(disk), segment_size=SIZE)
    with pytest.raises(LogCorruptionError, match="differs from its segment") as caught:
        log.trim(TRIMMED)
    assert caught.value.file == NAMES.history(1)
    assert NAMES.segment(1) in files_of(MemoryStorage(disk))
    log.close()


# --- verify ---------------------------------------------------------------------------------------------------------


def with_a_batch_that_holds_nothing(files: Files) -> None:
    name, offset, crc = tail_of(files)
    put(files, name, frame(BATCH, BATCHES + 1, crc, b""), offset)


def with_headers_that_hold_nothing(files: Files) -> None:
    name = histories(files)[0]
    header = SegmentHeader.decode(files[name], name, HISTORY_MAGIC)
    data = frame(HEADERS, header.first, header.previous, b"")
    (crc,) = CRC.unpack_from(data, FRAME_FIELDS.size)
    files[name] = files[name][:SEGMENT_HEADER] + data + encode_seal(header.first, crc, 2)[0]


def behind_a_seal(files: Files) -> None:
    files[NAMES.segment(1)] = files[NAMES.segment(1)].ljust(2 * SIZE, b"\0") + b"?"


@pytest.fixture
def verified() -> Iterator[Callable[[Damage, int], list[str]]]:
    """The problems that `verify` of an open writer finds after damage to the files under it."""

    def verify(damage: Damage, trimmed: int = 0) -> list[str]:
        before = written(trimmed)
        disk = disk_of(before)
        with closing(open_log(MemoryStorage(disk), segment_size=SIZE)) as log:
            after = files_of(MemoryStorage(disk))
            damage(after)
            storage = MemoryStorage(disk)
            for name in {**before, **after}:
                if name not in after:
                    storage.erase(name)
                elif before.get(name) != after[name]:
                    storage.publish(name, after[name], b"", durable=False)
            return list(log.verify().problems)

    yield verify


@pytest.mark.parametrize(
    ("damage", "trimmed", "found"),
    [
        (lambda files: files.update({NAMES.checkpoint: b"?"}), 0, ["checkpoint cannot be parsed"]),
        (lambda files: flip(files, NAMES.segment(2), SEGMENT_HEADER + 40), 0, ["bytes behind the last frame"]),
        (lambda files: flip(files, NAMES.segment(1), 30), 0, ["header is damaged"]),
        (lambda files: flip(files, NAMES.segment(2), 30), 0, ["header is damaged"]),
        (lambda files: files.pop(NAMES.segment(2)), 0, ["does not follow the one before"]),
        (lambda files: [files.pop(name) for name in segments(files)[1:]], 0, [f"and {BATCHES} had been flushed"]),
        (behind_a_seal, 0, [f"bytes behind the last frame (file {NAMES.segment(1)}, offset {2 * SIZE})"]),
        (with_a_batch_that_holds_nothing, 0, [f"batch {BATCHES + 1}: "]),
        (with_headers_that_hold_nothing, TRIMMED, ["batch 1: "]),
        (lambda files: files.pop(histories(files)[0]), ALL, []),
        (lambda files: files.pop(histories(files)[1]), ALL, ["the headers after batch "]),
        (lambda files: files.pop(histories(files)[-1]), ALL, ["and no segment holds them any more"]),
        (lambda files: flip(files, histories(files)[0], -9), TRIMMED, ["does not end with its seal"]),
        (lambda files: [files.pop(name) for name in segments(files)], ALL, ["segments are missing"]),
    ],
)
def test_verify_says_what_is_wrong(
    verified: Callable[[Damage, int], list[str]], damage: Damage, trimmed: int, found: list[str]
) -> None:
    problems = verified(damage, trimmed)
    assert bool(problems) == bool(found)
    for one in found:
        assert any(one in problem for problem in problems), problems


def test_verify_by_a_reader_says_that_the_head_file_is_missing() -> None:
    files = written()
    del files[NAMES.head]
    with closing(open_log(MemoryStorage(disk_of(files)), read_only=True)) as log:
        verified = log.verify()
    (problem,) = verified.problems
    assert "the head file is missing" in problem and verified.only_head


@pytest.mark.parametrize("offset", [0, 32], ids=["its header", "a word"])
def test_verify_says_that_the_head_file_was_damaged_under_its_users(offset: int) -> None:
    disk = disk_of(written())
    with closing(open_log(MemoryStorage(disk), segment_size=SIZE)) as log:
        spoil(disk, offset)
        verified = log.verify()
    (problem,) = verified.problems
    assert "missing, damaged or of another log" in problem and verified.only_head


def test_a_head_file_beside_other_damage_is_not_the_only_one() -> None:
    files = written()
    del files[NAMES.head]
    disk = disk_of(files)
    with closing(open_log(MemoryStorage(disk), read_only=True)) as log:
        MemoryStorage(disk).erase(NAMES.checkpoint)
        verified = log.verify()
    assert len(verified.problems) == 2 and not verified.only_head
    with closing(open_log(MemoryStorage(disk_of(written())), read_only=True)) as log:
        assert not log.verify().only_head
    with closing(open_log(MemoryStorage(), kind="slots", create=True)) as log:
        assert not log.verify().only_head


def test_a_log_whose_maker_died_before_it_had_a_segment_is_no_log_yet_and_made_by_the_next(read_only: bool) -> None:
    """Segment 1 is born last; until then nothing was acknowledged."""
    made = written()
    checkpoint = {NAMES.checkpoint: made[NAMES.checkpoint]}
    head, others = new_head(log_id(checkpoint)), new_head(bytes(16), 7)  # of one who died before, with another id
    for files in ({}, checkpoint, {**checkpoint, NAMES.head: head}, {**checkpoint, NAMES.head: others}):
        disk = disk_of({".wal/quarantine/x": b"", **files})
        with pytest.raises(LogMissingError):
            open_log(MemoryStorage(disk), read_only=read_only)
        with closing(open_log(MemoryStorage(disk), create=True, segment_size=SIZE)) as log:
            assert add(log, b"first").lsn == 1
            assert log.verify().problems == ()


# --- what cannot be opened ------------------------------------------------------------------------------------------


def test_a_kind_that_is_not_known_asks_for_an_upgrade() -> None:
    with pytest.raises(LogFormatError, match="unknown kind 'later'"):
        open_log(MemoryStorage(), kind="later", create=True)


def test_a_segment_that_could_hold_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a segment has at least"):
        open_log(MemoryStorage(), create=True, segment_size=2 * SEGMENT_HEADER - 1)
    with closing(open_log(MemoryStorage(), create=True, segment_size=2 * SEGMENT_HEADER)) as log:
        assert [add(log, b"x").lsn for _ in range(3)] == [1, 2, 3]


class NoLocks(MemoryPosix):
    """A disk of a kind that no append log is made for."""

    def kernel_file(self, path: str) -> bytes:
        return b"1 0 0:1 / / rw - nfs4 server:/x rw\n" if path == "/proc/self/mountinfo" else super().kernel_file(path)


def test_an_append_log_is_refused_where_locks_may_be_for_show() -> None:
    with pytest.raises(UnsupportedError, match="cannot hold an append log"):
        open_log(MemoryStorage(NoLocks()), kind="append", create=True)


class ReadOnlyDisk(MemoryPosix):
    """A disk on which nothing can be written."""

    def writable(self, path: str) -> bool:
        return False

    def kernel_file(self, path: str) -> bytes:
        return b"1 0 0:1 / / ro - tmpfs memory ro\n" if path == "/proc/self/mountinfo" else super().kernel_file(path)


def test_a_log_of_slots_is_refused_where_nothing_can_be_written() -> None:
    with pytest.raises(UnsupportedError, match="cannot hold a log"):
        open_log(MemoryStorage(ReadOnlyDisk()), kind="slots", create=True)
