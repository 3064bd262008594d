"""Writes one object under a condition, and recognises its own success after a lost reply.

A reply can be lost after the server has written; the libraries below then repeat the request, which is refused because
of the object that the first one created. So each call stores a random token in the object's metadata, and a refusal
counts only if the object that exists has another token.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from hashlib import md5
from typing import Any

from wal.storage.base import Content, Staged
from wal.storage.s3_client import Object, S3Client
from wal.storage.s3_errors import S3Error
from wal.storage.s3_multipart import Multipart, Target
from wal.storage.s3_names import ATTRIBUTE, TOKEN, to_header

LARGE = 64 << 20  # bytes: more than this goes in parts


def metadata(attribute: bytes | None, token: str) -> dict[str, str]:
    """The user metadata of an object that this call writes."""
    carried = {} if attribute is None else {ATTRIBUTE: to_header(attribute)}
    return {**carried, TOKEN: token}


def condition(expect: str | None) -> dict[str, str]:
    """The request parameter for `Storage.publish(expect=...)`."""
    if expect is None:
        return {}
    return {"IfMatch": expect} if expect else {"IfNoneMatch": "*"}


def body(data: bytes) -> dict[str, Any]:
    """The parameters of a request that carries `data`, with its digest: a client may die, or its connection end, before
    the body is sent, and SeaweedFS then stores an object without content, attribute and all, unless it can compare."""
    return {"Body": data, "ContentMD5": b64encode(md5(data, usedforsecurity=False).digest()).decode()}


class S3Writer:
    """Writes of whole objects."""

    def __init__(self, client: S3Client) -> None:
        self._client = client

    def create(self, name: str, data: bytes) -> bool:
        """See `Storage.create`."""
        key, token = self._client.place.key(name), self._client.token()
        try:
            sent = {"Key": key, "Metadata": metadata(None, token), **condition(""), **body(data)}
            self._client.told(self._client.order("put_object", **sent), "ETag")
        except S3Error as failure:
            if not failure.reply.refused:
                self._client.fail(failure, "create", name)
            return self._is_own(name, data, token)
        return True

    def _is_own(self, name: str, data: bytes, token: str) -> bool:
        try:
            found, its = self._client.get(self._client.place.key(name))
        except S3Error as failure:
            if failure.reply.missing:  # another's, removed since; slots are never removed
                return False
            self._client.fail(failure, "create: reading back", name)
        return its.token == token and found == data

    def publish(self, what: str, name: str, content: Content, attribute: bytes | None, expect: str | None) -> str:
        """Write `content` to `name` if `expect` holds; returns the new version. Raises ChangedError."""
        if isinstance(content, Staged):
            return self.copy(what, content, name, attribute, expect)
        if len(content) > LARGE:
            target = self._target(what, name, attribute)
            with Multipart(self._client, target) as upload:
                upload.add_all(content)
                return self._complete(target, upload, expect)
        return self.put(what, name, content, attribute, expect)

    def put(self, what: str, name: str, data: bytes, attribute: bytes | None, expect: str | None) -> str:
        """Write with one PutObject; returns the new version. Raises ChangedError."""
        target = self._target(what, name, attribute)
        return self.finish(target, "put_object", expect, len(data), Metadata=target.metadata, **body(data))

    def copy(self, what: str, staged: Staged, name: str, attribute: bytes | None, expect: str | None) -> str:
        """Let the server copy an object of any size; returns the new version. `attribute` None keeps the source's.

        Not with CopyObject: its limit is 5 GiB, and few servers know a condition on its target. Raises
        FileNotFoundError, ChangedError.
        """
        source = staged.name
        try:
            found = self._client.head(self._client.place.key(source))
        except S3Error as failure:
            self._client.fail(failure, what, source)
        if found is None:
            raise self._client.missing(what, source)
        staged.check(found.size)
        attribute = found.attribute if attribute is None else attribute
        if not found.size:  # an upload needs a part, and no part can be empty
            return self.put(what, name, b"", attribute, expect)
        target = self._target(what, name, attribute)
        with Multipart(self._client, target) as upload:
            upload.copy(source, found)
            return self._complete(target, upload, expect)

    def _complete(self, target: Target, upload: Multipart, expect: str | None) -> str:
        return self.finish(target, "complete_multipart_upload", expect, **upload.completion())

    def finish(
        self, target: Target, method: str, expect: str | None, size: int | None = None, **parameters: Any
    ) -> str:
        """Send the request that makes the object visible, and interpret a refusal; returns the new version. `size`: of
        an object that is sent whole, which one that this call has left earlier must have too."""
        try:
            reply: Mapping[str, Any] = self._client.order(
                method, Key=self._client.place.key(target.name), **condition(expect), **parameters
            )
            return str(self._client.told(reply, "ETag"))
        except S3Error as failure:
            # AWS answers 404 to If-Match on an absent key, and to an upload that is already complete.
            if failure.reply.refused or failure.reply.missing:
                found = self._found(target)
                if found is not None and found.token == target.token and size in (None, found.size):
                    return found.version
                if failure.reply.code != "NoSuchUpload":
                    why = "the object exists" if expect == "" else "the object is another version"
                    raise self._client.changed(target.what, target.name, why) from failure.original
            self._client.fail(failure, target.what, target.name)

    def _found(self, target: Target) -> Object | None:
        try:
            return self._client.head(self._client.place.key(target.name))
        except S3Error as failure:
            self._client.fail(failure, f"{target.what}: reading back", target.name)

    def _target(self, what: str, name: str, attribute: bytes | None) -> Target:
        token = self._client.token()
        return Target(what, name, token, metadata(attribute, token))
