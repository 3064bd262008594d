"""A folder on this machine, or on a mounted filesystem, as `Storage`.

Guarantees beyond those of `base`:

- A new file is written under `scratch` and renamed or linked into place, so no reader sees a part of it.
- A staged file is linked, never renamed, into place: it stays for a replay.
- Where other hosts may write the filesystem (`append_log` is False), every published file is made durable before its
  rename, whatever `durable` says.

Left to callers: `publish`, `publish_folder` and `set_aside` check a target and then rename, so they need one writer at
a time (the committer's right). `create` and `stage` do not.
"""

from __future__ import annotations

import copy
import errno
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import BinaryIO

from wal.clock import Clock
from wal.errors import UnsupportedError
from wal.interrupts import undisturbed
from wal.storage.base import (
    Capabilities,
    Content,
    Entry,
    Kind,
    Lock,
    Publication,
    RandomFile,
    Staged,
    StagedFile,
    Stored,
)
from wal.storage.filelock import FileLock
from wal.storage.files import (
    Handles,
    LocalRandomFile,
    LocalStagedFile,
    get_attribute,
    read_range,
    reader,
    set_attribute,
)
from wal.storage.kernel import capabilities
from wal.storage.passage import Passage, is_taken, retire
from wal.storage.posix import Posix
from wal.storage.rooted import Rooted, again_if_stale, below, make_root, parents, split, unsafe
from wal.storage.scratch import CREATE, Scratch, erase


