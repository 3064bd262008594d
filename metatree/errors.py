"""Every error this package raises: one class for each reaction of the caller.

    MetatreeError
    ├── ConflictError            another commit changed what this one relied on: run the transaction again
    ├── LockTimeoutError         a lock was not free in time (also TimeoutError); names its holder
    ├── UnavailableError         the storage failed or this handle must be reopened (also OSError): try later
    ├── CommitUnknownError       the outcome of the commit is unknown: ask `tree.status(error.txid)`, then decide
    ├── CorruptionError          stop and run `check()`; names the file and what is wrong with it
    ├── FormatError              written by a newer version, or not by this program: upgrade
    ├── ReadOnlyError            this tree was opened for reading, or its storage cannot be written
    ├── ClosedError              the tree was closed
    ├── TransactionError         the transaction cannot be used this way (nested, finished, …)
    ├── InvalidLocationError     not a location of this tree (also ValueError)
    ├── InvalidMetadataError     a value that metadata.json cannot hold, or a reserved key (also ValueError)
    ├── NodeNotFoundError        (also KeyError)
    ├── BlobNotFoundError        (also FileNotFoundError)
    ├── NodeExistsError          (also FileExistsError)
    ├── BlobExistsError          (also FileExistsError)
    └── UnsupportedStorageError  this storage lacks a required guarantee; says which, and what to do

`ApplyPendingWarning` is not an error: the commit is durable, but its files are not in place yet.
Errors of a *source* passed to `put` (missing, unreadable, failing half way) are raised unchanged, as is that of a
missing folder for a download. A link or special file in a source is an OSError with its path; an exception class of
the library that reads a URL becomes an OSError with the URL.
"""

from __future__ import annotations

import errno
import sys
import warnings
from types import FrameType, TracebackType

import wal


class MetatreeError(Exception):
    """Base of all errors of this package."""


class ConflictError(MetatreeError):
    """Another commit changed what this one read or relied on; nothing was committed."""


class LockTimeoutError(MetatreeError, TimeoutError):
    """A lock was not free in time; nothing was changed."""


class UnavailableError(MetatreeError, OSError):
    """The storage failed; nothing was committed."""


class CommitUnknownError(MetatreeError):
    """The outcome of a commit is unknown. Pass `txid` to `tree.status`."""

    def __init__(self, message: str, txid: str) -> None:
        super().__init__(message)
        self.txid = txid

    def __reduce__(self) -> tuple[type[CommitUnknownError], tuple[str, str]]:
        return type(self), (str(self), self.txid)


class CorruptionError(MetatreeError):
    """Something durable does not read back as it was written."""


class FormatError(MetatreeError):
    """Written in a format this version does not know."""


class ReadOnlyError(MetatreeError):
    """A change was attempted on a tree that can only be read."""


class ClosedError(MetatreeError):
    """The tree was used after `close()`."""


class TransactionError(MetatreeError):
    """A transaction was nested, entered twice or used after its end."""


class InvalidLocationError(MetatreeError, ValueError):
    """Not a valid location of this tree."""


class InvalidMetadataError(MetatreeError, ValueError):
    """A value that metadata.json cannot hold, or a reserved key."""


class NodeNotFoundError(MetatreeError, KeyError):
    """The node does not exist."""

    __str__ = Exception.__str__  # KeyError would quote the sentence


class BlobNotFoundError(MetatreeError, FileNotFoundError):
    """The node exists, but has no such blob."""


class NodeExistsError(MetatreeError, FileExistsError):
    """A node of this name already exists."""


class BlobExistsError(MetatreeError, FileExistsError):
    """A blob of this name already exists."""


class UnsupportedStorageError(MetatreeError):
    """The storage lacks a required guarantee."""


class ApplyPendingWarning(UserWarning):
    """A commit is durable, but its files are not in place yet; `tree.flush()` retries and raises the reason."""


def warn_pending(failure: str) -> None:
    """Warn of a commit whose files are not in place yet, for the line outside of this package that made it."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and _is_ours(frame):
        frame, level = frame.f_back, level + 1
    message = f"the commit is durable, but its files are not in place yet: {failure}. flush() tries again"
    warnings.warn(message, ApplyPendingWarning, stacklevel=level)


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == __name__.partition(".")[0]


class SourceError(Exception):
    """Internal: carries an exception from the caller's source through `translated`."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


_FROM_WAL: tuple[tuple[type[Exception], type[MetatreeError]], ...] = (
    (wal.LogCorruptionError, CorruptionError),
    (wal.LogMissingError, CorruptionError),
    (wal.LogFormatError, FormatError),
    (wal.LockBusyError, LockTimeoutError),
    (wal.PoisonedError, UnavailableError),
    (wal.LogClosedError, ClosedError),
    (wal.UnsupportedError, UnsupportedStorageError),
)


class translated:
    """Translate errors of the layers below into those of this package, with the original as the cause."""

    __slots__ = ("_root",)

    def __init__(self, root: str = "") -> None:
        """`root`: named in the message of an error that names no file."""
        self._root = root

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, MetatreeError):
            return
        if isinstance(error, SourceError):
            raise error.error from error.error.__cause__
        if isinstance(error, wal.WalError):
            raise _ours(error)(str(error)) from error
        if isinstance(error, wal.UnsafePathError):
            raise InvalidLocationError(str(error)) from error
        if isinstance(error, OSError) and not is_from_handler(error):
            if error.errno == errno.EBADF:  # only closing takes a descriptor from a thread at work
                raise ClosedError("the tree was closed meanwhile; open it again with Metatree(root)") from error
            if isinstance(error, (IsADirectoryError, NotADirectoryError)):  # of the storage: trying again cannot help
                raise CorruptionError(_wrong_kind(error, self._root)) from error
            where = f"{self._root}: " if self._root and not error.filename else ""
            raise UnavailableError(f"{where}{error}; nothing was changed{_advice(error)}") from error


def is_from_handler(error: BaseException) -> bool:
    """Whether it is a time-out that a program's own signal handler has raised: those of storages have a number."""
    return isinstance(error, TimeoutError) and error.errno is None and not isinstance(error, wal.WalError)


def raise_from_handler(error: BaseException) -> None:
    """Raise it again if `is_from_handler`."""
    if is_from_handler(error):
        raise error


def _wrong_kind(error: OSError, root: str) -> str:
    file = error.filename or root
    if isinstance(error, IsADirectoryError):
        return f"{file} is a folder where the tree has a file: move it away and restore the file from a backup"
    return f"{file}, or what it lies in, is a file where the tree has a folder: move the file away"


def _ours(error: wal.WalError) -> type[MetatreeError]:
    return next((ours for kind, ours in _FROM_WAL if isinstance(error, kind)), UnavailableError)


_SHORT = {errno.ENOSPC: "the disk is full: free space", errno.EDQUOT: "the quota is used up: free space or raise it"}


def shortage(error: BaseException | None) -> str:
    """What is short and what to do, if an error or its cause says that there is no space; otherwise ""."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _SHORT:
            return _SHORT[error.errno]
        error = error.__cause__
    return ""


def reason(error: Exception) -> str:
    """An error as the reason for something else."""
    short = shortage(error)
    return f"{type(error).__name__}: {error}" + (f" ({short})" if short else "")


def _advice(error: OSError) -> str:
    """Advice to retry, unless retrying cannot help: permission denied, or a missing bucket."""
    if short := shortage(error):
        return f". {short[:1].upper()}{short[1:]}, then try again"
    lasting = isinstance(error, PermissionError) or error.errno == errno.ENXIO
    return "" if lasting else ", try again when the storage is back"
