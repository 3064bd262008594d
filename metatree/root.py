"""From the root that a user names to an open storage."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import wal

from . import config, layout
from .errors import InvalidLocationError, MetatreeError, UnsupportedStorageError

_KEYWORDS = ("keys", "locking_enabled", "read_only", "apply", "consistency", "storage_options")  # of Metatree
# What remains of a URL passed through pathlib: `Path("s3://bucket/x")` is s3:/bucket/x, a folder on this machine.
_LOST_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")
_NO_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR}


def open_root(
    root: str | os.PathLike[str] | wal.Storage,
    options: Mapping[str, Any],
    keys: Sequence[str] | None,
    *,
    read_only: bool,
) -> tuple[wal.Storage, str]:
    """(the storage, the root's name for people: an absolute path without a scheme, or the URL as given).

    `keys`: the levels of a new tree, for which a missing folder is made; None: it is not.
    Raises InvalidLocationError (also for `keys`, before anything is made), MetatreeError (no such folder, or it
    cannot be made), TypeError (options for a local root or an open storage), wal.UnsupportedError (a scheme that
    cannot be opened).
    """
    create = keys is not None and bool(config.check_keys(keys)) and not read_only
    if not isinstance(root, (str, os.PathLike)):
        if not hasattr(root, "capabilities"):
            raise InvalidLocationError(f"{root!r} is not a valid root: pass a path or URL")
        _refuse_options(options, "an open storage")
        return root, root.url
    text = os.fsdecode(root)
    path = require_root(text)
    if path is None:
        return _open_remote(text, options, create=create, read_only=read_only)
    _refuse_options(options, "a local root")
    return _open_local(os.path.abspath(path), create=create, read_only=read_only)


def _refuse_options(options: Mapping[str, Any], root: str) -> None:
    if options:
        raise TypeError(f"unknown keyword for {root}: {', '.join(sorted(options))}{_meant(options)}")


def name_of(root: object) -> str:
    """A root, as far as it is a path or URL, for the message of an error that names no file."""
    return os.fsdecode(root).partition("?")[0] if isinstance(root, (str, os.PathLike)) else ""


def require_root(text: str) -> str | None:
    """The path of a local root; None for a URL of another kind. Raises InvalidLocationError for what is neither."""
    if not text or "\0" in text:
        raise InvalidLocationError(f"{text!r} is not a valid root: pass a path or URL")
    if lost := _LOST_SLASH.match(text):
        raise InvalidLocationError(
            f"{text!r} is not a valid root: a URL has two slashes after its scheme, and pathlib removes one; pass "
            f"the text {f'{lost[1]}://{text[lost.end() :]}'!r}, or {f'./{text}'!r} for a folder of that name"
        )
    try:
        path = wal.local_path(text)
    except ValueError as error:
        raise InvalidLocationError(f"{text!r} is not a valid root: {error}") from error
    if path is None:
        _refuse_secret(*text.split("://", 1))
    elif (home := os.path.expanduser(path)) != path:
        raise InvalidLocationError(
            f"{text!r} is not a valid root: only a shell expands '~'; pass {home!r}, or {f'./{path}'!r} for a "
            "folder of that name"
        )
    return path


def _refuse_secret(scheme: str, place: str) -> None:
    user, at, _ = place.partition("/")[0].rpartition("@")
    if at and ":" in user:
        raise InvalidLocationError(
            f"a {scheme}:// root must not hold a password or secret, since messages show it: pass it as a keyword"
        )


def _meant(options: Iterable[str]) -> str:
    """Keywords of `Metatree` that may have been misspelt, for the end of a message; "" if there are none."""
    import difflib  # imported here: needed for this message only

    meant = [name for option in options for name in difflib.get_close_matches(option, _KEYWORDS, 1)]
    return f" (did you mean {', '.join(meant)}?)" if meant else ""


def _open_remote(url: str, options: Mapping[str, Any], *, create: bool, read_only: bool) -> tuple[wal.Storage, str]:
    scheme, separator, place = url.partition("://")
    url = scheme + separator + place.rstrip("/")  # keep the slashes of the scheme
    try:
        if create:
            wal.make_root(url, options)
        return wal.open_storage(url, options), url
    except ValueError as error:
        raise InvalidLocationError(f"{url} is not a valid root: {error}") from error
    except TypeError as error:
        refused = set(re.findall(r"\w+", str(error).partition(" (")[0]))
        raise TypeError(f"{error}{_meant(name for name in options if name in refused)}") from error
    except FileNotFoundError as error:
        if create:
            raise UnsupportedStorageError(
                f"{url} does not exist, and no tree can be created there: {scheme}:// can only be read"
            ) from error
        advice = "" if read_only else "; to create a tree there, name its levels: keys=('model', …)"
        raise MetatreeError(f"{url} does not exist{advice}") from error


def tree_above(path: str) -> str | None:
    """The closest folder above the local `path`, links resolved, that is a tree; None if there is none. Folders
    without permission are skipped."""
    here = os.path.realpath(path) if os.path.isabs(path) else "/"  # a URL has no folder above
    while (above := os.path.dirname(here)) != here:
        here = above
        try:
            status = os.lstat(os.path.join(here, layout.CONFIG))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        if stat.S_ISREG(status.st_mode):
            return here
    return None


def refuse_inside_tree(path: str) -> None:
    """Raises MetatreeError if a folder above the local `path` is a tree: two engines would own the same files, and a
    deletion in the outer tree would delete the inner one. Called for creating and adopting only: opening need not pay
    for it."""
    above = tree_above(path)
    if above is not None:
        raise MetatreeError(
            f"{path} lies inside the tree {above}, and a tree cannot hold another one: choose a folder outside of "
            f"it (if that is not a tree, remove the file {os.path.join(above, layout.CONFIG)})"
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
        raise MetatreeError(f"{path} is not a folder; a tree needs one of its own")
    try:
        return wal.open_storage(path, {}), path
    except (FileNotFoundError, NotADirectoryError) as error:
        advice = "" if read_only else "; to create a tree there, name its levels: keys=('model', …)"
        raise MetatreeError(f"{path} does not exist{advice}") from error
