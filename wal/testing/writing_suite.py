"""Conformance: what is put, replaced, set aside and erased."""

from __future__ import annotations

import threading

import pytest

from wal.storage.base import Publication, Staged, Storage
from wal.testing.storage_access import StorageAccess


class WritingSuite(StorageAccess):
    """Part of `StorageSuite`."""

    # --- create --------------------------------------------------------------------------------------------------

    def test_create_puts_once(self, storage: Storage) -> None:
        assert storage.create("log/1.rec", b"first") is True
        assert storage.create("log/1.rec", b"second") is False
        assert self.raw_read(storage, "log/1.rec") == b"first"

    def test_create_is_refused_by_whatever_has_the_name(self, storage: Storage) -> None:
        self.raw_write(storage, "a", b"")
        storage.make_folder("b")
        assert storage.create("a", b"x") is False
        assert storage.create("b", b"x") is False
        assert self.raw_read(storage, "a") == b""

    def test_of_many_creators_one_wins(self, storage: Storage) -> None:
        others = [self.opened_again(storage) for _ in range(6)]
        for turn in range(10):
            start = threading.Barrier(len(others))
            wins: list[int] = []

            def contend(
                number: int, turn: int = turn, start: threading.Barrier = start, wins: list[int] = wins
            ) -> None:
                start.wait()
                if others[number].create(f"slots/{turn}", b"%d" % number):
                    wins.append(number)

            threads = [threading.Thread(target=contend, args=(n,)) for n in range(len(others))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(wins) == 1
            assert self.raw_read(storage, f"slots/{turn}") == b"%d" % wins[0]
        for other in others:
            other.close()

    # --- publish -------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("durable", [True, False])
    @pytest.mark.parametrize("content", [b"", b"{}", b"x" * 1_000_000])
    def test_publish_creates_and_replaces(self, storage: Storage, content: bytes, durable: bool) -> None:
        storage.publish("m/v1/metadata.json", content, b"one", durable=durable)
        assert self.raw_read(storage, "m/v1/metadata.json") == content
        storage.publish("m/v1/metadata.json", b"other", b"two", durable=durable)
        stored = storage.read("m/v1/metadata.json")
        assert stored.data == b"other"
        if storage.capabilities.attributes:
            assert stored.attribute == storage.attribute("m/v1/metadata.json") == b"two"
        assert self.raw_names(storage, "m/v1") == {"metadata.json"}
        assert self.raw_names(storage, ".wal/tmp") == set()

    def test_publish_does_not_replace_a_folder(self, storage: Storage) -> None:
        storage.make_folder("m/v1")
        with pytest.raises(IsADirectoryError):
            storage.publish("m/v1", b"x", b"", durable=False)
        assert self.raw_names(storage, ".wal/tmp") == set()

    def test_a_staged_file_survives_being_published_again_and_again(self, storage: Storage) -> None:
        self._stage(storage, ".wal/staged/t/1", b"blob")
        for _ in range(3):
            storage.publish("m/blob", Staged(".wal/staged/t/1"), b"att", durable=True)
            assert self.raw_read(storage, "m/blob") == b"blob"
        storage.erase("m/blob")
        storage.publish("m/other", Staged(".wal/staged/t/1"), b"att", durable=False)
        assert self.raw_read(storage, ".wal/staged/t/1") == self.raw_read(storage, "m/other") == b"blob"
        assert self.raw_names(storage, ".wal/tmp") == set()
        if storage.capabilities.attributes:
            assert storage.attribute("m/other") == b"att"

    def test_publishing_what_was_never_staged_raises_and_leaves_nothing(self, storage: Storage) -> None:
        with pytest.raises(FileNotFoundError):
            storage.publish("m/blob", Staged(".wal/staged/t/none"), b"", durable=True)
        with pytest.raises(FileNotFoundError):
            storage.publish_folder("n", [Publication("n/a", b"", b""), Publication("n/b", Staged("none"), b"")])
        assert storage.entry("m/blob") is None and storage.entry("n") is None
        assert self.raw_names(storage, ".wal/tmp") == set()

    # --- folders -------------------------------------------------------------------------------------------------

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

    def test_set_aside_moves_files_and_folders_and_keeps_what_was_set_aside_before(self, storage: Storage) -> None:
        for turn in range(3):
            storage.publish("m/x/f", b"%d" % turn, b"", durable=False)
            assert storage.set_aside("m/x", ".wal/trash/7/x") is not None
            assert storage.entry("m/x") is None
        assert self.raw_names(storage, ".wal/trash/7") == {"x", "x.1", "x.2"}
        assert self.raw_read(storage, ".wal/trash/7/x/f") == b"0"
        assert self.raw_read(storage, ".wal/trash/7/x.2/f") == b"2"
        storage.publish("m/x", b"a file now", b"", durable=False)
        assert storage.set_aside("m/x", ".wal/trash/8") == ".wal/trash/8"
        assert self.raw_read(storage, ".wal/trash/8") == b"a file now"

    def test_set_aside_of_nothing_is_none(self, storage: Storage) -> None:
        self.raw_write(storage, "file", b"")
        for name in ("m", "m/x/y", "file/x"):
            assert storage.set_aside(name, ".wal/trash/1") is None

    def test_erase_deletes_files_and_folders_and_ignores_absence(self, storage: Storage) -> None:
        storage.publish("m/a/b/c", b"", b"", durable=False)
        storage.publish("m/x", b"", b"", durable=False)
        for name in ("m/x", "m/a", "m/a", "none/such", "m/x/y"):
            storage.erase(name)
        assert self.raw_names(storage, "m") == set()
        with pytest.raises(ValueError):
            storage.erase("")
