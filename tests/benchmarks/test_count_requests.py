"""What is counted on the way to a server: every exchange, with its bytes, redirects included."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from aiobotocore.httpsession import AIOHTTPSession
from requests.adapters import HTTPAdapter
from serve_s3 import Server

from benchmarks.count_requests.__main__ import figures
from benchmarks.count_requests.committers import Contended
from benchmarks.count_requests.wire import Wire
from metatree import Metatree
from tests.tree import storages


class Handler(BaseHTTPRequestHandler):
    """Sends /there on to /here; /here takes a body and answers with six bytes."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        there = self.path == "/there"
        self.send_response(307 if there else 200)
        if there:
            self.send_header("Location", "/here")
        self.send_header("Content-Length", "0" if there else "6")
        self.end_headers()
        self.wfile.write(b"" if there else b"answer")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    monkeypatch.setattr(HTTPAdapter, "send", HTTPAdapter.send)  # put back when the test ends
    monkeypatch.setattr(AIOHTTPSession, "send", AIOHTTPSession.send)
    wire = Wire()
    wire.watch()
    return wire


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_request_counts_once_with_its_bytes(wire: Wire, url: str) -> None:
    requests.put(f"{url}/here", data=b"body", timeout=10)
    assert wire == Wire(requests=1, sent=4, received=6)


def test_a_redirect_is_a_request_more(wire: Wire, url: str) -> None:
    requests.put(f"{url}/there", data=b"body", timeout=10)
    assert wire == Wire(requests=2, sent=8, received=6)


def test_a_put_in_a_bucket_is_counted(
    wire: Wire, moto: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(storages.CACHE, str(tmp_path))
    storages.trust(moto)
    place = storages.in_bucket("moto", moto)
    with place.open("counted", ("model",), apply="background") as tree:
        assert isinstance(tree, Metatree)
        tree.put("m", bytes(1000), name="b")
        tree.flush()
        tree._engine.committer.stop()
        before = Wire(wire.requests, wire.sent, wire.received)
        tree.put("n", bytes(1000), name="b")
        assert wire.requests == before.requests + 1
        assert 1000 < wire.sent - before.sent < 3000 and wire.received == before.received


def test_figures_are_in_columns_and_what_was_raised_is_shown() -> None:
    assert figures([6.0, 3032.4, 0.0]).split() == ["6.0", "3,032", "0"]
    assert figures("OSError: no").strip() == "OSError: no"
    assert len(figures("x" * 100)) == len(figures([1.0, 2.0, 3.0]))


def test_a_slot_carries_the_commits_made_while_it_was_the_next() -> None:
    assert Contended(processes=2, threads=8, commits=90.0, slots=20.0, lost=0).carried == 4.5
