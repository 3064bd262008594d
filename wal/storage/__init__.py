"""Access to bytes: `Storage` defines what a log needs, `LocalStorage` provides it, `open_storage` opens one by URL."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from wal.clock import Clock
from wal.storage.base import (
    Capabilities,
    ChangedError,
    Condition,
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
    "Condition",
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
    "make_root",
    "open_source",
    "open_storage",
    "probe_storage",
    "try_conditions",
    "written_at",
]


def open_storage(url: str, options: Mapping[str, object] | None = None) -> Storage:
    """The storage at `url`: a path, or a URL with one of the schemes `file`, `local`, `webhdfs` (of a folder that
    exists) or `s3` (`s3://bucket/prefix`); for reading only, any other scheme that fsspec knows.

    `options` are those of the filesystem library; a local root has none. Raises FileNotFoundError, NotADirectoryError,
    TypeError for unknown options (an ignored one could be a misspelt keyword), UnsupportedError for unknown schemes.
    Opening s3 makes no request to a server.
    """
    path = local_path(url)
    if path is None:
        return _open_remote(url, options or {})
    if options:
        raise TypeError(f"a local root takes no storage options: {', '.join(sorted(options))}")
    return LocalStorage(path)


def _open_remote(url: str, options: Mapping[str, object]) -> Storage:
    # Imported here: opening a local root must not import the libraries of the others.
    scheme = url.partition("://")[0].lower()
    if scheme == "webhdfs":
        from wal.storage.webhdfs import WebHdfsStorage

        return WebHdfsStorage(url, options)
    if scheme in ("s3", "s3a"):
        from wal.storage.s3 import S3Storage

        return S3Storage(url, options)
    from wal.storage.readonly import ReadOnlyStorage

    return ReadOnlyStorage(url, options)


def make_root(url: str, options: Mapping[str, object] | None = None) -> None:
    """Make the folder at `url` and its parents, durably; no error if it exists. Does nothing for a bucket, which has
    no folders, or a scheme that can only be read. Raises OSError."""
    path = local_path(url)
    if path is not None:
        LocalStorage.make_root(path)
    elif url.lower().startswith("webhdfs://"):
        from wal.storage.webhdfs import WebHdfsStorage

        WebHdfsStorage.make_root(url, options)


def probe_storage(storage: Storage, clock: Clock) -> None:
    """Raise UnsupportedError if the store accepts a write whose condition does not hold. To be called before the first
    write of a handle. Tests each store once, and only if its fence is the version of a file. Raises OSError."""
    if storage.capabilities.fence is Fence.VERSION:
        from wal.storage.probe import probe

        probe(storage, clock)


def try_conditions(storage: Storage, clock: Clock) -> Iterator[tuple[Condition, bool]]:
    """Each condition that a store must honour if its fence is the version of a file, and whether it does: tested again
    even if an earlier result is stored. Yields nothing for other storages. Raises OSError."""
    if storage.capabilities.fence is Fence.VERSION:
        from wal.storage.probe import examine

        yield from examine(storage, clock)


def written_at(storage: Storage, name: str) -> float | None:
    """When the file `name` was written, in seconds since 1970 by the storage's clock, which may be another machine's.
    No guarantee depends on it. None if the storage does not report it. Raises FileNotFoundError."""
    if type(storage) is LocalStorage:  # not MemoryStorage, a subclass without a path on disk
        return os.lstat(os.path.join(storage.url, name)).st_mtime
    ask = getattr(storage, "written_at", None)
    told: float | None = None if ask is None else ask(name)
    return told


def __getattr__(name: str) -> object:
    # The in-memory disk is for tests: opening a real root must not import it.
    if name in ("MemoryPosix", "MemoryStorage"):
        from wal.storage import memory

        return getattr(memory, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
