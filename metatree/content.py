"""Blob content: what `put` accepts, and what `get` and `open` return."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, cast

import wal

from .asking import Moved
from .draft import Draft
from .errors import BlobNotFoundError, CorruptionError, InvalidLocationError, SourceError
from .facts import BlobFact, Inline, Slice, Source
from .location import Path, check_inner, check_length, check_name, fold_name, join
from .staging import CHUNK, INLINE_BLOB, Staging

NewBlob = tuple[str, int, str, Source]  # name, size in bytes, sha256, where its content is


# --- in ---------------------------------------------------------------------------------------------------------------


def source_name(source: Any, name: str | None) -> str:
    """The name of the new blob. Raises InvalidLocationError for bytes or a file object without `name`, TypeError for
    anything that is not a source."""
    data = isinstance(source, (bytes, bytearray, memoryview))
    path = not data and isinstance(source, (str, os.PathLike))
    if not (data or path or hasattr(source, "read")):
        raise TypeError(f"a source is a path, a URL, bytes or a binary file object, not {type(source).__name__}")
    if name is not None:
        return check_name(name)
    if not path:
        raise InvalidLocationError("bytes and file objects have no name of their own: pass name='…'")
    text = os.fspath(source)
    return check_name(os.path.basename((text if isinstance(text, str) else os.fsdecode(text)).rstrip("/")))


def is_at_hand(source: Any) -> bool:
    """Whether the source is so small that checking its target before staging it saves nothing."""
    return isinstance(source, bytes) and len(source) <= INLINE_BLOB


def take_in(source: Any, name: str, staging: Staging, *, recursive: bool) -> list[NewBlob]:
    """Stage a source under `name`, as `source_name` returned it: one blob, or the files of a directory. Errors of the
    source are raised as SourceError."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return [(name, *staging.add_small(bytes(source)))]
    if not isinstance(source, (str, os.PathLike)):
        return [(name, *staging.add(_Source(source)))]
    files = _list(source)
    if files is None:
        with _open(source) as stream:
            return [(name, *staging.add(_Source(stream, source)))]
    if not recursive:
        raise SourceError(
            IsADirectoryError(f"{os.fspath(source)} is a directory: pass recursive=True to put all of it")
        )
    return _take_directory(name, files, staging)


class _Source:
    """A stream whose errors are raised as SourceError. `source`: what it was opened from, if we opened it."""

    def __init__(self, stream: Any, source: str | os.PathLike[str] = "") -> None:
        self._stream = stream
        self._source = source

    def read(self, size: int = -1, /) -> bytes:
        """Raises SourceError."""
        try:
            data = self._stream.read(size)
        except Exception as error:
            raise _failed(self._source, error) from error
        if not isinstance(data, (bytes, bytearray, memoryview)):
            kind = type(data).__name__
            raise SourceError(TypeError(f"the source must yield bytes, not {kind}: open it in binary mode"))
        return bytes(data)


def _take_directory(name: str, files: Sequence[tuple[str, str]], staging: Staging) -> list[NewBlob]:
    if not files:
        raise SourceError(FileNotFoundError("the directory holds no file: an empty directory cannot be a blob"))
    refuse_twins([inner for inner, _ in files])
    blobs: list[NewBlob] = []
    for inner, file in files:
        check_length((name, *map(check_inner, inner.split("/"))))
        with _open(file) as stream:
            blobs.append((f"{name}/{inner}", *staging.add(_Source(stream, file))))
    return blobs


def refuse_twins(files: Sequence[str]) -> None:
    """Raises InvalidLocationError if two names would be the same on a filesystem that folds case or Unicode form."""
    seen: dict[str, str] = {}
    for file in files:
        parts = file.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            other = seen.setdefault(fold_name(path), path)
            if other != path:
                raise InvalidLocationError(f"{path!r} and {other!r} differ only in case or form; rename one of them")


def _open(source: str | os.PathLike[str]) -> BinaryIO:
    try:
        return wal.open_source(source)
    except wal.UnsafePathError as error:
        raise _special(error, "put a regular file instead, or read it yourself and put the bytes") from error
    except Exception as error:
        raise _failed(source, error) from error


def _list(source: str | os.PathLike[str]) -> list[tuple[str, str]] | None:
    try:
        return wal.list_source(source)
    except wal.UnsafePathError as error:
        raise _special(error, "remove it, or put a copy in which links are files (cp -rL)") from error
    except Exception as error:
        raise _failed(source, error) from error


