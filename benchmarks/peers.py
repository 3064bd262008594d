"""What Metatree is compared with: SQLite that keeps the same promise, and the least any program must do."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from metatree import Metatree

KEYS = ("model", "version")
BLOB = bytes(range(256)) * 4  # 1 KiB
SEGMENT = 64 << 20

SCHEMA = """
CREATE TABLE IF NOT EXISTS node (model TEXT, version TEXT, metadata TEXT, PRIMARY KEY (model, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blob (model TEXT, version TEXT, name TEXT, content BLOB,
                                 PRIMARY KEY (model, version, name));
"""


@contextmanager
def sqlite(folder: Path) -> Iterator[sqlite3.Connection]:
    """WAL and synchronous=FULL: a commit that returned survives power loss, as Metatree's does."""
    with closing(sqlite3.connect(folder / "peer.db", timeout=60, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(SCHEMA)
        yield connection


def sqlite_put(connection: sqlite3.Connection, model: str, version: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT OR IGNORE INTO node VALUES (?, '', '{}')", (model,))
    connection.execute("INSERT INTO node VALUES (?, ?, '{}')", (model, version))
    connection.execute("INSERT INTO blob VALUES (?, ?, 'w', ?)", (model, version, BLOB))
    connection.execute("COMMIT")


def sqlite_update(connection: sqlite3.Connection, model: str, version: str, values: dict[str, object]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    sql = "UPDATE node SET metadata = json_patch(metadata, ?) WHERE model = ? AND version = ?"
    connection.execute(sql, (json.dumps(values), model, version))
    connection.execute("COMMIT")


@contextmanager
def metatree(folder: Path, apply: str = "sync") -> Iterator[Metatree]:
    with Metatree(str(folder / "tree"), KEYS, apply=apply) as tree:
        yield tree


class RawLog:
    """The floor: one checksummed record into a zero-filled segment, then fdatasync. Knows nothing, keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / "raw.log", os.O_RDWR | os.O_CREAT, 0o600)
        self._offset = 0
        for place in range(0, SEGMENT, 1 << 20):
            os.pwrite(self._descriptor, bytes(1 << 20), place)
        os.fsync(self._descriptor)

    def append(self, record: bytes) -> None:
        if self._offset + len(record) + 4 > SEGMENT:
            self._offset = 0  # the floor re-uses its segment for nothing
        frame = zlib.crc32(record).to_bytes(4, "little") + record
        os.pwrite(self._descriptor, frame, self._offset)
        datasync(self._descriptor)
        self._offset += len(frame)

    def close(self) -> None:
        os.close(self._descriptor)


def datasync(descriptor: int) -> None:
    if sys.platform == "darwin":
        os.fsync(descriptor)
    else:
        os.fdatasync(descriptor)


@contextmanager
def raw_log(folder: Path) -> Iterator[RawLog]:
    with closing(RawLog(folder)) as log:
        yield log
