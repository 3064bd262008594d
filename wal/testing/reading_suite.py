"""Conformance: names, and reading files that do and do not exist."""

from __future__ import annotations

import pytest

from wal.storage.base import Kind, Publication, Staged, Storage
from wal.testing.storage_access import StorageAccess


class ReadingSuite(StorageAccess):
    """Part of `StorageSuite`."""

    # --- names ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", ["/x", "x/", "a//b", ".", "..", "a/../b", "../x", "a/./b", "a\0b"])
    def test_a_name_that_could_lead_out_of_the_root_is_refused(self, storage: Storage, name: str) -> None:
        for call in (
            lambda: storage.read(name),
            lambda: storage.open(name),
            lambda: storage.entry(name),
            lambda: storage.list(name),
            lambda: storage.attribute(name),
            lambda: storage.create(name, b"x"),
            lambda: storage.publish(name, b"x", b"", durable=False),
            lambda: storage.publish("ok", Staged(name), b"", durable=False),
            lambda: storage.publish_folder(name, []),
            lambda: storage.publish_folder("f", [Publication(name, b"", b"")]),
            lambda: storage.set_aside(name, "ok"),
            lambda: storage.make_folder(name),
            lambda: storage.stage(name),
            lambda: storage.sync_folder(name),
            lambda: storage.erase(name),
        ):
            with pytest.raises(ValueError):
                call()

    def test_a_folder_cannot_be_published_with_files_that_lie_elsewhere(self, storage: Storage) -> None:
        with pytest.raises(ValueError):
            storage.publish_folder("m/v1", [Publication("m/v10/x", b"", b"")])
        with pytest.raises(ValueError):
            storage.publish_folder("m/v1", [Publication("m/v1", b"", b"")])
        assert storage.entry("m/v1") is None

    # --- reading -------------------------------------------------------------------------------------------------

    def test_reading_what_is_absent_raises_file_not_found(self, storage: Storage) -> None:
        for name in ("x", "a/b/c"):
            for call in (storage.read, storage.open, storage.attribute, storage.list):
                with pytest.raises(FileNotFoundError):
                    call(name)
            assert storage.entry(name) is None

    def test_a_file_of_another_program_reads_without_attribute(self, storage: Storage) -> None:
        self.raw_write(storage, "m/hand.txt", b"by hand")
        stored = storage.read("m/hand.txt")
        assert (stored.data, stored.attribute) == (b"by hand", None)
        assert storage.attribute("m/hand.txt") is None

    def test_list_and_entry_tell_kind_and_size(self, storage: Storage) -> None:
        storage.publish("m/v1/y", b"y", b"", durable=False)
        storage.publish("m/x", b"12345", b"", durable=False)
        found = {entry.name: (entry.kind, entry.size) for entry in storage.list("m")}
        assert found == {"v1": (Kind.FOLDER, 0), "x": (Kind.FILE, 5)}
        entry = storage.entry("m/x")
        assert entry is not None and (entry.name, entry.kind, entry.size) == ("x", Kind.FILE, 5)
        assert "m" in {entry.name for entry in storage.list("")}
        root = storage.entry("")
        assert root is not None and root.kind is Kind.FOLDER

    def test_an_open_file_reads_sequentially_and_at_random(self, storage: Storage) -> None:
        content = bytes(range(256)) * 4096
        storage.publish("big", content, b"", durable=False)
        with storage.open("big") as file:
            assert file.read(10) == content[:10]
            assert file.seek(-5, 2) == len(content) - 5
            assert file.read() == content[-5:]
            assert file.seek(300_001) == 300_001
            assert file.read(400_000) == content[300_001:700_001]
            assert file.tell() == 700_001

    def test_an_open_file_keeps_reading_the_version_it_opened(self, storage: Storage) -> None:
        storage.publish("x", b"old", b"", durable=False)
        with storage.open("x") as file:
            storage.publish("x", b"new", b"", durable=False)
            storage.erase("x")
            assert file.read() == b"old"
