"""The conformance suite on a real HDFS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.hdfs import Raw
from wal.storage import Publication, Staged, Storage
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


def test_each_operation_costs_a_known_number_of_requests(hdfs_url: str, raw: Raw) -> None:
    """A redirect to a DataNode counts. The first of a kind may make folders; what comes after costs this."""
    raw.call("PUT", "MKDIRS", raw.path("m"))
    raw.call("PUT", "MKDIRS", raw.path(".wal/trash"))
    raw.call("PUT", "MKDIRS", raw.path(".wal/fence"))
    storage = WebHdfsStorage(hdfs_url, OPTIONS)
    view = storage.fenced(".wal/fence")
    files = [Publication("m/v/x", b"x", b"a"), Publication("m/v/y", b"y", b"a")]
    for expected, call in (
        (4, lambda: storage.create("m/c", b"")),  # create (2), its number, rename
        (5, lambda: storage.create("m/c", b"")),  # refused: the temporary file is deleted
        (5, lambda: storage.publish("m/x", b"1", b"a", durable=True)),  # and the attribute
        (5, lambda: view.publish("m/x", b"2", b"a", durable=True)),
        (4, lambda: storage.read("m/x")),  # status, content (2), attribute
        (1, lambda: storage.entry("m/none")),
        (1, lambda: storage.attribute("m/x")),
        (1, lambda: storage.list("m")),
        (3, lambda: storage.open("m/x").close()),
        (8, lambda: storage.publish("m/y", Staged("m/x"), b"a", durable=True)),  # and the copy's source (3)
        (9, lambda: storage.publish_folder("m/v", files)),  # look, 3 a file, number, rename
        (2, lambda: storage.set_aside("m/v", ".wal/trash/v")),  # look, rename
        (10, lambda: view.publish_folder("m/v", files)),  # and a rename into the fence
        (3, lambda: view.set_aside("m/v", ".wal/trash/w")),
        (1, lambda: storage.erase("m/x")),
        (3, lambda: view.erase("m/y")),
        (1, lambda: storage.make_folder("m/w")),
        (0, lambda: storage.sync(["m/w"])),
    ):
        earlier = storage.requests
        call()
        assert storage.requests - earlier == expected, call
    storage.close()
