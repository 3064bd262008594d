"""Replies with a good status that are not what was asked for: each is noticed before anything in it is trusted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from wal.clock import Clock
from wal.storage.base import ChangedError, Staged
from wal.storage.s3 import S3Storage

Reply = tuple[int, dict[str, str], bytes]
ETAG = {"ETag": '"e"'}
WINDOW = 8 << 20
STARTED = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
COPIED = b'<CopyPartResult><ETag>"p"</ETag></CopyPartResult>'
COMPLETED = b'<CompleteMultipartUploadResult><ETag>"z"</ETag></CompleteMultipartUploadResult>'
FAILED = b"<Error><Code>InternalError</Code><Message>after all</Message></Error>"


class Scripted:
    """A server that answers as it was told."""

    def __init__(self) -> None:
        self.answer: Callable[[str, str, str], Reply] = lambda method, path, asked: (500, {}, b"")
        self.token = ""  # of the last PUT
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # answers an "Expect: 100-continue"

            def _do(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                scripted.token = self.headers.get("x-amz-meta-metatree-token", scripted.token)
                status, headers, body = scripted.answer(self.command, self.path, self.headers.get("Range", ""))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _do

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


class Hasty(Clock):
    def sleep(self, seconds: float) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Scripted]:
    scripted = Scripted()
    thread = threading.Thread(target=scripted.http.serve_forever, daemon=True)
    thread.start()
    yield scripted
    scripted.http.shutdown()
    scripted.http.server_close()
    thread.join()


@pytest.fixture
def storage(server: Scripted) -> Iterator[S3Storage]:
    endpoint = f"http://127.0.0.1:{server.http.server_port}"
    storage = S3Storage("s3://bucket/p", {"endpoint_url": endpoint, "key": "k", "secret": "s"}, clock=Hasty())
    yield storage
    storage.close()


def copying(**replies: bytes) -> Callable[[str, str, str], Reply]:
    """A server that copies in parts, but for these replies of status 200."""

    def answer(method: str, path: str, asked: str) -> Reply:
        if method == "HEAD":
            return 200, {"Content-Length": "10", **ETAG}, b""
        if method == "DELETE":
            return 204, {}, b""
        if method == "PUT":
            return 200, {}, replies.get("copy", COPIED)
        if "uploads" in path:
            return 200, {}, replies.get("start", STARTED)
        return 200, {}, replies.get("complete", COMPLETED)

    return answer


@pytest.mark.parametrize("body", [b"", b"  \n", b"<a/>", b"<html>hello</html>", COMPLETED[:40], FAILED])
@pytest.mark.parametrize("step", ["start", "copy", "complete"])
def test_a_step_of_an_upload_that_tells_nothing_is_an_error_of_the_storage(
    server: Scripted, storage: S3Storage, step: str, body: bytes
) -> None:
    server.answer = copying()
    assert storage.publish("x", Staged("y"), b"", durable=True, expect="") == '"z"'
    server.answer = copying(**{step: body})
    with pytest.raises(OSError, match="publish: "):
        storage.publish("x", Staged("y"), b"", durable=True, expect="")


def test_a_put_that_names_no_version_is_an_error_of_the_storage(server: Scripted, storage: S3Storage) -> None:
    server.answer = lambda method, path, asked: (200, {}, b"")
    with pytest.raises(OSError, match=r"publish: .*is unknown"):
        storage.publish("x", b"content", b"", durable=True, expect="")
    with pytest.raises(OSError, match=r"create: .*is unknown"):
        storage.create("x", b"content")


@pytest.mark.parametrize(("size", "own"), [("7", True), ("0", False)])
def test_what_a_repeated_put_finds_is_its_own_object_only_if_it_is_whole(
    server: Scripted, storage: S3Storage, size: str, own: bool
) -> None:
    def answer(method: str, path: str, asked: str) -> Reply:
        if method == "PUT":
            return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
        return 200, {"Content-Length": size, "x-amz-meta-metatree-token": server.token, **ETAG}, b""

    server.answer = answer
    with nullcontext() if own else pytest.raises(ChangedError):
        assert storage.publish("x", b"content", b"", durable=True, expect='"old"') == '"e"'


@pytest.mark.parametrize(
    "reply",
    [
        (206, {**ETAG, "Content-Range": "bytes 0-2/10"}, b"abc"),  # a part where the whole was asked for
        (206, {**ETAG, "Content-Range": "bytes 2-4/5"}, b"cde"),
        (200, {}, b"abc"),  # no version
    ],
)
def test_a_read_of_something_else_is_an_error(server: Scripted, storage: S3Storage, reply: Reply) -> None:
    server.answer = lambda method, path, asked: reply
    with pytest.raises(OSError, match="read: "):
        storage.read("x")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Range": "bytes 1-3/4"}, b"bcd"),
        ({"Content-Range": "bytes 0-3/4"}, b"abc"),
        ({"Content-Range": "bytes 0-2/*"}, b"abc"),
        ({"Content-Range": "nonsense"}, b"abc"),
    ],
)
def test_the_first_range_is_the_one_that_was_asked_for(
    server: Scripted, storage: S3Storage, headers: dict[str, str], body: bytes
) -> None:
    server.answer = lambda method, path, asked: (206, {**ETAG, **headers}, body)
    with pytest.raises(OSError, match="open: "):
        storage.open("x")


@pytest.mark.parametrize(
    ("first", "etag"),
    [(WINDOW, '"other"'), (WINDOW + 1, '"e"'), (0, '"e"')],
    ids=["another version", "a range further on", "the first range again"],
)
def test_a_later_range_is_the_one_that_was_asked_for_and_of_the_same_version(
    server: Scripted, storage: S3Storage, first: int, etag: str
) -> None:
    """Of an object of twice the window."""

    def answer(method: str, path: str, asked: str) -> Reply:
        start, said = (0, '"e"') if asked.startswith("bytes=0-") else (first, etag)
        place = f"bytes {start}-{start + WINDOW - 1}/{2 * WINDOW}"
        return 206, {"ETag": said, "Content-Range": place}, bytes(WINDOW)

    server.answer = answer
    with storage.open("x") as opened:
        assert len(opened.read(WINDOW)) == WINDOW
        with pytest.raises(OSError, match="read: "):
            opened.read(1)


@pytest.mark.parametrize("body", [b"", b"<html>please log in</html>"])
def test_what_is_no_listing_is_not_taken_for_an_empty_one(server: Scripted, storage: S3Storage, body: bytes) -> None:
    server.answer = lambda method, path, asked: (404 if method == "HEAD" else 200, {}, body)
    for ask in (storage.versions, storage.list, storage.entry):
        with pytest.raises(OSError, match=r"list: .*not a listing"):
            ask("x")
    server.answer = lambda method, path, asked: (204, {}, b"") if method == "DELETE" else (200, {}, body)
    with pytest.raises(OSError, match=r"erase: .*not a listing"):
        storage.erase("x")
