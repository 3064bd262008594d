"""A staged file on its way to an object: small ones in one request, larger ones in parts, as they are written."""

from __future__ import annotations

import errno
from types import TracebackType

from wal.storage.base import ChangedError
from wal.storage.s3_client import S3Client
from wal.storage.s3_multipart import Multipart, Target, part_size
from wal.storage.s3_write import S3Writer, metadata


class S3StagedFile:
    """`StagedFile`. Holds one part in memory. Nothing can be seen of it before `finish`, which is exclusive.

    The metadata of an object in parts is fixed before its first byte, so a file of more than one part carries no
    attribute while it is staged ("unknown"); it gets its own when it is published.
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
            if len(self._buffer) == size:  # not before more follows: the last part may be the only one
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
        """Make the file appear, durable. Raises FileExistsError if the name was taken; the file is abandoned then."""
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
        """Forget what was written; does nothing after `finish`."""
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
