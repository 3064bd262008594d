"""Staged files in a bucket: a small one is uploaded in one request, a larger one in parts while it is written."""

from __future__ import annotations

import errno
from types import TracebackType

from wal.storage.base import ChangedError
from wal.storage.s3_client import S3Client
from wal.storage.s3_multipart import Multipart, Target, part_size
from wal.storage.s3_write import S3Writer, metadata


class S3StagedFile:
    """`StagedFile`. Holds one part in memory. The object is invisible before `finish`, which is exclusive.

    The metadata of an object in parts is fixed before its first byte is sent, so a staged file of more than one part
    has no attribute ("unknown"); it gets its attribute when it is published.
    """

    def __init__(self, client: S3Client, writer: S3Writer, name: str) -> None:
        client.place.key(name)
        self._client = client
        self._writer = writer
        token = client.token()
        self._target = Target("stage", name, token, metadata(None, token))
        self._buffer = bytearray()
        self._upload: Multipart | None = None
        self._done = False

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`."""
        if self._done:
            raise ValueError("write to a staged file that is finished")
        rest = memoryview(data).cast("B")
        while rest:
            size = self._upload.next_size if self._upload is not None else part_size(1)
            if len(self._buffer) == size:  # sent only when more follows, since this may be the only part
                self._send()
                continue
            taken = rest[: size - len(self._buffer)]
            self._buffer += taken
            rest = rest[len(taken) :]

    def _send(self) -> None:
        if self._upload is None:
            self._upload = Multipart(self._client, self._target)
        full, self._buffer = self._buffer, bytearray()
        self._upload.add(full)

    def finish(self, attribute: bytes) -> None:
        """Make the file visible, durably. Raises FileExistsError, and abandons the file, if the name is taken."""
        if self._done:
            raise ValueError("a staged file that is finished")
        try:
            if self._upload is None:
                self._writer.put("stage", self._target.name, bytes(self._buffer), attribute, "")
            else:
                self._send()
                self._writer.finish(self._target, "complete_multipart_upload", "", **self._upload.completion())
        except ChangedError as error:
            self.abandon()
            raise FileExistsError(errno.EEXIST, "stage: the object exists", error.filename) from error
        self._done = True

    def abandon(self) -> None:
        """Discard what was written; does nothing after `finish`."""
        if self._done:
            return
        self._done = True
        self._buffer = bytearray()
        if self._upload is not None:
            self._upload.abort()

    def __enter__(self) -> S3StagedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()
