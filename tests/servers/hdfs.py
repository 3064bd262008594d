"""A real HDFS for a whole run, and plain requests to it that use none of the code under test."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hdfs_install import InstallError
from serve_hdfs import Hdfs, StartError, running

from tests.servers.shared import shared


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    with running(folder):
        yield str(folder)


@pytest.fixture(scope="session")
def hdfs(request: pytest.FixtureRequest) -> Hdfs:
    """NameNode and DataNode of all workers, so not to be stopped: where they are. Where they cannot start: a failure
    under CI, else a skip that says why."""
    try:
        return Hdfs(shared("hdfs", request, _served))
    except (InstallError, StartError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"HDFS does not start: {error}")
        pytest.skip(f"HDFS does not start: {error}")


class Raw:
    """One folder of an HDFS, by plain WebHDFS requests."""

    def __init__(self, host: str, port: int, root: str) -> None:
        self.root = root
        self._base = f"http://{host}:{port}/webhdfs/v1"

    def call(self, method: str, operation: str, path: str, data: bytes | None = None, **arguments: str) -> bytes:
        """One operation on an absolute path; redirects are followed. Raises urllib.error.HTTPError."""
        query = urllib.parse.urlencode({"op": operation, "user.name": "root", **arguments})
        url = f"{self._base}{urllib.parse.quote(path)}?{query}"
        for _ in range(2):
            request = urllib.request.Request(url, data=data, method=method)  # noqa: S310
            request.add_header("Content-Type", "application/octet-stream")
            try:
                with _opener.open(request, timeout=60) as reply:
                    body: bytes = reply.read()
                    return body
            except urllib.error.HTTPError as redirect:
                with redirect:
                    if redirect.code != 307:
                        raise
                    url = redirect.headers["Location"]
        raise AssertionError("redirected twice")

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def read(self, name: str) -> bytes:
        return self.call("GET", "OPEN", self.path(name))

    def write(self, name: str, data: bytes) -> None:
        self.call("PUT", "CREATE", self.path(name), data, overwrite="true")

    def names(self, folder: str) -> set[str]:
        try:
            reply = self.call("GET", "LISTSTATUS", self.path(folder))
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return set()
        return {item["pathSuffix"] for item in json.loads(reply)["FileStatuses"]["FileStatus"]}

    def everything(self, folder: str = "") -> set[str]:
        """All names below, folders with a `/` at the end."""
        found: set[str] = set()
        reply = json.loads(self.call("GET", "LISTSTATUS", self.path(folder)))
        for item in reply["FileStatuses"]["FileStatus"]:
            name = f"{folder}/{item['pathSuffix']}".lstrip("/")
            if item["type"] == "DIRECTORY":
                found |= {name + "/"} | self.everything(name)
            else:
                found.add(name)
        return found

    def rename(self, source: str, target: str) -> None:
        self.call("PUT", "RENAME", self.path(source), destination=self.path(target), renameoptions="NONE")

    def delete(self, name: str) -> None:
        self.call("DELETE", "DELETE", self.path(name), recursive="true")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: object) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


@pytest.fixture
def raw(hdfs: Hdfs, tmp_path: Path) -> Raw:
    """An empty folder of its own for each test."""
    raw = Raw(hdfs.host, hdfs.port, f"/{tmp_path.name}-{os.urandom(4).hex()}")
    raw.call("PUT", "MKDIRS", raw.root)
    return raw


@pytest.fixture
def hdfs_url(hdfs: Hdfs, raw: Raw) -> str:
    """The same folder's URL."""
    return f"webhdfs://{hdfs.host}:{hdfs.port}{raw.root}"
