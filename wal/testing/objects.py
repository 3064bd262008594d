"""An in-memory object store: conditional writes, versions, no folders, no locks. Promises what S3 does.

Several `MemoryObjects` with the same `Bucket` act as hosts that share it. Every call is atomic, as on a server. Not
modelled: requests that arrive late or twice, and lost replies (wrap the storage for these).
"""

from __future__ import annotations

import errno
import io
import itertools
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, NoReturn

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
from wal.storage.rooted import below, split

_CAPABILITIES = Capabilities(
    writable=True,
    append_log=False,
    attributes=True,
    reason="objects are replaced whole, and there are no locks",
    slot_log=True,
    fence=Fence.VERSION,
    folders=False,
)


@dataclass(slots=True)
class Bucket:
    """The objects that several handles share."""

    objects: dict[str, Stored] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))  # of versions, never repeated
    lock: threading.RLock = field(default_factory=threading.RLock)

    def put(self, name: str, data: bytes, attribute: bytes | None) -> str:
        """Store an object; returns its version."""
        version = f'"{next(self.numbers)}"'
        self.objects[name] = Stored(data, attribute, version)
        return version


class MemoryObjects:
    """`Storage` over a bucket in memory."""

    def __init__(self, bucket: Bucket | None = None) -> None:
        self.bucket = bucket or Bucket()

    @property
    def url(self) -> str:
        return "objects://memory"

    @property
    def capabilities(self) -> Capabilities:
        return _CAPABILITIES

    # --- reading -------------------------------------------------------------------------------------------------

    def read(self, name: str) -> Stored:
        """See `Storage.read`; a folder raises FileNotFoundError too."""
        with self.bucket.lock:
            found = self.bucket.objects.get(_key(name))
        if found is None:
            raise _missing(name)
        return found

    def open(self, name: str) -> BinaryIO:
        """See `Storage.open`; carries `.attribute` and `.version`."""
        return _Reading(self.read(name))

    def attribute(self, name: str) -> bytes | None:
        """See `Storage.attribute`. Of a folder: that of the first object below it."""
        with self.bucket.lock:
            found = self.bucket.objects.get(_key(name)) if name else None
            first = next(iter(sorted(self._below(name))), None)
            if found is None and first is not None:
                found = self.bucket.objects[first]
        if found is None:
            raise _missing(name)
        return found.attribute

    def list(self, folder: str) -> list[Entry]:
        with self.bucket.lock:
            found: dict[str, Entry] = {}
            for name in self._below(folder):
                last, _, deeper = (name[len(folder) + 1 :] if folder else name).partition("/")
                if not deeper:
                    found[last] = Entry(last, Kind.FILE, len(self.bucket.objects[name].data))
                else:
                    found.setdefault(last, Entry(last, Kind.FOLDER, 0))
        if folder and not found:
            raise _missing(folder)
        return list(found.values())

    def entry(self, name: str) -> Entry | None:
        if not name:
            return Entry("", Kind.FOLDER, 0)
        last = name.rpartition("/")[2]
        with self.bucket.lock:
            found = self.bucket.objects.get(_key(name))
            if found is not None:
                return Entry(last, Kind.FILE, len(found.data))
            return Entry(last, Kind.FOLDER, 0) if self._below(name) else None

    def _below(self, folder: str) -> Sequence[str]:
        prefix = f"{_key(folder)}/" if folder else ""
        return [name for name in self.bucket.objects if name.startswith(prefix)]

    # --- writing -------------------------------------------------------------------------------------------------

    def create(self, name: str, data: bytes) -> bool:
        with self.bucket.lock:
            if _file(name) in self.bucket.objects:
                return False
            self.bucket.put(name, data, None)
            return True

    def publish(
        self, name: str, content: Content, attribute: bytes, *, durable: bool, expect: str | None = None
    ) -> str:
        with self.bucket.lock:
            data = self.read(content.name).data if isinstance(content, Staged) else content
            if isinstance(content, Staged):
                content.check(len(data))
            found = self.bucket.objects.get(_file(name))
            if expect is not None and expect != ("" if found is None else found.version):
                raise ChangedError(errno.ESTALE, "the object is another version", name)
            return self.bucket.put(name, data, attribute)

    def publish_folder(self, name: str, files: Sequence[Publication]) -> bool:
        _file(name)
        for file in files:
            below(name, file.name)
        self._refuse("a folder cannot be published in one step")

    def set_aside(self, name: str, aside: str) -> str | None:
        """See `Storage.set_aside`. It is atomic here, but not on a real server: callers must not rely on that."""
        _file(name), _file(aside)
        with self.bucket.lock:
            found = self.versions(name)
            if not found:
                return None
            target, number = aside, 0
            while self.entry(target) is not None:
                number += 1
                target = f"{aside}.{number}"
            for source in found:
                stored = self.bucket.objects.pop(source)
                self.bucket.put(target + source[len(name) :], stored.data, stored.attribute)
            return target

    def make_folder(self, name: str, attribute: bytes | None = None) -> None:
        """Does nothing: a folder exists while there is something below it."""
        _key(name)

    def stage(self, name: str) -> StagedFile:
        """See `Storage.stage`; `finish` raises FileExistsError."""
        return _Staging(self, _file(name))

    def stage_existing(self, source: str, name: str, *, share: bool) -> None:
        _file(name)
        with self.bucket.lock:
            stored = self.read(source)
            if name in self.bucket.objects:
                raise FileExistsError(errno.EEXIST, "the object exists", name)
            self.bucket.put(name, stored.data, stored.attribute)

    def sync_folder(self, name: str) -> None:
        """Does nothing: what was acknowledged is durable."""
        _key(name)

    def sync(self, touched: Iterable[str]) -> None:
        """Does nothing: what was acknowledged is durable."""

    def erase(self, name: str) -> None:
        with self.bucket.lock:
            for found in self.versions(_file(name)):
                del self.bucket.objects[found]

    # --- for committers on several hosts ---------------------------------------------------------------------------

    def versions(self, name: str) -> dict[str, str]:
        with self.bucket.lock:
            names = [*([name] if name and _key(name) in self.bucket.objects else []), *self._below(name)]
            return {found: self.bucket.objects[found].version for found in names}

    def remove(self, name: str, expect: str) -> None:
        with self.bucket.lock:
            found = self.bucket.objects.get(_file(name))
            if not expect:
                raise ValueError("remove needs a version")
            if found is None:
                return
            if found.version != expect:
                raise ChangedError(errno.ESTALE, "the object is another version", name)
            del self.bucket.objects[name]

    def fenced(self, folder: str) -> Storage:
        self._refuse("there are versions, not folders")

    def retire(self, folder: str, aside: str) -> None:
        self._refuse("there are versions, not folders")

    # --- for the append log ----------------------------------------------------------------------------------------

    def open_file(self, name: str, *, writable: bool) -> RandomFile:
        self._refuse(_CAPABILITIES.reason)

    def lock(self, name: str) -> Lock:
        self._refuse(_CAPABILITIES.reason)

    def close(self) -> None:
        """Does nothing."""

    reset_after_fork = close

    def _refuse(self, why: str) -> NoReturn:
        raise UnsupportedError(f"{self.url}: {why}")


