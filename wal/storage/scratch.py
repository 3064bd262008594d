"""Temporary files and folders: completed in the scratch folder, then renamed or linked into place."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from wal.clock import Clock
from wal.interrupts import undisturbed
from wal.storage.base import Publication, Staged
from wal.storage.files import copy_content, get_attribute, set_attribute, write_all
from wal.storage.posix import NO_FOLLOW
from wal.storage.rooted import Rooted

# Errors for a link that cannot be made (other filesystem, too many links, no support): the content is copied instead.
_NO_LINK = {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP}
CREATE = os.O_CREAT | os.O_EXCL | os.O_RDWR | NO_FOLLOW


class Scratch:
    """The folder for temporary names. Only a crash leaves files there, and nobody reads them."""

    def __init__(self, rooted: Rooted, folder: str, clock: Clock, *, make: bool = True) -> None:
        """`make`: make the folder when it is needed, and again if it was removed."""
        self._rooted = rooted
        self._posix = rooted.posix
        self._folder = folder
        self._clock = clock
        self._place = rooted.make_folder if make else rooted.folder
        self._seen = (-1, -1)  # device and inode of the folder, once every folder above it was checked

    def path(self) -> str:
        """A new path in the folder, which exists."""
        path = self._rooted.join(self._folder)
        status = self._rooted.look(path)
        # It is the folder that was checked, so the folders above it need no check.
        if status is None or (status.st_dev, status.st_ino) != self._seen:
            self._place(self._folder)
            if status is not None and self._rooted.is_folder(status):
                self._seen = status.st_dev, status.st_ino
        return f"{path}/{self._clock.token(12).hex()}"

    def write(self, data: bytes, attribute: bytes | None, *, durable: bool) -> str:
        """Create a temporary file with `data`; returns its path."""
        path = self.path()
        self._fill(path, data, attribute, durable=durable)
        return path

    @undisturbed
    def _fill(self, path: str, data: bytes, attribute: bytes | None, *, durable: bool) -> None:
        fd = self._posix.open(path, CREATE)
        try:
            if data:
                write_all(self._posix, fd, data, 0)
            if attribute is not None:
                set_attribute(self._posix, fd, attribute)
            if durable:
                self._posix.fdatasync(fd)
        except BaseException:
            self._posix.close(fd)
            self.remove(path)
            raise
        self._posix.close(fd)

    def share(self, content: Staged, attribute: bytes, *, durable: bool) -> str:
        """Link or copy a staged file to a temporary path, which is returned. Raises CutShortError."""
        path = self.path()
        self._share(content, path, attribute, durable=durable)
        return path

    def _share(self, content: Staged, path: str, attribute: bytes, *, durable: bool) -> None:
        linked = not content.anew and self.link(content.name, path)
        if not linked:
            self.copy(content.name, path, attribute, durable=durable)
        try:
            if content.size is not None:
                content.check(self._posix.lstat(path).st_size)
            if linked and get_attribute(self._posix, path) != attribute:
                set_attribute(self._posix, path, attribute)
        except BaseException:
            self.remove(path)
            raise

    def link(self, name: str, path: str) -> bool:
        """Link the regular file `name` to `path`; False if that is not possible here."""
        source = self._rooted.path(name)
        self._rooted.check_file(source, self._posix.lstat(source))
        try:
            self._posix.link(source, path)
        except OSError as error:
            if error.errno in _NO_LINK:
                return False
            raise
        return True

    @undisturbed
    def link_durable(self, source: str, path: str) -> bool:
        """Make the content of `source` durable and link it to `path`; False if links are not possible here."""
        while True:
            fd = self._rooted.open_file(source, os.O_RDONLY)
            try:
                self._posix.fdatasync(fd)
                if not self.link(source, path):
                    return False
                if self._posix.fstat(fd).st_ino == self._posix.lstat(path).st_ino:
                    return True
            finally:
                self._posix.close(fd)
            self._posix.unlink(path)  # `source` was replaced after the flush: this content was not flushed

    @undisturbed
    def copy(self, name: str, path: str, attribute: bytes | None, *, durable: bool) -> None:
        """Copy the file `name` to the new file `path`; `attribute` None: with the source's."""
        source = self._rooted.open_file(name, os.O_RDONLY)
        try:
            target = self._posix.open(path, CREATE)
            try:
                copy_content(self._posix, source, target)
                attached = get_attribute(self._posix, source) if attribute is None else attribute
                if attached is not None:
                    set_attribute(self._posix, target, attached)
                if durable:
                    self._posix.fdatasync(target)
            except BaseException:
                self._posix.close(target)
                self.remove(path)
                raise
            self._posix.close(target)
        finally:
            self._posix.close(source)

    def build(self, files: list[tuple[str, Publication]], *, durable: bool) -> str:
        """Create a temporary folder with `files`, each under the given name relative to it; returns its path."""
        path = self.path()
        self._posix.mkdir(path)
        try:
            made = {path}
            for relative, file in files:
                folder = path
                for segment in relative.split("/")[:-1]:
                    folder = f"{folder}/{segment}"
                    if folder not in made:
                        self._posix.mkdir(folder)
                        made.add(folder)
                target = f"{path}/{relative}"
                if isinstance(file.content, Staged):
                    self._share(file.content, target, file.attribute, durable=durable)
                else:
                    self._fill(target, file.content, file.attribute, durable=durable)
        except BaseException:
            with suppress(OSError):
                erase(self._rooted, path)
            raise
        return path

    def link_new(self, temporary: str, path: str) -> bool:
        """Link a temporary file to `path`; False if `path` exists."""
        try:
            self._posix.link(temporary, path)
        except FileExistsError:
            # A network filesystem may repeat a call whose reply was lost, and then find its own link.
            return self._posix.lstat(temporary).st_nlink == 2
        return True

    def remove(self, path: str) -> None:
        """Remove a temporary file. Errors are ignored: one that remains is harmless."""
        with suppress(OSError):
            self._posix.unlink(path)


def erase(rooted: Rooted, path: str) -> None:
    """Delete a file, a link, or a folder with everything in it; links are not followed. No error if absent."""
    status = rooted.look(path)
    if status is None:
        return
    posix = rooted.posix
    with suppress(FileNotFoundError):
        if rooted.is_folder_here(path, status):
            for name in posix.listdir(path):
                erase(rooted, f"{path}/{name}")
            posix.rmdir(path)
        else:
            posix.unlink(path)
