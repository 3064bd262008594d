"""An in-memory disk: `MemoryPosix` behaves like the operating system, so `LocalStorage` over it is a storage for tests.

Not modelled: permissions, symbolic links, power loss (nothing is ever lost), and other processes.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import stat
import threading
from contextlib import suppress
from dataclasses import dataclass, field

from wal.clock import Clock
from wal.storage.local import LocalStorage
from wal.storage.posix import Posix

_DEVICE = os.makedev(0, 1)
_SHORT = 4096  # bytes up to which copying twice is faster than a memoryview


@dataclass(eq=False, slots=True)
class _Inode:
    """A file or folder."""

    number: int
    folder: bool
    links: int  # number of names
    data: bytearray = field(default_factory=bytearray)
    entries: dict[str, _Inode] = field(default_factory=dict)
    attributes: dict[str, bytes] = field(default_factory=dict)
    exclusive: int | None = None  # the descriptor that holds the exclusive lock
    shared: set[int] = field(default_factory=set)  # the descriptors that hold shared locks


@dataclass(slots=True)
class _Opened:
    inode: _Inode
    writable: bool


@functools.lru_cache(maxsize=4096)  # the same few paths are used again and again
def _segments(path: str) -> tuple[str, ...]:
    return tuple(filter(None, path.split("/")))


def _error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


class MemoryPosix(Posix):
    """One disk. Several storages may share it, as several openers."""

    def __init__(self) -> None:
        self._mutex = threading.RLock()
        self._changed = threading.Condition(self._mutex)  # a blocking flock waits for another thread's unlock
        self._numbers = itertools.count(2)
        # Far from real descriptors, so that one passed to a real call by mistake fails there.
        self._descriptors = itertools.count(1 << 24)
        self._top = _Inode(1, folder=True, links=2)
        self._open: dict[int, _Opened] = {}

    # --- looking up ----------------------------------------------------------------------------------------------

    def _find(self, path: str) -> _Inode:
        inode = self._top
        for segment in _segments(path):
            if (below := inode.entries.get(segment)) is None:
                raise _error(errno.ENOENT if inode.folder else errno.ENOTDIR, path)
            inode = below
        return inode

    def _parent(self, path: str) -> tuple[_Inode, str]:
        above, _, name = path.rstrip("/").rpartition("/")
        if len(name.encode("utf-8", "surrogateescape")) > 255:
            raise _error(errno.ENAMETOOLONG, path)
        parent = self._find(above)
        if not parent.folder:
            raise _error(errno.ENOTDIR, path)
        return parent, name

    def _opened(self, fd: int, *, writable: bool = False) -> _Inode:
        if (opened := self._open.get(fd)) is None or (writable and not opened.writable):
            raise _error(errno.EBADF)
        return opened.inode

    def _target(self, target: int | str) -> _Inode:
        return self._opened(target) if isinstance(target, int) else self._find(target)

    # --- descriptors ---------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        with self._mutex:
            parent, name = self._parent(path)
            inode = parent.entries.get(name) if name else self._top
            if inode is None:
                if not flags & os.O_CREAT:
                    raise _error(errno.ENOENT, path)
                inode = parent.entries[name] = _Inode(next(self._numbers), folder=False, links=1)
            elif flags & os.O_CREAT and flags & os.O_EXCL:
                raise _error(errno.EEXIST, path)
            writable = flags & os.O_ACCMODE != os.O_RDONLY
            if inode.folder and writable:
                raise _error(errno.EISDIR, path)
            if flags & os.O_DIRECTORY and not inode.folder:
                raise _error(errno.ENOTDIR, path)
            if flags & os.O_TRUNC:
                inode.data.clear()
            fd = next(self._descriptors)
            self._open[fd] = _Opened(inode, writable)
            return fd

    def close(self, fd: int) -> None:
        with self._mutex:
            self._unlock(self._opened(fd), fd)
            del self._open[fd]

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        with self._mutex:
            if (inode := self._opened(fd)).folder:
                raise _error(errno.EISDIR)
            return bytes((inode.data if length <= _SHORT else memoryview(inode.data))[offset : offset + length])

    def read_into(self, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
        data = self.pread(fd, len(buffer), offset)
        memoryview(buffer)[: len(data)] = data
        return len(data)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        with self._mutex:
            inode = self._opened(fd, writable=True)
            if offset > len(inode.data):
                inode.data.extend(bytes(offset - len(inode.data)))
            inode.data[offset : offset + len(data)] = data
            return len(data)

    def copy_file_range(self, source: int, target: int, count: int, offset: int) -> int:
        return self.pwrite(target, self.pread(source, count, offset), offset)

    def ftruncate(self, fd: int, length: int) -> None:
        with self._mutex:
            inode = self._opened(fd, writable=True)
            del inode.data[length:]
            inode.data.extend(bytes(length - len(inode.data)))

    def fsync(self, fd: int) -> None:
        self._opened(fd)

    fdatasync = syncfs = fsync

    def fstat(self, fd: int) -> os.stat_result:
        return _status(self._opened(fd))

    # --- names ---------------------------------------------------------------------------------------------------

    def lstat(self, path: str) -> os.stat_result:
        with self._mutex:
            return _status(self._find(path))

    stat = lstat

    def realpath(self, path: str) -> str:
        return path

    def writable(self, path: str) -> bool:
        return True

    def rename(self, source: str, target: str) -> None:
        with self._mutex:
            old_parent, old = self._parent(source)
            if old not in old_parent.entries:
                raise _error(errno.ENOENT, source)
            new_parent, new = self._parent(target)
            moved, replaced = old_parent.entries[old], new_parent.entries.get(new)
            if replaced is moved:
                return  # POSIX: does nothing if both are names of one file
            if moved.folder and f"{target}/".startswith(f"{source}/"):
                raise _error(errno.EINVAL, target)
            if replaced is not None:
                if replaced.folder != moved.folder:
                    raise _error(errno.EISDIR if replaced.folder else errno.ENOTDIR, target)
                if replaced.entries:
                    raise _error(errno.ENOTEMPTY, target)
                replaced.links -= 1
            del old_parent.entries[old]
            new_parent.entries[new] = moved

    def link(self, source: str, target: str) -> None:
        with self._mutex:
            inode = self._find(source)
            if inode.folder:
                raise _error(errno.EPERM, source)
            parent, name = self._parent(target)
            if name in parent.entries:
                raise _error(errno.EEXIST, target)
            parent.entries[name] = inode
            inode.links += 1

    def unlink(self, path: str) -> None:
        with self._mutex:
            if self._find(path).folder:
                raise _error(errno.EISDIR, path)
            parent, name = self._parent(path)
            parent.entries.pop(name).links -= 1

    def rmdir(self, path: str) -> None:
        with self._mutex:
            inode = self._find(path)
            if not inode.folder or inode.entries:
                raise _error(errno.ENOTEMPTY if inode.folder else errno.ENOTDIR, path)
            parent, name = self._parent(path)
            del parent.entries[name]
            inode.links = 0

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        with self._mutex:
            parent, name = self._parent(path)
            if not name or name in parent.entries:
                raise _error(errno.EEXIST, path)
            parent.entries[name] = _Inode(next(self._numbers), folder=True, links=2)

    def listdir(self, path: str) -> list[str]:
        with self._mutex:
            if not (inode := self._find(path)).folder:
                raise _error(errno.ENOTDIR, path)
            return list(inode.entries)

    # --- attributes ----------------------------------------------------------------------------------------------

    def getxattr(self, target: int | str, attribute: str) -> bytes:
        with self._mutex:
            if (value := self._target(target).attributes.get(attribute)) is None:
                raise _error(errno.ENODATA)
            return value

    def setxattr(self, target: int | str, attribute: str, value: bytes) -> None:
        with self._mutex:
            self._target(target).attributes[attribute] = bytes(value)

    # --- locks ---------------------------------------------------------------------------------------------------

    def flock(self, fd: int, *, shared: bool, block: bool) -> bool:
        with self._mutex:
            inode = self._opened(fd)
            while inode.exclusive not in (None, fd) or (not shared and inode.shared - {fd}):
                if not block:
                    return False
                self._changed.wait()
            self._unlock(inode, fd)
            if shared:
                inode.shared.add(fd)
            else:
                inode.exclusive = fd
            return True

    def funlock(self, fd: int) -> None:
        with self._mutex:
            self._unlock(self._opened(fd), fd)

    def _unlock(self, inode: _Inode, fd: int) -> None:
        inode.shared.discard(fd)
        if inode.exclusive == fd:
            inode.exclusive = None
        self._changed.notify_all()

    # --- what the kernel tells ------------------------------------------------------------------------------------

    def kernel_file(self, path: str) -> bytes:
        """Tables about this disk are generated in the kernel's format; those about processes are the real ones."""
        if path == "/proc/self/mountinfo":
            return b"1 0 0:1 / / rw - tmpfs memory rw\n"
        if path == "/proc/locks":
            with self._mutex:
                held = {opened.inode.number for fd, opened in self._open.items() if _holds(opened.inode, fd)}
            return "".join(f"1: FLOCK ADVISORY WRITE {os.getpid()} 00:01:{n} 0 EOF\n" for n in held).encode()
        return super().kernel_file(path)


def _holds(inode: _Inode, fd: int) -> bool:
    return inode.exclusive == fd or fd in inode.shared


def _status(inode: _Inode) -> os.stat_result:
    mode = (stat.S_IFDIR | 0o755) if inode.folder else (stat.S_IFREG | 0o644)
    return os.stat_result((mode, inode.number, _DEVICE, inode.links, 0, 0, len(inode.data), 0, 0, 0))


class MemoryStorage(LocalStorage):
    """An in-memory storage. Several with the same `posix` act as openers of one disk."""

    def __init__(
        self, posix: Posix | None = None, *, root: str = "/disk", scratch: str = ".wal/tmp", clock: Clock | None = None
    ) -> None:
        posix = posix or MemoryPosix()
        with suppress(FileExistsError):
            posix.mkdir(root)
        super().__init__(root, posix, scratch=scratch, clock=clock)
