"""Changes through a fence: every change of the tree is one rename out of, or into, the holder's folder.

Once a successor has retired that folder, each of these renames fails, since its path no longer exists. So everything in
the tree is created by a rename: missing folders above a file come with it, in the same rename.
"""

from __future__ import annotations

import errno
from contextlib import suppress

from wal.storage.files import set_attribute
from wal.storage.rooted import Rooted, split
from wal.storage.scratch import Scratch, erase

EXISTS = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
_TURNS = 5  # attempts while other processes make and remove the missing folders


class Passage:
    """Changes through one fence."""

    def __init__(self, rooted: Rooted, scratch: Scratch) -> None:
        """`scratch`: of the fence's folder, which is never made here."""
        self._rooted = rooted
        self._posix = rooted.posix
        self._scratch = scratch

    def bring(self, temporary: str, name: str) -> None:
        """Rename `temporary`, which is behind the fence, to `name`, together with missing folders above it."""
        for _ in range(_TURNS):
            top, below = self._missing(name)
            if not below:
                self._rooted.check_place(top)
                self._posix.rename(temporary, top)
                return
            shell, inner = self._shell(below[:-1])
            try:
                self._posix.rename(temporary, f"{inner}/{below[-1]}")
                if self._entered(shell, top):
                    return
                self._posix.rename(f"{inner}/{below[-1]}", temporary)
            finally:
                with suppress(OSError):  # what remains behind the fence is harmless
                    erase(self._rooted, shell)
        raise OSError(errno.EAGAIN, "its folder is made and removed again and again", self._rooted.join(name))

    def make_folder(self, name: str, attribute: bytes | None) -> None:
        """Make a folder and its parents; sets `attribute` of the folder, whether it is new or not."""
        for _ in range(_TURNS):
            top, below = self._missing(f"{name}/x")
            shell, inner = self._shell(below[:-1])  # even if nothing is missing, since it fails if the fence is gone
            try:
                if not below:
                    if attribute is not None:
                        set_attribute(self._posix, self._rooted.folder(name), attribute)
                    return
                if attribute is not None:
                    set_attribute(self._posix, inner, attribute)
                if self._entered(shell, top):
                    return
            finally:
                with suppress(OSError):
                    erase(self._rooted, shell)
        raise OSError(errno.EAGAIN, "it is made and removed again and again", self._rooted.join(name))

    def take(self, path: str) -> str:
        """Rename `path` to a temporary name behind the fence; returns that name."""
        temporary = self._scratch.path()
        self._posix.rename(path, temporary)
        return temporary

    def _missing(self, name: str) -> tuple[str, list[str]]:
        """(path of the topmost missing folder above `name`, segments below it). If none is missing: (path of `name`,
        no segments)."""
        path, segments = self._rooted.root, split(name)
        if not segments:
            raise ValueError("the root itself cannot be written")
        for index, segment in enumerate(segments[:-1]):
            path = f"{path}/{segment}"
            status = self._rooted.look(path)
            if status is None:
                return path, segments[index + 1 :]
            self._rooted.check_folder(path, status)
        return f"{path}/{segments[-1]}", []

    def _shell(self, below: list[str]) -> tuple[str, str]:
        """Make nested empty folders behind the fence; returns (outermost, innermost)."""
        shell = inner = self._scratch.path()
        self._posix.mkdir(shell)
        for segment in below:
            inner = f"{inner}/{segment}"
            self._posix.mkdir(inner)
        return shell, inner

    def _entered(self, shell: str, top: str) -> bool:
        """Rename `shell` to `top`; False if `top` exists by now."""
        if self._rooted.look(top) is not None:  # rename would replace an empty folder
            return False
        try:
            self._posix.rename(shell, top)
        except OSError as error:
            if error.errno in EXISTS:
                return False
            raise
        return True


def retire(rooted: Rooted, folder: str, aside: str) -> None:
    """See `Storage.retire`. After a rename of the folder, a host that has a handle on it (NFS caches what a name refers
    to) can still work in it. So the folder is emptied and removed: then every handle is invalid."""
    leaving = f"{aside}.leaving"
    target, _ = rooted.make_parents(f"{aside}/x")
    kept = target.rpartition("/")[0]
    with suppress(FileNotFoundError, NotADirectoryError):  # an earlier call may have done this
        rooted.posix.rename(rooted.path(folder), rooted.join(leaving))
    while True:
        path = rooted.join(leaving)
        try:
            for name in rooted.posix.listdir(path):
                with suppress(FileNotFoundError):  # another successor has done it
                    rooted.posix.rename(f"{path}/{name}", f"{kept}/{name}{rooted.unused_ending(f'{kept}/{name}')}")
            rooted.posix.rmdir(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in EXISTS:  # otherwise its holder has put something there
                raise


def is_taken(error: BaseException) -> bool:
    """Whether a rename failed because the new name exists."""
    return isinstance(error, OSError) and error.errno in EXISTS
