"""Opens a source that a user names: a local file, or any URL that fsspec knows."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

from wal.interrupts import undisturbed
from wal.storage.base import UnsafePathError
from wal.storage.files import reader
from wal.storage.posix import NO_BLOCK, Posix


def local_path(url: str) -> str | None:
    """The path of a plain path or a `file://` or `local://` URL; None for any other URL. Raises ValueError for a file
    URL with another host."""
    scheme, separator, rest = url.partition("://")
    if not separator or not scheme.replace("+", "").isalnum():
        return url
    if scheme.lower() == "local":
        return rest
    if scheme.lower() != "file":
        return None
    from urllib.parse import unquote, urlsplit  # imported here: a local path is rarely a URL

    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"a file URL cannot name another host: {url!r}")
    return unquote(parts.path)


def open_source(
    source: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    posix: Posix | None = None,
) -> BinaryIO:
    """Open a source for reading. Links are followed; the source is not changed.

    Raises FileNotFoundError, IsADirectoryError, and UnsafePathError for FIFOs, sockets and devices: opening one could
    block for ever.
    """
    text = os.fspath(source)
    path = local_path(text)
    if path is not None:
        return _open_local(path, posix or Posix())
    import fsspec  # imported here: it takes 65 ms, and local sources do not need it

    filesystem, remote = fsspec.core.url_to_fs(text, **(storage_options or {}))
    return cast(BinaryIO, filesystem.open(remote, "rb"))


@undisturbed
def _open_local(path: str, posix: Posix) -> BinaryIO:
    path = os.path.abspath(path)
    _check(path, posix.stat(path))
    fd = posix.open(path, os.O_RDONLY | NO_BLOCK)
    try:
        _check(path, posix.fstat(fd))
    except BaseException:
        posix.close(fd)
        raise
    return reader(posix, fd, path)


def _check(path: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePathError(errno.EINVAL, "not a regular file; special files are not opened", path)


def list_source(source: str | os.PathLike[str]) -> list[tuple[str, str]] | None:
    """The files below a directory, as (relative name with `/`, source), sorted; None if it is not a directory.

    Raises UnsafePathError for a link or special file in it: the target of a link is not the directory's content.
    """
    text = os.fspath(source)
    path = local_path(text)
    if path is not None:
        path = os.path.abspath(path)
        return _list_local(path) if os.path.isdir(path) else None
    import fsspec

    filesystem, remote = fsspec.core.url_to_fs(text)
    if not filesystem.isdir(remote):
        return None
    root = remote.rstrip("/") + "/"
    return [(name[len(root) :], filesystem.unstrip_protocol(name)) for name in sorted(filesystem.find(remote))]


def _list_local(root: str) -> list[tuple[str, str]]:
    files = []
    for folder, folders, names in os.walk(root, onerror=_raise):
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode):
                files.append((os.path.relpath(path, root).replace(os.sep, "/"), path))
            elif not stat.S_ISDIR(mode):
                raise UnsafePathError(errno.EINVAL, "a link or special file inside a directory is not put", path)
    return sorted(files)


def _raise(error: OSError) -> None:
    raise error
