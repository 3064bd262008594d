"""Hosts that share one storage in memory: each is a handle with a clock of its own, which only its own waiting moves.

Within `tests.wal.schedules.one_thread` none of them has a thread beside it, so whoever meets a holder of the right that
does not go on takes over from it, at once.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import wal
from metatree import Metatree
from tests.tree.dictionary import Operation, do
from tests.tree.model import ENGINE_NAMES, LEVELS, ROOT, State, clone
from tests.tree.storages import Elsewhere, Files, MemoryFiles, ObjectFiles, Swift, TextBucket
from wal.storage.memory import MemoryPosix
from wal.storage.memory import _Inode as Inode
from wal.testing.hosts import Around, watched
from wal.testing.objects import Bucket, MemoryObjects

TTL = 0.02  # seconds: who meets a holder sleeps once, and takes over if that gave no sign of life


class HostClock(Swift):
    """Its tokens depend on its number alone. `slept` is called after each sleep."""

    def __init__(self, number: int, slept: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self._number = number
        self._drawn = itertools.count()
        self._slept = slept

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self._slept()

    def token(self, size: int) -> bytes:
        return hashlib.sha256(f"{self._number}/{next(self._drawn)}".encode()).digest()[:size]

    def now(self) -> str:
        return "2026-11-28T00:00:00.000000+00:00"


class Host:
    """One handle. It has no thread, so in the background mode it applies when it is asked to."""

    def __init__(
        self,
        storage: wal.Storage,
        around: Around = lambda method, arguments, run: run(),
        *,
        clock: HostClock | None = None,
        ttl: float = TTL,
        **options: Any,
    ) -> None:
        kind = type("Hosted", (Metatree,), {"_tuning": {"clock": clock or HostClock(0), "ttl": ttl}})
        self.tree: Metatree = kind(watched(storage, around), LEVELS, **options)
        self.lsn: int | None = None  # of its last commit
        engine = self.tree._engine
        engine.committer.stop()  # nor does a synchronous one start it where files could not follow
        committed = engine.committed

        def note(position: wal.Position | None) -> None:
            self.lsn = self.lsn if position is None else position.lsn
            committed(position)

        engine.committed = note  # type: ignore[method-assign]

    def hold(self) -> None:
        """Have the right once: from then on it is the last that had it."""
        with self.tree._engine.committer.hold():
            pass


class SharedDisk(MemoryPosix):
    """A disk in memory that seems to be a mount which hosts share."""

    def kernel_file(self, path: str) -> bytes:
        return Elsewhere().kernel_file(path) if path == "/proc/self/mountinfo" else super().kernel_file(path)


class Mount:
    """A folder on such a disk."""

    def __init__(self, disk: MemoryPosix | None = None) -> None:
        self.disk = SharedDisk() if disk is None else disk
        if disk is None:
            self.disk.mkdir(ROOT)

    def storage(self) -> wal.Storage:
        """One more host's."""
        return wal.LocalStorage(ROOT, posix=self.disk)

    def copy(self, into: MemoryPosix | None = None) -> Mount:
        """As if everybody who had it open were dead."""
        return Mount(clone(self.disk, SharedDisk() if into is None else into))

    def files(self) -> Files:
        """What everybody sees."""
        return MemoryFiles(self.disk, ROOT)

    def everything(self) -> Hashable:
        """Whatever is stored: two that are equal are right or wrong together."""
        return frozenset(_inodes(self.disk._find(ROOT), ""))


class Objects:
    """A bucket in memory."""

    def __init__(self, bucket: Bucket | None = None) -> None:
        self.bucket = bucket or Bucket()

    def storage(self) -> wal.Storage:
        """See `Mount`."""
        return MemoryObjects(self.bucket)

    def copy(self, into: MemoryPosix | None = None) -> Objects:
        """See `Mount`."""
        copied = type(self.bucket)(dict(self.bucket.objects))
        copied.numbers = itertools.count(1 << 20)  # as many versions are not made before
        return Objects(copied)

    def files(self) -> Files:
        """See `Mount`."""
        return ObjectFiles(self.bucket)

    def everything(self) -> Hashable:
        """See `Mount`."""
        return frozenset((name, stored.data, stored.attribute) for name, stored in self.bucket.objects.items())


def _inodes(inode: Inode, path: str) -> Iterator[Hashable]:
    yield path, bytes(inode.data), frozenset(inode.attributes.items())
    for name, below in inode.entries.items():
        yield from _inodes(below, f"{path}/{name}")


Place = Mount | Objects
KINDS: dict[str, Callable[[], Place]] = {
    "mount": Mount,
    "objects": Objects,
    "objects, versions of content": lambda: Objects(TextBucket()),
}


def shown(place: Place) -> dict[str, Any]:
    """What people see, and other programs: every file, metadata parsed."""
    files = place.files()
    names = [name for name in files.names() if name.split("/")[0] not in ENGINE_NAMES]
    return {name: _parsed(files.read(name)) if name.endswith("metadata.json") else files.read(name) for name in names}


def _parsed(data: bytes) -> tuple[dict[str, object], tuple[str, ...]]:
    keys = json.loads(data)
    return keys, tuple(keys.pop("children", ()))


def as_shown(state: State) -> dict[str, Any]:
    """What people should see."""
    found: dict[str, Any] = {}
    for path, (keys, children, blobs) in state.items():
        top = f"{path}/" if path else ""
        found[f"{top}metadata.json"] = (keys, children)
        found.update((top + name, content) for name, content in blobs.items())
    return found


def do_all(tree: Metatree, operations: tuple[Operation, ...]) -> None:
    """In one transaction, if they are several."""
    if len(operations) == 1:
        do(tree, operations[0])
        return
    with tree.transaction():
        for operation in operations:
            do(tree, operation)


EARLIER: tuple[tuple[Operation, ...], ...] = (
    (("put", "a/v", "x", "staged", False), ("put", "a/v", "y", "one", False)),
    (("put", "b/v", "y", "one", False), ("update", "b", "k", 1)),
)
WINDOW: tuple[tuple[Operation, ...], ...] = (
    (("delete", "a/v"), ("put", "a/v", "x", "also staged", False)),  # made again, with content that is staged
    (("delete", "b/v"), ("put", "b/v", "y", "two", False)),  # with content in the record
    (("put", "b/w", "x", "staged", False), ("update", "a/v", "k", 1)),
)


def behind(kind: str, commits: int = len(WINDOW)) -> Place:
    """A tree with a checkpoint of EARLIER, and so many commits of WINDOW, which no host has applied."""
    place = KINDS[kind]()
    host = Host(place.storage(), clock=HostClock(1000), apply="background")
    for operations in EARLIER:
        do_all(host.tree, operations)
    host.tree.checkpoint()
    for operations in WINDOW[:commits]:
        do_all(host.tree, operations)
    host.tree._engine.abandon()
    return place
