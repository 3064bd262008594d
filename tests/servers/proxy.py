"""A proxy before WebHDFS that loses requests and replies where a test plans it, NameNode and DataNode alike."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit


@dataclass(frozen=True)
class Exchange:
    """A request on its way."""

    number: int  # counted from 1 since the plan was set, among those that read or those that change
    operation: str  # RENAME, CREATE, …
    data_node: bool
    reading: bool


# What happens to it: "pass", "reset" (it never arrives), "lost" (it is done, the reply never arrives), "error" (it is
# done, and the reply is a gateway's 503), "cut" (the reply breaks off in its body), "legacy" (without renameoptions).
Plan = Callable[[Exchange], str]


class Proxy:
    """Listens on a port of its own; `plan` may be set at any time."""

    def __init__(self, host: str, port: int) -> None:
        self._lock = threading.Lock()
        self._upstream = (host, port)
        self._data_nodes: set[tuple[str, int]] = set()
        self.seen: list[Exchange] = []
        self.plan: Plan = passing
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.host, self.port = "127.0.0.1", self._server.server_port

    def follow(self, plan: Plan) -> None:
        """A new plan; counting starts again."""
        with self._lock:
            self.seen = []
            self.plan = plan

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_any(self) -> None:
                proxy.exchange(self)

            do_GET = do_PUT = do_POST = do_DELETE = handle_any

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler

    def exchange(self, handler: BaseHTTPRequestHandler) -> None:
        body = received(handler)
        query = parse_qs(urlsplit(handler.path).query)
        data_node = "namenoderpcaddress" in query
        with self._lock:
            reading = handler.command == "GET"
            number = sum(each.reading == reading for each in self.seen) + 1
            exchange = Exchange(number, query["op"][0], data_node, reading)
            self.seen.append(exchange)
            plan = self.plan
        fate = plan(exchange)
        if fate == "reset":
            handler.close_connection = True
            return
        path = handler.path.replace("&renameoptions=NONE", "") if fate == "legacy" else handler.path
        status, headers, content = self._forward(handler, path, body, data_node)
        if fate == "lost":
            handler.close_connection = True
            return
        if fate == "error":
            status, headers, content = 503, [], b"<html>busy</html>"
        self._reply(handler, status, headers, content, cut=fate == "cut")

    def _forward(
        self, handler: BaseHTTPRequestHandler, path: str, body: bytes, data_node: bool
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        host, port = next(iter(self._data_nodes)) if data_node else self._upstream
        connection = http.client.HTTPConnection(host, port, timeout=60)
        try:
            dropped = ("Connection", "Transfer-Encoding", "Content-Length")  # the body goes on in one piece
            kept = {name: value for name, value in handler.headers.items() if name not in dropped}
            connection.request(handler.command, path, body or None, kept)
            reply = connection.getresponse()
            content = reply.read()
            return reply.status, reply.getheaders(), content
        finally:
            connection.close()

    def _reply(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        *,
        cut: bool,
    ) -> None:
        handler.send_response(status)
        for name, value in headers:
            if name == "Location" and value.startswith("http://"):
                parts = urlsplit(value)
                assert parts.hostname and parts.port
                self._data_nodes.add((parts.hostname, parts.port))
                handler.send_header(name, urlunsplit(parts._replace(netloc=f"{self.host}:{self.port}")))
            elif name in ("Location", "Content-Type"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2] if cut else content)
        handler.close_connection = handler.close_connection or cut


def received(handler: BaseHTTPRequestHandler) -> bytes:
    """The request's body, of a known length or in chunks."""
    if handler.headers.get("Transfer-Encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    parts = []
    while size := int(handler.rfile.readline(), 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(parts)


def passing(exchange: Exchange) -> str:
    """Nothing happens to anything."""
    return "pass"


@contextmanager
def before(host: str, port: int) -> Iterator[Proxy]:
    """A proxy before a NameNode, while the block runs."""
    proxy = Proxy(host, port)
    thread = threading.Thread(target=proxy.serve)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()
