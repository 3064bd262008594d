"""An in-memory disk that models power loss after any call that changes something."""

from __future__ import annotations

import os
from collections.abc import Callable

from wal.storage.memory import MemoryPosix, _Inode
from wal.testing.power import Platter


class PowerPosix(MemoryPosix):
    """An in-memory disk; `cut` is called after each call that changed something, where the power may be lost."""

    def __init__(self, disk: MemoryPosix | None = None) -> None:
        """Empty, or with the content of another disk, all durable; that disk must not be used any more."""
        super().__init__()
        self.platter = Platter()
        self.cut: Callable[[str], None] | None = None
        if disk is not None:
            self._top, self._numbers = disk._top, disk._numbers
            self._tell(self._top)
            self.settle()

    def _tell(self, folder: _Inode) -> None:
        for name, below in folder.entries.items():
            if below.number not in self.platter.objects:
                self.platter.born(below.number, folder=below.folder)
                self.platter.written(below.number, b"", bytes(below.data))
                for attribute, value in below.attributes.items():
                    self.platter.attached(below.number, attribute, value)
            self.platter.named(folder.number, name, below.number)
            self._tell(below)

    def settle(self) -> None:
        """Make everything durable."""
        self.platter.all_synced(self._contents(self._top, {}))

    def _contents(self, inode: _Inode, found: dict[int, bytes]) -> dict[int, bytes]:
        for below in inode.entries.values():
            if below.folder:
                self._contents(below, found)
            else:
                found[below.number] = bytes(below.data)
        return found

    def _passed(self, words: str) -> None:
        if self.cut is not None:
            self.cut(words)

    def _place(self, path: str) -> tuple[int, str]:
        parent, name = self._parent(path)
        return parent.number, name

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        with self._changed:
            parent, name = self._parent(path)
            there = parent.entries.get(name) if name else self._top
            before = bytes(there.data) if there is not None and flags & os.O_TRUNC else b""
            fd = super().open(path, flags, mode)
            inode = self._opened(fd)
            if there is None:
                self.platter.born(inode.number, folder=False)
                self.platter.named(parent.number, name, inode.number)
                self._passed(f"open {path}")
            elif before:
                self.platter.written(inode.number, before, b"")
                self._passed(f"open {path}")
            return fd

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        with self._changed:
            inode = self._opened(fd, writable=True)
            before = bytes(inode.data)
            written = super().pwrite(fd, data, offset)
            touched = range(min(offset, len(before)), offset + written)
            self.platter.written(inode.number, before, bytes(inode.data), touched)
            self._passed(f"pwrite of {written} bytes at {offset}")
            return written

    def ftruncate(self, fd: int, length: int) -> None:
        with self._changed:
            inode = self._opened(fd, writable=True)
            before = bytes(inode.data)
            super().ftruncate(fd, length)
            self.platter.written(inode.number, before, bytes(inode.data))
            self._passed(f"ftruncate to {length}")

    def fsync(self, fd: int) -> None:
        self._sync(fd, attributes=True)

    def fdatasync(self, fd: int) -> None:
        self._sync(fd, attributes=False)

    def _sync(self, fd: int, *, attributes: bool) -> None:
        with self._changed:
            inode = self._opened(fd)
            self.platter.synced(inode.number, bytes(inode.data), attributes=attributes)
            self._passed("fsync" if attributes else "fdatasync")

    def syncfs(self, fd: int) -> None:
        with self._changed:
            self._opened(fd)
            self.settle()
            self._passed("syncfs")

    def rename(self, source: str, target: str) -> None:
        with self._changed:
            moved = self._find(source)
            same = target.rpartition("/")[2] in (self._parent(target)[0].entries) and self._find(target) is moved
            super().rename(source, target)
            if not same:
                self.platter.renamed(self._place(source), self._place(target), moved.number)
                self._passed(f"rename {source} {target}")

    def link(self, source: str, target: str) -> None:
        with self._changed:
            super().link(source, target)
            self.platter.named(*self._place(target), self._find(target).number)
            self._passed(f"link {source} {target}")

    def unlink(self, path: str) -> None:
        with self._changed:
            super().unlink(path)
            self.platter.named(*self._place(path), None)
            self._passed(f"unlink {path}")

    def rmdir(self, path: str) -> None:
        with self._changed:
            super().rmdir(path)
            self.platter.named(*self._place(path), None)
            self._passed(f"rmdir {path}")

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        with self._changed:
            super().mkdir(path, mode)
            number = self._find(path).number
            self.platter.born(number, folder=True)
            self.platter.named(*self._place(path), number)
            self._passed(f"mkdir {path}")

    def setxattr(self, target: int | str, attribute: str, value: bytes) -> None:
        with self._changed:
            super().setxattr(target, attribute, value)
            self.platter.attached(self._target(target).number, attribute, bytes(value))
            self._passed(f"setxattr of {target}")
