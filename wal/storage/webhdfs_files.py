"""Files on HDFS that are read or written in parts, with no more than a chunk of them in memory."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, BinaryIO, cast

from wal.storage.webhdfs_client import Client, Status

CHUNK = 4 << 20  # bytes; a request each, and a read of it takes about 30 ms


def open_reader(client: Client, status: Status, path: str) -> BinaryIO:
    """The file that `status` describes, pinned: see `Reader`. `path` is its name in messages."""
    first = download(client, status, path, 0, min(CHUNK, status.size))
    return cast(BinaryIO, io.BufferedReader(Reader(client, status, path, first), 1 << 16))


def download(client: Client, status: Status, path: str, offset: int, length: int) -> bytes:
    """Exactly `length` bytes of this very file. Raises OSError (ESTALE) if it is gone, OSError if bytes are missing."""
    if not length:
        return b""
    try:
        data = client.download(status.path, offset, length)
    except FileNotFoundError:
        raise OSError(errno.ESTALE, "was replaced or removed while it was read", path) from None
    if len(data) != length:
        raise OSError(errno.EIO, f"{len(data)} bytes instead of {length} at {offset}", path)
    return data


def chunks(client: Client, status: Status, path: str) -> Iterator[bytes]:
    """All of the file, in parts; an empty file has none."""
    for offset in range(0, status.size, CHUNK):
        yield download(client, status, path, offset, min(CHUNK, status.size - offset))


class Reader(io.RawIOBase):
    """A file by its number, not by its name: what replaces it is never read. HDFS drops a file that was replaced at
    once, so what was not read until then raises OSError. The first chunk was read at opening: a file of one chunk, as
    almost every small one is, stays readable whatever happens to it.
    """

    def __init__(self, client: Client, status: Status, path: str, first: bytes) -> None:
        self._client = client
        self._status = status
        self._path = path
        self._chunk = first  # what was read last
        self._start = 0  # where it lies in the file
        self._position = 0

    @property
    def name(self) -> str:
        """The file's path on HDFS."""
        return self._path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._status.size}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}, before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        part = self._part(len(view))
        view[: len(part)] = part
        self._position += len(part)
        return len(part)

    def readall(self) -> bytes:
        parts = []
        while part := self._part(CHUNK):
            parts.append(bytes(part))
            self._position += len(part)
        return b"".join(parts)

    def _part(self, length: int) -> memoryview:
        """Up to `length` bytes at the position; none only at the end."""
        left = self._status.size - self._position
        if left <= 0 or not length:
            return memoryview(b"")
        if not self._start <= self._position < self._start + len(self._chunk):
            self._chunk = download(self._client, self._status, self._path, self._position, min(CHUNK, left))
            self._start = self._position
        within = self._position - self._start
        return memoryview(self._chunk)[within : within + length]


class HdfsStagedFile:
    """A staged file. Its name is taken when the first chunk is full, or at the end: till then it is in memory."""

    def __init__(self, client: Client, path: str, *, attributes: bool) -> None:
        self._client = client
        self._path = path
        self._attributes = attributes
        self._buffer = bytearray()
        self._created = False
        self._closed = False

    def write(self, data: bytes | memoryview) -> None:
        """More content. Raises FileExistsError if another one took the name in the meantime."""
        if self._closed:
            raise ValueError("the staged file is closed")
        self._buffer += data
        while len(self._buffer) >= CHUNK:
            self._flush()

    def finish(self, attribute: bytes) -> None:
        if self._buffer or not self._created:
            self._flush()
        if self._attributes:
            self._client.set_attribute(self._path, attribute)
        self._closed = True

    def _flush(self) -> None:
        chunk = bytes(self._buffer[:CHUNK])
        if self._created:
            self._client.append(self._path, chunk)
        else:
            self._client.create(self._path, chunk, parents=True)
            self._created = True
        del self._buffer[:CHUNK]

    def abandon(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._created:  # else the name may be another's
            with suppress(FileNotFoundError):
                self._client.delete(self._path)

    def __enter__(self) -> HdfsStagedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()
