"""The conformance suite: what every writable `Storage` must do.

Subclass `StorageSuite` in a test module (`AppendStorageSuite` if `capabilities.append_log` holds, `ObjectStorageSuite`
for versions without folders), provide the fixture and the raw access that `StorageAccess` requires, and pytest runs it:

    class TestMyStorage(StorageSuite):
        @pytest.fixture
        def storage(self): ...

The raw methods must access the bytes without the code under test.
The suite tests atomicity as one process can see it, absence and exclusion. Durability needs models of crashes and power
loss.
"""

from __future__ import annotations

from wal.testing.append_suite import AppendSuite
from wal.testing.folder_suite import FolderSuite
from wal.testing.reading_suite import ReadingSuite
from wal.testing.staging_suite import StagingSuite
from wal.testing.version_suite import VersionSuite
from wal.testing.writing_suite import WritingSuite


class AnyStorageSuite(ReadingSuite, WritingSuite, StagingSuite):
    """What every writable storage does."""


class StorageSuite(AnyStorageSuite, FolderSuite):
    """For storages with folders."""


class ObjectStorageSuite(AnyStorageSuite, VersionSuite):
    """For storages without folders, whose fence is the version of a file."""


class AppendStorageSuite(StorageSuite, AppendSuite):
    """For storages that also support an append log."""
