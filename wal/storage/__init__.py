"""The doorway to bytes: `Storage` says what a log needs, `LocalStorage` gives it, `open_storage` finds it by URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wal.errors import UnsupportedError
from wal.storage.base import (
    Capabilities,
    ChangedError,
    Content,
    Entry,
    Fence,
    Kind,
    Lock,
    Publication,
    RandomFile,
    Staged,
    StagedFile,
    Storage,
    Stored,
    UnsafePathError,
)
from wal.storage.local import LocalStorage
from wal.storage.posix import Posix
from wal.storage.source import list_source, local_path, open_source

if TYPE_CHECKING:
    from wal.storage.memory import MemoryPosix, MemoryStorage

__all__ = [
    "Capabilities",
    "ChangedError",
    "Content",
    "Entry",
    "Fence",
    "Kind",
    "LocalStorage",
    "Lock",
    "MemoryPosix",
    "MemoryStorage",
    "Posix",
    "Publication",
    "RandomFile",
    "Staged",
    "StagedFile",
    "Storage",
    "Stored",
    "UnsafePathError",
    "list_source",
    "local_path",
    "open_source",
    "open_storage",
]


def open_storage(url: str, options: Mapping[str, object] | None = None) -> Storage:
    """The storage at `url`: a path, or a `file://` or `local://` URL of a folder that exists.

    Raises FileNotFoundError, NotADirectoryError, TypeError for options (a local root has none: one that were ignored
    could be a misspelt keyword), UnsupportedError for other schemes.
    """
    path = local_path(url)
    if path is None:
        scheme = url.partition("://")[0]
        raise UnsupportedError(f"{scheme}:// roots are not supported by this version; only local roots are")
    if options:
        raise TypeError(f"a local root takes no storage options: {', '.join(sorted(options))}")
    return LocalStorage(path)


def __getattr__(name: str) -> object:
    # The disk in memory is for tests: opening a real root must not pay for its import.
    if name in ("MemoryPosix", "MemoryStorage"):
        from wal.storage import memory

        return getattr(memory, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
