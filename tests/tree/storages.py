"""Where a test's tree lies: the same tests run on every kind of storage that a tree can be written on.

A `Place` opens trees by name below a folder, prefix or disk that is this test's own, and looks at their files without
the code under test (`Raw`). Kinds: "local" (this machine's files, append log), "memory" (a disk in memory), "mount"
(files that seem to lie on NFS: slot log, epoch folders), "objects" (a bucket in memory: slot log, lease), "moto" and
"seaweedfs" (S3), "hdfs".
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import itertools
import os
import posixpath
import random
import stat
import threading
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import wal
from metatree import Metatree
from metatree.clock import Clock
from metatree.facts import Header, decode_header
from wal.storage import Stored, probe
from wal.testing.objects import Bucket, MemoryObjects

KINDS = ("local", "memory", "mount", "objects", "moto", "seaweedfs", "hdfs")
CACHE = "XDG_CACHE_HOME"

if TYPE_CHECKING:  # processes that tests start find no tools
    from serve_s3 import Server

    from tests.servers.hdfs import Raw as Requests

_numbers = itertools.count()


class Swift(Clock):
    """Time passes only for those who wait, at once; no thread gives signs of life by itself."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return True


class Elsewhere(wal.Posix):
    """The same disk, as if a mount of another type held it."""

    def __init__(self, kind: str = "nfs4") -> None:
        self._kind = kind

    def kernel_file(self, path: str) -> bytes:
        if path == "/proc/self/mountinfo":
            return f"21 1 0:20 / / rw,relatime shared:1 - {self._kind} server:/export rw\n".encode()
        return super().kernel_file(path)


class Files(Protocol):
    """The files of a tree, reached without the code under test. Names are relative to its root."""

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        ...

    def names(self) -> list[str]:
        """Every file, with what lies in the engine's folders."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Put or replace a file, as another program would: with no mark of the engine."""
        ...


class Raw:
    """A file or folder of a tree, with the few methods of `pathlib.Path` that tests ask."""

    def __init__(self, files: Files, name: str) -> None:
        self._files = files
        self.path = name  # below the tree's root

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)

    def __truediv__(self, name: str) -> Raw:
        return Raw(self._files, posixpath.join(self.path, name))

    def __lt__(self, other: Raw) -> bool:
        return self.path < other.path

    def read_bytes(self) -> bytes:
        return self._files.read(self.path)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes) -> None:
        self._files.write(self.path, data)

    def _below(self) -> list[str]:
        prefix = f"{self.path}/" if self.path else ""
        return [name for name in self._files.names() if name.startswith(prefix)]

    def exists(self) -> bool:
        return bool(self._below()) or self.path in self._files.names()

    def iterdir(self) -> list[Raw]:
        """The files and folders in a folder; none if it is not there."""
        start = len(self.path) + 1 if self.path else 0
        return [self / name for name in sorted({name[start:].split("/")[0] for name in self._below()})]

    def files(self) -> dict[str, bytes]:
        """Every file below, by its name from here."""
        start = len(self.path) + 1 if self.path else 0
        return {name[start:]: self._files.read(name) for name in sorted(self._below())}


