"""Conformance: creating, publishing, setting aside and erasing."""

from __future__ import annotations

import threading

import pytest

from wal.storage.base import Staged, Storage
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
        self.raw_write(storage, "b", b"something")
        assert storage.create("a", b"x") is False
        assert storage.create("b", b"") is False
        assert self.raw_read(storage, "a") == b""
        assert self.raw_read(storage, "b") == b"something"

    def test_create_of_an_empty_file_is_exclusive_as_well(self, storage: Storage) -> None:
        assert storage.create("a", b"") is True
        assert storage.create("a", b"") is False
        assert storage.create("a", b"x") is False
        assert self.raw_read(storage, "a") == b""

    def test_of_many_creators_one_wins(self, storage: Storage) -> None:
        others = [self.opened_again(storage) for _ in range(self.contenders)]
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
        assert storage.entry("m/blob") is None
        assert self.raw_names(storage, ".wal/tmp") == set()

    # --- set aside, erase ----------------------------------------------------------------------------------------

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
