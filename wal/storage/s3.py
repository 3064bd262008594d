"""A prefix of an S3 bucket as `Storage`.

Differences from a filesystem, which callers know by `Capabilities`:

- There are no folders, only keys with `/` in them: a folder exists while there is something below it, `make_folder`
  does nothing, and `publish_folder` is not supported. A key and keys below it can exist together.
- Every publish and removal may name the version that it replaces: the object's ETag, as the server reports it. If equal
  content returns (A, B, A), so does its ETag; callers to whom that matters make each content unique.
- A write is durable when it is acknowledged: `sync` and `sync_folder` do nothing.
- `create` and a conditional `publish` recognise their own object if a lost reply made the libraries repeat the request.
  A TimeoutError, a ConnectionError or a status of 500 and above leaves the outcome unknown; so does an interrupt, since
  the request continues in the event loop's thread.

Not checked here: that the server honours conditions (`wal.storage.probe` tests that), and that it is consistent: a read
must see every earlier write (AWS and SeaweedFS are; a store that is not cannot hold a log).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO, NoReturn

from wal.clock import Clock
from wal.errors import UnsupportedError
from wal.storage.base import (
    Capabilities,
    ChangedError,
    Content,
    Entry,
    Fence,
    Kind,
    Lock,
    Publication,
    RandomFile,
    Staged,
    StagedFile,
    Storage,
    Stored,
)
from wal.storage.rooted import below
from wal.storage.s3_client import Object, S3Client
from wal.storage.s3_errors import S3Error
from wal.storage.s3_file import get, open_object
from wal.storage.s3_listing import S3Listing
from wal.storage.s3_names import parse_url
from wal.storage.s3_staged import S3StagedFile
from wal.storage.s3_write import S3Writer

_CAPABILITIES = Capabilities(
    writable=True,
    append_log=False,
    attributes=True,
    reason="an S3 bucket has no files to append to and no locks",
    slot_log=True,
    fence=Fence.VERSION,
    folders=False,
    filesystem="s3",
)


class S3Storage:
    """`Storage` below `s3://bucket/prefix`; `options` are those of `s3fs.S3FileSystem`."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, clock: Clock | None = None) -> None:
        """Makes no request. Raises ValueError, TypeError for an unknown option, UnsupportedError for libraries that
        would drop conditions."""
        self._place = parse_url(url)
        self._client = S3Client(self._place, options or {}, clock or Clock())
        self._listing = S3Listing(self._client)
        self._writer = S3Writer(self._client)

    def __repr__(self) -> str:
        return f"S3Storage({self.url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} holds credentials and is not pickled: open the URL again with its options")

    @property
    def url(self) -> str:
        return self._place.url

    def server(self) -> str:
        """The server and bucket, as a key for the stored result of the probe; without secrets. Sets up the session, but
        makes no request."""
        try:
            return f"{self._client.endpoint()} {self._place.bucket}"
        except S3Error as failure:
            self._client.fail(failure, "open", "")

    @property
    def capabilities(self) -> Capabilities:
        return _CAPABILITIES

    # --- reading -------------------------------------------------------------------------------------------------

    def read(self, name: str) -> Stored:
        """See `Storage.read`. One request. A folder raises FileNotFoundError too."""
        data, found = get(self._client, name, "read")
        return Stored(data, found.attribute, found.version)

    def open(self, name: str) -> BinaryIO:
        """See `Storage.open`. One request for the first 8 MiB, and one for each further 8 MiB that is read, which
        raises ChangedError if the object has been replaced. The result has `.attribute` and `.version`."""
        return open_object(self._client, name)

    def attribute(self, name: str) -> bytes | None:
        """See `Storage.attribute`. A folder has that of the first object below it."""
        found = self._head("attribute", name)
        if found is None:
            first = self._listing.first(name)
            found = None if first is None else self._head("attribute", first.name)
        if found is None:
            raise self._client.missing("attribute", name)
        return found.attribute

    def written_at(self, name: str) -> float | None:
        """See `wal.storage.written_at`; whole seconds."""
        try:
            return float(self._client.ask("head_object", Key=self._place.key(name))["LastModified"].timestamp())
        except S3Error as failure:
            self._client.fail(failure, "written at", name)

    def list(self, folder: str) -> list[Entry]:
        """See `Storage.list`. FileNotFoundError also for a file. One request for every 1,000 entries.

        SeaweedFS still lists a folder for a minute after its last object was removed.
        """
        return self._listing.entries(folder)

    def entry(self, name: str) -> Entry | None:
        """See `Storage.entry`. One request for a file, two for a folder or nothing."""
        if not name:
            return Entry("", Kind.FOLDER, 0)
        found = self._head("entry", name)
        last = name.rpartition("/")[2]
        if found is not None:
            return Entry(last, Kind.FILE, found.size)
        return None if self._listing.first(name) is None else Entry(last, Kind.FOLDER, 0)

    def _head(self, what: str, name: str) -> Object | None:
        try:
            return self._client.head(self._place.key(name)) if name else None
        except S3Error as failure:
            self._client.fail(failure, what, name)

    # --- writing -------------------------------------------------------------------------------------------------

    def create(self, name: str, data: bytes) -> bool:
        """See `Storage.create`. One request, two if the name exists. After an error other than ValueError and
        PermissionError it is unknown whether the object was created or still will be."""
        return self._writer.create(name, data)

    def publish(
        self, name: str, content: Content, attribute: bytes, *, durable: bool, expect: str | None = None
    ) -> str:
        """See `Storage.publish`. One request for up to 64 MiB, four for staged content of up to 1 GiB."""
        try:
            return self._writer.publish("publish", name, content, attribute, expect)
        except ChangedError:
            if expect != "" or not self._sweep(name):
                raise
        return self._writer.publish("publish", name, content, attribute, expect)

    def _sweep(self, name: str) -> bool:
        """SeaweedFS keeps empty folders for a while, and takes one for an object of that name. Remove them; False if
        there is a real object at or below the name."""
        if self._head("publish", name) is not None or self._listing.first(name) is not None:
            return False
        try:
            inner = [entry.name for entry in self._listing.entries(name) if entry.kind is Kind.FOLDER]
        except FileNotFoundError:
            inner = []
        for below_it in inner:
            self._sweep(f"{name}/{below_it}")
        try:
            self._client.order("delete_object", Key=self._place.key(name) + "/")
        except S3Error as failure:
            self._client.fail(failure, "publish", name)
        return True

    def publish_folder(self, name: str, files: Sequence[Publication]) -> bool:
        self._place.key(name)
        for file in files:
            below(name, file.name)
        raise UnsupportedError(f"{self.url}: a folder of an S3 bucket cannot be published in one step")

    def set_aside(self, name: str, aside: str) -> str | None:
        """See `Storage.set_aside`, but not atomic: each object is copied, then removed if it is still of the version
        that was copied (else ChangedError). For the quarantine."""
        self._place.key(name)
        self._place.key(aside)
        found = self.versions(name)
        if not found:
            return None
        target, number = aside, 0
        while self.entry(target) is not None:
            number += 1
            target = f"{aside}.{number}"
        for source in found:
            self._writer.copy("set aside", Staged(source), target + source[len(name) :], None, "")
        for source, version in found.items():
            self.remove(source, version)
        return target

    def make_folder(self, name: str, attribute: bytes | None = None) -> None:
        """Does nothing: a folder exists while there is something below it."""
        self._place.below(name)

    def stage(self, name: str) -> StagedFile:
        """See `Storage.stage`; `finish` raises FileExistsError."""
        return S3StagedFile(self._client, self._writer, name)

    def stage_existing(self, source: str, name: str, *, share: bool) -> None:
        """See `Storage.stage_existing`: always a copy, made by the server."""
        self._place.key(source)
        try:
            self._writer.copy("stage", Staged(source), name, None, "")
        except ChangedError as error:
            raise FileExistsError(errno.EEXIST, "stage: the object exists", self._place.describe(name)) from error

    def sync_folder(self, name: str) -> None:
        """Does nothing: what was acknowledged is durable."""
        self._place.below(name)

    def sync(self, touched: Iterable[str]) -> None:
        """Does nothing: what was acknowledged is durable."""

    def erase(self, name: str) -> None:
        """See `Storage.erase`. One request for every 1,000 objects, and two more."""
        self._place.key(name)
        self._listing.erase(name)

    # --- for committers on several hosts ---------------------------------------------------------------------------

    def versions(self, name: str) -> dict[str, str]:
        """See `Storage.versions`. One request, unless more than 1,000 objects begin with `name`."""
        return self._listing.versions(name)

    def remove(self, name: str, expect: str) -> None:
        """See `Storage.remove`."""
        key = self._place.key(name)
        if not expect:
            raise ValueError("remove needs a version")
        try:
            self._client.order("delete_object", Key=key, IfMatch=expect)
        except S3Error as failure:
            if failure.reply.missing:
                return
            if not failure.reply.refused:
                self._client.fail(failure, "remove", name)
            # Some servers refuse an absent key as well, which may be the effect of this call, sent twice.
            if self._head("remove", name) is not None:
                why = "the object is another version"
                raise self._client.changed("remove", name, why) from failure.original

    def fenced(self, folder: str) -> Storage:
        raise UnsupportedError(f"{self.url} has versions, not folders")

    def retire(self, folder: str, aside: str) -> None:
        raise UnsupportedError(f"{self.url} has versions, not folders")

    # --- for the append log ----------------------------------------------------------------------------------------

    def open_file(self, name: str, *, writable: bool) -> RandomFile:
        raise UnsupportedError(f"{self.url}: {_CAPABILITIES.reason}")

    def lock(self, name: str) -> Lock:
        raise UnsupportedError(f"{self.url}: {_CAPABILITIES.reason}")

    def reset_after_fork(self) -> None:
        """Does nothing: connections are made anew where the process is another."""

    def close(self) -> None:
        self._client.close()
