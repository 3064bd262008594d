"""Reads files on HDFS in chunks, one of them in memory."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from wal.storage.webhdfs_client import Client, Status

CHUNK = 4 << 20  # bytes of one request, which takes about 30 ms


def open_reader(client: Client, status: Status, path: str) -> BinaryIO:
    """The file that `status` describes, even if it is renamed: see `Reader`. `path`: for messages."""
    first = download(client, status, path, 0, min(CHUNK, status.size))
    return cast(BinaryIO, io.BufferedReader(Reader(client, status, path, first), 1 << 16))


def download(client: Client, status: Status, path: str, offset: int, length: int) -> bytes:
    """Exactly `length` bytes of the file. Raises OSError with ESTALE if it is gone, OSError if bytes are missing."""
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
    """The file's content in chunks; none for an empty file."""
    for offset in range(0, status.size, CHUNK):
        yield download(client, status, path, offset, min(CHUNK, status.size - offset))


class Reader(io.RawIOBase):
    """Reads a file by its number, not by its name, so it never reads a replacement. HDFS drops a replaced file at once;
    reading more of it then raises OSError. The first chunk is read on opening, so a file of one chunk stays readable
    whatever happens to it.
    """

    def __init__(self, client: Client, status: Status, path: str, first: bytes) -> None:
        self._client = client
        self._status = status
        self._path = path
        self._chunk = first  # the last chunk read
        self._start = 0  # its offset in the file
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
        """Up to `length` bytes at the position; empty only at the end."""
        left = self._status.size - self._position
        if left <= 0 or not length:
            return memoryview(b"")
        if not self._start <= self._position < self._start + len(self._chunk):
            self._chunk = download(self._client, self._status, self._path, self._position, min(CHUNK, left))
            self._start = self._position
        within = self._position - self._start
        return memoryview(self._chunk)[within : within + length]
