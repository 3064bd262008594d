"""The conformance suite on a disk in memory."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

import wal
import wal.storage
from wal.storage import MemoryPosix, MemoryStorage, Storage
from wal.storage.memory import _Inode
from wal.testing.storage_suite import AppendStorageSuite


class TestMemoryStorage(AppendStorageSuite):
    @pytest.fixture
    def disk(self) -> MemoryPosix:
        return MemoryPosix()

    @pytest.fixture
    def storage(self, disk: MemoryPosix) -> Iterator[MemoryStorage]:
        self._disk = disk
        storage = MemoryStorage(disk)
        yield storage
        storage.close()

    def opened_again(self, storage: Storage) -> Storage:
        return MemoryStorage(self._disk)

    def _inode(self, name: str) -> _Inode:
        inode = self._disk._top.entries["disk"]
        for segment in name.split("/"):
            inode = inode.entries[segment]
        return inode

    def raw_read(self, storage: Storage, name: str) -> bytes:
        return bytes(self._inode(name).data)

    def raw_write(self, storage: Storage, name: str, data: bytes) -> None:
        inode = self._disk._top.entries["disk"]
        *folders, last = name.split("/")
        for segment in folders:
            inode = inode.entries.setdefault(segment, _Inode(next(self._disk._numbers), folder=True, links=2))
        inode.entries[last] = _Inode(next(self._disk._numbers), folder=False, links=1, data=bytearray(data))

    def raw_names(self, storage: Storage, folder: str) -> set[str]:
        try:
            return set(self._inode(folder).entries)
        except KeyError:
            return set()


def test_two_disks_share_nothing() -> None:
    one, two = MemoryStorage(), MemoryStorage()
    one.publish("x", b"1", b"", durable=False)
    assert two.entry("x") is None


@pytest.mark.parametrize("module", [wal, wal.storage])
def test_a_disk_in_memory_is_loaded_when_it_is_asked_for_and_other_names_are_missing(module: ModuleType) -> None:
    assert module.MemoryStorage is MemoryStorage
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'MemoryStore'"):
        _ = module.MemoryStore
