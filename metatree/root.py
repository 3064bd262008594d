"""Where a tree is: from what a user names as its root to an open storage."""

from __future__ import annotations

import difflib
import errno
import os
import stat
from collections.abc import Mapping
from typing import Any

import wal

from . import layout
from .errors import InvalidLocationError, MetatreeError

_KEYWORDS = ("keys", "locking_enabled", "read_only", "apply", "consistency", "storage_options")  # of Metatree
_NO_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR}


def open_root(
    root: str | os.PathLike[str] | wal.Storage, options: Mapping[str, Any], *, create: bool, read_only: bool
) -> tuple[wal.Storage, str]:
    """The storage and the root's name for people: an absolute path, without a scheme, or the URL as given.

    Raises InvalidLocationError, MetatreeError (no such folder, or it cannot be made), TypeError (options for a local
    root), wal.UnsupportedError (a scheme that this version cannot open).
    """
    if not isinstance(root, (str, os.PathLike)):
        if not hasattr(root, "capabilities"):
            raise InvalidLocationError(f"{root!r} is no root: pass a path or URL")
        return root, root.url
    text = os.fsdecode(root)
    if not text or "\0" in text:
        raise InvalidLocationError(f"{text!r} is no root: pass a path or URL")
    try:
        path = wal.local_path(text)
    except ValueError as error:
        raise InvalidLocationError(f"{text!r} is no root: {error}") from error
    if path is None:
        return wal.open_storage(text, options), text
    if options:
        meant = [name for option in options for name in difflib.get_close_matches(option, _KEYWORDS, 1)]
        hint = f" (did you mean {', '.join(meant)}?)" if meant else ""
        raise TypeError(f"unknown keyword for a local root: {', '.join(sorted(options))}{hint}")
    return _open_local(os.path.abspath(path), create=create and not read_only, read_only=read_only)


def refuse_inside_tree(path: str) -> None:
    """Raises MetatreeError if a folder above the local `path`, links resolved, is a tree: two engines would then own
    the same files, and a deletion in the outer tree would take the inner one away. Folders that may not be looked into
    are passed over. For creating and adopting only: opening costs nothing, however deep a tree lies."""
    here = os.path.realpath(path) if os.path.isabs(path) else "/"  # a URL lies in no folder
    while (above := os.path.dirname(here)) != here:
        here = above
        try:
            status = os.lstat(os.path.join(here, layout.CONFIG))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        if stat.S_ISREG(status.st_mode):
            raise MetatreeError(
                f"{path} lies inside the tree {here}, and a tree cannot hold another one: choose a folder outside of "
                f"it (if that is no tree at all, remove the file {os.path.join(here, layout.CONFIG)})"
            )


def _make(path: str) -> None:
    """Make the root's folder; no error if another process makes it at the same time. Raises MetatreeError."""
    try:
        wal.LocalStorage.make_root(path)
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        raise MetatreeError(
            f"{path} cannot be made: {error.strerror} ({error.filename}); choose a place where this user may write"
        ) from error


def _open_local(path: str, *, create: bool, read_only: bool) -> tuple[wal.Storage, str]:
    if create and not os.path.lexists(path):
        refuse_inside_tree(path)
        _make(path)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise MetatreeError(f"{path} is no folder; a tree needs one of its own")
    try:
        return wal.open_storage(path, {}), path
    except (FileNotFoundError, NotADirectoryError) as error:
        advice = "" if read_only else "; to create a tree there, name its levels: keys=('model', …)"
        raise MetatreeError(f"{path} does not exist{advice}") from error
