"""Replies of data nodes, and of what stands before them, that are no errors but not the right ones either."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from wal.storage.webhdfs import WebHdfsStorage

LOGIN = (302, {"Location": "http://127.0.0.1:1/login"}, b"log in")
MISSING = {"RemoteException": {"exception": "FileNotFoundException", "message": "no", "javaClassName": "x"}}


class Cluster:
    """A NameNode and a DataNode. It knows folders, files that were written to it, and "x", which holds 6 bytes."""

    def __init__(self) -> None:
        self.written: tuple[int, dict[str, str], bytes] = (201, {}, b"")  # the DataNode's reply to a CREATE
        self.read: tuple[int, dict[str, str], bytes] = (200, {}, b"abcdef")  # ... to an OPEN
        self.size = 6  # of what is written, as the NameNode says afterwards
        self.renamed: list[str] = []
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _do(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                parts = urlsplit(self.path)
                asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
                status, headers, body = cluster.answer(parts.path, asked, self.path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_DELETE = _do

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def answer(self, path: str, asked: dict[str, str], whole: str) -> tuple[int, dict[str, str], bytes]:
        operation = asked["op"]
        if operation in ("CREATE", "OPEN") and "datanode" not in asked:
            return 307, {"Location": f"http://127.0.0.1:{self.http.server_port}{whole}&datanode=1"}, b""
        if operation == "CREATE":
            return self.written
        if operation == "OPEN":
            return self.read
        if operation == "GETFILESTATUS" and path.endswith("/absent"):
            return 404, {}, json.dumps(MISSING).encode()
        if operation == "GETFILESTATUS":
            kind = "DIRECTORY" if path.endswith("/tree") else "FILE"
            found = {"type": kind, "length": 0 if kind == "DIRECTORY" else self.size, "fileId": 7}
            return 200, {}, json.dumps({"FileStatus": found}).encode()
        if operation == "GETXATTRS":
            return 200, {}, b'{"XAttrs": []}'
        if operation == "RENAME" and ".renamed" not in asked["destination"]:
            self.renamed.append(asked["destination"])
            return 200, {}, b""
        if operation == "RENAME":
            return 404, {}, json.dumps(MISSING).encode()
        return 200, {}, b'{"boolean": true}' if operation == "DELETE" else b""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    thread = threading.Thread(target=cluster.http.serve_forever, daemon=True)
    thread.start()
    yield cluster
    cluster.http.shutdown()
    cluster.http.server_close()
    thread.join()


@pytest.fixture
def storage(cluster: Cluster) -> Iterator[WebHdfsStorage]:
    storage = WebHdfsStorage(f"webhdfs://127.0.0.1:{cluster.http.server_port}/tree", {"user": "root"})
    yield storage
    storage.close()


def test_the_cluster_is_good_enough(cluster: Cluster, storage: WebHdfsStorage) -> None:
    assert storage.create("new", b"sixsix") is True
    storage.publish("x", b"sixsix", b"a", durable=True)
    assert cluster.renamed == ["/tree/new", "/tree/x"]
    assert storage.read("x").data == b"abcdef" and storage.open("x").read() == b"abcdef"


@pytest.mark.parametrize("reply", [LOGIN, (200, {}, b"<html>hello</html>"), (200, {}, b"")])
def test_what_no_data_node_says_it_has_written_is_not_placed(
    cluster: Cluster, storage: WebHdfsStorage, reply: tuple[int, dict[str, str], bytes]
) -> None:
    cluster.written = reply
    with pytest.raises(OSError, match="did not say"):
        storage.create("new", b"sixsix")
    with pytest.raises(OSError, match="did not say"):
        storage.publish("x", b"sixsix", b"a", durable=True)
    with storage.stage("absent") as staged, pytest.raises(OSError, match="did not say"):
        staged.finish(b"a")
    assert cluster.renamed == []


@pytest.mark.parametrize("size", [0, 3, 7])
def test_what_was_not_written_whole_is_not_placed(cluster: Cluster, storage: WebHdfsStorage, size: int) -> None:
    cluster.size = size
    with pytest.raises(OSError, match=f"{size} bytes instead of 6"):
        storage.create("new", b"sixsix")
    with pytest.raises(OSError, match=f"{size} bytes instead of 6"):
        storage.publish("x", b"sixsix", b"a", durable=True)
    assert cluster.renamed == []


@pytest.mark.parametrize("reply", [LOGIN, (302, {}, b"abcdef"), (204, {}, b"")])
def test_what_is_no_content_is_not_read(
    cluster: Cluster, storage: WebHdfsStorage, reply: tuple[int, dict[str, str], bytes]
) -> None:
    cluster.read = reply
    with pytest.raises(OSError, match="not the content"):
        storage.read("x")
    with pytest.raises(OSError, match="not the content"):
        storage.open("x")