class _Reading(io.BytesIO):
    """One version of an object, being read."""

    def __init__(self, stored: Stored) -> None:
        super().__init__(stored.data)
        self.attribute = stored.attribute
        self.version = stored.version

    def writable(self) -> bool:
        return False

    def write(self, data: object) -> int:
        raise io.UnsupportedOperation("not writable")


class _Staging:
    def __init__(self, storage: MemoryObjects, name: str) -> None:
        self._storage = storage
        self._name = name
        self._parts: list[bytes] = []

    def write(self, data: bytes | memoryview) -> None:
        self._parts.append(bytes(data))

    def finish(self, attribute: bytes) -> None:
        bucket = self._storage.bucket
        with bucket.lock:
            if self._name in bucket.objects:
                raise FileExistsError(errno.EEXIST, "the object exists", self._name)
            bucket.put(self._name, b"".join(self._parts), attribute)

    def abandon(self) -> None:
        self._parts.clear()

    def __enter__(self) -> _Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()


def _key(name: str) -> str:
    """The key of a name. Raises ValueError if it leads out of the root or could mean something else to a server."""
    if "\\" in name:
        raise ValueError(f"{name!r}: some servers take a backslash for a slash")
    return "/".join(split(name))


def _file(name: str) -> str:
    key = _key(name)
    if not key:
        raise ValueError("the root itself is not an object")
    return key


def _missing(name: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
