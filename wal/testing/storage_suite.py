"""The conformance suite: what every writable `Storage` must do, whatever lies beneath.

Subclass `StorageSuite` in a test module (`AppendStorageSuite` where `capabilities.append_log` holds,
`ObjectStorageSuite` where there are versions and no folders), give the fixture and the raw access that `StorageAccess`
asks for, and pytest runs it:

    class TestMyStorage(StorageSuite):
        @pytest.fixture
        def storage(self): ...

The raw methods reach the bytes without the code under test; they must not be written with it.
Shown here: atomicity as one process can see it, absence, exclusion. Durability is for crash and power-cut models.
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
    """For storages that can carry an append log as well."""