class LocalStorage:
    """`Storage` over an existing folder. `posix` is the boundary to the system, for tests to wrap."""

    def __init__(
        self, root: str, posix: Posix | None = None, *, scratch: str = ".wal/tmp", clock: Clock | None = None
    ) -> None:
        self._posix = posix or Posix()
        self._clock = clock or Clock()
        # Opened before anything is written: syncfs reports only writes that failed after its descriptor was opened.
        self._rooted = Rooted(root, self._posix)
        self._scratch = Scratch(self._rooted, scratch, self._clock)
        self._handles: Handles = set()
        self._passage: Passage | None = None  # only in a view, see `fenced`
        self._capabilities = capabilities(self._posix, self._rooted.root, self._rooted.fd)

    @staticmethod
    def make_root(root: str, posix: Posix | None = None) -> None:
        """Create the folder `root` and its parents, durably; no error if it exists."""
        make_root(root, posix)

    @property
    def url(self) -> str:
        return self._rooted.root

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    # --- reading -------------------------------------------------------------------------------------------------

    @again_if_stale
    @undisturbed
    def read(self, name: str) -> Stored:
        fd, status = self._rooted.open_status(name, os.O_RDONLY)
        try:
            # One byte more than the size, so that the same call finds the end of the file.
            data = self._posix.pread(fd, status.st_size + 1, 0)
            if len(data) != status.st_size:  # a short read, or the file's length has changed
                data = read_range(self._posix, fd, status.st_size + 1, 0)
            return Stored(data, get_attribute(self._posix, fd))
        finally:
            self._posix.close(fd)

    @again_if_stale
    @undisturbed
    def open(self, name: str) -> BinaryIO:
        return reader(self._posix, self._rooted.open_file(name, os.O_RDONLY), self._rooted.path(name))

    @again_if_stale
    def attribute(self, name: str) -> bytes | None:
        path = self._rooted.path(name)
        status = self._posix.lstat(path)
        if self._kind(status) is Kind.OTHER:
            raise unsafe(path, "a symbolic link, special file or mount, not followed")
        return get_attribute(self._posix, path)

    @again_if_stale
    def list(self, folder: str) -> list[Entry]:
        path = self._rooted.folder(folder)
        found = []
        for name in self._posix.listdir(path):
            status = self._rooted.look(f"{path}/{name}")
            if status is not None:  # else removed since it was listed
                found.append(self._entry(name, status))
        return found

    def entry(self, name: str) -> Entry | None:
        try:
            path = self._rooted.path(name)
            return self._entry(name.rpartition("/")[2], self._posix.lstat(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _entry(self, name: str, status: os.stat_result) -> Entry:
        kind = self._kind(status)
        return Entry(name, kind, 0 if kind is Kind.FOLDER else status.st_size)

    def _kind(self, status: os.stat_result) -> Kind:
        if self._rooted.is_folder(status):
            return Kind.FOLDER
        return Kind.FILE if stat.S_ISREG(status.st_mode) else Kind.OTHER

    # --- writing -------------------------------------------------------------------------------------------------

    def create(self, name: str, data: bytes) -> bool:
        path, made = self._rooted.make_parents(name)
        temporary = self._scratch.write(data, None, durable=True)
        try:
            if not self._scratch.link_new(temporary, path):
                return False
            for folder in parents(name) if made else parents(name)[:1]:
                self._rooted.sync_folder(folder)
        finally:
            self._scratch.remove(temporary)
        return True

    def publish(
        self, name: str, content: Content, attribute: bytes, *, durable: bool, expect: str | None = None
    ) -> str:
        path = self._rooted.place(name) if self._passage is None else ""
        durable = durable or not self._capabilities.append_log
        if isinstance(content, Staged):
            temporary = self._scratch.share(content, attribute, durable=durable)
        else:
            temporary = self._scratch.write(content, attribute, durable=durable)
        try:
            self._move(temporary, path, name)
        except BaseException:
            self._scratch.remove(temporary)
            raise
        if isinstance(content, Staged):
            # If `path` was this same file already, the rename did nothing and the temporary name still exists.
            with suppress(FileNotFoundError):
                self._posix.unlink(temporary)
        return ""

    def _move(self, temporary: str, path: str, name: str) -> None:
        if self._passage is None:
            self._posix.rename(temporary, path)
        else:
            self._passage.bring(temporary, name)

    def publish_folder(self, name: str, files: Sequence[Publication]) -> bool:
        path = self._rooted.make_parents(name)[0] if self._passage is None else self._rooted.join(name)
        relative = [(below(name, file.name), file) for file in files]
        if self._rooted.look(path) is not None:  # rename would replace an empty folder
            return False
        temporary = self._scratch.build(relative, durable=not self._capabilities.append_log)
        try:
            self._move(temporary, path, name)
        except BaseException as error:
            with suppress(OSError):
                erase(self._rooted, temporary)
            if is_taken(error):
                return False
            raise
        return True

    def set_aside(self, name: str, aside: str) -> str | None:
        if not name:
            raise ValueError("the root itself cannot be set aside")
        try:
            path = self._rooted.path(name)
            self._posix.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if self._passage is not None:  # through the fence first: the second rename touches no name of the tree
            path = self._passage.take(path)
        target, _ = self._rooted.make_parents(aside)
        ending = self._rooted.unused_ending(target)
        try:
            self._posix.rename(path, target + ending)
        except FileNotFoundError:
            return None
        return aside + ending

    def make_folder(self, name: str, attribute: bytes | None = None) -> None:
        if self._passage is not None:
            self._passage.make_folder(name, attribute)
            return
        path = self._rooted.make_folder(name)
        if attribute is not None:
            set_attribute(self._posix, path, attribute)

    @undisturbed
    def stage(self, name: str) -> StagedFile:
        path, _ = self._rooted.make_parents(name)
        return LocalStagedFile(self._posix, self._posix.open(path, CREATE), path, self._handles)

    def stage_existing(self, source: str, name: str, *, share: bool) -> None:
        path, _ = self._rooted.make_parents(name)
        if not share or not self._scratch.link_durable(source, path):
            self._scratch.copy(source, path, None, durable=True)

    def sync_folder(self, name: str) -> None:
        for folder in [name, *parents(name)] if name else [""]:
            self._rooted.sync_folder(folder)

    def sync(self, touched: Iterable[str]) -> None:
        """See `Storage.sync`. A folder among `touched` means its entries, not the content of files in it."""
        if self._capabilities.append_log:
            try:
                self._posix.syncfs(self._rooted.fd)
                return
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
        self._rooted.sync_each(touched)

    def erase(self, name: str) -> None:
        if not name:
            raise ValueError("the root itself cannot be erased")
        if self.entry(name) is None:
            return
        path = self._rooted.path(name)
        if self._passage is not None:
            path = self._passage.take(path)
        with suppress(FileNotFoundError, NotADirectoryError):
            erase(self._rooted, path)

    # --- for committers on several hosts ---------------------------------------------------------------------------

    def versions(self, name: str) -> dict[str, str]:
        raise UnsupportedError(f"{self.url} has folders, not versions")

    def remove(self, name: str, expect: str) -> None:
        raise UnsupportedError(f"{self.url} has folders, not versions")

    def fenced(self, folder: str) -> LocalStorage:
        view = copy.copy(self)
        view._scratch = Scratch(self._rooted, folder, self._clock, make=False)
        view._passage = Passage(self._rooted, view._scratch)
        return view

    def retire(self, folder: str, aside: str) -> None:
        retire(self._rooted, folder, aside)

    # --- for the append log ----------------------------------------------------------------------------------------

    @undisturbed
    def open_file(self, name: str, *, writable: bool) -> RandomFile:
        fd = self._rooted.open_file(name, os.O_RDWR if writable else os.O_RDONLY)
        return LocalRandomFile(self._posix, fd, self._handles)

    def lock(self, name: str) -> Lock:
        split(name)
        return FileLock(self._rooted, name, self._clock, self._handles)

    def reset_after_fork(self) -> None:
        self._rooted.reopen()

    def close(self) -> None:
        if self._passage is not None:
            return
        with ExitStack() as closing:  # each, although another fails
            closing.callback(self._rooted.close)
            for handle in list(self._handles):
                if not (isinstance(handle, FileLock) and handle.is_at_work()):  # else that thread would go on without
                    closing.callback(handle.close)
