"""The operating system as local storage needs it: about one method for each system call.

Everything that `LocalStorage` does to bytes, names and locks passes through a `Posix`, so that tests can record, fail
or interrupt calls by wrapping this one class (`wal.testing`), or replace it (`wal.storage.memory`).
Paths are absolute. No method follows a symbolic link in the last segment of a path unless its docstring says so.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

try:
    import fcntl
except ImportError:  # pragma: no cover  Windows: no locks, so reading only
    fcntl = None  # type: ignore[assignment]

# Flags that some systems lack; these have nothing that the flags would refuse.
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
NO_BLOCK = getattr(os, "O_NONBLOCK", 0)
FOLDER_ONLY = getattr(os, "O_DIRECTORY", 0)


class Posix:
    """The real system calls. Errors are `OSError`; interrupted calls are repeated by Python itself (PEP 475)."""

    # --- descriptors ---------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        """A descriptor that no child program inherits (Python opens with O_CLOEXEC)."""
        return os.open(path, flags, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    if hasattr(os, "pread"):  # not on Windows
        pread = staticmethod(os.pread)  # the function itself: a method around it would be called twice for each find

    def read_into(self, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
        """Read into `buffer` from `offset`; returns the number of bytes, 0 at the end of the file."""
        return os.preadv(fd, [buffer], offset)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write; returns the number of bytes written, which may be fewer than given."""
        return os.pwrite(fd, data, offset)

    def copy_file_range(self, source: int, target: int, count: int, offset: int) -> int:
        """Copy inside the kernel, at the same offset in both; ENOSYS where there is no such call."""
        if not hasattr(os, "copy_file_range"):  # pragma: no cover  not on Linux
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return os.copy_file_range(source, target, count, offset, offset)

    def ftruncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def fsync(self, fd: int) -> None:
        """Make content and metadata of a file, or the entries of a folder, durable."""
        if sys.platform == "darwin":  # pragma: no cover  fsync there stops at the drive's cache
            import fcntl

            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        """Make content and length of a file durable."""
        if hasattr(os, "fdatasync"):
            os.fdatasync(fd)
        else:  # pragma: no cover  a Mac
            self.fsync(fd)

    def syncfs(self, fd: int) -> None:
        """Make everything on the filesystem of `fd` durable. ENOSYS where it would not report a failed write."""
        call = _syncfs()
        if call is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        import ctypes

        if call(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def fstat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    # --- names ---------------------------------------------------------------------------------------------------

    def lstat(self, path: str) -> os.stat_result:
        return os.lstat(path)

    def stat(self, path: str) -> os.stat_result:
        """stat, following links: for a path that the user named, such as the root, never for anything below it."""
        return os.stat(path)

    def realpath(self, path: str) -> str:
        """The path without links, for finding its mount."""
        return os.path.realpath(path)

    def writable(self, path: str) -> bool:
        """Whether this user may create entries in the folder, by permissions and mount (access(2))."""
        effective = os.access in os.supports_effective_ids  # else access(2) checks the real user
        return os.access(path, os.W_OK | os.X_OK, effective_ids=effective)

    def rename(self, source: str, target: str) -> None:
        """Rename, atomic; replaces a file or an empty folder. Does nothing for two links to one inode (POSIX)."""
        os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        """Make a hard link. Raises FileExistsError if `target` exists."""
        if os.link in os.supports_follow_symlinks:
            os.link(source, target, follow_symlinks=False)
        else:  # pragma: no cover  not on Linux
            os.link(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        os.mkdir(path, mode)

    def listdir(self, path: str) -> list[str]:
        return os.listdir(path)

    # --- attributes ----------------------------------------------------------------------------------------------

    def getxattr(self, target: int | str, attribute: str) -> bytes:
        """The attribute of a descriptor or a path. ENODATA: not set; ENOTSUP: not supported."""
        if sys.platform != "linux":  # pragma: no cover  other systems
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        if isinstance(target, int):
            return os.getxattr(target, attribute)
        return os.getxattr(target, attribute, follow_symlinks=False)

    def setxattr(self, target: int | str, attribute: str, value: bytes) -> None:
        """Set the attribute of a descriptor or a path."""
        if sys.platform != "linux":  # pragma: no cover  other systems
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        if isinstance(target, int):
            os.setxattr(target, attribute, value)
        else:
            os.setxattr(target, attribute, value, follow_symlinks=False)

    # --- locks ---------------------------------------------------------------------------------------------------

    def flock(self, fd: int, *, shared: bool, block: bool) -> bool:
        """Lock the open file; False if another open file holds it and `block` is False."""
        if block:
            _wait_for_lock(fd, shared=shared)
            return True
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def funlock(self, fd: int) -> None:
        """Release the lock of the open file, for every descriptor that shares it, also in a forked child."""
        fcntl.flock(fd, fcntl.LOCK_UN)

    # --- what the kernel tells ------------------------------------------------------------------------------------

    def kernel_file(self, path: str) -> bytes:
        """The content of a file below /proc. Raises FileNotFoundError where there is none."""
        with open(path, "rb") as file:
            return file.read()

    def host(self) -> str:
        return os.uname().nodename


def _wait_for_lock(fd: int, *, shared: bool) -> None:
    import portalocker  # imported here: it takes longer than opening a tree, and few callers wait without a limit

    try:
        portalocker.lock(fd, portalocker.LockFlags.SHARED if shared else portalocker.LockFlags.EXCLUSIVE)
    except portalocker.LockException as error:  # not an OSError, but it wraps one
        for candidate in (error.__cause__, *error.args):
            if isinstance(candidate, OSError):
                raise candidate from None
        raise OSError(errno.ENOLCK, str(error)) from error


@functools.cache
def _syncfs() -> Callable[[int], Any] | None:
    """libc's syncfs; None if it is missing or, before Linux 5.8, does not report failed writes."""
    if sys.platform != "linux":  # pragma: no cover  other systems
        return None
    version = os.uname().release.split(".")
    if not (version[0].isdigit() and version[1:] and version[1].isdigit()):
        return None
    if (int(version[0]), int(version[1])) < (5, 8):
        return None
    import ctypes  # imported here: only writers need it

    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    return function if function is None else _typed(function)


def _typed(function: Any) -> Callable[[int], Any]:
    import ctypes

    function.argtypes = [ctypes.c_int]
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]
