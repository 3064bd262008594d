"""Every byte of a log cut, flipped or zeroed: it opens to a prefix of what was committed, or is refused by name."""

from __future__ import annotations

from zlib import crc32

import pytest

from wal import LogCorruptionError, LogMissingError, Record, open_log
from wal.format import CRC, FRAME_FIELDS, FRAME_MAGIC, RESERVED, SEAL
from wal.storage.memory import MemoryStorage
from wal.testing.log_tools import FixedClock, State, add, disk_of, files_of, state

HEAD = ".wal/head"
SEGMENT_SIZE = 256  # a few small batches fill one
LOST_WORD = bytes(4096)


def made(batches: int = 7, trim: int = 0) -> tuple[dict[str, bytes], State]:
    storage = MemoryStorage()
    log = open_log(storage, create=True, segment_size=SEGMENT_SIZE, clock=FixedClock())
    for number in range(batches):
        add(log, b"body %d " % number * (number % 3), b"header %d" % number)
    if trim:
        log.trim(trim)
    result = state(log)
    log.close()
    return files_of(storage), result


def outcome(files: dict[str, bytes], *, read_only: bool = False) -> State | LogCorruptionError:
    storage = MemoryStorage(disk_of(files))
    try:
        log = open_log(storage, segment_size=SEGMENT_SIZE, read_only=read_only, lock_timeout=1)
    except LogCorruptionError as error:
        return error
    try:
        found = state(log)
        if not read_only:
            add(log, b"and on it goes")
            again = open_log(MemoryStorage(storage._posix), read_only=True)
            assert state(again)[: len(found)] == found
            again.close()
        return found
    except LogCorruptionError as error:
        return error
    finally:
        log.close()


def judge(files: dict[str, bytes], name: str, whole: State, least: int, **how: bool) -> bool:
    """True if it opened. `least`: how many batches must survive if it does."""
    found = outcome(files, **how)
    if isinstance(found, LogCorruptionError):
        assert found.file.startswith(".wal/")
        assert 0 <= found.offset <= max(len(data) for data in files.values())
        return False
    assert found == whole[: len(found)], "neither a prefix nor refused"
    assert len(found) >= least, "an acknowledged batch vanished without a word"
    return True


def logs(files: dict[str, bytes]) -> list[str]:
    return sorted(name for name in files if name.endswith(".log"))


@pytest.mark.parametrize("acknowledged", [True, False])
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("damage", ["flip", "zero", "ones", "cut"])
def test_a_damaged_segment_opens_to_a_prefix_or_refuses(damage: str, acknowledged: bool, read_only: bool) -> None:
    files, whole = made()
    if not acknowledged:
        files[HEAD] = LOST_WORD
    assert len(logs(files)) >= 3
    for name in logs(files):
        data = files[name]
        for at in range(len(data)):
            if damage == "cut":
                broken = data[:at]
            else:
                byte = {"flip": data[at] ^ (1 << at % 8), "zero": 0, "ones": 255}[damage]
                broken = data[:at] + bytes([byte]) + data[at + 1 :]
            if broken != data:
                judge({**files, name: broken}, name, whole, len(whole) if acknowledged else 0, read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("flip", [True, False])
def test_a_damaged_head_file_loses_nothing(flip: bool, read_only: bool) -> None:
    files, whole = made()
    data = files[HEAD]
    for at in range(240):
        broken = data[:at] + (bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :] if flip else b"")
        assert judge({**files, HEAD: broken}, HEAD, whole, len(whole), read_only=read_only)


def test_a_lost_head_file_loses_nothing() -> None:
    files, whole = made()
    del files[HEAD]
    assert outcome(files) == whole
    assert outcome(files, read_only=True) == whole


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("what", [".json", ".hdr"])
def test_a_damaged_checkpoint_or_history_is_refused_by_name(what: str, read_only: bool) -> None:
    files, _ = made(trim=5)
    names = [name for name in files if name.endswith(what)]
    assert names
    for name in names:
        data = files[name]
        for at in range(len(data)):
            for broken in (data[:at], data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]):
                found = outcome({**files, name: broken}, read_only=read_only)
                assert isinstance(found, LogCorruptionError), (name, at)
                assert found.file == name


def test_each_lost_file_is_noticed() -> None:
    for trim in (0, 5):
        files, whole = made(trim=trim)
        for name in files:
            rest = {other: data for other, data in files.items() if other != name}
            if name.endswith(("head", "apply", "alive", "opening")):
                assert outcome(rest) == whole
            elif name.endswith(".hdr"):
                found = outcome(rest)
                assert isinstance(found, LogCorruptionError) or found == whole[-len(found) :], "pruned, or missing"
            else:
                try:
                    found = outcome(rest)
                except LogMissingError:
                    pytest.fail(f"{name} lost, and the log is said not to exist")
                assert isinstance(found, LogCorruptionError), name


def test_a_length_field_of_a_gigabyte_allocates_nothing() -> None:
    files, _ = made(batches=1)
    (name,) = logs(files)
    data = bytearray(files[name])
    data[56 + 8 : 56 + 16] = (2**30).to_bytes(8, "little")
    found = outcome({**files, name: bytes(data)})
    assert isinstance(found, LogCorruptionError)
    assert found.offset == 56


def test_records_that_hold_frames_are_no_frames() -> None:
    files, _ = made()
    storage = MemoryStorage()
    log = open_log(storage, create=True)
    for name in logs(files):
        log.append(lambda head, mates, name=name: Record(b"copy", files[name]))
    again = open_log(MemoryStorage(storage._posix), read_only=True)
    assert [body[2][0] for body in state(again)] == [files[name] for name in logs(files)]
    again.close()
    log.close()


@pytest.mark.parametrize("size", [0, 4, 7, 16])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_seal_of_another_size_with_a_right_checksum_is_corruption(size: int, read_only: bool) -> None:
    files, _ = made(batches=1)
    (name,) = logs(files)
    end = len(files[name].rstrip(b"\0")) + 7 & ~7
    _, _, _, _, lsn, _ = FRAME_FIELDS.unpack_from(files[name], 56)
    (crc,) = CRC.unpack_from(files[name], 56 + FRAME_FIELDS.size)
    fields = FRAME_FIELDS.pack(FRAME_MAGIC, SEAL, RESERVED, size, lsn, crc)
    seal = fields + CRC.pack(crc32(bytes(size), crc32(fields))) + bytes(size)
    found = outcome({**files, name: files[name][:end] + seal + bytes(-len(seal) % 8)}, read_only=read_only)
    assert isinstance(found, LogCorruptionError)
    assert (found.file, found.offset) == (name, end)
