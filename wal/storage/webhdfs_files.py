"""Files on HDFS that are read in parts, with no more than a chunk of them in memory."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
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
