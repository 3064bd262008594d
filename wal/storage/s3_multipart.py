"""An object uploaded in parts: it becomes visible as a whole, by the one request that completes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NoReturn

from wal.storage.s3_client import Object, S3Client
from wal.storage.s3_errors import S3Error

PART = 8 << 20  # bytes of the first parts
_DOUBLED_EVERY = (
    1000  # parts: so that the 10,000 that S3 allows reach its 5 TiB, and small uploads stay small in memory
)
_COPIED = 1 << 30  # bytes of a part that the server copies; S3 allows 5 GiB


def part_size(number: int) -> int:
    """The size in bytes of part `number` (from 1) of an upload of unknown length."""
    return PART << ((number - 1) // _DOUBLED_EVERY)


@dataclass(frozen=True, slots=True)
class Target:
    """The object being written."""

    what: str  # the operation, for messages
    name: str
    token: str  # of this call
    metadata: dict[str, str] = field(repr=False)


class Multipart:
    """One upload, for a `with` block. Aborted if the block ends with an exception."""

    def __init__(self, client: S3Client, target: Target) -> None:
        self._client = client
        self._target = target
        self._key = client.place.key(target.name)
        self._parts: list[dict[str, Any]] = []
        try:
            reply = client.order("create_multipart_upload", Key=self._key, Metadata=target.metadata)
            self._id = client.told(reply, "UploadId")
        except S3Error as failure:
            client.fail(failure, target.what, target.name)

    @property
    def next_size(self) -> int:
        """The size in bytes of the next part, unless it is the last."""
        return part_size(len(self._parts) + 1)

    def add(self, data: bytes | bytearray) -> None:
        """Upload one part."""
        try:
            # `ask`: a part that is sent twice replaces itself
            etag = self._client.told(self._client.ask("upload_part", **self._numbered(), Body=data), "ETag")
        except S3Error as failure:
            self._client.fail(failure, self._target.what, self._target.name)
        self._parts.append({"PartNumber": len(self._parts) + 1, "ETag": etag})

    def add_all(self, content: bytes) -> None:
        """Upload content that is in memory."""
        at = 0
        while at < len(content):
            part = content[at : at + self.next_size]
            self.add(part)
            at += len(part)

    def copy(self, source: str, found: Object) -> None:
        """Let the server copy `source`, of the version and size that were found. Raises FileNotFoundError,
        ChangedError."""
        try:
            for start in range(0, found.size, _COPIED):
                self._copy_part(source, found, start)
        except S3Error as failure:
            if failure.reply.missing and not self._parts:
                # SeaweedFS cannot copy an object whose name was a folder's before, but it can read it.
                self._carry(source, found)
                return
            self._refused(source, failure)

    def _copy_part(self, source: str, found: Object, start: int) -> None:
        place = self._client.place
        parameters: dict[str, Any] = {
            "CopySource": {"Bucket": place.bucket, "Key": place.key(source)},
            "CopySourceIfMatch": found.version,
        }
        if found.size > _COPIED:
            parameters["CopySourceRange"] = f"bytes={start}-{min(start + _COPIED, found.size) - 1}"
        reply = self._client.ask("upload_part_copy", **self._numbered(), **parameters)
        etag = self._client.told(reply.get("CopyPartResult", {}), "ETag")
        self._parts.append({"PartNumber": len(self._parts) + 1, "ETag": etag})

    def _carry(self, source: str, found: Object) -> None:
        """Like `copy`, but through this process."""
        at = 0
        while at < found.size:
            asked = f"bytes={at}-{min(at + self.next_size, found.size) - 1}"
            try:
                part, _ = self._client.get(self._client.place.key(source), Range=asked, IfMatch=found.version)
            except S3Error as failure:
                self._refused(source, failure)
            self.add(part)
            at += len(part)

    def _refused(self, source: str, failure: S3Error) -> NoReturn:
        if failure.reply.refused:
            why = "the object was replaced while it was copied"
            raise self._client.changed(self._target.what, source, why) from failure.original
        self._client.fail(failure, self._target.what, source)

    def _numbered(self) -> dict[str, Any]:
        return {"Key": self._key, "UploadId": self._id, "PartNumber": len(self._parts) + 1}

    def completion(self) -> dict[str, Any]:
        """The parameters of the request that completes the upload."""
        return {"UploadId": self._id, "MultipartUpload": {"Parts": self._parts}}

    def abort(self) -> None:
        """Discard the parts. A failure is ignored: what remains is invisible, and costs only storage until the bucket's
        lifecycle rule for incomplete uploads removes it."""
        try:
            self._client.order("abort_multipart_upload", Key=self._key, UploadId=self._id)
        except S3Error:
            return

    def __enter__(self) -> Multipart:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
