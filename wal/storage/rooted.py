"""Names below a root: validates them, turns them into paths, and never follows one out of the root."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from typing import ParamSpec, TypeVar

from wal.interrupts import undisturbed
from wal.renewal import Renewal
from wal.storage.base import UnsafePathError
from wal.storage.posix import FOLDER_ONLY, NO_BLOCK, NO_FOLLOW, Posix

P = ParamSpec("P")
T = TypeVar("T")

_STALE = 4  # repetitions; each needs another replacement within microseconds


def split(name: str) -> list[str]:
    """The segments of a name ("" is the root and has none). Raises ValueError for a name that could lead elsewhere."""
    if not name:
        return []
    segments = name.split("/")
    if "" in segments or "." in segments or ".." in segments or "\0" in name:
        raise ValueError(f"not a name below the root: {name!r}")
    return segments


def again_if_stale(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator for functions that open a file by its name: NFS answers ESTALE if another host has replaced the file
    since it was opened here. Then the function is called again, as for a file that was replaced just before."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(_STALE):
            try:
                return function(*args, **kwargs)
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
        return function(*args, **kwargs)

    return run


def unsafe(path: str, why: str) -> UnsafePathError:
    return UnsafePathError(errno.ELOOP, why, path)


class Rooted:
    """One root folder, opened once: its descriptor also remembers failed writes from here on (see syncfs(2)).

    Each folder above a name is checked with lstat before the name is used. This detects links, mounts and special files
    that exist; it does not stop a program that puts one there between the check and the use.
    """

    def __init__(self, root: str, posix: Posix) -> None:
        self.root = os.path.abspath(root)
        self.posix = posix
        self.fd = posix.open(self.root, os.O_RDONLY | FOLDER_ONLY)
        self._renewal = Renewal(self.root)
        self._device = posix.fstat(self.fd).st_dev

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self.posix.close(fd)

    def reopen(self) -> None:
        """In a forked child: open the root anew. Of one open file, the kernel tells only one process that a write has
        failed: the parent or the child."""
        self._renewal.run(self._reopen)

    def _reopen(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, self.posix.open(self.root, os.O_RDONLY | FOLDER_ONLY)
            self.posix.close(fd)

    def path(self, name: str) -> str:
        """The path of `name`, with every folder above it checked. Raises FileNotFoundError, NotADirectoryError,
        UnsafePathError."""
        path = self.root
        for segment in split(name):
            if path is not self.root:
                status = self.posix.lstat(path)
                if not self.is_folder(status):
                    self.check_folder(path, status)
            path = f"{path}/{segment}"
        return path

    def folder(self, name: str) -> str:
        """Like `path`, but `name` itself must be a folder too."""
        path = self.path(name)
        if name:
            self.check_folder(path, self.posix.lstat(path))
        return path

    def place(self, name: str) -> str:
        """Like `path`, for creating a file: makes missing folders, and refuses to replace a link or special file."""
        path, _ = self.make_parents(name)
        self.check_place(path)
        return path

    def check_place(self, path: str) -> None:
        """Raises UnsafePathError if a link or special file is there."""
        status = self.look(path)
        if status is not None and not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise unsafe(path, "a link or special file stands here; it is not replaced")

    def join(self, name: str) -> str:
        """The path of `name` without checks: for messages, and for comparing what is there."""
        return f"{self.root}/{name}"

    def make_parents(self, name: str) -> tuple[str, bool]:
        """Like `path`, but makes missing folders; returns (path, whether any was made)."""
        path, made = self.root, False
        segments = split(name)
        if not segments:
            raise ValueError("the root itself cannot be written")
        for segment in segments[:-1]:
            path = f"{path}/{segment}"
            made = self._make(path) or made
        return f"{path}/{segments[-1]}", made

    def make_folder(self, name: str) -> str:
        """Make the folder `name` and its parents if missing; returns its path."""
        path = self.root
        for segment in split(name):
            path = f"{path}/{segment}"
            self._make(path)
        return path

    def _make(self, path: str) -> bool:
        status = self.look(path)
        if status is None:
            try:
                self.posix.mkdir(path)
                return True
            except FileExistsError:  # another process has made it
                status = self.posix.lstat(path)
        self.check_folder(path, status)
        return False

    def look(self, path: str) -> os.stat_result | None:
        """The status of a path, without following a link; None if nothing is there."""
        try:
            return self.posix.lstat(path)
        except FileNotFoundError:
            return None

    def is_folder(self, status: os.stat_result) -> bool:
        """Whether it is a folder of this root, which a mount point is not."""
        return stat.S_ISDIR(status.st_mode) and status.st_dev == self._device

    def is_folder_here(self, path: str, status: os.stat_result) -> bool:
        """Like `is_folder`, but raises UnsafePathError for a mount point."""
        if stat.S_ISDIR(status.st_mode):
            self.check_folder(path, status)
            return True
        return False

    def open_file(self, name: str, flags: int) -> int:
        """A descriptor of the regular file `name`. Nothing else is opened: opening a FIFO can wake its writer."""
        return self.open_status(name, flags)[0]

    def open_status(self, name: str, flags: int) -> tuple[int, os.stat_result]:
        """Like `open_file`, with the status of the file."""
        path = self.path(name)
        return self.open_path(path, self.posix.lstat(path), flags)

    def open_path(self, path: str, status: os.stat_result, flags: int) -> tuple[int, os.stat_result]:
        """`open_status` for a path that was checked and looked at."""
        self.check_file(path, status)
        try:
            fd = self.posix.open(path, flags | NO_FOLLOW | NO_BLOCK)
        except OSError as error:
            if error.errno == errno.ELOOP:  # it became a link after the check
                raise unsafe(path, "a symbolic link, not followed") from error
            raise
        try:
            status = self.posix.fstat(fd)
            self.check_file(path, status)
        except BaseException:
            self.posix.close(fd)
            raise
        return fd, status

    def sync_each(self, touched: Iterable[str]) -> None:
        """Make these files durable, and the entries of these folders and of all folders above."""
        folders: set[str] = {""}
        for name in touched:
            folders.update(parents(name) if name else ())
            status = None
            with suppress(FileNotFoundError, NotADirectoryError):  # set aside since; its parent's entries are synced
                status = self.posix.lstat(self.path(name) if name else self.root)
            if status is not None and self.is_folder(status):
                folders.add(name)
            elif status is not None and stat.S_ISREG(status.st_mode):
                self.sync_file(name)
        for folder in sorted(folders, key=len, reverse=True):
            with suppress(FileNotFoundError, NotADirectoryError):
                self.sync_folder(folder)

    @undisturbed
    def sync_folder(self, name: str) -> None:
        """Make the entries of one folder durable."""
        fd = self.posix.open(self.folder(name), os.O_RDONLY | FOLDER_ONLY | NO_FOLLOW)
        try:
            self.posix.fsync(fd)
        finally:
            self.posix.close(fd)

    @undisturbed
    def sync_file(self, name: str) -> None:
        """Make the content of one file durable; no error if it is gone."""
        with suppress(FileNotFoundError):
            fd = self.open_file(name, os.O_RDONLY)
            try:
                self.posix.fsync(fd)
            finally:
                self.posix.close(fd)

    def unused_ending(self, path: str) -> str:
        """What to add to `path` so that the name is unused: "" or a number."""
        ending, number = "", 0
        while self.look(path + ending) is not None:
            number += 1
            ending = f".{number}"
        return ending

    def check_folder(self, path: str, status: os.stat_result) -> None:
        """Raise unless `path` is a folder of this root."""
        if self.is_folder(status):
            return
        if stat.S_ISREG(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if stat.S_ISDIR(status.st_mode):
            raise unsafe(path, "another filesystem is mounted here; a root lies on one")
        raise unsafe(path, "a symbolic link or special file where a folder is expected, not followed")

    def check_file(self, path: str, status: os.stat_result) -> None:
        """Raise unless `path` is a regular file."""
        # The device is not compared here: overlay filesystems report that of a lower layer for files.
        if stat.S_ISREG(status.st_mode):
            return
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise unsafe(path, "a symbolic link or special file where a file is expected, not opened")


def parents(name: str) -> list[str]:
    """The folders above `name`, nearest first, the root ("") last."""
    segments = split(name)
    return ["/".join(segments[:count]) for count in range(len(segments) - 1, -1, -1)]


def below(folder: str, name: str) -> str:
    """`name` relative to the folder it lies in. Raises ValueError if it does not."""
    split(name)
    if not name.startswith(f"{folder}/"):
        raise ValueError(f"{name!r} is not below {folder!r}")
    return name[len(folder) + 1 :]


def make_root(root: str, posix: Posix | None = None) -> None:
    """Create the folder `root` and its parents, durably; no error if it exists."""
    posix = posix or Posix()
    path = os.path.abspath(root)
    missing: list[str] = []
    while True:
        try:
            posix.mkdir(path)
            missing.append(path)
            break
        except FileExistsError:
            break
        except FileNotFoundError:
            missing.append(path)
            path = os.path.dirname(path)
    # Downwards again, including the topmost, which the loop has not made if another process made the folder above it.
    for folder in reversed(missing):
        try:
            posix.mkdir(folder)
        except FileExistsError:  # another process makes the same tree; both sync it
            continue
    for folder in missing:
        fd = posix.open(os.path.dirname(folder), os.O_RDONLY | FOLDER_ONLY)
        try:
            posix.fsync(fd)
        finally:
            posix.close(fd)
