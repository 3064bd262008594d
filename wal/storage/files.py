"""Open files of a local root, and the loops around single system calls."""

from __future__ import annotations

import errno
import io
import os
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, Protocol, cast

from wal.interrupts import safe_point, undisturbed
from wal.storage.posix import Posix

ATTRIBUTE = "user.metatree"
_CHUNK = 1 << 20
_NO_ATTRIBUTES = {errno.ENOTSUP, errno.EOPNOTSUPP}
_NOT_SET = {errno.ENODATA, getattr(errno, "ENOATTR", errno.ENODATA)}
# The kernel cannot copy between these two files: copy through memory instead.
_NO_KERNEL_COPY = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EPERM, errno.EBADF, errno.ETXTBSY} | _NO_ATTRIBUTES


class Closable(Protocol):
    """Something that owns a descriptor."""

    def close(self) -> None: ...


# What a storage has open. Not weak references: a lock whose object was dropped must be released when its storage is
# closed, neither never nor whenever the garbage collector runs.
Handles = set[Closable]


def write_all(posix: Posix, fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data`, although one call may write only a part (after a signal, on a nearly full disk)."""
    written = posix.pwrite(fd, data, offset)
    if written == len(data):
        return
    rest = memoryview(data)
    while True:
        if written <= 0:
            raise OSError(errno.EIO, "a write took no bytes")
        rest, offset = rest[written:], offset + written
        if not rest:
            return
        written = posix.pwrite(fd, rest, offset)


def read_range(posix: Posix, fd: int, length: int, offset: int) -> bytes:
    """Up to `length` bytes; fewer only at the end of the file."""
    data = posix.pread(fd, length, offset)
    if len(data) == length or not data:
        return data
    parts = [data]
    got = len(data)
    while got < length:
        data = posix.pread(fd, length - got, offset + got)
        if not data:
            break
        parts.append(data)
        got += len(data)
    return b"".join(parts)


def copy_content(posix: Posix, source: int, target: int) -> None:
    """Copy a whole file; filesystems that share blocks do it without moving bytes."""
    size = posix.fstat(source).st_size
    done = 0
    try:
        while done < size:
            copied = posix.copy_file_range(source, target, size - done, done)
            if copied <= 0:
                break
            done += copied
            safe_point()
    except OSError as error:
        if error.errno not in _NO_KERNEL_COPY:
            raise
    while data := posix.pread(source, _CHUNK, done):
        write_all(posix, target, data, done)
        done += len(data)
        safe_point()


def get_attribute(posix: Posix, target: int | str) -> bytes | None:
    """The engine's attribute of a file or folder; None if not set or not supported here."""
    try:
        return posix.getxattr(target, ATTRIBUTE)
    except OSError as error:
        if error.errno in _NOT_SET | _NO_ATTRIBUTES:
            return None
        raise


def set_attribute(posix: Posix, target: int | str, value: bytes) -> None:
    """Attach the attribute. Does nothing where the filesystem keeps none: its absence means "unknown"."""
    try:
        posix.setxattr(target, ATTRIBUTE, value)
    except OSError as error:
        if error.errno not in _NO_ATTRIBUTES:
            raise


def keeps_attributes(posix: Posix, target: int | str) -> bool:
    """Whether the filesystem of `target` supports attributes, found out without writing one."""
    try:
        posix.getxattr(target, ATTRIBUTE)
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            return False
        if error.errno not in _NOT_SET:
            raise
    return True


class LocalRandomFile:
    """`RandomFile` over one descriptor."""

    def __init__(self, posix: Posix, fd: int, handles: Handles) -> None:
        self._posix = posix
        self._pread = posix.pread
        self._fd = fd
        self._handles = handles
        handles.add(self)

    def size(self) -> int:
        """Length in bytes."""
        return self._posix.fstat(self._fd).st_size

    def pread(self, length: int, offset: int) -> bytes:
        """Up to `length` bytes; fewer only at the end of the file."""
        data = self._pread(self._fd, length, offset)
        return data if len(data) == length else read_range(self._posix, self._fd, length, offset)

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of `data`; after an error a part may be written."""
        write_all(self._posix, self._fd, data, offset)

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""
        self._posix.ftruncate(self._fd, size)

    def datasync(self) -> None:
        """Make content and length durable. Do not retry after an error: the kernel may have dropped the pages."""
        self._posix.fdatasync(self._fd)

    @undisturbed
    def close(self) -> None:
        self._handles.discard(self)
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._posix.close(fd)


class LocalStagedFile:
    """`StagedFile` over one descriptor."""

    def __init__(self, posix: Posix, fd: int, path: str, handles: Handles) -> None:
        self._posix = posix
        self._fd = fd
        self._path = path
        self._size = 0
        self._finished = False
        self._handles = handles
        handles.add(self)

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`."""
        data = memoryview(data).cast("B")
        if data:
            write_all(self._posix, self._fd, data, self._size)
        self._size += len(data)

    def finish(self, attribute: bytes) -> None:
        """Attach `attribute`, make the content durable and close."""
        set_attribute(self._posix, self._fd, attribute)
        self._posix.fdatasync(self._fd)
        self.close()
        self._finished = True

    def abandon(self) -> None:
        """Close and remove what was written; does nothing after `finish`."""
        if self._finished:
            return
        self._finished = True
        self.close()
        with suppress(FileNotFoundError):
            self._posix.unlink(self._path)

    @undisturbed
    def close(self) -> None:
        """Close without removing the file: called when the storage is closed."""
        self._handles.discard(self)
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._posix.close(fd)

    def __enter__(self) -> LocalStagedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()


class _Reader(io.RawIOBase):
    """Reads a descriptor at its own position, with every read passing through `Posix`."""

    def __init__(self, posix: Posix, fd: int, path: str) -> None:
        super().__init__()
        self._posix = posix
        self._fd = fd
        self._at = 0
        self.name = path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        count = self._posix.read_into(self._fd, buffer, self._at)
        self._at += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = (0, self._at, self._posix.fstat(self._fd).st_size if whence == os.SEEK_END else 0)[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    @undisturbed
    def close(self) -> None:
        if not self.closed:
            super().close()
            self._posix.close(self._fd)


def reader(posix: Posix, fd: int, path: str) -> BinaryIO:
    """A buffered file object that owns `fd`."""
    return cast(BinaryIO, io.BufferedReader(_Reader(posix, fd, path), 1 << 17))
