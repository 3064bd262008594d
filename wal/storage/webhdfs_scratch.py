"""Temporary files and folders on HDFS: completed in the scratch folder, then renamed into place.

Whether a rename took effect is decided by identity: HDFS numbers every file and folder, never reuses a number, and a
rename keeps it. So a process that knows the number of its temporary file can tell, even after a lost reply, whether
the target is that file.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from wal.clock import Clock
from wal.storage.base import Kind, Publication, Staged
from wal.storage.webhdfs_client import Client, Status
from wal.storage.webhdfs_files import chunks
from wal.storage.webhdfs_url import Address, check_name

_TURNS = 8  # how often a missing parent is made again when others remove it


@dataclass(frozen=True, slots=True)
class Temporary:
    """Something in the scratch folder."""

    path: str
    identity: int


class Scratch:
    """The folder for temporary names, and the renames from there into place.

    With a `fence`, a folder that is never made here, each change of the tree is a rename out of or into the fence.
    Files are created in it with createparent=false, which HDFS honours (3.3.6: FileNotFoundException, and no folder
    appears). There is no such flag for folders: MKDIRS would make a fence again that a successor has moved away. So
    folders are built in the ordinary scratch folder and enter the fence by a rename, which does not make parents.
    """

    def __init__(
        self, client: Client, address: Address, clock: Clock, folder: str, *, attributes: bool, fence: str | None = None
    ) -> None:
        self._client = client
        self._address = address
        self._clock = clock
        self._folder = address.join(folder)
        self._attributes = attributes
        self._fence = None if fence is None else address.join(fence)

    def fenced(self, fence: str) -> Scratch:
        """The same folder, with a fence."""
        folder = self._folder.removeprefix(self._address.join("")).lstrip("/")
        return Scratch(self._client, self._address, self._clock, folder, attributes=self._attributes, fence=fence)

    def path(self) -> str:
        """A new temporary path, in the fence if there is one."""
        return f"{self._fence or self._folder}/{self._token()}"

    def _token(self) -> str:
        return self._clock.token(12).hex()

    # --- making ----------------------------------------------------------------------------------------------------

    def write(self, content: bytes | Staged, attribute: bytes | None) -> Temporary:
        """Create a temporary file."""
        path = self.path()
        try:
            size = self._fill(path, content, attribute, parents=self._fence is None)
            return self._identify(path, size)
        except BaseException:
            self.remove(path)
            raise

    def _fill(self, path: str, content: bytes | Staged, attribute: bytes | None, *, parents: bool) -> int:
        """Create the file `path`; returns how large it must be. An error may leave a part of it."""
        if isinstance(content, Staged):
            status, source = self._source(content.name)
            size = status.size
            content.check(size)
            self._client.create(path, chunks(self._client, status, source), parents=parents)
        else:
            size = len(content)
            self._client.create(path, content, parents=parents)
        if attribute is not None and self._attributes:
            self._client.set_attribute(path, attribute)
        return size

    def _source(self, name: str) -> tuple[Status, str]:
        """The file `name` and its path. Raises FileNotFoundError, IsADirectoryError."""
        check_name(name)
        path = self._address.join(name)
        status = self._client.status(path)
        if status is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        if status.kind is Kind.FOLDER:
            raise IsADirectoryError(errno.EISDIR, "is a folder", path)
        return status, path

    def build(self, files: Sequence[tuple[str, Publication]]) -> Temporary:
        """Create a temporary folder with `files`, each under the given name relative to it."""
        path = f"{self._folder}/{self._token()}"
        try:
            # Folders are made here only, not again with each file: if someone clears the scratch folder in between, the
            # next step must fail, so that no part of the files is published.
            below = {relative.rpartition("/")[0] for relative, _ in files} - {""}
            for folder in sorted(below) if files else [""]:
                self._client.make_folder(f"{path}/{folder}".rstrip("/"))
            for number, (relative, file) in enumerate(files):
                first = number == 0 and not below
                self._fill(f"{path}/{relative}", file.content, file.attribute, parents=first)
            return self._enter(self._identify(path))
        except BaseException:
            self.remove(path)
            raise

    def _identify(self, path: str, size: int | None = None) -> Temporary:
        """What was made under this name. `size`: what a file must have."""
        status = self._client.status(path)
        if status is None:
            raise FileNotFoundError(errno.ENOENT, "the temporary file is gone: somebody moved its folder away", path)
        if size is not None and status.size != size:  # a DataNode closes a file whose writer's connection ends early
            raise OSError(errno.EIO, f"what was written has {status.size} bytes instead of {size}", path)
        return Temporary(path, status.identity)

    def _enter(self, built: Temporary) -> Temporary:
        """Move a finished folder into the fence, if there is one. Raises FileNotFoundError if the fence is gone."""
        if self._fence is None:
            return built
        path = f"{self._fence}/{self._token()}"
        self._client.rename(built.path, path, replace=False)
        return Temporary(path, built.identity)

    # --- placing -----------------------------------------------------------------------------------------------------

    def place(self, temporary: Temporary, target: str, *, replace: bool) -> bool:
        """Rename into place, making missing parents. False: the name is taken (never with `replace`).

        Either way the temporary name is gone afterwards. Raises IsADirectoryError, NotADirectoryError. After any other
        error nothing was done, unless its message says that this is unknown.
        """
        for _ in range(_TURNS):
            try:
                self._client.rename(temporary.path, target, replace=replace)
                return True
            except FileNotFoundError as error:
                if not self._made_parents(temporary, target):
                    return self._settle(temporary, target, error, replace=replace)
            except OSError as error:
                return self._settle(temporary, target, error, replace=replace)
        self.remove(temporary.path)
        raise FileNotFoundError(errno.ENOENT, "its folder is removed again and again", target)

    def _made_parents(self, temporary: Temporary, target: str) -> bool:
        """Make the target's parents; False if the temporary name itself is missing."""
        try:
            if self._client.status(temporary.path) is None:
                return False
            self.make_folder(target.rpartition("/")[0])
        except BaseException:
            self.remove(temporary.path)
            raise
        return True

    def _settle(self, temporary: Temporary, target: str, error: OSError, *, replace: bool) -> bool:
        """Find out whether a rename that ended with `error` took effect, after making sure that it no longer can."""
        try:
            # This comes first: a rename still in progress then finds no source.
            if self._unlink(temporary.path) and isinstance(error, FileExistsError):
                return False
            found = self._client.status(target)
        except OSError as failure:
            raise OSError(
                errno.EIO, f"unknown whether it was renamed into place: {error.strerror}", target
            ) from failure
        if found is not None and found.identity == temporary.identity:
            return True
        if found is not None and found.kind is Kind.FOLDER and replace:
            raise IsADirectoryError(errno.EISDIR, "is a folder", target) from error
        if found is None or replace or isinstance(error, FileNotFoundError):
            raise error
        return False

    def _unlink(self, path: str) -> bool:
        """Delete a temporary name; returns whether this call certainly deleted it."""
        try:
            return self._client.delete(path)
        except (ConnectionError, TimeoutError):
            self._client.delete(path)  # either call may have deleted it
            return False

    def make_folder(self, path: str, attribute: bytes | None = None) -> None:
        """Make a folder and its parents. Raises NotADirectoryError; FileNotFoundError if the fence is gone."""
        if not self._attributes:
            attribute = None
        if self._fence is None:
            try:
                self._client.make_folder(path)
            except FileExistsError as error:
                raise NotADirectoryError(errno.ENOTDIR, "is a file", path) from error
            if attribute is not None:
                self._client.set_attribute(path, attribute, replace=True)
            return
        for _ in range(_TURNS):
            top, below = self._missing(path)
            if top is None:
                return self._mark(path, attribute)
            if self._placed_shell(top, below, attribute):
                return None
        raise FileNotFoundError(errno.ENOENT, "its folder is removed again and again", path)

    def _mark(self, path: str, attribute: bytes | None) -> None:
        """Set the attribute of a folder that exists. The one step that no rename can fence: the fence is checked just
        before, and the folder is named by its number, so that a replacement is never marked."""
        if attribute is None:
            return
        folder = self._identify(path)
        if self._fence is not None and self._client.status(self._fence) is None:
            raise FileNotFoundError(errno.ENOENT, "the fence is gone", self._fence)
        self._client.set_attribute(Status(Kind.FOLDER, 0, folder.identity).path, attribute, replace=True)

    def _missing(self, path: str) -> tuple[str | None, str]:
        """(the topmost missing folder of `path`, None if none is missing; the rest of `path` below it)."""
        top, at = None, path
        while (status := self._client.status(at)) is None:
            top, at = at, at.rpartition("/")[0] or "/"
        if status.kind is not Kind.FOLDER:
            raise NotADirectoryError(errno.ENOTDIR, "is a file", at)
        return top, path[len(top) :] if top else ""

    def _placed_shell(self, top: str, below: str, attribute: bytes | None) -> bool:
        """Create `top`, with the empty folders `below` in it, through the fence; False if `top` exists by now."""
        shell = f"{self._folder}/{self._token()}"
        self._client.make_folder(shell + below)
        try:
            if attribute is not None:
                self._client.set_attribute(shell + below, attribute)
            entered = self._enter(self._identify(shell))
        except BaseException:
            self.remove(shell)
            raise
        try:
            self._client.rename(entered.path, top, replace=False)
        except OSError as error:
            return self._settle(entered, top, error, replace=False)
        return True

    # --- removing ----------------------------------------------------------------------------------------------------

    def take(self, path: str, status: Status) -> Temporary | None:
        """Rename `path` to a temporary name; None if it is gone. Raises FileNotFoundError if the fence is gone."""
        temporary = Temporary(self.path(), status.identity)
        return temporary if self.move(path, temporary.path, status) else None

    def move(self, source: str, target: str, status: Status) -> bool:
        """Rename `source`, which `status` describes; False if it is gone. Raises FileExistsError if the target is
        taken, FileNotFoundError if its folder is missing."""
        try:
            self._client.rename(source, target, replace=False)
        except FileNotFoundError:
            if self._client.status(source) is None:
                return False
            raise
        except OSError as error:
            found = self._client.status(target)
            if found is None:
                raise
            if found.identity != status.identity:
                raise FileExistsError(errno.EEXIST, "the name is taken", target) from error
        return True

    def move_aside(self, source: str, target: str, status: Status) -> str | None:
        """Rename `source` to `target`, with a number added if that is taken; returns what was added to the name, None
        if `source` is gone. Missing parents are made."""
        number, made = 0, 0
        while True:
            ending = f".{number}" if number else ""
            try:
                return ending if self.move(source, target + ending, status) else None
            except FileExistsError:
                number += 1
            except FileNotFoundError:
                if made == _TURNS:
                    raise
                self.make_folder(target.rpartition("/")[0])
                made += 1

    def remove(self, path: str) -> None:
        """Delete a temporary name. Errors are ignored: one that remains is harmless."""
        with suppress(OSError):
            self._client.delete(path)
