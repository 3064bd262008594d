"""The doorway to bytes: `Storage` says what a log needs, `LocalStorage` gives it, `open_storage` finds it by URL."""

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
    TypeError for options that are unknown (one that were ignored could be a misspelt keyword), UnsupportedError for
    schemes that nobody knows. Opening s3 makes no request to a server.
    """
    path = local_path(url)
    if path is None:
        return _open_remote(url, options or {})
    if options:
        raise TypeError(f"a local root takes no storage options: {', '.join(sorted(options))}")
    return LocalStorage(path)


def _open_remote(url: str, options: Mapping[str, object]) -> Storage:
    # Late: a local root must not pay for the libraries of all others.
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
    """Make the folder that `url` names, with its parents, durable; no error if it exists. Buckets have no folders, and
    what is only read is not made. Raises OSError."""
    path = local_path(url)
    if path is not None:
        LocalStorage.make_root(path)
    elif url.lower().startswith("webhdfs://"):
        from wal.storage.webhdfs import WebHdfsStorage

        WebHdfsStorage.make_root(url, options)


def probe_storage(storage: Storage, clock: Clock) -> None:
    """Raise UnsupportedError if the store lets a write through whose condition does not hold: to be called before the
    first write of a handle. Asks only where the fence is the version of a file, and each store once. Raises OSError."""
    if storage.capabilities.fence is Fence.VERSION:
        from wal.storage.probe import probe

        probe(storage, clock)


def try_conditions(storage: Storage, clock: Clock) -> Iterator[tuple[Condition, bool]]:
    """Each condition that a store must honour where the fence is the version of a file, and whether it does: asked
    anew, whatever was learned before. Nothing elsewhere. Raises OSError."""
    if storage.capabilities.fence is Fence.VERSION:
        from wal.storage.probe import examine

        yield from examine(storage, clock)


def written_at(storage: Storage, name: str) -> float | None:
    """When the file `name` was written, in seconds since 1970 by the clock of whoever keeps it: another machine's, if
    the storage is there. For people alone: no safety rests on it. None if it is not told. Raises FileNotFoundError."""
    if type(storage) is LocalStorage:  # not the disk in memory, which is one too
        return os.lstat(os.path.join(storage.url, name)).st_mtime
    ask = getattr(storage, "written_at", None)
    told: float | None = None if ask is None else ask(name)
    return told


def __getattr__(name: str) -> object:
    # The disk in memory is for tests: opening a real root must not pay for its import.
    if name in ("MemoryPosix", "MemoryStorage"):
        from wal.storage import memory

        return getattr(memory, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
