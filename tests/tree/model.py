"""What a tree holds, as plain data, and the operations that are killed or failed at every call.

A `State` maps each node's path to (keys, children in order, blobs). It is taken twice: through the library, and from
the folders as anybody without the library sees them. Both must be the same whenever the files are in place.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import wal
from metatree import BlobNotFoundError, Metatree
from wal.storage.memory import MemoryPosix, MemoryStorage
from wal.storage.memory import _Inode as Inode
from wal.storage.posix import Posix
from wal.testing import Boundary, Call, CrashStorage

LEVELS = ("model", "version")
ROOT = "/disk"
ENGINE_NAMES = {".wal", ".lock", ".metatree"}

BIG = bytes(range(256)) * 400  # 100 KiB: is staged
OTHER_BIG = bytes(reversed(range(256))) * 300  # 75 KiB

NodeDump = tuple[dict[str, object], tuple[str, ...], dict[str, bytes]]
State = dict[str, NodeDump]
T = TypeVar("T")


# --- taking the state -------------------------------------------------------------------------------------------------


def dump(tree: Metatree) -> State:
    """Everything, through the public API."""
    state: State = {}
    for node in tree.walk(()):
        blobs: dict[str, bytes] = {}
        for name in node.list():
            where = f"{node.path}/{name}" if node.path else name
            try:
                blobs[name] = b"".join(tree.get(where))
            except BlobNotFoundError:  # a directory blob
                blobs.update(_download(tree, where, name))
        state[node.path] = (dict(node.metadata), tuple(node.children), blobs)
    return state


def _download(tree: Metatree, where: str, name: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="metatree-test-") as folder:
        target = Path(folder, "out")
        list(tree.get(where, target, recursive=True))
        files = sorted(path for path in target.rglob("*") if path.is_file())
        return {f"{name}/{path.relative_to(target).as_posix()}": path.read_bytes() for path in files}


def plain(posix: Posix, root: str = ROOT) -> State:
    """Everything, as `ls` and `cat` show it: no library, no log. A file that does not parse is an error."""
    state: State = {}
    pending = [""]
    while pending:
        path = pending.pop()
        folder = f"{root}/{path}" if path else root
        keys = json.loads(read(posix, f"{folder}/metadata.json"))
        children = tuple(keys.pop("children", ()))
        names = set(posix.listdir(folder)) - set(children) - {"metadata.json"} - (ENGINE_NAMES if not path else set())
        blobs = {inner: content for name in names for inner, content in _files(posix, folder, name).items()}
        state[path] = (keys, children, blobs)
        pending.extend(f"{path}/{child}" if path else child for child in children)
    return state


def _files(posix: Posix, folder: str, name: str) -> dict[str, bytes]:
    if not stat.S_ISDIR(posix.lstat(f"{folder}/{name}").st_mode):
        return {name: read(posix, f"{folder}/{name}")}
    inner = (f"{name}/{entry}" for entry in posix.listdir(f"{folder}/{name}"))
    return {file: content for below in inner for file, content in _files(posix, folder, below).items()}


def read(posix: Posix, path: str) -> bytes:
    """A whole file."""
    fd = posix.open(path, os.O_RDONLY)
    try:
        return posix.pread(fd, posix.fstat(fd).st_size, 0)
    finally:
        posix.close(fd)


def write(posix: Posix, path: str, content: bytes) -> None:
    """A new file, for what other programs leave behind."""
    fd = posix.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR)
    posix.pwrite(fd, content, 0)
    posix.close(fd)


# --- disks ------------------------------------------------------------------------------------------------------------


def clone(disk: MemoryPosix, into: MemoryPosix | None = None) -> MemoryPosix:
    """A copy of a disk, as if everybody who had it open were dead; `into`: an empty one. Hard links stay hard links."""
    copied = MemoryPosix() if into is None else into
    with disk._changed:  # its process may still be at work
        copied._top = _clone(disk._top, {})
        copied._numbers = itertools.count(max(next(disk._numbers), 2))
    return copied


def _clone(inode: Inode, known: dict[int, Inode]) -> Inode:
    if inode.number not in known:
        made = type(inode)(inode.number, inode.folder, inode.links, inode.data[:], {}, dict(inode.attributes))
        known[inode.number] = made
        made.entries.update((name, _clone(below, known)) for name, below in inode.entries.items())
    return known[inode.number]


@dataclass(frozen=True)
class Image:
    """What the disk holds if the process dies at one moment."""

    moment: str  # in words: "before call 7: rename …"
    disk: MemoryPosix


class Camera(Boundary):
    """Lets one life go by and keeps what a death at each moment would leave: before each call that changes something
    (which is also after the one before), in the middle of each write, and, by `finish`, after the last one.

    The same as dying there with `CrashStorage`, whose calls after the death change nothing, but in a single run.
    """

    def __init__(self, disk: MemoryPosix) -> None:
        super().__init__(disk)
        self._disk = disk
        self.images: list[Image] | None = None  # None: not recording yet

    def start(self) -> None:
        """Keep images from here on."""
        self.images = []

    def finish(self) -> list[Image]:
        """All images, the last one being now."""
        images, self.images = self.images or [], None
        return [*images, Image("at the end", clone(self._disk))]

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.number and self.images is not None:
            words = f"call {call.number}: {call.method} {call.path}"
            self.images.append(Image(f"before {words}", clone(self._disk)))
            if tear is not None:
                tear()  # the whole write then follows, over the half of it
                self.images.append(Image(f"in the middle of {words}", clone(self._disk)))
        return run()


class DyingStorage(CrashStorage):
    """Its locks go with its descriptors: unlocking after the crash, as finalizers of dropped trees do, is no call.
    What does not count goes the short way while it lives: most calls only look, most of these by `lstat` or `pread`."""

    def lstat(self, path: str) -> os.stat_result:
        looks = self.crashed is None and "lstat" not in self._counted
        return self.inner.lstat(path) if looks else super().lstat(path)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        looks = self.crashed is None and "pread" not in self._counted
        return self.inner.pread(fd, length, offset) if looks else super().pread(fd, length, offset)

    def _pass(
        self,
        method: str,
        target: int | str,
        arguments: tuple[object, ...],
        run: Callable[[], T],
        tear: Callable[[], T] | None = None,
    ) -> T:
        if self.crashed is None and method not in self._counted:
            return run()
        return super()._pass(method, target, arguments, run, tear)

    def funlock(self, fd: int) -> None:
        if self.crashed is None:
            super().funlock(fd)


def open_tree(posix: Posix, **options: object) -> Metatree:
    """A tree on a disk in memory (or on the real one below `ROOT`, if the posix leads there)."""
    return Metatree(MemoryStorage(posix), LEVELS, **options)  # type: ignore[arg-type]


def empty_disk() -> MemoryPosix:
    """A disk whose log will have a small segment, so that copying it is cheap."""
    disk = MemoryPosix()
    storage = MemoryStorage(disk)
    wal.open_log(storage, create=True, segment_size=1 << 16).close()
    storage.close()
    return disk


# --- the operations ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """Something to kill or fail half way."""

    act: Callable[[Metatree], object]
    before: Callable[[Metatree], object] | None = None  # acknowledged commits of the same process, not checkpointed


def populate(tree: Metatree) -> None:
    """What every operation starts from."""
    tree.put("m/v1", b"small one", name="b")
    tree.put("m/v1", BIG, name="big")
    tree.put("m/v2", b"small two", name="b")
    tree.put("m/v3", b"three", name="b")
    tree.update("m", active="v1", n=1)
    tree.update("m/v1", auc=0.93, stage="old")
    tree.put("other/v1", b"x", name="x")
    tree.put("other", b"of a model", name="readme")


def warm_up(tree: Metatree) -> None:
    """Commits of the same process: recovery then replays them too, over files that are ahead of them."""
    tree.put("warm/v1", b"gone soon", name="b")
    tree.delete("warm", recursive=True)
    tree.put("m/v0", OTHER_BIG, name="big")
    tree.move("m/v0", "m/w0")
    tree.put("m/v0", b"again", name="big")
    tree.delete("m/v2", recursive=True)
    tree.put("m/v2", b"small two, again", name="b")
    tree.put("m/v1", OTHER_BIG, name="big", force=True)
    tree.update("m", warm=True, n=2)


def mixed(tree: Metatree) -> None:
    """One transaction of 20 operations of every kind."""
    with tree.transaction("mixed"):
        tree.put("m/v4", b"four", name="b")
        tree.put("m/v4", BIG[:70_000], name="big")
        tree.update("m/v4", auc=0.94, stage="candidate")
        tree.update("m", active="v4")
        tree.unset("m", "n")
        tree.delete("m/v2", recursive=True)
        tree.put("m/v2", b"v2 is new", name="c")
        tree.move("m/v3", "m/moved")
        tree.copy("m/v1", "other/v2")
        tree.put("m/v1", b"forced", name="b", force=True)
        tree.delete("m/v1/big")
        tree.update("other/v2", copied=True)
        tree.put("new/v1", b"1", name="a")
        tree.put("new/v2", b"2", name="a")
        tree.delete("new/v1", recursive=True)
        tree.move("other/v1/x", "other/v2/y")
        tree.compare_and_set("m", "active", "v4", "moved")
        tree.put("m/v3", b"three again", name="b")
        tree.delete("other/readme")
        tree.update((), owner="team")


def put_directory(tree: Metatree) -> None:
    """A blob that is a folder, with a small and a staged file in it."""
    with tempfile.TemporaryDirectory(prefix="metatree-test-") as folder:
        Path(folder, "sub").mkdir()
        Path(folder, "one").write_bytes(b"1")
        Path(folder, "sub", "two").write_bytes(BIG)
        tree.put("m/v1", folder, name="dir", recursive=True)


def many_small(tree: Metatree) -> None:
    """More inline bytes than one record holds: the rest goes into a pack file."""
    with tree.transaction():
        for number in range(7):
            tree.put(f"packed/v{number}", bytes([number]) * 60_000, name="b")


OPERATIONS: dict[str, Operation] = {
    "put into a new version": Operation(lambda t: t.put("m/v9", b"nine", name="b")),
    "put into an old version": Operation(lambda t: t.put("m/v1", b"c", name="c")),
    "put of a staged blob": Operation(lambda t: t.put("m/v9", BIG, name="big")),
    "put of a directory": Operation(put_directory),
    "force-put": Operation(lambda t: t.put("m/v1", b"forced", name="b", force=True)),
    "force-put of a staged blob": Operation(lambda t: t.put("m/v1", OTHER_BIG[:70_000], name="big", force=True)),
    "update": Operation(lambda t: t.update("m/v1", auc=0.5, new="key")),
    "unset": Operation(lambda t: t.unset("m/v1", "auc", "stage")),
    "delete of a node": Operation(lambda t: t.delete("m/v1", recursive=True)),
    "delete of a model": Operation(lambda t: t.delete("m", recursive=True)),
    "delete of a blob": Operation(lambda t: t.delete("m/v1/b")),
    "move of a node": Operation(lambda t: t.move("m/v1", "m/v7")),
    "move of a model": Operation(lambda t: t.move("m", "renamed")),
    "move of a blob": Operation(lambda t: t.move("m/v1/big", "other/v1/big")),
    "copy of a node": Operation(lambda t: t.copy("m/v1", "other/v7")),
    "copy of a blob": Operation(lambda t: t.copy("m/v1/b", "m/v2/copied")),
    "transaction of 20": Operation(mixed),
    "transaction with a pack": Operation(many_small),
    "checkpoint": Operation(lambda t: t.checkpoint(), before=lambda t: t.put("m/v9", BIG, name="big")),
    "close": Operation(lambda t: t.close(), before=lambda t: t.put("m/v9", BIG, name="big")),
}


@dataclass(frozen=True)
class Run:
    """An operation that went well."""

    start: int  # mutating calls before it
    end: int  # and at its end
    before: State
    after: State
    images: list[Image]  # one for each moment of it


class Bench:
    """Runs operations on copies of one disk."""

    def __init__(self) -> None:
        self._disk = empty_disk()
        with open_tree(self._disk) as tree:
            populate(tree)

    def disk(self) -> MemoryPosix:
        """The populated disk: everything durable, nothing to replay."""
        return clone(self._disk)

    def prepare(self, posix: Posix, operation: Operation, *, warm: bool) -> Metatree:
        """An open tree right before `operation.act`."""
        tree = open_tree(posix)
        if warm:
            warm_up(tree)
        if operation.before is not None:
            operation.before(tree)
        return tree

    def run(self, operation: Operation, *, warm: bool) -> Run:
        """Once without any trouble."""
        camera = Camera(self.disk())
        tree = self.prepare(camera, operation, warm=warm)
        before, start = dump(tree), camera.count
        camera.start()
        operation.act(tree)
        images, end = camera.finish(), camera.count
        tree.close()
        with open_tree(camera) as again:
            after = dump(again)
        return Run(start, end, before, after, images)
