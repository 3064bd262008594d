"""A slot <-> bytes. Pure. Layout: docs/log_format.md.

A slot is one object that holds one batch. It is created in one step and never removed; trimming replaces its bodies by
the LSN up to which bodies are trimmed. The link in the next slot covers only the part that never changes, headers
included.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from zlib import crc32

from wal.errors import LogCorruptionError, LogFormatError
from wal.format import BATCH, COUNT, CRC, FORMAT, HEADERS, LENGTH, SLOT_FIELDS, SLOT_MAGIC, SLOT_STATE
from wal.log import LSN, Record

TOKEN_BYTES = 16
NO_LINK = bytes(32)  # of slot 0, before which there is none


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot's content."""

    log_id: bytes  # 16 bytes
    lsn: LSN
    token: bytes  # 16 random bytes by which a writer recognises its own slot
    previous: bytes  # link to the slot before, 32 bytes
    records: tuple[Record, ...]  # empty: the slot was only occupied
    trimmed: LSN | None = None  # bodies are trimmed in all slots up to this LSN, this one included

    def link(self) -> bytes:
        """The hash that the next slot holds as `previous`; trimming does not change it."""
        headers = _headers(self.records)
        return sha256(self._fields(headers) + headers).digest()

    def encode(self) -> bytes:
        """The slot's bytes."""
        headers = _headers(self.records)
        bodies = b"" if self.trimmed is not None else b"".join(map(_body, self.records))
        kind = BATCH if self.trimmed is None else HEADERS
        state = SLOT_STATE.pack(kind, self.trimmed or 0, len(bodies))
        data = b"".join((self._fields(headers), state, headers, bodies))
        return data + CRC.pack(crc32(data))

    def _fields(self, headers: bytes) -> bytes:
        return SLOT_FIELDS.pack(SLOT_MAGIC, FORMAT, self.log_id, self.lsn, self.token, self.previous, len(headers))

    def without_bodies(self, trimmed: LSN) -> Slot:
        """This slot as it is once everything up to `trimmed` is trimmed."""
        return replace(self, records=tuple(Record(r.header, None) for r in self.records), trimmed=trimmed)


def decode(data: bytes, file: str, lsn: LSN | None = None) -> Slot:
    """The slot in the content of the object `file`. `lsn`: which one it must be; None: any.

    Raises LogCorruptionError; LogFormatError if a newer version wrote it.
    """
    size = SLOT_FIELDS.size + SLOT_STATE.size
    if len(data) < size + CRC.size or not data.startswith(SLOT_MAGIC):
        raise LogCorruptionError("this is not a slot of a log", file=file)
    if data[-CRC.size :] != CRC.pack(crc32(data[: -CRC.size])):
        raise LogCorruptionError("the slot's checksum does not match", file=file)
    _, version, log_id, number, token, previous, headers = SLOT_FIELDS.unpack_from(data)
    if version != FORMAT:
        raise LogFormatError(f"{file} has format {version}, this program knows {FORMAT}: upgrade it")
    kind, trimmed, bodies = SLOT_STATE.unpack_from(data, SLOT_FIELDS.size)
    if kind not in (BATCH, HEADERS):
        raise LogFormatError(f"{file} is of the unknown kind {kind}: written by a newer version, upgrade")
    if number != (number if lsn is None else lsn) or size + headers + bodies + CRC.size != len(data):
        raise LogCorruptionError("the slot's number or its lengths do not match its name and size", file=file)
    if trimmed if kind == BATCH else (bodies or trimmed < number):
        raise LogCorruptionError("the slot's trim mark contradicts its kind", file=file)
    try:
        records = _records(data, size, headers, bodies, kind)
    except (ValueError, struct.error) as error:
        raise LogCorruptionError(f"the slot's records cannot be decoded: {error}", file=file) from error
    return Slot(log_id, number, token, previous, records, trimmed if kind == HEADERS else None)


def _headers(records: Sequence[Record]) -> bytes:
    parts = [COUNT.pack(len(records))]
    for record in records:
        parts += (LENGTH.pack(len(record.header)), record.header)
    return b"".join(parts)


def _body(record: Record) -> bytes:
    if record.body is None:
        raise ValueError("a record to append needs a body")
    return LENGTH.pack(len(record.body)) + record.body


def _records(data: bytes, at: int, headers: int, bodies: int, kind: int) -> tuple[Record, ...]:
    (count,) = COUNT.unpack_from(data, at)
    middle, end = at + headers, at + headers + bodies
    found = list(_pieces(data, at + COUNT.size, middle, count))
    contents = list(_pieces(data, middle, end, count)) if kind == BATCH else [None] * count
    return tuple(Record(header or b"", body) for header, body in zip(found, contents, strict=True))


def _pieces(data: bytes, at: int, end: int, count: int) -> list[bytes | None]:
    pieces: list[bytes | None] = []
    for _ in range(count):
        (size,) = LENGTH.unpack_from(data, at)
        at += LENGTH.size
        pieces.append(data[at : at + size])
        at += size
    if at != end:
        raise ValueError("lengths of the records do not add up")
    return pieces
