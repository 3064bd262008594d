"""Writes files on HDFS in parts, with no more than a few chunks in memory."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType

from wal.storage.webhdfs_client import Client
from wal.storage.webhdfs_files import CHUNK

_LOOK = 0.1  # seconds between checks by a waiting writer whether its upload has ended


class Upload:
    """One request, in a thread of its own, whose content arrives in parts. Appending is not possible: HDFS fsyncs only
    the content of the request that creates the file."""

    def __init__(self, client: Client, path: str) -> None:
        self._parts: queue.Queue[bytes | None] = queue.Queue(maxsize=1)
        self._result: Future[None] = Future()
        # A daemon: an upload that is neither finished nor abandoned must not keep the interpreter from exiting.
        self._thread = threading.Thread(target=self._run, args=(client, path), daemon=True)
        self._thread.start()

    def send(self, part: bytes) -> None:
        """Send a part. Raises the error of the upload if it has ended."""
        if not self._put(part):
            self._result.result()
            raise OSError(errno.EIO, "the upload ended before its content")

    def finish(self) -> None:
        """End the content and wait. Raises the error of the upload."""
        self._put(None)
        self._result.result()

    def _put(self, part: bytes | None) -> bool:
        while not self._result.done():
            with suppress(queue.Full):
                self._parts.put(part, timeout=_LOOK)
                return True
        return False

    def _run(self, client: Client, path: str) -> None:
        try:
            client.create(path, self._received(), parents=True)
        except BaseException as error:  # noqa: BLE001
            self._result.set_exception(error)  # raised again by `send` or `finish`
        else:
            self._result.set_result(None)

    def _received(self) -> Iterator[bytes]:
        while (part := self._parts.get()) is not None:
            yield part


class HdfsStagedFile:
    """A staged file. Its name is taken when the first chunk is full, or by `finish`; until then it is in memory."""

    def __init__(self, client: Client, path: str, *, attributes: bool) -> None:
        self._client = client
        self._path = path
        self._attributes = attributes
        self._buffer = bytearray()
        self._upload: Upload | None = None
        self._created = False
        self._closed = False

    def write(self, data: bytes | memoryview) -> None:
        """Append content. Raises FileExistsError if another writer has taken the name."""
        if self._closed:
            raise ValueError("the staged file is closed")
        self._buffer += data
        while len(self._buffer) >= CHUNK:
            if self._upload is None:
                self._upload = Upload(self._client, self._path)
            self._upload.send(bytes(self._buffer[:CHUNK]))
            del self._buffer[:CHUNK]

    def finish(self, attribute: bytes) -> None:
        if self._upload is None:
            self._client.create(self._path, bytes(self._buffer), parents=True)
        else:
            if self._buffer:
                self._upload.send(bytes(self._buffer))
            self._upload.finish()
            self._upload = None
        self._created = True
        if self._attributes:
            self._client.set_attribute(self._path, attribute)
        self._closed = True

    def abandon(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._upload is not None:
            self._created = self._ended(self._upload)
        if self._created:  # otherwise the name may be another writer's
            with suppress(FileNotFoundError):
                self._client.delete(self._path)

    @staticmethod
    def _ended(upload: Upload) -> bool:
        """End an abandoned upload; returns whether its file may exist. Not by closing the connection: a data node might
        then create the file later, perhaps after the deletion."""
        try:
            upload.finish()
        except FileExistsError:
            return False
        except OSError:
            return True
        return True

    def __enter__(self) -> HdfsStagedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()
