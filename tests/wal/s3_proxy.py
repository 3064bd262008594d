"""A proxy before an S3 server that does to a request or its reply what networks and servers do.

It understands HTTP/1.1 as far as S3 clients speak it: bodies with a length, replies with a length or in chunks. Since
each request is read whole, a reply that is lost is lost after the server has written.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from serve_s3 import Server

ERROR = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>by the proxy</Message></Error>"


@dataclass(frozen=True)
class Request:
    number: int  # from 1
    method: str
    path: str  # with the query
    headers: dict[str, str]  # names in lower case

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


# What to do: None forwards; "lost" forwards, then closes without the reply; "reset" closes without forwarding;
# "bodiless" forwards all but the body, as a client that dies then, and closes; "cut" sends half of the reply's body;
# "hang" forwards and says nothing; "503 SlowDown" answers so without forwarding; "after 500 InternalError" forwards
# first; "strip if-match" forwards without that header.
Plan = Callable[[Request], str | None]


@dataclass
class Proxy:
    upstream: Server
    server: Server  # as a client of the proxy sees it
    plan: Plan = lambda request: None
    requests: list[Request] = field(default_factory=list)
    broken: list[BaseException] = field(default_factory=list)  # of the proxy itself

    def on(self, method: str, what: str, *, times: int = 1, part: str = "") -> None:
        """Do `what` to the next `times` requests of this method whose path contains `part`."""
        left = [times]

        def plan(request: Request) -> str | None:
            if request.method != method or part not in request.path or not left[0]:
                return None
            left[0] -= 1
            return what

        self.requests.clear()
        self.plan = plan

    def count(self, run: Callable[[], object]) -> list[str]:
        """The methods that `run` sends."""
        before = len(self.requests)
        run()
        return [request.method for request in self.requests[before:]]


@contextmanager
def proxied(upstream: Server) -> Iterator[Proxy]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    proxy = Proxy(upstream, upstream)
    serving = asyncio.run_coroutine_threadsafe(_serve(proxy), loop).result(10)
    port = serving.sockets[0].getsockname()[1]
    proxy.server = replace(upstream, endpoint=f"http://127.0.0.1:{port}")
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(_stop(serving), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
    assert proxy.broken == []


async def _serve(proxy: Proxy) -> asyncio.Server:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await _exchange(proxy, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread, at the end
            proxy.broken.append(error)
        finally:
            writer.transport.abort()

    return await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20)


async def _stop(serving: asyncio.Server) -> None:
    serving.close()
    mine = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not mine]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _exchange(proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """One request and its reply; whether the connection goes on."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return False
    lines = head.decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    request = Request(len(proxy.requests) + 1, method, path, headers)
    proxy.requests.append(request)
    what = proxy.plan(request) or ""
    if what == "reset":
        return False
    if what[:3].isdigit():
        _refuse(writer, what, method)
        await writer.drain()
        return True
    dropped = {"expect", "connection", *(what.split()[1:] if what.startswith("strip") else ())}
    if what == "bodiless" and body:
        await _leave(proxy.upstream, lines, dropped)
        return False
    reply_head, reply_body = await _ask(proxy.upstream, lines, dropped, body, method)
    if what in ("lost", "bodiless"):
        return False
    if what == "hang":
        await asyncio.sleep(3600)
    if what.startswith("after "):
        _refuse(writer, what.removeprefix("after "), method)
        await writer.drain()
        return True
    writer.write(reply_head + (reply_body[: len(reply_body) // 2] if what == "cut" else reply_body))
    await writer.drain()
    if what == "cut":
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        return False
    return True


def _refuse(writer: asyncio.StreamWriter, what: str, method: str) -> None:
    status, code = what.split(" ")
    text = ERROR.format(code=code).encode()
    head = f"HTTP/1.1 {status} Refused\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\n\r\n"
    writer.write(head.encode() + (b"" if method == "HEAD" else text))


async def _send(
    upstream: Server, lines: list[str], dropped: set[str], body: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(upstream.endpoint)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 20)
    kept = [line for line in lines[1:] if line and line.partition(":")[0].lower() not in dropped]
    writer.write("\r\n".join([lines[0], *kept, "Connection: close", "", ""]).encode("latin-1") + body)
    return reader, writer


async def _leave(upstream: Server, lines: list[str], dropped: set[str]) -> None:
    """Send no body, and wait until the server has done what it makes of that."""
    reader, writer = await _send(upstream, lines, dropped, b"")
    try:
        writer.write_eof()
        with suppress(ConnectionError):
            await reader.read()
    finally:
        writer.transport.abort()


async def _ask(upstream: Server, lines: list[str], dropped: set[str], body: bytes, method: str) -> tuple[bytes, bytes]:
    """The server's reply: its head, with a length instead of chunks, and its body."""
    reader, writer = await _send(upstream, lines, dropped, body)
    try:
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head[1:] if line}
        if method == "HEAD" or head[0].split(" ")[1] in ("204", "304"):
            content = b""
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            content = await _chunks(reader)
        else:
            content = await reader.readexactly(int(headers["content-length"]))
        gone = {"connection", "transfer-encoding"} | (set() if method == "HEAD" else {"content-length"})
        kept = [line for line in head[1:] if line and line.partition(":")[0].lower() not in gone]
        length = [] if method == "HEAD" else [f"Content-Length: {len(content)}"]
        return "\r\n".join([head[0], *kept, *length, "", ""]).encode("latin-1"), content
    finally:
        writer.transport.abort()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    found = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        found.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readuntil(b"\r\n")
    return b"".join(found)