class LocalFiles:
    """Files of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def names(self) -> list[str]:
        # not rglob, which raises if a committer's temporary folder goes while it is listed
        found = [Path(folder) / name for folder, _, names in os.walk(self._root) for name in names]
        return [path.relative_to(self._root).as_posix() for path in found if path.is_file()]

    def write(self, name: str, data: bytes) -> None:
        file = self._root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(data)


class MemoryFiles:
    """Files of a disk in memory."""

    def __init__(self, disk: wal.MemoryPosix, root: str) -> None:
        self._disk = disk
        self._root = root

    def read(self, name: str) -> bytes:
        fd = self._disk.open(f"{self._root}/{name}", os.O_RDONLY)
        data = self._disk.pread(fd, self._disk.fstat(fd).st_size, 0)
        self._disk.close(fd)
        return data

    def names(self, folder: str = "") -> list[str]:
        found: list[str] = []
        for entry in self._disk.listdir(f"{self._root}/{folder}"):
            name = f"{folder}/{entry}".lstrip("/")
            inner = stat.S_ISDIR(self._disk.lstat(f"{self._root}/{name}").st_mode)
            found += self.names(name) if inner else [name]
        return found

    def write(self, name: str, data: bytes) -> None:
        above = f"{self._root}/{name}".split("/")[:-1]
        for depth in range(2, len(above) + 1):
            if not self._is_there("/".join(above[:depth])):
                self._disk.mkdir("/".join(above[:depth]))
        if self._is_there(f"{self._root}/{name}"):
            self._disk.unlink(f"{self._root}/{name}")
        fd = self._disk.open(f"{self._root}/{name}", os.O_WRONLY | os.O_CREAT)
        self._disk.pwrite(fd, data, 0)
        self._disk.close(fd)

    def _is_there(self, path: str) -> bool:
        try:
            self._disk.lstat(path)
        except FileNotFoundError:
            return False
        return True


class TextBucket(Bucket):
    """A bucket whose versions are made from content, as on most servers: the same bytes bring the version back."""

    def put(self, name: str, data: bytes, attribute: bytes | None) -> str:
        version = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        self.objects[name] = Stored(data, attribute, version)
        return version


class NamedObjects(MemoryObjects):
    """A bucket in memory that is known by a name."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        super().__init__(bucket)
        self._name = name

    @property
    def url(self) -> str:
        return f"objects://{self._name}"


