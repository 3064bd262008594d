"""The floors: the least that any program of this shape must do.

*raw log*: one checksummed record into a zero-filled segment, then fdatasync. It knows nothing and keeps nothing.
*deferred*: the same, and the files are written while nobody waits.
*current*: the same, and the blob and the two metadata.json are written, un-synced, before the call returns.
*shared raw log*: the raw log, with a lock.
*copy, fsync, rename*: what large content takes.
"""

from __future__ import annotations

import fcntl
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from benchmarks.peers.base import BLOB_NAME, CHUNK, Peer, Store
from benchmarks.peers.files import copy

SEGMENT = 64 << 20
POSITION = 8  # bytes at the segment's beginning that say where it ends, for other processes


class RawLog:
    """A zero-filled segment that is written again from its beginning when it is full."""

    def __init__(self, path: Path) -> None:
        new = not path.exists()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._offset = POSITION
        if new:
            for place in range(0, SEGMENT, CHUNK):
                os.pwrite(self._descriptor, bytes(CHUNK), place)
            os.fsync(self._descriptor)

    def append(self, record: bytes) -> None:
        frame = zlib.crc32(record).to_bytes(4, "little") + record
        if self._offset + len(frame) > SEGMENT:
            self._offset = POSITION
        os.pwrite(self._descriptor, frame, self._offset)
        datasync(self._descriptor)
        self._offset += len(frame)

    def close(self) -> None:
        os.close(self._descriptor)


class SharedRawLog(RawLog):
    """One for several processes: its end is found, the record written and flushed under one lock."""

    def append(self, record: bytes) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._offset = max(POSITION, int.from_bytes(os.pread(self._descriptor, POSITION, 0), "little"))
        super().append(record)
        os.pwrite(self._descriptor, self._offset.to_bytes(POSITION, "little"), 0)
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)


class Floor(Store):
    """Records in a raw log; `files`: never written, later, or now."""

    def __init__(self, root: Path, log: RawLog, files: str) -> None:
        self._root = str(root)
        self._log = log
        self._files = files
        self._models: dict[str, list[str]] = {}
        self._later: list[Callable[[], None]] = []

    def put(self, model: str, version: str, content: bytes) -> None:
        self.put_many(model, (version,), content)

    def put_many(self, model: str, versions: Sequence[str], content: bytes) -> None:
        records = [orjson.dumps({"put": [model, version], "size": len(content)}) + content for version in versions]
        self._log.append(b"".join(records))
        children = self._models.setdefault(model, [])
        self._do(lambda: write_versions(f"{self._root}/{model}", children, versions, content))

    def update(self, model: str, version: str, values: Mapping[str, Any]) -> None:
        text = orjson.dumps(values)
        self._log.append(orjson.dumps({"update": [model, version]}) + text)
        self._do(lambda: replace(f"{self._root}/{model}/{version}/metadata.json", text))

    def rest(self) -> None:
        while self._later:
            self._later.pop(0)()

    def _do(self, work: Callable[[], None]) -> None:
        if self._files == "now":
            work()
        elif self._files == "later":
            self._later.append(work)


class Copies(Store):
    """Large content: copied aside, flushed, renamed into place."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put_file(self, model: str, version: str, source: Path) -> None:
        folder = self._root / model
        folder.mkdir(exist_ok=True)
        copy(source, folder / ".new", sync=True)
        os.replace(folder / ".new", folder / version)


def write_versions(above: str, children: list[str], versions: Sequence[str], content: bytes) -> None:
    """The files of new versions, and the model's list, which `children` holds."""
    os.makedirs(above, exist_ok=True)
    for version in versions:
        os.mkdir(f"{above}/{version}")
        write(f"{above}/{version}/{BLOB_NAME}", content)
        write(f"{above}/{version}/metadata.json", b"{}")
    children.extend(versions)
    replace(f"{above}/metadata.json", orjson.dumps({"children": children}))


def write(path: str, content: bytes) -> None:
    """A new file, un-synced."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, content)
    os.close(descriptor)


def replace(path: str, content: bytes) -> None:
    """A file that readers see whole, before or after; un-synced."""
    write(f"{path}.new", content)
    os.replace(f"{path}.new", path)


def datasync(descriptor: int) -> None:
    if sys.platform == "darwin":
        os.fsync(descriptor)
    else:
        os.fdatasync(descriptor)


@contextmanager
def opened(folder: Path, *, files: str, kind: type[RawLog] = RawLog) -> Iterator[Floor]:
    with closing(kind(folder / "raw.log")) as log:
        yield Floor(folder, log, files)


@contextmanager
def opened_copies(folder: Path) -> Iterator[Copies]:
    yield Copies(folder)


PEERS = (
    Peer("floor: raw log", partial(opened, files="never")),
    Peer("floor: shared raw log", partial(opened, files="never", kind=SharedRawLog)),
    Peer("floor: deferred", partial(opened, files="later")),
    Peer("floor: current", partial(opened, files="now")),
    Peer("floor: copy, fsync, rename", opened_copies),
)
