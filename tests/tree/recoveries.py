"""What whoever opens a disk finds there, asked once of each disk.

A recovery draws no chance (`Steady`), so that equal disks end alike: a disk that was seen is not recovered
again, and what recovery left is verified once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, ClassVar

from metatree import Metatree
from metatree.clock import Clock
from tests.tree.model import LEVELS, ROOT, State, dump, plain
from wal.storage.memory import MemoryPosix, MemoryStorage
from wal.storage.memory import _Inode as Inode
from wal.storage.posix import Posix

EVIDENCE = "quarantine"  # what recovery kept for people; nothing reads it, and each accident leaves its own


class Steady(Clock):
    """The same tokens in the same order in every life that has this seed; for people it is always noon."""

    def __init__(self, seed: str) -> None:
        self._seed, self._drawn = seed, 0

    def now(self) -> str:
        return "2026-01-01T12:00:00.000000+00:00"

    def token(self, size: int) -> bytes:
        self._drawn += 1
        return sha256(f"{self._seed}/{self._drawn}".encode()).digest()[:size]


class SteadyTree(Metatree):
    """A tree that draws no chance."""

    _tuning: ClassVar[Mapping[str, Any]] = {}


def open_steadily(posix: Posix, seed: str) -> Metatree:
    """A tree on a disk in memory: the same disk ends the same way. Lives on one disk need seeds of their own, else
    they would meet the other's temporary files."""
    clock = Steady(seed)
    SteadyTree._tuning = {"clock": clock}
    return SteadyTree(MemoryStorage(posix, clock=clock), LEVELS)


def digest(disk: MemoryPosix, but: str = "") -> bytes:
    """The same for disks with the same names, contents, attributes and links; what is called `but` does not count."""
    found, known = sha256(), dict[int, int]()

    def add(inode: Inode) -> None:
        number = known.setdefault(inode.number, len(known))
        found.update(b"%d %d %d %d;" % (number, inode.folder, len(inode.data), len(inode.entries)))
        if number == len(known) - 1:
            found.update(inode.data)
            found.update(repr(sorted(inode.attributes.items())).encode())
            for name in sorted(inode.entries.keys() - {but}):
                found.update(b"%s;" % name.encode())
                add(inode.entries[name])

    add(disk._top)
    return found.digest()


def verified(tree: Metatree, disk: MemoryPosix) -> State:
    """What a tree that was just opened holds; everything that must be true of it is. Closes it."""
    with tree:
        found = dump(tree)
        assert plain(disk) == found, "the folders do not show what the library reads"
        report = tree.check(deep=True)
        assert report.ok, str(report)
    assert plain(disk) == found
    assert not left(disk, "tmp"), "unfinished files where the next opener would trip over them"
    return found


def left(disk: MemoryPosix, folder: str) -> list[str]:
    """The names in a folder of the engine."""
    try:
        return disk.listdir(f"{ROOT}/.wal/{folder}")
    except FileNotFoundError:
        return []


class Recoveries:
    """Of the disks that one life, and whatever followed it, may have left."""

    def __init__(self) -> None:
        self._seen: dict[bytes, State] = {}  # by the disk that was left
        self._verified: dict[bytes, State] = {}  # by the disk that recovery made of it
        self._states: list[State] = []  # the different ones: many disks share them

    @property
    def distinct(self) -> int:
        """How many different disks were recovered."""
        return len(self._seen)

    def recovered(self, disk: MemoryPosix, allowed: Sequence[State]) -> State:
        """Open what is left for writing; one of the states that are `allowed`. Changes the disk, or not."""
        mark = digest(disk)
        if mark not in self._seen:
            self._seen[mark] = self._recover(disk)
        found = self._seen[mark]
        assert found in allowed, "recovery ends in neither the state before nor the one after, or not in a reader's"
        return found

    def _recover(self, disk: MemoryPosix) -> State:
        tree = open_steadily(disk, "whoever comes last")
        end = digest(disk, EVIDENCE)
        if end not in self._verified:
            found = verified(tree, disk)
            known = next((state for state in self._states if state == found), None)
            if known is None:
                self._states.append(known := found)
            self._verified[end] = known
        return self._verified[end]
