"""Lists what is below a name, all pages. Keys that are not valid names here (markers, `a//b`) are skipped."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from wal.storage.base import Entry, Kind
from wal.storage.s3_client import S3Client
from wal.storage.s3_errors import S3Error

_PAGE = 1000  # keys; the most that S3 lists or deletes in one request


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing."""

    name: str
    version: str


class S3Listing:
    """Listing and deleting many objects."""

    def __init__(self, client: S3Client) -> None:
        self._client = client
        self._place = client.place

    @contextmanager
    def _translated(self, what: str, name: str) -> Iterator[None]:
        try:
            yield
        except S3Error as failure:
            self._client.fail(failure, what, name)

    def entries(self, folder: str) -> list[Entry]:
        """See `Storage.list`."""
        prefix = self._place.below(folder)
        entries: dict[str, Entry] = {}
        with self._translated("list", folder):
            for page in self._client.pages(prefix, delimiter="/"):
                # Folders first, so that a file replaces a folder of the same name: it is what `read` finds.
                for below in page.get("CommonPrefixes", ()):
                    self._add(entries, prefix, below["Prefix"].removesuffix("/"), Kind.FOLDER, 0)
                for key in page.get("Contents", ()):
                    self._add(entries, prefix, key["Key"], Kind.FILE, key["Size"])
        if folder and not entries:
            raise self._client.missing("list", folder)
        return list(entries.values())

    def _add(self, entries: dict[str, Entry], prefix: str, key: str, kind: Kind, size: int) -> None:
        last = key[len(prefix) :]
        known = entries.get(last)
        if self._place.name(key) is not None and (known is None or known.kind is Kind.FOLDER):
            entries[last] = Entry(last, kind, size)

    def first(self, folder: str) -> Listed | None:
        """The first object below the folder; None if there is none."""
        with self._translated("list", folder):
            return next(self._below(self._place.below(folder), limit=2), None)  # one may be a marker

    def _below(self, prefix: str, *, limit: int = _PAGE) -> Iterator[Listed]:
        for page in self._client.pages(prefix, limit=limit):
            for key in page.get("Contents", ()):
                name = self._place.name(key["Key"])
                if name is not None:
                    yield Listed(name, key["ETag"])

    def versions(self, name: str) -> dict[str, str]:
        """See `Storage.versions`."""
        if not name:
            with self._translated("list", name):
                return {found.name: found.version for found in self._below(self._place.below(""))}
        key, below = self._place.key(name), self._place.below(name)
        with self._translated("list", name):
            # One page holds the file and everything below it, unless too many other keys share the prefix.
            page = next(self._client.pages(key))
            if page.get("IsTruncated"):
                versions = {found.name: found.version for found in self._below(below)}
                file = self._client.head(key)
                return versions if file is None else {name: file.version, **versions}
        found = {key["Key"]: key["ETag"] for key in page.get("Contents", ())}
        named = (
            (self._place.name(each), etag) for each, etag in found.items() if each == key or each.startswith(below)
        )
        return {name: etag for name, etag in named if name is not None}

    def erase(self, name: str) -> None:
        """See `Storage.erase`. Also deletes keys that are not valid names here, which nothing else would remove."""
        prefix, before = self._place.below(name), None
        with self._translated("erase", name):
            self._client.order("delete_object", Key=self._place.key(name))
            while keys := [key["Key"] for key in next(self._client.pages(prefix)).get("Contents", ())]:
                if keys == before:
                    place = self._place.describe(name)
                    raise OSError(errno.EIO, "erase: what the server says it deleted is still there", place)
                self._delete(keys)
                before = keys

    def _delete(self, keys: list[str]) -> None:
        objects = [{"Key": key} for key in keys]
        reply = self._client.order("delete_objects", Delete={"Objects": objects, "Quiet": True})
        for refused in reply.get("Errors", ()):
            place = f"s3://{self._place.bucket}/{refused.get('Key', '')}"
            raise OSError(errno.EIO, f"erase: the server answered {refused.get('Code', '')}", place)