def _failed(source: str | os.PathLike[str], error: Exception) -> SourceError:
    """A built-in exception stays as it is, unless the URL may hold a secret; one of the library that reads the URL
    becomes an OSError with the URL."""
    url = os.fspath(source)
    if wal.local_path(url) is not None:
        return SourceError(error)
    shown = re.sub(r"//[^/?#]*@", "//", url).partition("?")[0]  # without user, password and signature
    kind = type(error)
    own = kind.__module__ == "builtins"
    if own and shown == url:
        return SourceError(error)
    why = f"{kind.__name__}: {error}" if shown == url else kind.__name__
    told = (kind if own and isinstance(error, OSError) else OSError)(f"{shown} cannot be read: {why}")
    told.__cause__ = error
    return SourceError(told)


def _special(error: OSError, advice: str) -> SourceError:
    """A link, FIFO or device in a source: for callers an ordinary OSError with its path."""
    return SourceError(OSError(error.errno, f"{error.strerror}; {advice}", error.filename))


# --- out --------------------------------------------------------------------------------------------------------------


class OpenBlob(NamedTuple):
    """A blob opened for reading: later changes of the tree do not change its content."""

    name: str  # for messages
    stream: BinaryIO
    size: int | None  # bytes, if known
    sha256: str | None  # None: the engine did not publish the file, so there is nothing to verify against
    in_place: bool = False  # the stream reads the blob's file, not a staged one

    def chunks(self) -> Iterator[bytes]:
        """A generator of bytes that raises CorruptionError at the end if they are not what was put."""
        generator = self._chunks()
        next(generator)  # up to its first yield: from then on closing the generator closes the stream
        return generator

    def _chunks(self) -> Iterator[bytes]:
        with self.stream as stream:
            yield b""
            hasher = hashlib.sha256()
            while chunk := stream.read(CHUNK):
                hasher.update(chunk)
                yield chunk
            if self.sha256 and hasher.hexdigest() != self.sha256:
                raise CorruptionError(
                    f"{self.name}: the file's content is not what was put (sha256 {hasher.hexdigest()}, not "
                    f"{self.sha256}): it was damaged or edited by hand; restore it or put it again"
                )


class _Part(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, stream: BinaryIO, offset: int, size: int) -> None:
        self._stream, self._start, self._size, self._at = stream, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence == 0 and offset < 0:
            raise ValueError(f"negative seek value {offset}")
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        self._stream.seek(self._start + self._at)
        data = self._stream.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _part(stream: BinaryIO, offset: int, size: int) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Part(stream, offset, size)))


def open_blob(storage: wal.Storage, draft: Draft, path: Path, name: str) -> OpenBlob:
    """Open a blob of a node in the draft's state. Raises BlobNotFoundError, NodeNotFoundError, Moved."""
    shown = join((*path, name)) if name else join(path)
    if not name:
        raise BlobNotFoundError(f"{shown or 'the root'} is a node, not a blob")
    draft.reads.name(path, name)
    fact, said = draft.view.blob(path, name)
    if fact is not None:
        return OpenBlob(shown, _open_fact(storage, draft, fact), fact.size, fact.sha256)
    try:
        if said:
            raise FileNotFoundError
        stream, attribute = draft.view.reader.open_file(path, name)
    except FileNotFoundError:
        draft.require_above(path, name)
        hint = " is a folder: use recursive=True" if draft.view.blob_files(path, name) else ": there is no such blob"
        raise BlobNotFoundError(f"{shown}{hint}") from None
    return OpenBlob(shown, stream, None, attribute.sha256 if attribute is not None else None, in_place=True)


def directory_files(draft: Draft, path: Path, name: str) -> list[str]:
    """The files of a directory blob, as blob names. Raises BlobNotFoundError, NodeNotFoundError, UnsafePathError if it
    holds a link, Moved."""
    draft.reads.name(path, name)
    files = draft.view.blob_files(path, name, whole=True) if name else []
    if not files:
        draft.require_above(path, name)
        raise BlobNotFoundError(f"{join((*path, name))} is not a directory blob")
    return files


def _open_fact(storage: wal.Storage, draft: Draft, fact: BlobFact) -> BinaryIO:
    try:
        match fact.source:
            case Slice(file, None):
                return storage.open(file)
            case Slice(file, offset):
                return _part(storage.open(file), offset or 0, fact.size)
            case Inline(data):
                return _part(io.BytesIO(data), 0, len(data))  # a BytesIO itself could be written to
    except FileNotFoundError as error:
        if draft.view.reader.restart():
            raise Moved from None  # another process's checkpoint has moved the blob to its final place
        raise CorruptionError(
            f"{join((*fact.path, fact.name))}: its content is in the log's staging area, but {error.filename or error} "
            "is missing; restore it from a backup, or put the blob again with force=True"
        ) from error
