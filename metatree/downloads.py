"""Downloads: a blob, or the files of a directory blob, as local files. Imported on the first download."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress

import wal

from .content import OpenBlob
from .errors import BlobExistsError


def download(blob: OpenBlob, target: str) -> None:
    """Write a blob to a new local file: complete and verified, or not at all. Raises FileExistsError."""
    with wal.DeferredInterrupt():
        folder = os.path.dirname(os.path.abspath(target))
        descriptor, temporary = tempfile.mkstemp(prefix=".metatree-", dir=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in blob.chunks():
                    file.write(chunk)
                    wal.safe_point()
            os.chmod(temporary, 0o666 & ~_umask())
            os.link(temporary, target)  # unlike a rename, this never replaces a file
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)


def download_all(blobs: Iterable[tuple[str, OpenBlob]], target: str) -> None:
    """Write the files of a directory blob (relative name, blob) to a new local folder: all of them or nothing."""
    with wal.DeferredInterrupt():
        temporary = tempfile.mkdtemp(prefix=".metatree-", dir=os.path.dirname(os.path.abspath(target)))
        try:
            for inner, blob in blobs:
                place = os.path.join(temporary, *inner.split("/"))
                os.makedirs(os.path.dirname(place), exist_ok=True)
                download(blob, place)
            os.chmod(temporary, 0o777 & ~_umask())
            refuse_existing(target)
            os.rename(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def check_target(target: str) -> None:
    """Raises BlobExistsError if a download would replace something; FileNotFoundError, NotADirectoryError or
    PermissionError, with the target's folder, if that cannot hold it."""
    if os.path.isdir(target) or not os.path.basename(target):
        raise BlobExistsError(f"{target!r} is a folder: pass the name of a new file, such as one in it")
    refuse_existing(target)
    folder = os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(folder):
        code = errno.ENOTDIR if os.path.lexists(folder) else errno.ENOENT
        raise OSError(code, "the folder of a download must exist: create it first", folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "the folder of the download is not writable", folder)


def refuse_existing(target: str) -> None:
    """Raises BlobExistsError if a download would replace something."""
    if os.path.lexists(target):
        raise BlobExistsError(f"{target} exists; a download never replaces a file, choose another outfile")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
