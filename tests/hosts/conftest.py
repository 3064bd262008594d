"""Places that hosts share: a bucket of a real S3 server, a folder of a real HDFS, a folder that seems to be a mount.

A process stands for a host: nothing is shared but the storage (a local folder is opened as a mount of type nfs4, so
that no lock of the system is used). What is there is also read without the library, as any other program would.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from serve_hdfs import Hdfs
from serve_s3 import Server
from torture_place import Place

from metatree import Metatree
from tests.figures import TORTURE as TORTURE
from tests.servers.hdfs import Raw
from tests.tree.conftest import fast_path as fast_path

ROOT = Path(__file__).resolve().parents[2]
LEVELS = ("model", "version")
KINDS = ("seaweedfs", "hdfs", "mount")


def environment() -> dict[str, str]:
    """For other processes: they import what this checkout holds, whatever is installed."""
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tools'}", "PYTHONWARNINGS": "error"}


class Plain(Protocol):
    """A tree's files, by plain requests."""

    def read(self, name: str) -> bytes: ...

    def everything(self) -> set[str]:
        """The names of all files."""
        ...

    def write(self, name: str, data: bytes) -> None: ...


class PlainS3:
    """Signed requests of botocore."""

    def __init__(self, server: Server, prefix: str) -> None:
        self._client, self._bucket, self._prefix = server.client(), server.bucket, prefix

    def read(self, name: str) -> bytes:
        data: bytes = self._client.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}")["Body"].read()
        return data

    def everything(self) -> set[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + "/")
        keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
        return {key.removeprefix(self._prefix + "/") for key in keys}

    def write(self, name: str, data: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}", Body=data)

    def close(self) -> None:
        self._client.close()


class PlainHdfs(Raw):
    """WebHDFS by urllib."""

    def everything(self, folder: str = "") -> set[str]:
        return {name for name in super().everything(folder) if not name.endswith("/")}


class PlainFolder:
    """Files of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def everything(self) -> set[str]:
        return {str(path.relative_to(self._root)) for path in self._root.rglob("*") if path.is_file()}

    def write(self, name: str, data: bytes) -> None:
        (self._root / name).parent.mkdir(parents=True, exist_ok=True)
        (self._root / name).write_bytes(data)


class Shared:
    """One place, and its files."""

    def __init__(self, kind: str, place: Place, plain: Plain) -> None:
        self.kind, self.place, self.plain = kind, place, plain

    def open(self, keys: Any = None, **arguments: Any) -> Metatree:
        return self.place.open(keys, **arguments)

    def assert_clean(self) -> None:
        """Open the tree once more, as any later process would, and check all of it."""
        with self.open() as tree:
            report = tree.check(deep=True)
        assert report.ok, str(report)

    def metadata(self, path: str = "") -> Any:
        """A node's metadata.json, read without the library and parsed."""
        return json.loads(self.plain.read(f"{path}/metadata.json" if path else "metadata.json"))

    def files(self) -> set[str]:
        """The names of the tree's files, without the engine's."""
        own = (".wal/", ".metatree", ".lock")
        return {name for name in self.plain.everything() if not name.startswith(own)}


def shared(kind: str, request: pytest.FixtureRequest) -> Iterator[Shared]:
    """A new place of this kind; for fixtures."""
    name = f"hosts-{secrets.token_hex(4)}/tree"
    if kind == "seaweedfs":
        server: Server = request.getfixturevalue("seaweedfs")
        plain = PlainS3(server, name)
        yield Shared(kind, Place(f"s3://{server.bucket}/{name}", server.options), plain)
        plain.close()
    elif kind == "hdfs":
        hdfs: Hdfs = request.getfixturevalue("hdfs")
        options = {"host": hdfs.host, "port": hdfs.port, "user": "root"}
        yield Shared(kind, Place(f"webhdfs:///{name}", options), PlainHdfs(hdfs.host, hdfs.port, f"/{name}"))
    else:
        root = request.getfixturevalue("fast_path") / "tree"
        yield Shared(kind, Place(str(root), mount=True), PlainFolder(root))


@pytest.fixture(params=KINDS)
def there(request: pytest.FixtureRequest) -> Iterator[Shared]:
    """Each kind of place in turn."""
    yield from shared(request.param, request)


@pytest.fixture(params=KINDS[:2])
def remote(request: pytest.FixtureRequest) -> Iterator[Shared]:
    """Each that is reached over a network."""
    yield from shared(request.param, request)
