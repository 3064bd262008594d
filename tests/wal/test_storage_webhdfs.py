"""The conformance suite on a real HDFS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.hdfs import Raw
from wal.storage import Storage
from wal.storage.webhdfs import WebHdfsStorage
from wal.testing.storage_suite import StorageSuite

OPTIONS = {"user": "root"}


class TestWebHdfsStorage(StorageSuite):
    @pytest.fixture
    def storage(self, hdfs_url: str, raw: Raw) -> Iterator[WebHdfsStorage]:
        self._raw = raw
        storage = WebHdfsStorage(hdfs_url, OPTIONS)
        yield storage
        storage.close()

    def opened_again(self, storage: Storage) -> Storage:
        return WebHdfsStorage(storage.url, OPTIONS)

    def raw_read(self, storage: Storage, name: str) -> bytes:
        return self._raw.read(name)

    def raw_write(self, storage: Storage, name: str, data: bytes) -> None:
        self._raw.write(name, data)

    def raw_names(self, storage: Storage, folder: str) -> set[str]:
        return self._raw.names(folder)
