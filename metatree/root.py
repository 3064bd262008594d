"""Where a tree is: from what a user names as its root to an open storage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import wal

from .errors import InvalidLocationError, MetatreeError


def open_root(
    root: str | os.PathLike[str] | wal.Storage, options: Mapping[str, Any], *, create: bool
) -> tuple[wal.Storage, str]:
    """The storage and the root's name for people: an absolute path, without a scheme, or the URL as given.

    Raises InvalidLocationError, MetatreeError (no such folder), TypeError (options for a local root),
    wal.UnsupportedError (a scheme that this version cannot open).
    """
    if not isinstance(root, (str, os.PathLike)):
        return root, root.url
    text = os.fspath(root)
    if not text or "\0" in text:
        raise InvalidLocationError(f"{text!r} is no root: pass a path or URL")
    try:
        path = wal.local_path(text)
    except ValueError as error:
        raise InvalidLocationError(f"{text!r} is no root: {error}") from error
    if path is None:
        # `wal` opens buckets, but trees still need an append log, which only folders carry.
        scheme = text.partition("://")[0]
        raise wal.UnsupportedError(f"{scheme}:// roots are not supported by this version; only local roots are")
    if options:
        raise TypeError(f"unknown keyword for a local root: {', '.join(sorted(options))}")
    return _open_local(os.path.abspath(path), create=create)


def _open_local(path: str, *, create: bool) -> tuple[wal.Storage, str]:
    if create and not os.path.lexists(path):
        wal.LocalStorage.make_root(path)  # no error if another process makes it at the same time
    if os.path.lexists(path) and not os.path.isdir(path):
        raise MetatreeError(f"{path} is no folder; a tree needs one of its own")
    try:
        return wal.open_storage(path, {}), path
    except FileNotFoundError as error:
        raise MetatreeError(
            f"{path} does not exist; to create a tree there, name its levels: keys=('model', …)"
        ) from error
