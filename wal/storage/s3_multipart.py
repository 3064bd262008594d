"""An object made of parts: nothing of it is visible before it is complete, and it is complete in one request."""

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
_COPIED = 1 << 30  # bytes of a part that the server copies by itself; at most 5 GiB by the rules


def part_size(number: int) -> int:
    """Bytes of the part `number` (from 1) of an upload whose length is not known beforehand."""
    return PART << ((number - 1) // _DOUBLED_EVERY)


@dataclass(frozen=True, slots=True)
class Target:
    """What is being written."""

    what: str  # the operation, for messages
    name: str
    token: str  # of this call
    metadata: dict[str, str] = field(repr=False)


class Multipart:
    """One upload. Aborted when its block ends without `completion` having been used with success."""

    def __init__(self, client: S3Client, target: Target) -> None:
        self._client = client
        self._target = target
        self._key = client.place.key(target.name)
        self._parts: list[dict[str, Any]] = []
        try:
            reply = client.order("create_multipart_upload", Key=self._key, Metadata=target.metadata)
        except S3Error as failure:
            client.fail(failure, target.what, target.name)
        self._id = reply["UploadId"]

    @property
    def next_size(self) -> int:
        """Bytes that the next part must have, unless it is the last."""
        return part_size(len(self._parts) + 1)

    def add(self, data: bytes | bytearray) -> None:
        """Upload one part."""
        try:
            # `ask`: a part that is sent twice replaces itself
            reply = self._client.ask("upload_part", **self._numbered(), Body=data)
        except S3Error as failure:
            self._client.fail(failure, self._target.what, self._target.name)
        self._parts.append({"PartNumber": len(self._parts) + 1, "ETag": reply["ETag"]})

    def add_all(self, content: bytes) -> None:
        """Upload bytes that are at hand."""
        at = 0
        while at < len(content):
            part = content[at : at + self.next_size]
            self.add(part)
            at += len(part)

    def copy(self, source: str, found: Object) -> None:
        """Take `source`, of the version and size that were found, on the server's side. Raises FileNotFoundError,
        ChangedError."""
        try:
            for start in range(0, found.size, _COPIED):
                self._copy_part(source, found, start)
        except S3Error as failure:
            if failure.reply.missing and not self._parts:
                # SeaweedFS does not find as a source what stands where a folder has been. It can be read, though.
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
        self._parts.append({"PartNumber": len(self._parts) + 1, "ETag": reply["CopyPartResult"]["ETag"]})

    def _carry(self, source: str, found: Object) -> None:
        """As `copy`, through this machine."""
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
        """The parameters that complete it."""
        return {"UploadId": self._id, "MultipartUpload": {"Parts": self._parts}}

    def abort(self) -> None:
        """Forget the parts. That an abort failed is not told: nobody can see what is left, only its owner pays for it
        until the bucket's own rule for incomplete uploads removes it."""
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
