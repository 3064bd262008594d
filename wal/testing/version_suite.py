"""Conformance: writes that name the version they replace (`Fence.VERSION`), and storage without folders."""

from __future__ import annotations

import threading

import pytest

from wal.errors import UnsupportedError
from wal.storage.base import ChangedError, Content, Fence, Kind, Publication, Staged, Storage
from wal.testing.storage_access import StorageAccess

BYTES: Content = b"new"
STAGED: Content = Staged(".wal/staged/t/1")


class VersionSuite(StorageAccess):
    """Part of `ObjectStorageSuite`."""

    # --- expected versions -----------------------------------------------------------------------------------------

    def test_reading_and_publishing_name_the_same_version(self, storage: Storage) -> None:
        assert storage.capabilities.fence is Fence.VERSION
        version = storage.publish("m/x", b"one", b"", durable=True)
        assert version and storage.read("m/x").version == version == storage.versions("m/x")["m/x"]
        self._stage(storage, ".wal/staged/t/1", b"staged")
        version = storage.publish("m/x", STAGED, b"", durable=True)
        assert storage.read("m/x").version == version == storage.versions("m")["m/x"]

    @pytest.mark.parametrize("content", [BYTES, STAGED])
    def test_a_publish_that_expects_nothing_is_refused_where_something_is(
        self, storage: Storage, content: Content
    ) -> None:
        self._stage(storage, ".wal/staged/t/1", b"new")
        assert storage.publish("m/x", content, b"one", durable=True, expect="")
        with pytest.raises(ChangedError):
            storage.publish("m/x", content, b"two", durable=True, expect="")
        assert self.raw_read(storage, "m/x") == b"new"
        assert storage.attribute("m/x") == b"one"

    @pytest.mark.parametrize("content", [BYTES, STAGED])
    def test_a_publish_replaces_only_the_version_that_it_expects(self, storage: Storage, content: Content) -> None:
        self._stage(storage, ".wal/staged/t/1", b"new")
        old = storage.publish("m/x", b"old", b"", durable=True)
        storage.publish("m/x", b"another", b"", durable=True)
        with pytest.raises(ChangedError):
            storage.publish("m/x", content, b"", durable=True, expect=old)
        assert self.raw_read(storage, "m/x") == b"another"
        storage.publish("m/x", content, b"", durable=True, expect=storage.read("m/x").version)
        assert self.raw_read(storage, "m/x") == b"new"

    @pytest.mark.parametrize("content", [BYTES, STAGED])
    def test_a_publish_that_expects_a_version_is_refused_where_nothing_is(
        self, storage: Storage, content: Content
    ) -> None:
        self._stage(storage, ".wal/staged/t/1", b"new")
        version = storage.publish("m/x", b"old", b"", durable=True)
        storage.erase("m/x")
        with pytest.raises(ChangedError):
            storage.publish("m/x", content, b"", durable=True, expect=version)
        assert storage.entry("m/x") is None

    def test_of_many_replacers_of_one_version_one_wins(self, storage: Storage) -> None:
        others = [self.opened_again(storage) for _ in range(self.contenders)]
        for turn in range(5):
            version = storage.publish("m/x", b"start %d" % turn, b"", durable=True)
            start = threading.Barrier(len(others))
            wins: list[int] = []

            def contend(
                number: int,
                start: threading.Barrier = start,
                wins: list[int] = wins,
                version: str = version,
                turn: int = turn,
            ) -> None:
                start.wait()
                try:
                    others[number].publish("m/x", b"%d %d" % (turn, number), b"", durable=True, expect=version)
                except ChangedError:
                    return
                wins.append(number)

            threads = [threading.Thread(target=contend, args=(n,)) for n in range(len(others))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(wins) == 1
            assert self.raw_read(storage, "m/x") == b"%d %d" % (turn, wins[0])
        for other in others:
            other.close()

    def test_threads_may_share_one_storage(self, storage: Storage) -> None:
        failed: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for turn in range(5):
                    version = storage.publish(f"m/{number}", b"%d" % turn, b"", durable=True)
                    assert storage.read(f"m/{number}").version == version
                    assert storage.create(f"log/{number}-{turn}", b"x")
            except BaseException as error:  # noqa: BLE001 - told below
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert len(storage.versions("log")) == 40

    # --- remove ----------------------------------------------------------------------------------------------------

    def test_remove_deletes_only_the_version_that_it_expects(self, storage: Storage) -> None:
        old = storage.publish("m/x", b"old", b"", durable=True)
        new = storage.publish("m/x", b"new", b"", durable=True)
        with pytest.raises(ChangedError):
            storage.remove("m/x", old)
        assert self.raw_read(storage, "m/x") == b"new"
        storage.remove("m/x", new)
        assert storage.entry("m/x") is None
        storage.remove("m/x", new)
        with pytest.raises(ValueError):
            storage.remove("", new)

    # --- many ------------------------------------------------------------------------------------------------------

    def test_versions_names_the_file_and_all_below_and_no_neighbour(self, storage: Storage) -> None:
        names = {"m/v1/a", "m/v1/deep/er/b", "m/v10/c", "m/v1-old", "m/file"}
        versions = {name: storage.publish(name, name.encode(), b"", durable=True) for name in names}
        assert storage.versions("m/v1") == {name: versions[name] for name in ("m/v1/a", "m/v1/deep/er/b")}
        assert storage.versions("m/file") == {"m/file": versions["m/file"]}
        assert storage.versions("m") == storage.versions("") == versions
        assert storage.versions("none") == {}

    def test_a_folder_is_what_has_something_below_it(self, storage: Storage) -> None:
        assert storage.list("") == []
        storage.make_folder("m/v1")
        storage.sync_folder("m/v1")
        assert storage.entry("m/v1") is None
        with pytest.raises(FileNotFoundError):
            storage.list("m/v1")
        storage.publish("m/v1/x", b"", b"att", durable=True)
        entry = storage.entry("m")
        assert entry is not None and entry.kind is Kind.FOLDER
        assert storage.attribute("m") == b"att"
        with pytest.raises(FileNotFoundError):
            storage.read("m/v1")
        with pytest.raises(FileNotFoundError):
            storage.open("m/v1")

    @pytest.mark.parametrize(
        "last", ["a b", "ü", "100%", "a+b", "a?b#c", "a&b=c", "%41", "\U0001f333", "a:b", "~'()!*"]
    )
    def test_a_name_may_hold_what_means_something_in_a_url(self, storage: Storage, last: str) -> None:
        name = f"m/{last}/{last}"
        version = storage.publish(name, last.encode(), b"", durable=True, expect="")
        assert self.raw_read(storage, name) == storage.read(name).data == last.encode()
        assert [entry.name for entry in storage.list("m")] == [last]
        assert [entry.name for entry in storage.list(f"m/{last}")] == [last]
        assert storage.versions("m") == {name: version}
        storage.stage_existing(name, f"st/{last}", share=False)
        assert self.raw_read(storage, f"st/{last}") == last.encode()
        storage.remove(name, version)
        storage.erase("st")
        assert storage.versions("") == {}

    @pytest.mark.parametrize("name", ["a\\b", "..\\x"])
    def test_a_backslash_is_refused_because_some_servers_take_it_for_a_slash(self, storage: Storage, name: str) -> None:
        for call in (storage.read, storage.entry, storage.list, storage.versions, storage.erase):
            with pytest.raises(ValueError):
                call(name)
        with pytest.raises(ValueError):
            storage.create(name, b"x")

    def test_what_needs_folders_or_locks_is_unsupported(self, storage: Storage) -> None:
        for call in (
            lambda: storage.publish_folder("m", [Publication("m/x", b"", b"")]),
            lambda: storage.fenced("m"),
            lambda: storage.open_file("m", writable=False),
            lambda: storage.lock("m"),
        ):
            with pytest.raises(UnsupportedError):
                call()

    # --- attributes ------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "attribute", [b"", b" ", b"%", b"%25", b'{"lsn":5,"sha256":"ab"}', b" a  b ", bytes(range(256)), "ü".encode()]
    )
    def test_an_attribute_comes_back_as_it_was(self, storage: Storage, attribute: bytes) -> None:
        storage.publish("m/x", b"x", attribute, durable=True)
        assert storage.read("m/x").attribute == storage.attribute("m/x") == attribute
        with storage.open("m/x") as file:
            assert file.attribute == attribute  # type: ignore[attr-defined]
