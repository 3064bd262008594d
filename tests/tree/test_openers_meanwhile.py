"""What another process does between two calls of one that opens a tree: creates it, fills it, trims its log, is gone.

The other one does all of it right before the N-th call, for every N: of system calls where the log is files, of storage
calls where hosts share the storage. It waits for nobody: where the opener has a lock that it needs, it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

import wal
from metatree import LockTimeoutError, Metatree
from tests.tree.model import LEVELS, MemoryPosix
from tests.tree.storages import Elsewhere
from wal.storage.memory import MemoryStorage
from wal.testing import ALL_CALLS, Boundary, Call
from wal.testing.hosts import watched
from wal.testing.objects import Bucket, MemoryObjects

T = TypeVar("T")
NODES = 12


class Short(Metatree):
    """A tree whose log is freed early."""

    _tuning: ClassVar[dict[str, Any]] = {"segment_size": 1 << 11}


class Impatient(Short):
    _tuning: ClassVar[dict[str, Any]] = {**Short._tuning, "lock_timeout": 0.0}


class Before:
    """Counts calls and lets `happen` be done right before the N-th."""

    def __init__(self) -> None:
        self.count = 0
        self.at = 0
        self.happen: Callable[[], object] = lambda: None

    def call(self) -> None:
        self.count += 1
        if self.count == self.at:
            self.happen()


class CountedPosix(Boundary):
    def __init__(self, inner: wal.Posix, before: Before) -> None:
        super().__init__(inner, counted=ALL_CALLS)
        self._before = before

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.number:
            self._before.call()
        return run()


class Files:
    """A disk in memory; the log is segments."""

    def __init__(self, folder: Path) -> None:
        self._disk = MemoryPosix()

    def storage(self, before: Before | None = None) -> wal.Storage:
        return MemoryStorage(self._disk if before is None else CountedPosix(self._disk, before))


class Mount:
    """A folder that seems to lie on NFS; the log is slots."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def storage(self, before: Before | None = None) -> wal.Storage:
        posix = Elsewhere() if before is None else CountedPosix(Elsewhere(), before)
        return wal.LocalStorage(str(self._folder), posix=posix)


class Objects:
    """A bucket in memory; the log is slots."""

    def __init__(self, folder: Path) -> None:
        self._bucket = Bucket()

    def storage(self, before: Before | None = None) -> wal.Storage:
        storage = MemoryObjects(self._bucket)
        return storage if before is None else watched(storage, lambda method, arguments, run: (before.call(), run())[1])


class Other:
    """The other process: opens or creates the tree, commits, trims the log."""

    def __init__(self) -> None:
        self.tree: Metatree | None = None
        self.nodes: list[str] = []  # what it committed, oldest first

    def live(self, storage: wal.Storage) -> None:
        """Everything that can be done without waiting."""
        with suppress(LockTimeoutError):
            self.tree = Impatient(storage, LEVELS)
            for number in range(NODES):
                name = f"m{len(self.nodes):02}"
                self.tree.put(f"{name}/v", b"%d" % number * 50, name="blob")
                self.nodes.append(name)
            self.tree.checkpoint()

    def close(self) -> None:
        if self.tree is not None:
            self.tree.close()


@pytest.mark.parametrize("stays", [True, False], ids=["and stays", "and is gone"])
@pytest.mark.parametrize("there", ["nothing", "an empty tree", "a tree", "a tree, opened for reading"])
@pytest.mark.parametrize("kind", [Files, Mount, Objects])
def test_whatever_another_process_does_between_two_calls_of_an_opener_it_opens_one_whole_tree(
    kind: type[Files | Mount | Objects], there: str, stays: bool, fast_path: Path
) -> None:
    at, met, reached = 0, 0, True
    while reached:
        at += 1
        root = fast_path / str(at)
        root.mkdir()
        disk, before, other = kind(root), Before(), Other()
        if there == "an empty tree":
            Short(disk.storage(), LEVELS).close()
        elif there != "nothing":
            other.live(disk.storage())
            other.close()
        known = len(other.nodes)

        def happen(disk: Files | Mount | Objects = disk, other: Other = other) -> None:
            other.live(disk.storage())
            if not stays:
                other.close()

        before.at, before.happen = at, happen
        read_only = "reading" in there
        with Short(disk.storage(before), None if read_only else LEVELS, read_only=read_only) as tree:
            reached, before.at = before.count >= at, 0
            expected = list(other.nodes)
            assert tree.children("") == expected, f"another process before call {at}"
            if not read_only:
                tree.put("mine/v", b"mine", name="blob")
                expected.append("mine")
        other.close()
        with Short(disk.storage(), read_only=True) as reader:
            assert [node.path for node in reader.walk("") if node.path and "/" not in node.path] == expected
        met += len(other.nodes) > known
    assert met >= 5, f"the other process was kept out at nearly all of {at} calls"
