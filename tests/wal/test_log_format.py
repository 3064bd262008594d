"""The bytes: golden files, and the worked example of docs/log_format.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wal import LogFormatError, MemoryPosix, MemoryStorage, Record, open_log
from wal.checkpoint import Checkpoint
from wal.format import FRAME_HEADER, SEGMENT_HEADER
from wal.frame import decode_records, encode_batch, encode_headers, encode_seal, find_later, intact, parse_header
from wal.segment import SegmentHeader, first_log_crc
from wal.testing.log_tools import FixedClock, add, files_of, state

GOLDEN = Path(__file__).parent / "golden"
DOCUMENT = Path(__file__).parents[2] / "docs" / "log_format.md"
FILES = {
    "segment-1.log": ".wal/00000000000000000001.log",
    "segment-3.log": ".wal/00000000000000000003.log",
    "head": ".wal/head",
    "checkpoint.json": ".wal/checkpoint.json",
    "history-1.hdr": ".wal/history/00000000000000000001.hdr",
}


def written() -> dict[str, bytes]:
    """A log of seven batches in segments of 256 bytes; the files of it before and after trimming up to 3."""
    storage = MemoryStorage()
    log = open_log(storage, create=True, segment_size=256, clock=FixedClock())
    for number in range(1, 8):
        add(log, b"body %d" % number, b"header %d" % number)
    log.store_mark(0, 5)
    before = files_of(storage)
    log.trim(3)
    after = files_of(storage)
    log.close()
    return {**after, FILES["segment-1.log"]: before[FILES["segment-1.log"]]}


@pytest.mark.parametrize("name", FILES)
def test_the_bytes_on_disk_are_what_they_always_were(name: str) -> None:
    assert written()[FILES[name]] == (GOLDEN / name).read_bytes()


def test_a_log_of_golden_files_can_be_read() -> None:
    storage = MemoryStorage(MemoryPosix())
    for name in ("segment-1.log", "head"):
        storage.publish(FILES[name], (GOLDEN / name).read_bytes(), b"", durable=False)
    log_id = SegmentHeader.decode((GOLDEN / "segment-1.log").read_bytes(), "golden").log_id
    storage.publish(".wal/checkpoint.json", Checkpoint(log_id.hex(), 0).encode(), b"", durable=False)
    for number in (2, 3, 4):
        storage.publish(f".wal/{number:020d}.log", written()[f".wal/{number:020d}.log"], b"", durable=False)
    log = open_log(storage, read_only=True)
    assert state(log)[6] == (7, (b"header 7",), (b"body 7",))
    log.close()


def example(name: str = "worked example") -> bytes:
    """A worked example's bytes: the lines `offset  hex ...  | text` of the document's fenced block."""
    block = re.search(rf"<!-- {name} -->\n```text\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert block is not None
    data = bytearray()
    for line in block[1].splitlines():
        match = re.fullmatch(r"([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+) *(?:\|.*)?", line)
        if match is not None:
            assert int(match[1], 16) == len(data), line
            data += bytes.fromhex(match[2])
    return bytes(data)


def test_the_worked_example_is_what_the_code_writes() -> None:
    log_id = FixedClock().token(16)
    header = SegmentHeader(log_id, 1, 1, first_log_crc(log_id))
    frame, crc = encode_batch(1, header.previous, [Record(b"sensor 7", b"21.5"), Record(b"", b"!")])
    seal, _ = encode_seal(1, crc, 2)
    assert example().hex(" ") == (header.encode() + frame + seal).hex(" ")


def test_a_newer_format_is_no_damage() -> None:
    data = bytearray(SegmentHeader(bytes(16), 1, 1, 0).encode())
    data[8] = 2
    from zlib import crc32

    data[-4:] = crc32(data[:-4]).to_bytes(4, "little")
    with pytest.raises(LogFormatError):
        SegmentHeader.decode(bytes(data), "x")


records = st.lists(st.builds(Record, st.binary(max_size=40), st.binary(max_size=40)), max_size=5)


@given(records, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_what_was_encoded_is_decoded(batch: list[Record], lsn: int, previous: int) -> None:
    for encode, expected in ((encode_batch, batch), (encode_headers, [Record(r.header, None) for r in batch])):
        frame, crc = encode(lsn, previous, batch)
        header = parse_header(frame, 0)
        assert header is not None
        assert (header.lsn, header.previous, header.crc, header.size) == (lsn, previous, crc, len(frame))
        assert len(frame) % 8 == 0
        assert intact(frame, 0, header)
        assert list(decode_records(frame, 0, header)) == expected


@pytest.mark.parametrize("length", range(9))
def test_a_frame_that_was_cut_anywhere_is_not_there_whole(length: int) -> None:
    """Also where only its padding is missing, and whatever else stands behind a whole one."""
    frame, _ = encode_batch(5, 9, [Record(b"h" * length, b"b")])
    header = parse_header(frame, 0)
    assert header is not None
    assert intact(frame + b"more", 0, header)
    for end in range(len(frame)):
        assert not intact(frame[:end], 0, header)


@given(records, st.data())
@settings(deadline=None)
def test_any_changed_bit_is_noticed(batch: list[Record], data: st.DataObject) -> None:
    frame = bytearray(encode_batch(5, 9, batch)[0])
    bit = data.draw(st.integers(0, 8 * len(frame) - 1))
    frame[bit // 8] ^= 1 << bit % 8
    header = parse_header(bytes(frame), 0)
    assert header is None or not intact(bytes(frame), 0, header)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_arbitrary_bytes_raise_nothing_but_value_errors(payload: bytes) -> None:
    header = parse_header(payload, 0)
    if header is not None:
        intact(payload, 0, header)
    find_later(payload, 0)
    from wal.format import BATCH, HEADERS
    from wal.frame import FrameHeader

    for kind in (BATCH, HEADERS):
        try:
            decode_records(bytes(FRAME_HEADER) + payload, 0, FrameHeader(kind, len(payload), 1, 0, 0, 0))
        except ValueError:
            continue


@pytest.mark.parametrize("before", [b"", b"padding."])
def test_a_frame_whose_header_does_not_fit_is_none(before: bytes) -> None:
    data = before + encode_batch(1, 0, [])[0][:FRAME_HEADER]
    assert parse_header(data, len(before)) is not None
    assert parse_header(data[:-1], len(before)) is None
    assert find_later(data[:-1], 0) is None


def test_the_sizes_that_the_document_states() -> None:
    assert (SEGMENT_HEADER, FRAME_HEADER) == (56, 32)


def test_a_seal_is_later_than_the_batches_before_it_and_not_than_its_own() -> None:
    seal, _ = encode_seal(4, 0, 2)
    assert find_later(seal, 3) == 0
    assert find_later(seal, 4) is None


@pytest.mark.parametrize("at", [0, 3, 4, 5, 7], ids=["magic", "its end", "kind", "reserved", "its end too"])
def test_a_frame_of_another_format_is_none_whatever_its_checksum(at: int) -> None:
    frame = bytearray(encode_batch(1, 0, [Record(b"", b"x")])[0])
    assert parse_header(bytes(frame), 0) is not None
    frame[at] ^= 0x40
    assert parse_header(bytes(frame), 0) is None


def test_a_segment_begins_as_its_header_and_grows_by_a_mebibyte_at_a_time_up_to_sixteen() -> None:
    disk, mebibyte, sizes = MemoryPosix(), 1 << 20, list[int]()
    storage = MemoryStorage(disk)
    log = open_log(storage, create=True)
    first = storage.open_file(FILES["segment-1.log"], writable=False)
    while storage.entry(f".wal/{2:020d}.log") is None:
        sizes.append(first.size())
        add(log, bytes(600_000))
    assert sizes == [56] + [-(-number * 600_000 // mebibyte) * mebibyte for number in range(1, len(sizes))]
    assert sizes[-1] == first.size() == 16 * mebibyte
    first.close()
    log.close()
