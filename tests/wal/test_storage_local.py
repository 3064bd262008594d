"""The conformance suite on folders of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wal.storage import LocalStorage, Storage
from wal.testing.storage_suite import AppendStorageSuite


class TestLocalStorage(AppendStorageSuite):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[LocalStorage]:
        root = tmp_path / "root"
        LocalStorage.make_root(str(root))
        storage = LocalStorage(str(root))
        yield storage
        storage.close()

    def opened_again(self, storage: Storage) -> Storage:
        return LocalStorage(storage.url)

    def raw_read(self, storage: Storage, name: str) -> bytes:
        return Path(storage.url, name).read_bytes()

    def raw_write(self, storage: Storage, name: str, data: bytes) -> None:
        path = Path(storage.url, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def raw_names(self, storage: Storage, folder: str) -> set[str]:
        path = Path(storage.url, folder)
        return {found.name for found in path.iterdir()} if path.is_dir() else set()
