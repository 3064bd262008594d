"""Reads an object: a small one with one request, a large one in ranges of a single version."""

from __future__ import annotations

import errno
import io
import os
from typing import BinaryIO, cast

from wal.storage.s3_client import Object, S3Client
from wal.storage.s3_errors import RANGE_REFUSED, S3Error

WINDOW = 8 << 20  # bytes of one request, and held in memory


def get(client: S3Client, name: str, what: str) -> tuple[bytes, Object]:
    """A whole object in one request. Raises FileNotFoundError."""
    try:
        return client.get(client.place.key(name))
    except S3Error as failure:
        client.fail(failure, what, name)


class S3Reader(io.RawIOBase):
    """Reads at its own position. Every range after the first names the version of the first."""

    def __init__(self, client: S3Client, name: str) -> None:
        super().__init__()
        self._client = client
        self._name = name
        self._at = 0
        self._start = 0  # offset of the window in memory
        try:
            self._window, self.object = client.get(client.place.key(name), Range=f"bytes=0-{WINDOW - 1}")
        except S3Error as failure:
            if failure.reply.status != RANGE_REFUSED:
                client.fail(failure, "open", name)
            self._window, self.object = get(client, name, "open")  # an empty object has no range

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        held = self._held()
        count = min(len(buffer), len(held))
        memoryview(buffer)[:count] = held[:count]
        self._at += count
        return count

    def readall(self) -> bytes:
        parts = []
        while held := self._held():
            parts.append(bytes(held))
            self._at += len(held)
        return b"".join(parts)

    def _held(self) -> memoryview:
        """The bytes in memory from the position on, fetched if there are none; empty at the end."""
        if self.closed:
            raise ValueError("read of a closed file")
        if self._at >= self.object.size:
            return memoryview(b"")
        if not self._start <= self._at < self._start + len(self._window):
            self._fetch()
        return memoryview(self._window)[self._at - self._start :]

    def _fetch(self) -> None:
        end = min(self._at + WINDOW, self.object.size)
        self._window = b""  # frees the memory before the next window
        try:
            window, _ = self._client.get(
                self._client.place.key(self._name), Range=f"bytes={self._at}-{end - 1}", IfMatch=self.object.version
            )
        except S3Error as failure:
            if failure.reply.refused or failure.reply.missing or failure.reply.status == RANGE_REFUSED:
                why = "the object was replaced or removed while it was read"
                raise self._client.changed("read", self._name, why) from failure.original
            self._client.fail(failure, "read", self._name)
        if len(window) != end - self._at:
            raise OSError(errno.EIO, "read: the server sent another range", self._client.place.describe(self._name))
        self._start, self._window = self._at, window

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = (0, self._at, self.object.size)[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._window = b""
        super().close()


class S3File(io.BufferedReader):
    """An open object, with its attribute and version."""

    def __init__(self, raw: S3Reader) -> None:
        super().__init__(raw, 1 << 17)
        self.attribute = raw.object.attribute  # the engine's; None = unknown
        self.version = raw.object.version


def open_object(client: S3Client, name: str) -> BinaryIO:
    """A seekable file. Raises FileNotFoundError."""
    return cast(BinaryIO, S3File(S3Reader(client, name)))
