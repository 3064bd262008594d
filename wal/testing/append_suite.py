"""Conformance: random-access files and locks, for storages that support an append log."""

from __future__ import annotations

import threading

import pytest

from wal.storage.base import Storage
from wal.testing.storage_access import StorageAccess


class AppendSuite(StorageAccess):
    """Part of `AppendStorageSuite`."""

    def test_a_random_file_is_written_and_read_in_place(self, storage: Storage) -> None:
        assert storage.create(".wal/head", bytes(4096)) is True
        file = storage.open_file(".wal/head", writable=True)
        file.pwrite(b"abc", 100)
        file.pwrite(b"end", 4096)
        file.datasync()
        assert file.size() == 4099
        assert file.pread(5, 99) == b"\0abc\0"
        assert file.pread(100, 4096) == b"end"
        assert file.pread(10, 9999) == b""
        file.pwrite(bytes(1000), 4099)
        file.truncate(4099)
        assert file.size() == 4099
        assert self.raw_read(storage, ".wal/head")[100:103] == b"abc"
        reader = self.opened_again(storage).open_file(".wal/head", writable=False)
        assert reader.pread(3, 100) == b"abc"
        reader.datasync()
        with pytest.raises(OSError):
            reader.pwrite(b"x", 0)
        file.close()
        reader.close()
        with pytest.raises(FileNotFoundError):
            storage.open_file("none", writable=True)

    @pytest.mark.parametrize("name", [".wal", ".wal/apply"])
    def test_locks_exclude_each_other(self, storage: Storage, name: str) -> None:
        storage.make_folder(".wal")
        first, second = storage.lock(name), self.opened_again(storage).lock(name)
        assert first.acquire(timeout=0) is True
        assert second.acquire(timeout=0) is False
        assert second.acquire(timeout=0.01) is False
        assert second.acquire(shared=True, timeout=0) is False
        assert second.holder()
        first.release()
        first.release()
        assert second.acquire(shared=True, timeout=0) is True
        assert first.acquire(shared=True, timeout=0) is True
        second.release()
        second.close()
        first.close()
        assert self.opened_again(storage).lock(name).acquire(timeout=0) is True

    def test_a_waiter_gets_the_lock_when_it_is_released(self, storage: Storage) -> None:
        storage.make_folder(".wal")
        for timeout in (None, 30.0):
            first, second = storage.lock(".wal"), storage.lock(".wal")
            assert first.acquire()
            taken: list[bool] = []

            def wait(second=second, timeout=timeout, taken=taken) -> None:  # type: ignore[no-untyped-def]
                taken.append(second.acquire(timeout=timeout))

            thread = threading.Thread(target=wait)
            thread.start()
            thread.join(0.02)
            assert taken == []
            first.release()
            thread.join()
            assert taken == [True]
            second.close()
            first.close()

    @pytest.mark.parametrize("shared_object", [True, False])
    def test_two_threads_are_never_inside_together(self, storage: Storage, shared_object: bool) -> None:
        storage.make_folder(".wal")
        common = storage.lock(".wal")
        inside, worst = [0], [0]

        def work() -> None:
            lock = common if shared_object else storage.lock(".wal")
            for _ in range(50):
                assert lock.acquire(timeout=60.0)
                inside[0] += 1
                worst[0] = max(worst[0], inside[0])
                inside[0] -= 1
                lock.release()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert worst == [1]

    def test_closing_the_storage_releases_its_locks(self, storage: Storage) -> None:
        storage.make_folder(".wal")
        other = self.opened_again(storage)
        lock = other.lock(".wal")
        assert lock.acquire(timeout=0)
        other.close()
        assert storage.lock(".wal").acquire(timeout=0) is True
