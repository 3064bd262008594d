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
    """The storage at `url`: a path, or a URL with one of the schemes `file`, `local`, `webhdfs`, of a folder that
    exists; for reading only, any other scheme that fsspec knows.

    Raises FileNotFoundError, NotADirectoryError, TypeError for options that it does not know (a local root has none:
    one that were ignored could be a misspelt keyword), UnsupportedError for schemes that nobody knows.
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
        raise UnsupportedError(f"{scheme}:// roots are not supported by this version")
    from wal.storage.readonly import ReadOnlyStorage

    return ReadOnlyStorage(url, options)


def __getattr__(name: str) -> object:
    # The disk in memory is for tests: opening a real root must not pay for its import.
    if name in ("MemoryPosix", "MemoryStorage"):
        from wal.storage import memory

        return getattr(memory, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
