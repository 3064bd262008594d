"""SQLite with a WAL and synchronous=FULL: a commit that returned survives power loss, as Metatree's does.

It has two speeds. *fresh*: its WAL file still grows, and each flush has to note the file's new size. *steady*: the file
is there and is written again from its beginning, as it is after each checkpoint.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.base import BLOB_NAME, CHUNK, Peer, Store

SCHEMA = """
CREATE TABLE node (model TEXT, version TEXT, metadata TEXT, PRIMARY KEY (model, version)) WITHOUT ROWID;
CREATE TABLE blob (model TEXT, version TEXT, name TEXT, content BLOB, PRIMARY KEY (model, version, name));
CREATE TABLE filling (content BLOB);
"""
WAL_PAGES = 1000  # after which SQLite makes a checkpoint by itself


class Database(Store):
    """One connection."""

    def __init__(self, connection: sqlite3.Connection, *, steady: bool) -> None:
        self.connection = connection
        self._steady = steady
        self._grown = False

    def put(self, model: str, version: str, content: bytes) -> None:
        self.put_many(model, (version,), content)

    def put_many(self, model: str, versions: Sequence[str], content: bytes) -> None:
        run = self.connection.execute
        run("BEGIN IMMEDIATE")
        run("INSERT OR IGNORE INTO node VALUES (?, '', '{}')", (model,))
        for version in versions:
            run("INSERT INTO node VALUES (?, ?, '{}')", (model, version))
            run("INSERT INTO blob VALUES (?, ?, ?, ?)", (model, version, BLOB_NAME, content))
        run("COMMIT")

    def put_file(self, model: str, version: str, source: Path) -> None:
        self.put(model, version, source.read_bytes())

    def update(self, model: str, version: str, values: Mapping[str, Any]) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        sql = "UPDATE node SET metadata = json_patch(metadata, ?) WHERE model = ? AND version = ?"
        self.connection.execute(sql, (json.dumps(values), model, version))
        self.connection.execute("COMMIT")

    def find_active(self, model: str) -> object:
        sql = "SELECT metadata FROM node WHERE model = ? AND version = ?"
        self.connection.execute("BEGIN")  # both reads see one state, as Metatree's do
        above = json.loads(self.connection.execute(sql, (model, "")).fetchone()[0])
        found = json.loads(self.connection.execute(sql, (model, above["active"])).fetchone()[0])
        self.connection.execute("COMMIT")
        return found

    def get(self, model: str, version: str) -> int:
        sql = "SELECT rowid FROM blob WHERE model = ? AND version = ? AND name = ?"
        (row,) = self.connection.execute(sql, (model, version, BLOB_NAME)).fetchone()
        with self.connection.blobopen("blob", "content", row, readonly=True) as blob:
            return sum(map(len, iter(lambda: blob.read(CHUNK), b"")))

    def versions(self, model: str) -> set[str]:
        rows = self.connection.execute("SELECT version FROM node WHERE model = ? AND version != ''", (model,))
        return {version for (version,) in rows}

    def rest(self) -> None:
        """A checkpoint, after which the WAL file is empty (fresh), or full and written from its beginning (steady)."""
        if self._steady and not self._grown:
            self.connection.execute("INSERT INTO filling VALUES (zeroblob(?))", (2 * WAL_PAGES * 4096,))
            self._grown = True
        self.connection.execute(f"PRAGMA wal_checkpoint({'RESTART' if self._steady else 'TRUNCATE'})")


@contextmanager
def opened(folder: Path, *, steady: bool) -> Iterator[Database]:
    new = not (folder / "peer.db").exists()
    with closing(sqlite3.connect(folder / "peer.db", timeout=60, isolation_level=None)) as connection:
        if new:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(SCHEMA)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES if steady else 0}")
        yield Database(connection, steady=steady)


PEERS = (
    Peer("sqlite fresh", partial(opened, steady=False), "sqlite3"),
    Peer("sqlite steady", partial(opened, steady=True), "sqlite3", hold=True),  # the last one to close removes the WAL
)
