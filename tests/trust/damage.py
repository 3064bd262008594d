"""Small trees on disks in memory, one of each kind of log, and what can be done to the bytes of their files."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import wal
from metatree import Metatree
from tests.tree.model import BIG, LEVELS, clone, dump, put_directory
from wal.storage.memory import MemoryPosix, MemoryStorage
from wal.storage.memory import _Inode as Inode
from wal.testing.objects import Bucket, MemoryObjects

NFS = b"1 0 0:1 / / rw - nfs4 server:/export rw\n"


class Mounted(MemoryPosix):
    """A disk in memory as if it were mounted elsewhere too: its trees have slots and epochs."""

    def kernel_file(self, path: str) -> bytes:
        return NFS if path == "/proc/self/mountinfo" else super().kernel_file(path)


class Original:
    """A healthy tree, what it holds, and any number of copies of it, one file of each damaged."""

    def __init__(self, kind: str, *, closed: bool) -> None:
        """`closed`: after a clean end; else as a killed process leaves it, its last commits in the log and staged."""
        self._disk = Mounted() if kind == "slots" else MemoryPosix()
        self._bucket = Bucket() if kind == "objects" else None
        storage = self._storage()
        if kind == "append":  # several small segments, some of them trimmed
            wal.open_log(storage, create=True, segment_size=2048).close()
        with Metatree(storage, LEVELS) as tree:
            fill(tree)
            self.state, self.keys = dump(tree), tree.keys
            if not closed:
                disk, bucket = self._copied()
        if not closed:
            self._disk, self._bucket = disk, bucket
        self.files = dict(self._files())

    def _storage(self) -> wal.Storage:
        return MemoryStorage(self._disk) if self._bucket is None else MemoryObjects(self._bucket)

    def _copied(self) -> tuple[MemoryPosix, Bucket | None]:
        if self._bucket is not None:
            return self._disk, Bucket(dict(self._bucket.objects), self._bucket.numbers)
        disk = clone(self._disk)
        disk.__class__ = type(self._disk)
        return disk, None

    def _files(self) -> Iterator[tuple[str, bytes]]:
        if self._bucket is not None:
            yield from ((name, stored.data) for name, stored in sorted(self._bucket.objects.items()))
        else:
            yield from ((name, bytes(inode.data)) for name, inode in _inodes(self._disk._find("/disk"), ""))

    def names_of(self, name: str) -> set[str]:
        """All names of a file: what was applied may still be linked into the staging area."""
        if self._bucket is not None:
            return {name}
        found = dict(_inodes(self._disk._find("/disk"), ""))
        return {other for other, inode in found.items() if inode is found[name]}

    def damaged(self, name: str, data: bytes | None) -> wal.Storage:
        """A copy in which the file holds `data` (None: is gone), its attribute untouched."""
        disk, bucket = self._copied()
        if bucket is not None:
            if data is None:
                del bucket.objects[name]
            else:
                bucket.put(name, data, bucket.objects[name].attribute)
            return MemoryObjects(bucket)
        if data is None:
            disk.unlink(f"/disk/{name}")
        else:
            disk._find(f"/disk/{name}").data[:] = data
        return MemoryStorage(disk)


def _inodes(folder: Inode, above: str) -> Iterator[tuple[str, Inode]]:
    for name, inode in sorted(folder.entries.items()):
        if inode.folder:
            yield from _inodes(inode, f"{above}{name}/")
        else:
            yield f"{above}{name}", inode


def fill(tree: Metatree) -> None:
    """Every kind of file, with commits before and after a checkpoint."""
    tree.put("m/v1", b"small one", name="b")
    tree.update("m", active="v1", n=[1, {"a": None}])
    put_directory(tree)
    tree.delete("m/v1/dir", recursive=True)
    tree.checkpoint()
    with tree.transaction("a message"):
        tree.put("m/v2", b"two", name="b")
        tree.put("m/v2", BIG[:66_000], name="big")
        tree.update("m/v2", auc=0.5, stage="new")
    tree.put("other", b"", name="empty")
    with tempfile.TemporaryDirectory(prefix="metatree-test-") as folder:
        Path(folder, "inner").write_bytes(b"in a folder")
        tree.put("m/v2", folder, name="dir", recursive=True)
    tree.delete("m/v1", recursive=True)


# --- what happens to bytes --------------------------------------------------------------------------------------------

Change = Callable[[bytes, int], bytes]


def _set(data: bytes, at: int, new: bytes) -> bytes:
    return (data[:at] + new + data[at + len(new) :])[: len(data)]


CHANGES: dict[str, Change] = {
    "flip": lambda data, at: _set(data, at, bytes([data[at] ^ (1 << at % 8)])),
    "zero": lambda data, at: _set(data, at, b"\0"),
    "0xFF": lambda data, at: _set(data, at, b"\xff"),
    "zero a sector": lambda data, at: _set(data, at & -512, bytes(512)),
    "cut": lambda data, at: data[:at],
    "swap": lambda data, at: _set(data, at, data[at : at + 16][8:] + data[at : at + 8]),
    "duplicate": lambda data, at: data[:at] + data[at : at + 8] + data[at:],
    "delete": lambda data, at: data[:at] + data[at + 1 :],
}


def written(name: str, data: bytes) -> int:
    """How many bytes are worth damaging: of a file with zeros ahead, what is written and a little more."""
    return min(len(data), len(data.rstrip(b"\0")) + 8)


def in_turn(sizes: dict[str, int], chooser: random.Random) -> Iterator[tuple[str, str, int]]:
    """Every change at every place of every file: file, change, place. Each file and change in turn, so that small files
    come to as many as large ones; of each first both ends, then the other places in an order that is drawn."""
    waiting = {(name, change): _places(size, chooser) for name, size in sizes.items() if size for change in CHANGES}
    while waiting:
        for (name, change), places in list(waiting.items()):
            yield name, change, places.pop()
            if not places:
                del waiting[name, change]


def _places(size: int, chooser: random.Random) -> list[int]:
    """The last one comes first."""
    ends = [0] if size == 1 else [size - 1, 0]
    return [*chooser.sample(range(1, size - 1), max(0, size - 2)), *ends]
