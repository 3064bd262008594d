"""A segment: its header, its frames, and the zeros reserved behind them. Layout: docs/log_format.md."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple
from zlib import crc32

from wal.errors import LogCorruptionError, LogFormatError
from wal.format import CHUNK, CRC, FORMAT, FRAME_HEADER, SEAL, SEGMENT_FIELDS, SEGMENT_HEADER, SEGMENT_MAGIC
from wal.frame import FrameHeader, decode_records, decode_seal, intact, parse_header
from wal.log import LSN, Record
from wal.storage.base import RandomFile

_FIRST_WINDOW = 2**13  # bytes read at a time; doubled up to ...
_LAST_WINDOW = 2**20
_SMALL = 2**14  # bytes by which a batch may extend a segment on a disk that is nearly full
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}

Read = Callable[[int, int], bytes]
"""`read(length, offset)`: as RandomFile.pread."""


class Tail(NamedTuple):
    """Where the next frame goes, and the frame it is chained to."""

    number: int  # of the segment
    offset: int
    crc: int  # of the frame before
    lsn: LSN  # of the last batch


class Found(NamedTuple):
    """An intact frame of the chain."""

    offset: int
    header: FrameHeader
    buffer: bytes  # holds the frame from `at` on
    at: int


class SegmentHeader(NamedTuple):
    """What a segment (or, with another magic, a history file) begins with."""

    log_id: bytes
    number: int
    first: LSN  # of its first batch, even if that is not written yet
    previous: int  # CRC of the frame before its first

    def encode(self, magic: bytes = SEGMENT_MAGIC) -> bytes:
        """The header's bytes."""
        fields = SEGMENT_FIELDS.pack(magic, FORMAT, self.log_id, self.number, self.first, self.previous)
        return fields + CRC.pack(crc32(fields))

    @classmethod
    def decode(cls, data: bytes, file: str, magic: bytes = SEGMENT_MAGIC) -> SegmentHeader:
        """The header at the start of `data`. Raises LogCorruptionError; LogFormatError if a newer version wrote it."""
        if len(data) < SEGMENT_HEADER:
            raise LogCorruptionError("the file ends inside its header", file=file, offset=len(data))
        found, version, log_id, number, first, previous = SEGMENT_FIELDS.unpack_from(data)
        (crc,) = CRC.unpack_from(data, SEGMENT_FIELDS.size)
        # the CRC before the version: all versions share this layout, and a flipped bit must not look like an upgrade
        if found != magic or crc != crc32(data[: SEGMENT_FIELDS.size]):
            raise LogCorruptionError("the file's header is damaged", file=file)
        if version != FORMAT:
            raise LogFormatError(f"{file} has format {version}, this program knows {FORMAT}: upgrade it")
        return cls(log_id, number, first, previous)

    def tail(self) -> Tail:
        """The tail of a segment that holds no frame yet."""
        return Tail(self.number, SEGMENT_HEADER, self.previous, self.first - 1)


def first_log_crc(log_id: bytes) -> int:
    """What the first frame of a log is chained to, so that frames of two logs do not chain."""
    return crc32(log_id)


def scan(read: Read, size: int, tail: Tail) -> Iterator[Found]:
    """The intact frames chained to `tail`, up to a seal or the first place that holds no such frame.

    A length field is trusted only as far as the file reaches, so a damaged one causes no large allocation.
    """
    _, offset, crc, lsn = tail
    window, base, step = b"", offset, _FIRST_WINDOW
    while True:
        if base + len(window) - offset < FRAME_HEADER:
            window, base, step = read(step, offset), offset, min(2 * step, _LAST_WINDOW)
        header = parse_header(window, offset - base)
        if header is None or header.previous != crc or header.lsn != lsn + (header.kind != SEAL):
            return
        if offset + header.size > size:
            return
        if offset + header.size > base + len(window):
            window, base, step = read(max(step, header.size), offset), offset, min(2 * step, _LAST_WINDOW)
        if not intact(window, offset - base, header):
            return
        yield Found(offset, header, window, offset - base)
        if header.kind == SEAL:
            return
        offset, crc, lsn = offset + header.size, header.crc, header.lsn


def frame_at(read: Read, size: int, offset: int) -> Found | None:
    """The intact frame at `offset`, whatever it is chained to; None if there is none."""
    data = read(FRAME_HEADER, offset)
    header = parse_header(data, 0)
    if header is None or offset + header.size > size:
        return None
    data = read(header.size, offset)
    return Found(offset, header, data, 0) if intact(data, 0, header) else None


def behind(number: int, found: Found) -> Tail:
    """The tail behind a batch's frame in the segment `number`."""
    return Tail(number, found.offset + found.header.size, found.header.crc, found.header.lsn)


def records(found: Found, file: str, *, bodies: bool = True) -> tuple[Record, ...]:
    """The records of a frame. Raises LogCorruptionError: an impossible payload is damage even if its CRC matches."""
    try:
        return decode_records(found.buffer, found.at, found.header, bodies=bodies)
    except ValueError as error:
        raise LogCorruptionError(f"batch {found.header.lsn}: {error}", file=file, offset=found.offset) from error


def successor(found: Found, file: str) -> int | None:
    """The segment that a seal frame names; None for another frame. Raises LogCorruptionError."""
    if found.header.kind != SEAL:
        return None
    try:
        return decode_seal(found.buffer, found.at, found.header)
    except ValueError as error:
        raise LogCorruptionError(str(error), file=file, offset=found.offset) from error


def unpadded(data: bytes) -> bytes:
    """`data` without its trailing zeros."""
    if data == bytes(len(data)):  # the usual case; ten times as fast as `rstrip` on a mebibyte
        return b""
    return data.rstrip(b"\x00")


def extend(file: RandomFile, size: int, upto: int, segment_size: int) -> int:
    """Write zeros from `size` to `upto` or the end of a step beyond it; returns the new size. Not durable.

    A later frame then overwrites allocated blocks: neither the file size nor its extents change, which makes fdatasync
    twice as fast as on a growing file. `fallocate` alone does not help where extents are journaled.

    Where a whole step does not fit on the disk, only a small batch gets what it needs: the rest stays free, so that
    files can follow the log, and deletions can make room.
    """
    step = min(CHUNK, segment_size)
    target = max(upto, min(-(-upto // step) * step, segment_size))
    try:
        _write_zeros(file, size, target)
    except OSError as error:
        if error.errno not in _NO_SPACE or upto - size > _SMALL:
            raise
        target = upto
        _write_zeros(file, size, target)
    return target


def _write_zeros(file: RandomFile, size: int, target: int) -> None:
    """Extend the file to `target` bytes, or leave it as long as it was."""
    try:
        for start in range(size, target, CHUNK):
            file.pwrite(bytes(min(CHUNK, target - start)), start)
    except OSError:
        with suppress(OSError):
            file.truncate(size)
        raise
