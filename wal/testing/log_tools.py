"""Helpers for tests of a log: short appends, a clock with a constant token, and disks with given files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from wal.clock import Clock
from wal.log import Position, Record, WriteAheadLog
from wal.storage.base import Kind, Storage
from wal.storage.memory import MemoryPosix, MemoryStorage

State = list[tuple[int, tuple[bytes, ...], tuple[bytes | None, ...]]]


class FixedClock(Clock):
    """A clock that gives the same token every time, so that a log's bytes are the same in every run."""

    def token(self, size: int) -> bytes:
        return bytes(range(1, size + 1))


def add(log: WriteAheadLog, body: bytes, header: bytes = b"") -> Position:
    """Append one record unconditionally."""
    position = log.append(lambda head, mates: Record(header, body))
    assert position is not None
    return position


def state(log: WriteAheadLog, after: int = 0) -> State:
    """The whole log as plain values: (LSN, headers, bodies)."""
    return [
        (batch.lsn, tuple(r.header for r in batch.records), tuple(r.body for r in batch.records))
        for batch in log.read(after)
    ]


def bodies(log: WriteAheadLog, after: int = 0) -> list[bytes | None]:
    """The bodies in order, without batch boundaries."""
    return [record.body for batch in log.read(after) for record in batch.records]


def files_of(storage: Storage, folder: str = ".wal") -> dict[str, bytes]:
    """Every file below a folder, by name."""
    found: dict[str, bytes] = {}
    with suppress(FileNotFoundError):
        for entry in storage.list(folder):
            name = f"{folder}/{entry.name}"
            if entry.kind is Kind.FOLDER:
                found |= files_of(storage, name)
            else:
                found[name] = storage.read(name).data
    return found


def disk_of(files: Mapping[str, bytes]) -> MemoryPosix:
    """An in-memory disk that holds these files."""
    posix = MemoryPosix()
    storage = MemoryStorage(posix)
    for name, data in files.items():
        storage.publish(name, data, b"", durable=False)
    storage.close()
    return posix
