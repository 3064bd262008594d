"""The doorway to bytes: `Storage` says what a log needs, `LocalStorage` gives it, `open_storage` finds it by URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wal.clock import Clock
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
    "probe_storage",
]


def open_storage(url: str, options: Mapping[str, object] | None = None) -> Storage:
    """The storage at `url`: a path, a `file://` or `local://` URL of a folder that exists, or `s3://bucket/prefix`.

    `options` are those of the filesystem library (`s3fs.S3FileSystem` for s3); a local root has none. Raises
    FileNotFoundError, NotADirectoryError, TypeError for options that are unknown (one that were ignored could be a
    misspelt keyword), UnsupportedError for other schemes. Opening makes no request to a server.
    """
    path = local_path(url)
    if path is None:
        scheme = url.partition("://")[0].lower()
        if scheme in ("s3", "s3a"):
            from wal.storage.s3 import S3Storage  # late: nobody else pays for its libraries

            return S3Storage(url, options)
        raise UnsupportedError(f"{scheme}:// roots are not supported by this version; only local roots and s3:// are")
    if options:
        raise TypeError(f"a local root takes no storage options: {', '.join(sorted(options))}")
    return LocalStorage(path)


def probe_storage(storage: Storage, clock: Clock) -> None:
    """Raise UnsupportedError if the store lets a write through whose condition does not hold: to be called before the
    first write of a handle. Asks only where the fence is the version of a file, and each store once. Raises OSError."""
    if storage.capabilities.fence is Fence.VERSION:
        from wal.storage.probe import probe

        probe(storage, clock)


def __getattr__(name: str) -> object:
    # The disk in memory is for tests: opening a real root must not pay for its import.
    if name in ("MemoryPosix", "MemoryStorage"):
        from wal.storage import memory

        return getattr(memory, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
