"""Conformance: staged files, and sync."""

from __future__ import annotations

from contextlib import suppress

import pytest

from wal.storage.base import Staged, Storage
from wal.testing.storage_access import StorageAccess


class StagingSuite(StorageAccess):
    """Part of `StorageSuite`."""

    # --- staging -------------------------------------------------------------------------------------------------

    def test_a_staged_file_is_written_in_parts(self, storage: Storage) -> None:
        with storage.stage(".wal/staged/t/1") as staged:
            staged.write(b"abc")
            staged.write(b"")
            staged.write(memoryview(b"defg")[1:])
            staged.finish(b"att")
        assert self.raw_read(storage, ".wal/staged/t/1") == b"abcefg"
        if storage.capabilities.attributes:
            assert storage.attribute(".wal/staged/t/1") == b"att"

    def test_staging_is_exclusive(self, storage: Storage) -> None:
        self._stage(storage, ".wal/staged/t/1", b"first")
        storage.publish("m/x", b"", b"", durable=False)
        with pytest.raises(FileExistsError), storage.stage(".wal/staged/t/1") as staged:
            staged.write(b"second")
            staged.finish(b"att")
        for share in (True, False):
            with pytest.raises(FileExistsError):
                storage.stage_existing("m/x", ".wal/staged/t/1", share=share)
        assert self.raw_read(storage, ".wal/staged/t/1") == b"first"

    def test_an_unfinished_staged_file_is_abandoned(self, storage: Storage) -> None:
        class Stop(Exception):
            pass

        with suppress(Stop), storage.stage(".wal/staged/t/1") as staged:
            staged.write(b"half")
            raise Stop
        with storage.stage(".wal/staged/t/2") as staged:
            pass
        staged.abandon()
        assert self.raw_names(storage, ".wal/staged/t") == set()

    @pytest.mark.parametrize("share", [True, False])
    def test_an_existing_file_is_staged_with_its_attribute(self, storage: Storage, share: bool) -> None:
        content = b"blob" * 700_000
        storage.publish("m/x", content, b"att", durable=False)
        storage.stage_existing("m/x", ".wal/staged/t/1", share=share)
        storage.publish("m/x", b"replaced", b"", durable=False)
        assert self.raw_read(storage, ".wal/staged/t/1") == content
        if storage.capabilities.attributes:
            assert storage.attribute(".wal/staged/t/1") == b"att"
        with pytest.raises(FileNotFoundError):
            storage.stage_existing("none", ".wal/staged/t/2", share=share)

    def test_a_copy_shares_nothing_with_its_source(self, storage: Storage) -> None:
        storage.publish("m/x", b"abc", b"one", durable=False)
        storage.stage_existing("m/x", ".wal/staged/t/1", share=False)
        storage.publish("m/y", Staged(".wal/staged/t/1"), b"two", durable=False)
        if storage.capabilities.attributes:
            assert storage.attribute("m/x") == b"one"

    # --- sync ----------------------------------------------------------------------------------------------------

    def test_sync_accepts_what_is_there_and_what_is_gone(self, storage: Storage) -> None:
        storage.publish("m/v/x", b"", b"", durable=False)
        storage.set_aside("m/v", ".wal/trash/1")
        storage.sync(["m/v/x", "m/v", "m", "", ".wal/trash/1", "none/such"])
        storage.sync_folder("m")
        storage.sync_folder("")
