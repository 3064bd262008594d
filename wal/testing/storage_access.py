"""What the conformance suite needs from the storage under test."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pytest

from wal.storage.base import Storage


class StorageAccess(ABC):
    """Fixtures and raw access; see `storage_suite`."""

    contenders = 6  # in races; a subclass sets fewer where a round takes seconds

    # --- to be provided by the subclass ---------------------------------------------------------------------------

    @pytest.fixture
    @abstractmethod
    def storage(self) -> Storage:
        """A storage with an empty root."""

    @abstractmethod
    def opened_again(self, storage: Storage) -> Storage:
        """Another handle on the same root, as another process would open it."""

    @abstractmethod
    def raw_read(self, storage: Storage, name: str) -> bytes:
        """The bytes of a file."""

    @abstractmethod
    def raw_write(self, storage: Storage, name: str, data: bytes) -> None:
        """Write a file without an attribute, with its missing parents."""

    @abstractmethod
    def raw_names(self, storage: Storage, folder: str) -> set[str]:
        """The names in a folder; empty if there is none."""

    def _stage(self, storage: Storage, name: str, data: bytes) -> None:
        with storage.stage(name) as staged:
            staged.write(data)
            staged.finish(b"att")
