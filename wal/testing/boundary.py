"""A `Posix` that wraps another one and passes every call through one method."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from wal.storage.posix import Posix

T = TypeVar("T")

MUTATING_CALLS = frozenset(
    {
        "open",  # only with O_CREAT or O_TRUNC
        "pwrite",
        "copy_file_range",
        "ftruncate",
        "fsync",
        "fdatasync",
        "syncfs",
        "rename",
        "link",
        "unlink",
        "rmdir",
        "mkdir",
        "setxattr",
    }
)
# Reads, lookups and locks too. An open that cannot create or truncate is "open_read" here; close is never counted.
ALL_CALLS = MUTATING_CALLS | {
    "open_read",
    "pread",
    "read_into",
    "fstat",
    "lstat",
    "stat",
    "listdir",
    "getxattr",
    "flock",
    "funlock",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call at the boundary."""

    number: int  # counted from 1 among the counted calls; 0 for a call that is not counted
    method: str  # as in MUTATING_CALLS and ALL_CALLS
    path: str  # the path it acts on; for a descriptor, the path that was opened
    arguments: tuple[object, ...]  # including the content of writes


class Boundary(Posix):
    """Passes every call on to `inner`; subclasses override `around`. Thread-safe."""

    def __init__(self, inner: Posix | None = None, *, counted: frozenset[str] = MUTATING_CALLS) -> None:
        self.inner = inner or Posix()
        self._counted = counted
        self._lock = threading.Lock()
        self._number = 0
        self._paths: dict[int, str] = {}  # path of each open descriptor

    @property
    def count(self) -> int:
        """How many counted calls have begun."""
        return self._number

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        """Make one call: `run` does it; `tear`, only for writes, does the first half and returns its short count."""
        return run()

    def closing(self, fd: int) -> None:
        """Close a descriptor. Not counted: locks are all that another process could see change."""
        self.inner.close(fd)

    def _pass(
        self,
        method: str,
        target: int | str,
        arguments: tuple[object, ...],
        run: Callable[[], T],
        tear: Callable[[], T] | None = None,
    ) -> T:
        number = 0
        if method in self._counted:
            with self._lock:
                self._number += 1
                number = self._number
        path = target if isinstance(target, str) else self._paths.get(target, f"descriptor {target}")
        return self.around(Call(number, method, path, arguments), run, tear)

    # --- descriptors ---------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        def run() -> int:
            fd = self.inner.open(path, flags, mode)
            self._paths[fd] = path  # within the call: a crash "after" it must find and close the descriptor
            return fd

        method = "open" if flags & (os.O_CREAT | os.O_TRUNC) else "open_read"
        return self._pass(method, path, (path, flags, mode), run)

    def close(self, fd: int) -> None:
        self._paths.pop(fd, None)
        self.closing(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        return self._pass("pread", fd, (fd, length, offset), lambda: self.inner.pread(fd, length, offset))

    def read_into(self, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
        return self._pass("read_into", fd, (fd, len(buffer), offset), lambda: self.inner.read_into(fd, buffer, offset))

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        content = bytes(data)
        half = content[: len(content) // 2]
        return self._pass(
            "pwrite",
            fd,
            (fd, content, offset),
            lambda: self.inner.pwrite(fd, content, offset),
            (lambda: self.inner.pwrite(fd, half, offset)) if half else None,
        )

    def copy_file_range(self, source: int, target: int, count: int, offset: int) -> int:
        return self._pass(
            "copy_file_range",
            target,
            (source, target, count, offset),
            lambda: self.inner.copy_file_range(source, target, count, offset),
            (lambda: self.inner.copy_file_range(source, target, count // 2, offset)) if count > 1 else None,
        )

    def ftruncate(self, fd: int, length: int) -> None:
        self._pass("ftruncate", fd, (fd, length), lambda: self.inner.ftruncate(fd, length))

    def fsync(self, fd: int) -> None:
        self._pass("fsync", fd, (fd,), lambda: self.inner.fsync(fd))

    def fdatasync(self, fd: int) -> None:
        self._pass("fdatasync", fd, (fd,), lambda: self.inner.fdatasync(fd))

    def syncfs(self, fd: int) -> None:
        self._pass("syncfs", fd, (fd,), lambda: self.inner.syncfs(fd))

    def fstat(self, fd: int) -> os.stat_result:
        return self._pass("fstat", fd, (fd,), lambda: self.inner.fstat(fd))

    # --- names ---------------------------------------------------------------------------------------------------

    def lstat(self, path: str) -> os.stat_result:
        return self._pass("lstat", path, (path,), lambda: self.inner.lstat(path))

    def stat(self, path: str) -> os.stat_result:
        return self._pass("stat", path, (path,), lambda: self.inner.stat(path))

    def realpath(self, path: str) -> str:
        return self._pass("realpath", path, (path,), lambda: self.inner.realpath(path))

    def writable(self, path: str) -> bool:
        return self._pass("writable", path, (path,), lambda: self.inner.writable(path))

    def rename(self, source: str, target: str) -> None:
        self._pass("rename", target, (source, target), lambda: self.inner.rename(source, target))

    def link(self, source: str, target: str) -> None:
        self._pass("link", target, (source, target), lambda: self.inner.link(source, target))

    def unlink(self, path: str) -> None:
        self._pass("unlink", path, (path,), lambda: self.inner.unlink(path))

    def rmdir(self, path: str) -> None:
        self._pass("rmdir", path, (path,), lambda: self.inner.rmdir(path))

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self._pass("mkdir", path, (path, mode), lambda: self.inner.mkdir(path, mode))

    def listdir(self, path: str) -> list[str]:
        return self._pass("listdir", path, (path,), lambda: self.inner.listdir(path))

    # --- attributes, locks, the kernel -----------------------------------------------------------------------------

    def getxattr(self, target: int | str, attribute: str) -> bytes:
        return self._pass("getxattr", target, (target, attribute), lambda: self.inner.getxattr(target, attribute))

    def setxattr(self, target: int | str, attribute: str, value: bytes) -> None:
        def run() -> None:
            self.inner.setxattr(target, attribute, value)

        self._pass("setxattr", target, (target, attribute, value), run)

    def flock(self, fd: int, *, shared: bool, block: bool) -> bool:
        return self._pass("flock", fd, (fd, shared, block), lambda: self.inner.flock(fd, shared=shared, block=block))

    def funlock(self, fd: int) -> None:
        self._pass("funlock", fd, (fd,), lambda: self.inner.funlock(fd))

    def kernel_file(self, path: str) -> bytes:
        return self._pass("kernel_file", path, (path,), lambda: self.inner.kernel_file(path))

    def host(self) -> str:
        return self._pass("host", "", (), self.inner.host)


class Recorder(Boundary):
    """Records every counted call, in the order in which they began."""

    def __init__(self, inner: Posix | None = None, *, counted: frozenset[str] = MUTATING_CALLS) -> None:
        super().__init__(inner, counted=counted)
        self.calls: list[Call] = []

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.number:
            self.calls.append(call)
        return run()

    def trace(self) -> list[tuple[str, str]]:
        """The calls as (method, path): enough to assert an order."""
        return [(call.method, call.path) for call in self.calls]
