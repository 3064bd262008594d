"""`checkpoint.json`: the redo mark (durable, a lower bound), and where in the segments its batch begins."""

from __future__ import annotations

import json
from typing import NamedTuple
from zlib import crc32

from wal.errors import LogCorruptionError, LogFormatError
from wal.format import FORMAT
from wal.log import LSN
from wal.names import Names
from wal.storage.base import Storage


class Checkpoint(NamedTuple):
    """The redo mark of a log."""

    log: str  # the log's id
    redo: LSN  # 0: nothing trimmed
    segment: int = 0  # hint, verified when used: the frame of batch `redo` begins in this segment ...
    offset: int = 0  # ... at this byte; 0, 0 for redo 0

    def encode(self) -> bytes:
        """The file's content: one line of JSON, with the CRC of the same line without the `crc` field."""
        return _sealed({"format": FORMAT, **self._asdict()})

    @classmethod
    def decode(cls, data: bytes, file: str) -> Checkpoint:
        """The checkpoint in the content of `file`. Raises LogCorruptionError, LogFormatError."""
        try:
            fields = json.loads(data)
            del fields["crc"]
            right = _sealed(fields) == data
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            raise LogCorruptionError("the checkpoint cannot be parsed", file=file) from error
        if not right:
            raise LogCorruptionError("the checkpoint's checksum does not match", file=file)
        if fields.pop("format", None) != FORMAT:
            raise LogFormatError(f"{file} was written by a newer version: upgrade this program")
        try:
            checkpoint = cls(**fields)
            numbers = (checkpoint.redo, checkpoint.segment, checkpoint.offset)
            possible = len(bytes.fromhex(checkpoint.log)) == 16 and all(type(n) is int and n >= 0 for n in numbers)
        except (TypeError, ValueError):
            possible = False
        if not possible:
            raise LogCorruptionError("the checkpoint has unexpected fields or values", file=file)
        return checkpoint


def read_checkpoint(storage: Storage, names: Names) -> Checkpoint:
    """The stored checkpoint. A log without one is damaged, since it is the first file that a log creates.

    Raises LogCorruptionError, LogFormatError.
    """
    try:
        data = storage.read(names.checkpoint).data
    except FileNotFoundError:
        raise LogCorruptionError("the checkpoint is missing", file=names.checkpoint) from None
    return Checkpoint.decode(data, names.checkpoint)


_dump = json.JSONEncoder(separators=(",", ":")).encode


def _sealed(fields: dict[str, object]) -> bytes:
    line = _dump(fields).encode() + b"\n"
    return b'%b,"crc":"%08x"}\n' % (line[:-2], crc32(line))
