"""Another process acts right before the N-th call of one: of system calls where the log is files or on a mount, else of
storage calls. It waits for nobody: where the one has a lock that it needs, it does nothing.
"""

from __future__ import annotations

import itertools
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import wal
from metatree import (
    ApplyPendingWarning,
    BlobExistsError,
    BlobNotFoundError,
    LockTimeoutError,
    Metatree,
    NodeExistsError,
    NodeNotFoundError,
    UnavailableError,
)
from tests.tree.model import LEVELS, OTHER_BIG, MemoryPosix, clone, put_directory
from tests.tree.storages import Elsewhere, Swift
from wal.storage.memory import MemoryStorage
from wal.testing import ALL_CALLS, Boundary, Call
from wal.testing.hosts import watched
from wal.testing.objects import Bucket, MemoryObjects

T = TypeVar("T")
Step = Callable[[Metatree], object]
REFUSED = (BlobExistsError, BlobNotFoundError, NodeExistsError, NodeNotFoundError)


class Short(Metatree):
    """A tree whose log is freed early."""

    _tuning: ClassVar[dict[str, Any]] = {"segment_size": 1 << 11, "clock": Swift()}


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
        self.disk = MemoryPosix()

    def copy(self, folder: Path) -> Files:
        """A copy, as if everybody who had it open were dead."""
        copied = Files(folder)
        copied.disk = clone(self.disk)
        return copied

    def storage(self, before: Before | None = None) -> wal.Storage:
        return MemoryStorage(self.disk if before is None else CountedPosix(self.disk, before))


class Mount:
    """A folder that seems to lie on NFS; the log is slots."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def copy(self, folder: Path) -> Mount:
        """See `Files`."""
        shutil.copytree(self._folder, folder, dirs_exist_ok=True)
        return Mount(folder)

    def storage(self, before: Before | None = None) -> wal.Storage:
        posix = Elsewhere() if before is None else CountedPosix(Elsewhere(), before)
        return wal.LocalStorage(str(self._folder), posix=posix)


class Objects:
    """A bucket in memory; the log is slots."""

    def __init__(self, folder: Path) -> None:
        self._bucket = Bucket()

    def copy(self, folder: Path) -> Objects:
        """See `Files`."""
        copied = Objects(folder)
        copied._bucket.objects.update(self._bucket.objects)
        copied._bucket.numbers = itertools.count(max(next(self._bucket.numbers), 1))
        return copied

    def storage(self, before: Before | None = None) -> wal.Storage:
        storage = MemoryObjects(self._bucket)
        return storage if before is None else watched(storage, lambda method, arguments, run: (before.call(), run())[1])


Disk = Files | Mount | Objects


def _tries(step: Step) -> Step:
    """The step, or nothing where it is refused: what it needs may not be there."""

    def act(tree: Metatree) -> None:
        with suppress(*REFUSED):
            step(tree)

    return act


class Life:
    """The whole life of another process: it commits, deletes and makes again the same nodes, trims, collects, repairs,
    closes as the last writer perhaps, and opens the tree once more."""

    def __init__(self) -> None:
        self.done: list[int] = []  # the steps of CHANGES that were committed
        self._tree: Metatree | None = None

    def live(self, storage: Callable[[], wal.Storage]) -> None:
        """Everything that can be done without waiting."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ApplyPendingWarning)
            for number, change in enumerate(CHANGES):
                self._try(storage, change, number)
                for care in CARE.get(number, ()):
                    self._try(storage, care)
                if number in CLOSES:
                    self._close()
            self._close()

    def _try(self, storage: Callable[[], wal.Storage], step: Step, number: int | None = None) -> None:
        with suppress(LockTimeoutError):
            if self._tree is None:
                self._tree = Impatient(storage(), LEVELS)
            step(self._tree)
            self.done += [] if number is None else [number]

    def _close(self) -> None:
        tree, self._tree = self._tree, None
        if tree is not None:
            with suppress(UnavailableError):  # somebody else applies the log at this moment
                tree.close()


CHANGES: list[Step] = [
    lambda tree: tree.put("m/v1", b"other", name="b", force=True),
    lambda tree: tree.delete("m/v2", recursive=True),
    lambda tree: tree.put("m/v2", b"again", name="b"),
    lambda tree: tree.put("m/v2", OTHER_BIG, name="big"),
    lambda tree: tree.delete("m/v1", recursive=True),
    lambda tree: tree.put("m/v1", OTHER_BIG[::-1], name="big"),
    put_directory,
    lambda tree: tree.update("m", active="v2", n=2),
    *[lambda tree, n=n: tree.put(f"n{n}/v", b"%d" % n * 50, name="blob", force=True) for n in range(6)],  # type: ignore[misc]
    lambda tree: tree.delete("other", recursive=True),
    lambda tree: tree.put("other/v1", b"new", name="x"),
    lambda tree: tree.update("m", n=3),
]
CHANGES = [_tries(change) for change in CHANGES]
CARE: dict[int, list[Step]] = {  # what else is done after a change
    1: [lambda tree: tree.checkpoint()],
    13: [lambda tree: tree.checkpoint(), lambda tree: tree.gc(0, dry_run=False), lambda tree: tree.repair()],
    16: [lambda tree: tree.checkpoint()],
}
CLOSES = {3, 14}
