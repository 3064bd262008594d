"""A lock between processes and threads, released by its holder's death: flock(2) on a file or folder.

flock belongs to the open file, so each `FileLock` opens the path itself, and two of them exclude each other even in
one process. Not guaranteed: exclusion between hosts, or on filesystems that only pretend to lock.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref

from wal.clock import Clock
from wal.interrupts import safe_point
from wal.storage.files import Handles
from wal.storage.kernel import describe_holders
from wal.storage.posix import FOLDER_ONLY, NO_BLOCK, NO_FOLLOW
from wal.storage.rooted import Rooted

_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()
_FIRST_PAUSE = 50e-6
_LONGEST_PAUSE = 2e-3


class FileLock:
    """`Lock` on one name. Each object is one holder, and two threads that share it exclude each other too."""

    def __init__(self, rooted: Rooted, name: str, clock: Clock, handles: Handles) -> None:
        self._rooted = rooted
        self._posix = rooted.posix
        self._name = name
        self._clock = clock
        self._handles = handles
        self._was_folder = False
        # A file lock does not exclude threads that share the descriptor, hence a second lock before it.
        self._thread = threading.Lock()
        self._fd = -1
        self._held = False
        self._holder: threading.Thread | None = None  # the last one
        self._pid = os.getpid()
        _locks.add(self)

    def acquire(self, *, shared: bool = False, timeout: float | None = None) -> bool:
        """Take the lock, waiting up to `timeout` seconds (None: for ever, 0: not at all); False if not free in time."""
        self._disown_if_forked()
        left = timeout
        if not self._thread.acquire(blocking=False):
            begun = self._clock.monotonic()
            if not self._thread.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
                return False
            left = None if timeout is None else begun + timeout - self._clock.monotonic()
        try:
            self._holder = threading.current_thread()
            self._held = self._take(shared, block=False) or self._wait(shared, left)
        finally:
            if not self._held:
                self._thread.release()
        return self._held

    def release(self) -> None:
        """Release it; releasing a lock that is not held does nothing."""
        self._disown_if_forked()
        if not self._held:
            return
        try:
            self._posix.funlock(self._fd)
        except OSError:
            # Closing releases the lock too, so no error is raised: it would hide the error of the work just done.
            self._close_fd()
        except BaseException:
            self._close_fd()
            raise
        finally:
            if self._held:  # otherwise a signal handler of this thread has closed the storage
                self._held = False
                self._thread.release()

    def is_at_work(self) -> bool:
        """Whether another thread holds it, and lives to release it."""
        holder = self._holder
        return self._held and holder is not None and holder is not threading.current_thread() and holder.is_alive()

    def holder(self) -> str:
        """Who holds it, for an error message. May be outdated when it is read."""
        return describe_holders(self._posix, self._rooted.path(self._name))

    def disown(self) -> None:
        """In a forked child: close the inherited descriptor. LOCK_UN here would release the parent's lock."""
        self._close_fd()
        self._held = False
        self._thread = threading.Lock()  # the thread that held it does not exist in this process
        self._pid = os.getpid()

    def _disown_if_forked(self) -> None:
        # A forked child shares the open file, so it would count as the holder, and its unlock would be the parent's.
        if self._pid != os.getpid():
            self.disown()

    def close(self) -> None:
        """Release the lock, if held, and the descriptor. The file stays: deleting it would let a second holder in."""
        self.release()
        self._close_fd()

    def _wait(self, shared: bool, timeout: float | None) -> bool:
        if timeout is None:
            return self._take(shared, block=True)
        deadline, pause = self._clock.monotonic() + timeout, _FIRST_PAUSE
        while (left := deadline - self._clock.monotonic()) > 0:
            jitter = 0.5 + self._clock.token(1)[0] / 512  # so that waiters that started together do not stay in step
            self._clock.sleep(min(pause * jitter, left))
            safe_point()
            if self._take(shared, block=False):
                return True
            pause = min(pause * 2, _LONGEST_PAUSE)
        return False

    def _take(self, shared: bool, *, block: bool) -> bool:
        """flock, then make sure that the path still refers to what was locked: it may have been replaced."""
        while True:
            if self._fd < 0:
                self._fd = self._open()
                self._handles.add(self)
            try:
                taken = self._posix.flock(self._fd, shared=shared, block=block)
                if not taken or self._is_current():
                    return taken
            except BaseException:
                self._close_fd()  # it may have been taken
                raise
            self._close_fd()

    def _is_current(self) -> bool:
        # The folders above need no check: whatever they are, this is the file that was locked, or it is not.
        ours, there = self._posix.fstat(self._fd), self._rooted.look(self._rooted.join(self._name))
        return there is not None and (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)

    def _open(self) -> int:
        path = self._rooted.path(self._name)
        status = self._rooted.look(path)
        if status is not None and self._rooted.is_folder(status):
            self._was_folder = True
            return self._posix.open(path, os.O_RDONLY | FOLDER_ONLY | NO_FOLLOW)
        if status is None:
            if self._was_folder:  # the folder was removed: creating a file in its place would hide that
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            # Open for writing, as NFS maps flock to a lock on bytes that needs it.
            return self._posix.open(path, os.O_RDWR | os.O_CREAT | NO_FOLLOW | NO_BLOCK)
        return self._rooted.open_path(path, status, os.O_RDWR)[0]

    def _close_fd(self) -> None:
        self._handles.discard(self)
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._posix.close(fd)


def _disown_all() -> None:
    """In a forked child: without this, a child that never uses its locks would hold them beyond its parent's death."""
    for lock in list(_locks):
        lock.disown()


os.register_at_fork(after_in_child=_disown_all)