class ObjectFiles:
    """Objects of a bucket in memory."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def read(self, name: str) -> bytes:
        if name not in self._bucket.objects:
            raise FileNotFoundError(name)
        return self._bucket.objects[name].data

    def names(self) -> list[str]:
        return list(self._bucket.objects)

    def write(self, name: str, data: bytes) -> None:
        self._bucket.put(name, data, None)


class S3Files:
    """Objects of a bucket, by signed requests of botocore."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def read(self, name: str) -> bytes:
        try:
            with self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"] as body:
                data: bytes = body.read()
        except self._client.exceptions.NoSuchKey as error:
            raise FileNotFoundError(name) from error
        return data

    def names(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        return [key["Key"][len(self._prefix) :] for page in pages for key in page.get("Contents", ())]

    def write(self, name: str, data: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=data)


class HdfsFiles:
    """Files of an HDFS, by plain requests."""

    def __init__(self, raw: Requests) -> None:
        self._raw = raw

    def read(self, name: str) -> bytes:
        try:
            return self._raw.read(name)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            raise FileNotFoundError(name) from error

    def names(self) -> list[str]:
        return [name for name in self._raw.everything() if not name.endswith("/")]

    def write(self, name: str, data: bytes) -> None:
        self._raw.write(name, data)


class Place:
    """Opens trees of one kind, each known by a name; knows their files."""

    def __init__(
        self,
        kind: str,
        root: Callable[[str], Any],
        files: Callable[[str], Files],
        options: dict[str, Any] | None = None,
    ) -> None:
        """`root`: what to open a name's tree with, a path, a URL or a storage."""
        self.kind = kind
        self._root = root
        self._files = files
        self._options = options or {}
        self._names: dict[str, str] = {}  # root -> name

    def open(self, name: str, keys: tuple[str, ...] | None = None, **options: Any) -> Metatree:
        """Open the tree of this name once more, or make it."""
        tree = Metatree(self._root(name), keys, **self._options, **options)
        self._names[tree.root] = name
        _places[tree.root] = self
        return tree

    def again(self, tree: Metatree, **options: Any) -> Metatree:
        """See the function of this name."""
        return self.open(self._names[tree.root], **options)

    def at(self, tree: Metatree, *names: str) -> Raw:
        """See the function of this name."""
        return Raw(self._files(self._names[tree.root]), posixpath.join("", *names))

    def storage(self, tree: Metatree) -> wal.Storage:
        """See `storage_of`."""
        root = self._root(self._names[tree.root])
        return wal.open_storage(root, self._options) if isinstance(root, str) else root

    def names(self) -> list[str]:
        """The names under which trees were opened."""
        return sorted(set(self._names.values()))

    def is_tree(self, name: str) -> bool:
        """Whether there still is one."""
        try:
            return bool(self._files(name).read(".metatree"))
        except FileNotFoundError:
            return False


_places: dict[str, Place] = {}  # by the root of each tree that a test opened


def at(tree: Metatree, *names: str) -> Raw:
    """A file or folder of the tree, looked at without the code under test; `names` as for `pathlib.Path`."""
    return _places[tree.root].at(tree, *names)


def again(tree: Metatree, **options: Any) -> Metatree:
    """Another handle on the same tree, as another process would open it."""
    return _places[tree.root].again(tree, **options)


def storage_of(tree: Metatree) -> wal.Storage:
    """Where the tree lies, opened once more."""
    return _places[tree.root].storage(tree)


def records(tree: Metatree) -> list[Header]:
    """The headers of all records, read from the log without the tree."""
    storage = storage_of(tree)
    log = wal.open_log(storage, read_only=True)
    found = [decode_header(record.header) for batch in log.read(0) for record in batch.records]
    log.close()
    storage.close()
    return found


def kind_of(tree: Metatree) -> str:
    """The kind of storage that the tree lies on."""
    return _places[tree.root].kind


def repeats(tree: Metatree, usual: int) -> int:
    """How often to try what is drawn: a fifth of `usual` on a server, where each commit is many requests."""
    return usual if kind_of(tree) in ("local", "memory", "mount", "objects") else usual // 5


def some(tree: Metatree, values: list[Any]) -> list[Any]:
    """All of what does not reach the storage; on a server one in five, drawn."""
    return random.sample(values, repeats(tree, len(values)))


def on_disk(kind: str, folder: Path) -> Place:
    """Trees below a folder of this machine."""

    def root(name: str) -> Any:
        if kind == "local":
            return str(folder / name)
        (folder / name).mkdir(exist_ok=True)
        return wal.LocalStorage(str(folder / name), posix=Elsewhere())

    return Place(kind, root, lambda name: LocalFiles(folder / name))


def in_memory() -> Place:
    """Trees on one disk in memory."""
    disk = wal.MemoryPosix()
    return Place(
        "memory", lambda name: wal.MemoryStorage(disk, root=f"/{name}"), lambda name: MemoryFiles(disk, f"/{name}")
    )


def in_objects() -> Place:
    """Trees in buckets in memory, one for each."""
    buckets: dict[str, Bucket] = {}

    def bucket(name: str) -> Bucket:
        return buckets.setdefault(name, TextBucket())

    return Place("objects", lambda name: NamedObjects(bucket(name), name), lambda name: ObjectFiles(bucket(name)))


def in_bucket(kind: str, server: Server) -> Place:
    """Trees in a bucket, below a prefix that nobody else uses. The cache of verdicts must be the test's own."""
    prefix = f"trees/{os.getpid()}-{next(_numbers)}"
    client = _client(server)
    return Place(
        kind,
        lambda name: f"s3://{server.bucket}/{prefix}/{name}",
        lambda name: S3Files(client, server.bucket, f"{prefix}/{name}/"),
        server.options,
    )


@functools.cache
def _client(server: Server) -> Any:
    """One for a whole run: making it takes longer than most tests."""
    client = server.client()
    atexit.register(client.close)
    return client


def trust(server: Server) -> None:
    """Remember that this server honours every condition, as if it had been asked. For moto alone, which ignores the
    version of what is replaced in parts (so that a large blob is not fenced there) and would be refused."""
    storage = wal.open_storage(f"s3://{server.bucket}/trust", server.options)
    verdict = probe._verdict_file(storage)
    assert verdict is not None
    probe._remember(verdict)
    storage.close()


def in_hdfs(host: str, port: int) -> Place:
    """Trees in one folder of an HDFS."""
    from tests.servers.hdfs import Raw as Requests

    top = f"/trees-{os.getpid()}-{next(_numbers)}"
    return Place(
        "hdfs",
        lambda name: f"webhdfs://{host}:{port}{top}/{name}",
        lambda name: HdfsFiles(Requests(host, port, f"{top}/{name}")),
    )
