"""Everything `wal` raises, one class for each reaction of the caller.

    WalError
    ├── LogMissingError        there is no log here (wrong path, or it was removed)
    ├── LogFormatError         written by a newer version, or of an unknown kind: upgrade
    ├── LogCorruptionError     stop: names the file and the offset, and what is lost
    ├── LockBusyError          a lock was not free in time; names its holder (also a TimeoutError)
    ├── InDoubtError           an append failed after its bytes may have reached the storage
    ├── PoisonedError          an earlier flush failed: reopen the log (also an OSError)
    ├── RightLostError         another committer has taken over, and will finish the work
    ├── LogClosedError         the handle was closed
    └── UnsupportedError       this storage lacks a required guarantee; says what to do instead

Errors of the operating system itself (`OSError`) pass through unchanged.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

# what systems answer to a flush of a file that is open for reading only, or on a read-only mount
CANNOT_SYNC = {errno.EBADF, errno.EINVAL, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSYS, errno.ENOTSUP}


class CutShortError(OSError):
    """Staged content is not of the size that it had when it was staged; nothing was published."""


class WalError(Exception):
    """Base of all errors of this package."""


class LogMissingError(WalError):
    """There is no log where one must be."""


class LogFormatError(WalError):
    """The log was written by a newer version or is of an unknown kind."""


class LogCorruptionError(WalError):
    """Bytes that were once durable no longer read back. Nothing was changed.

    `file` is the object's name on the storage, `offset` the first bad byte in it.
    """

    def __init__(self, message: str, *, file: str, offset: int = 0) -> None:
        super().__init__(f"{message} (file {file}, offset {offset})")
        self.message = message
        self.file = file
        self.offset = offset

    def __reduce__(self) -> tuple[object, ...]:
        return _corruption, (self.message, self.file, self.offset)


def _corruption(message: str, file: str, offset: int) -> LogCorruptionError:
    return LogCorruptionError(message, file=file, offset=offset)


class LockBusyError(WalError, TimeoutError):
    """A lock was not free within the time allowed; the message names its holder."""


class InDoubtError(WalError):
    """The append failed when its bytes may already be durable: the outcome is unknown."""


class PoisonedError(WalError, OSError):
    """An earlier flush through this handle failed, so it appends nothing more."""


class RightLostError(WalError):
    """Another host took over the right to apply, presuming this one dead."""


class LogClosedError(WalError):
    """The handle was used after `close()`."""


class UnsupportedError(WalError):
    """The storage lacks a required guarantee."""


class Translating:
    """Context manager that hands each OSError to `translate`, which raises it, or what it means for the log."""

    __slots__ = ("_translate",)

    def __init__(self, translate: Callable[[OSError], NoReturn]) -> None:
        self._translate = translate

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            self._translate(error)
