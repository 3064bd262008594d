"""Through a fence: every change of the tree is one rename out of, or into, the folder of its holder.

Once a successor has retired that folder, each of these renames fails for want of a name. So nothing is made in the
tree but by a rename: folders that are missing above a file come with it, in the same rename.
"""

from __future__ import annotations

import errno
from contextlib import suppress

from wal.storage.files import set_attribute
from wal.storage.rooted import Rooted, split
from wal.storage.scratch import Scratch, erase

EXISTS = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
_TURNS = 5  # times that another may make, meanwhile, what is missing


class Passage:
    """Changes through one fence."""

    def __init__(self, rooted: Rooted, scratch: Scratch) -> None:
        """`scratch`: the fence's folder, never made."""
        self._rooted = rooted
        self._posix = rooted.posix
        self._scratch = scratch

    def bring(self, temporary: str, name: str) -> None:
        """Rename `temporary`, which lies behind the fence, to `name`, with the folders that are missing above it."""
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
                with suppress(OSError):  # only litter, behind the fence
                    erase(self._rooted, shell)
        raise OSError(errno.EAGAIN, "its folder is made and removed again and again", self._rooted.join(name))

    def make_folder(self, name: str, attribute: bytes | None) -> None:
        """A folder with its parents; `attribute` on the last, whether it is new or not."""
        for _ in range(_TURNS):
            top, below = self._missing(f"{name}/x")
            shell, inner = self._shell(below[:-1])  # also where nothing is missing: it asks whether the fence stands
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
        """Rename what stands under `path` to a temporary name behind the fence; that name."""
        temporary = self._scratch.path()
        self._posix.rename(path, temporary)
        return temporary

    def _missing(self, name: str) -> tuple[str, list[str]]:
        """The topmost missing folder above `name` and the segments below it; the path of `name` and none, if all are
        there."""
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
        """New empty folders behind the fence, one in the other; the outermost and the innermost."""
        shell = inner = self._scratch.path()
        self._posix.mkdir(shell)
        for segment in below:
            inner = f"{inner}/{segment}"
            self._posix.mkdir(inner)
        return shell, inner

    def _entered(self, shell: str, top: str) -> bool:
        """Whether `shell` stands under `top` now; False if that was made meanwhile."""
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
    """See `Storage.retire`. Moving the folder takes its name away, but a host that has it at hand (NFS remembers what a
    name meant) goes on working in it, wherever it lies. So it is emptied, and removed: then no handle leads there."""
    leaving = f"{aside}.leaving"
    target, _ = rooted.make_parents(f"{aside}/x")
    kept = target.rpartition("/")[0]
    with suppress(FileNotFoundError, NotADirectoryError):  # an earlier call may have come so far
        rooted.posix.rename(rooted.path(folder), rooted.join(leaving))
    while True:
        path = rooted.join(leaving)
        try:
            for name in rooted.posix.listdir(path):
                with suppress(FileNotFoundError):  # another successor does the same
                    rooted.posix.rename(f"{path}/{name}", f"{kept}/{name}{rooted.unused_ending(f'{kept}/{name}')}")
            rooted.posix.rmdir(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in EXISTS:  # else its holder has put something there meanwhile
                raise


def is_taken(error: BaseException) -> bool:
    """Whether a rename failed since something stands under the new name."""
    return isinstance(error, OSError) and error.errno in EXISTS
