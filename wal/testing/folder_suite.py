"""Conformance: storages with real folders (`capabilities.folders`), which are published as a whole."""

from __future__ import annotations

import pytest

from wal.storage.base import Publication, Staged, Storage
from wal.testing.storage_access import StorageAccess


class FolderSuite(StorageAccess):
    """Part of `StorageSuite`."""

    # --- kinds ---------------------------------------------------------------------------------------------------

    def test_a_folder_is_no_file_and_a_file_no_folder(self, storage: Storage) -> None:
        storage.make_folder("m/v1")
        storage.publish("m/x", b"x", b"", durable=False)
        with pytest.raises(IsADirectoryError):
            storage.read("m/v1")
        with pytest.raises(IsADirectoryError):
            storage.open("m/v1")
        with pytest.raises(NotADirectoryError):
            storage.list("m/x")
        with pytest.raises(NotADirectoryError):
            storage.publish("m/x/y", b"", b"", durable=False)
        assert storage.entry("m/x/y") is None

    def test_create_is_refused_by_a_folder(self, storage: Storage) -> None:
        storage.make_folder("b")
        assert storage.create("b", b"x") is False
        assert self.raw_names(storage, "b") == set()

    def test_publish_does_not_replace_a_folder(self, storage: Storage) -> None:
        storage.make_folder("m/v1")
        with pytest.raises(IsADirectoryError):
            storage.publish("m/v1", b"x", b"", durable=False)
        assert self.raw_names(storage, ".wal/tmp") == set()

    # --- publishing and making ------------------------------------------------------------------------------------

    def test_publish_folder_makes_all_or_nothing(self, storage: Storage) -> None:
        self._stage(storage, ".wal/staged/t/1", b"blob")
        files = [
            Publication("m/v1/metadata.json", b"{}", b"a"),
            Publication("m/v1/deep/er/x", Staged(".wal/staged/t/1"), b"b"),
        ]
        assert storage.publish_folder("m/v1", files) is True
        assert self.raw_names(storage, "m/v1") == {"metadata.json", "deep"}
        assert self.raw_read(storage, "m/v1/deep/er/x") == b"blob"
        assert storage.publish_folder("m/v1", [Publication("m/v1/y", b"", b"")]) is False
        assert self.raw_names(storage, "m/v1") == {"metadata.json", "deep"}
        assert self.raw_read(storage, ".wal/staged/t/1") == b"blob"
        assert self.raw_names(storage, ".wal/tmp") == set()
        if storage.capabilities.attributes:
            assert storage.attribute("m/v1/metadata.json") == b"a"

    def test_publish_folder_does_not_replace_an_empty_folder_or_a_file(self, storage: Storage) -> None:
        storage.make_folder("m/v1")
        self.raw_write(storage, "m/v2", b"file")
        for name in ("m/v1", "m/v2"):
            assert storage.publish_folder(name, [Publication(f"{name}/x", b"", b"")]) is False
        assert self.raw_names(storage, "m/v1") == set()
        assert self.raw_read(storage, "m/v2") == b"file"

    def test_an_empty_folder_can_be_published(self, storage: Storage) -> None:
        assert storage.publish_folder("m/v1", []) is True
        assert storage.list("m/v1") == []

    def test_make_folder_may_be_repeated_and_carries_an_attribute(self, storage: Storage) -> None:
        storage.make_folder("a/b/c")
        storage.make_folder("a/b/c", b"att")
        assert self.raw_names(storage, "a/b") == {"c"}
        if storage.capabilities.attributes:
            assert storage.attribute("a/b/c") == b"att"

    def test_make_folder_does_not_replace_a_file(self, storage: Storage) -> None:
        self.raw_write(storage, "a", b"file")
        with pytest.raises(NotADirectoryError):
            storage.make_folder("a")
        with pytest.raises(NotADirectoryError):
            storage.make_folder("a/b")
        assert self.raw_read(storage, "a") == b"file"

    def test_a_folder_with_what_was_never_staged_is_not_published(self, storage: Storage) -> None:
        with pytest.raises(FileNotFoundError):
            storage.publish_folder("n", [Publication("n/a", b"", b""), Publication("n/b", Staged("none"), b"")])
        assert storage.entry("n") is None
        assert self.raw_names(storage, ".wal/tmp") == set()

    def test_an_absent_folder_cannot_be_synced(self, storage: Storage) -> None:
        with pytest.raises(FileNotFoundError):
            storage.sync_folder("none")
