"""The conformance suite on the object store in memory."""

from __future__ import annotations

import pytest

from wal.storage import Storage
from wal.testing.objects import Bucket, MemoryObjects
from wal.testing.storage_suite import ObjectStorageSuite


class TestMemoryObjects(ObjectStorageSuite):
    @pytest.fixture
    def storage(self) -> MemoryObjects:
        self._bucket = Bucket()
        return MemoryObjects(self._bucket)

    def opened_again(self, storage: Storage) -> Storage:
        return MemoryObjects(self._bucket)

    def raw_read(self, storage: Storage, name: str) -> bytes:
        return self._bucket.objects[name].data

    def raw_write(self, storage: Storage, name: str, data: bytes) -> None:
        self._bucket.put(name, data, None)

    def raw_names(self, storage: Storage, folder: str) -> set[str]:
        prefix = f"{folder}/" if folder else ""
        return {name[len(prefix) :].split("/")[0] for name in self._bucket.objects if name.startswith(prefix)}


def test_two_buckets_share_nothing() -> None:
    one, two = MemoryObjects(), MemoryObjects()
    one.publish("x", b"1", b"", durable=True)
    assert two.entry("x") is None
