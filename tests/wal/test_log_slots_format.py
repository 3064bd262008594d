"""The bytes of slots: golden files, the worked slot of docs/log_format.md, and every byte changed or cut."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wal.test_log_format import example
from wal import LogCorruptionError, LogFormatError, LogMissingError, Record, WalError, open_log
from wal.format import SLOT_FIELDS, SLOT_STATE
from wal.slot import NO_LINK, Slot, decode
from wal.testing.hosts import ManualClock
from wal.testing.log_tools import State, add, state
from wal.testing.objects import Bucket, MemoryObjects

GOLDEN = Path(__file__).parent / "golden"
FILES = {
    "slot-birth.rec": ".wal/00000000000000000000.rec",
    "slot-trimmed.rec": ".wal/00000000000000000001.rec",
    "slot-empty.rec": ".wal/00000000000000000003.rec",
    "slot-bodies.rec": ".wal/00000000000000000004.rec",
    "slot-checkpoint.json": ".wal/checkpoint.json",
    "slot-history.hdr": ".wal/history/00000000000000000002.hdr",
}


def written() -> tuple[dict[str, bytes], State]:
    """A log of five batches, of which the third is empty, trimmed up to 2: its files, and what it reads as."""
    bucket = Bucket()
    log = open_log(MemoryObjects(bucket), create=True, clock=ManualClock(5))
    for number in (1, 2, 3, 4, 5):
        if number == 3:
            log.settle()
        else:
            add(log, b"body %d" % number, b"header %d" % number)
    log.trim(2)
    result = state(log)
    log.close()
    return {name: stored.data for name, stored in bucket.objects.items()}, result


def opened(files: dict[str, bytes], **options: bool) -> State:
    bucket = Bucket()
    for name, data in files.items():
        bucket.put(name, data, None)
    log = open_log(MemoryObjects(bucket), clock=ManualClock(6), **options)
    try:
        found = state(log)
        if not options.get("read_only"):
            add(log, b"and on it goes")
            assert state(log)[: len(found)] == found
        return found
    finally:
        log.close()


@pytest.mark.parametrize("name", FILES)
def test_the_bytes_on_the_storage_are_what_they_always_were(name: str) -> None:
    assert written()[0][FILES[name]] == (GOLDEN / name).read_bytes()


def test_a_log_of_golden_files_can_be_read() -> None:
    files, whole = written()
    golden = {FILES[name]: (GOLDEN / name).read_bytes() for name in FILES}
    assert opened({**files, **golden}) == whole
    assert whole[2] == (3, (), ())


def test_the_worked_slot_is_what_the_code_writes() -> None:
    log_id, token = bytes(range(1, 17)), bytes(range(0xA0, 0xB0))
    birth = Slot(log_id, 0, token, NO_LINK, ())
    slot = Slot(log_id, 1, bytes(range(0xB0, 0xC0)), birth.link(), (Record(b"sensor 7", b"21.5"), Record(b"", b"!")))
    assert example("worked slot").hex(" ") == slot.encode().hex(" ")
    assert decode(example("worked slot"), "x", 1) == slot
    trimmed = slot.without_bodies(3).encode()
    assert (trimmed[0x60], trimmed[0x68], trimmed[0x70]) == (3, 3, 0)
    assert trimmed[: SLOT_FIELDS.size] == slot.encode()[: SLOT_FIELDS.size]
    assert (SLOT_FIELDS.size, SLOT_STATE.size) == (96, 24)


records = st.lists(st.builds(Record, st.binary(max_size=40), st.binary(max_size=40)), max_size=5).map(tuple)


@given(records, st.integers(0, 2**63 - 1), st.binary(min_size=16, max_size=16), st.integers(0, 2**62))
@settings(deadline=None)
def test_what_was_encoded_is_decoded_and_a_trim_changes_no_link(
    batch: tuple[Record, ...], lsn: int, token: bytes, further: int
) -> None:
    slot = Slot(token, lsn, token, bytes(32), batch)
    assert decode(slot.encode(), "x", lsn) == decode(slot.encode(), "x") == slot
    trimmed = slot.without_bodies(lsn + further)
    assert decode(trimmed.encode(), "x", lsn) == trimmed
    assert trimmed.link() == slot.link()
    with pytest.raises(LogCorruptionError):
        decode(slot.encode(), "x", lsn + 1)


@given(st.binary(max_size=300), st.booleans())
@settings(deadline=None)
def test_arbitrary_bytes_raise_errors_of_the_log_and_no_others(payload: bytes, dressed: bool) -> None:
    if dressed:  # with the right magic, format and CRC
        payload = example("worked slot")[:12] + payload
        payload += struct.pack("<I", crc32(payload))
    try:
        decode(payload, "x")
    except WalError:
        return


def changed(data: bytes, at: int, value: bytes) -> bytes:
    """With some bytes replaced, and the CRC made right."""
    data = data[:at] + value + data[at + len(value) : -4]
    return data + struct.pack("<I", crc32(data))


@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        (8, b"\x02", LogFormatError),
        (0x60, b"\x02", LogFormatError),
        (0x60, b"\x03", LogCorruptionError),  # trimmed, with bodies
        (0x68, b"\x01", LogCorruptionError),  # not trimmed, and yet up to somewhere
        (0x58, b"\x15", LogCorruptionError),
        (0x70, b"\x0c", LogCorruptionError),
        (0x78, b"\x03", LogCorruptionError),
        (0x78, b"\xff\xff\xff\xff", LogCorruptionError),
        (0x7C, b"\x00\x00\x00\x40", LogCorruptionError),  # a gigabyte
        (0x8C, b"\xff\xff\xff\xff", LogCorruptionError),
        (0x20, b"\x02", LogCorruptionError),
    ],
)
def test_a_right_checksum_over_impossible_fields_is_refused(at: int, value: bytes, error: type[WalError]) -> None:
    with pytest.raises(error):
        decode(changed(example("worked slot"), at, value), "x", 1)


def test_a_slot_that_is_trimmed_up_to_before_itself_is_refused() -> None:
    slot = decode(example("worked slot"), "x", 1).without_bodies(1).encode()
    with pytest.raises(LogCorruptionError):
        decode(changed(slot, 0x68, b"\x00"), "x", 1)


def damages(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        yield data[:at]
        for byte in (data[at] ^ (1 << at % 8), 0, 255):
            if byte != data[at]:
                yield data[:at] + bytes([byte]) + data[at + 1 :]
    yield data + b"\x00"
    yield data + data


@pytest.mark.parametrize("name", FILES)
def test_every_byte_changed_or_cut_is_refused_by_name_or_read_right(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files, whole = written()
    if name == "slot-birth.rec":  # which is read only where nothing says to begin later
        del files[FILES["slot-checkpoint.json"]]
    counts = {"refused": 0, "right": 0}
    for broken in damages(files[FILES[name]]):
        for read_only in (True, False):
            try:
                found = opened({**files, FILES[name]: broken}, read_only=read_only)
            except (LogCorruptionError, LogFormatError) as error:
                assert FILES[name] in str(error) or "another log" in str(error)
                counts["refused"] += 1
            else:
                assert found == whole
                counts["right"] += 1
    with capsys.disabled():
        print(f"\n{name}: {counts}")
    assert counts["refused"] > 0 or name == "slot-history.hdr", "two headers are not looked for there"


def test_every_byte_of_a_history_changed_or_cut_is_refused_by_name_or_read_right() -> None:
    bucket = Bucket()
    log = open_log(MemoryObjects(bucket), create=True, clock=ManualClock(5))
    for _ in range(12):
        add(log, b"", b"")
    log.trim(10)
    whole = state(log)
    log.close()
    files = {file: stored.data for file, stored in bucket.objects.items()}
    name = ".wal/history/00000000000000000010.hdr"
    refused = 0
    for at in range(len(files[name])):
        for broken in (files[name][:at], files[name][:at] + b"\xff" + files[name][at + 1 :]):
            try:
                assert opened({**files, name: broken}, read_only=True) == whole
            except LogCorruptionError as error:
                assert name in str(error)
                refused += 1
    assert refused > len(files[name])


@pytest.mark.parametrize("swap", [(4, 5), (1, 2), (3, 4), (0, 3)])
def test_slots_that_changed_places_or_came_twice_are_refused(swap: tuple[int, int]) -> None:
    files, whole = written()
    files.pop(".wal/checkpoint.json"), files.pop(".wal/history/00000000000000000002.hdr")
    one, two = (f".wal/{number:020d}.rec" for number in swap)
    change: Callable[[], dict[str, bytes]]
    for change in (
        lambda: {one: files[two], two: files[one]},
        lambda: {one: files[two]},
        lambda: {two: files[one]},
    ):
        try:
            assert opened({**files, **change()}) == whole
        except LogCorruptionError:
            continue
        pytest.fail("slots in wrong places were read")


def test_a_slot_of_another_log_and_a_slot_that_was_written_again_are_refused() -> None:
    files, _ = written()
    last = ".wal/00000000000000000005.rec"
    slot = decode(files[last], last, 5)
    for other in (
        Slot(bytes(16), 5, slot.token, slot.previous, slot.records),
        Slot(slot.log_id, 5, slot.token, bytes(32), slot.records),
    ):
        with pytest.raises(LogCorruptionError):
            opened({**files, last: other.encode()})
    middle = ".wal/00000000000000000004.rec"
    again = decode(files[middle], middle, 4)
    forged = Slot(again.log_id, 4, again.token, again.previous, (Record(b"forged", b""),))
    with pytest.raises(LogCorruptionError):
        opened({**files, middle: forged.encode()})


def test_without_any_file_the_log_is_missing() -> None:
    with pytest.raises(LogMissingError):
        opened({})
