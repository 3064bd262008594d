"""A frame <-> bytes. Pure. Layout: docs/log_format.md.

One flush is one frame. Its CRC covers every field, the payload and, through the CRC of the frame before, the whole
chain. So a valid frame after an invalid one proves damage, and an invalid last frame is an interrupted write.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from wal.format import (
    BATCH,
    COUNT,
    CRC,
    FRAME_FIELDS,
    FRAME_HEADER,
    FRAME_MAGIC,
    HEADERS,
    LENGTH,
    LENGTHS,
    PADDING,
    RESERVED,
    SEAL,
    SUCCESSOR,
    padded,
)
from wal.log import LSN, Record

_KINDS = (BATCH, SEAL, HEADERS)


class FrameHeader(NamedTuple):
    """The fields before a payload. They are not valid until the CRC was checked."""

    kind: int
    length: int  # of the payload, bytes
    lsn: LSN
    previous: int  # CRC of the frame before
    crc: int
    size: int  # of the whole frame with padding, bytes


def encode_batch(lsn: LSN, previous: int, records: Sequence[Record]) -> tuple[bytes, int]:
    """The frame of a batch, and its CRC. Raises ValueError for a record above 4 GiB or without a body."""
    parts: list[bytes] = [b""]
    try:
        for record in records:
            header, body = record.header, record.body
            if body is None:
                raise ValueError("a record to append needs a body")
            parts += (LENGTHS.pack(len(header), len(body)), header, body)
        parts[0] = COUNT.pack(len(records))
    except struct.error as error:
        raise ValueError("a record's header and body are limited to 4 GiB each") from error
    return _encode(BATCH, lsn, previous, parts)


def encode_headers(lsn: LSN, previous: int, records: Sequence[Record]) -> tuple[bytes, int]:
    """The frame that keeps a trimmed batch's headers in a history file, and its CRC."""
    parts = [COUNT.pack(len(records))]
    for record in records:
        parts += (LENGTH.pack(len(record.header)), record.header)
    return _encode(HEADERS, lsn, previous, parts)


def encode_seal(lsn: LSN, previous: int, successor: int) -> tuple[bytes, int]:
    """The frame that ends a segment after `lsn`, and its CRC; the log continues in the segment `successor`."""
    return _encode(SEAL, lsn, previous, [SUCCESSOR.pack(successor)])


def _encode(kind: int, lsn: LSN, previous: int, parts: list[bytes]) -> tuple[bytes, int]:
    length = sum(map(len, parts))
    fields = FRAME_FIELDS.pack(FRAME_MAGIC, kind, RESERVED, length, lsn, previous)
    crc = crc32(fields)
    for part in parts:  # not joined first: so the payload is copied only once
        crc = crc32(part, crc)
    return b"".join((fields, CRC.pack(crc), *parts, PADDING[(FRAME_HEADER + length) % 8])), crc


def parse_header(buffer: bytes, at: int) -> FrameHeader | None:
    """The header at `at`, or None if there can be none. Not verified: `intact` decides."""
    if len(buffer) - at < FRAME_HEADER:
        return None
    magic, kind, reserved, length, lsn, previous = FRAME_FIELDS.unpack_from(buffer, at)
    if magic != FRAME_MAGIC or reserved != RESERVED or kind not in _KINDS:
        return None
    (crc,) = CRC.unpack_from(buffer, at + FRAME_FIELDS.size)
    return FrameHeader(kind, length, lsn, previous, crc, padded(FRAME_HEADER + length))


def intact(buffer: bytes, at: int, header: FrameHeader) -> bool:
    """Whether the frame at `at` is complete and valid: length, CRC and zero padding."""
    end = at + FRAME_HEADER + header.length
    if at + header.size > len(buffer):
        return False
    view = memoryview(buffer)
    crc = crc32(view[at + FRAME_HEADER : end], crc32(view[at : at + FRAME_FIELDS.size]))
    return crc == header.crc and buffer[end : at + header.size] == PADDING[(FRAME_HEADER + header.length) % 8]


def decode_records(buffer: bytes, at: int, header: FrameHeader, *, bodies: bool = True) -> tuple[Record, ...]:
    """The records of the intact batch (or headers) frame at `at`. Raises ValueError if the payload is not valid."""
    start = at + FRAME_HEADER
    end = start + header.length
    try:
        (count,) = COUNT.unpack_from(buffer, start)
        start += COUNT.size
        if count * (LENGTH if header.kind == HEADERS else LENGTHS).size > end - start:
            raise ValueError("more records than bytes")
        records = []
        for _ in range(count):
            record, start = _record(buffer, start, header.kind, bodies)
            records.append(record)
    except struct.error as error:
        raise ValueError("payload ends inside a record") from error
    if start != end:
        raise ValueError("lengths of the records do not add up to the payload")
    return tuple(records)


def _record(buffer: bytes, at: int, kind: int, bodies: bool) -> tuple[Record, int]:
    if kind == HEADERS:
        (size,) = LENGTH.unpack_from(buffer, at)
        at += LENGTH.size
        return Record(buffer[at : at + size], None), at + size
    size, body = LENGTHS.unpack_from(buffer, at)
    at += LENGTHS.size
    middle = at + size
    return Record(buffer[at:middle], buffer[middle : middle + body] if bodies else None), middle + body


def decode_seal(buffer: bytes, at: int, header: FrameHeader) -> int:
    """The successor that the intact seal frame at `at` names. Raises ValueError if the payload is not valid."""
    if header.length != SUCCESSOR.size:
        raise ValueError(f"a seal of {header.length} bytes")
    (successor,) = SUCCESSOR.unpack_from(buffer, at + FRAME_HEADER)
    return int(successor)


def find_later(buffer: bytes, after: LSN) -> int | None:
    """The offset in `buffer` (aligned like a segment) of an intact frame that must follow `after`, or None.

    Such a frame behind invalid bytes proves that these were valid once: it was written after they were flushed.
    """
    at = buffer.find(FRAME_MAGIC)
    while at >= 0:
        header = parse_header(buffer, at) if at % 8 == 0 else None
        if header is not None and _follows(header, after) and intact(buffer, at, header):
            return at
        at = buffer.find(FRAME_MAGIC, at + 1)
    return None


def _follows(header: FrameHeader, after: LSN) -> bool:
    """Whether it is a later batch, or the seal behind one. The next batch may be left over from a failed write."""
    return header.lsn > after + 1 if header.kind == BATCH else header.kind == SEAL and header.lsn > after
