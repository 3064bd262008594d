"""Requests to one bucket through s3fs, one at a time, with parameters of their own and as few retries as possible.

Why not the file methods of s3fs: they retry writes up to fifty times, drop conditions from large writes, split a read
into ranges without a version, and request the length before the content.

Retried here: reads, a few times after transient errors; a write only if the server turned it away (429, 503, 409
"conditional request conflict"). Below this, aiohttp repeats a request once if a kept-alive connection turns out to be
closed, so a writer must always expect to find its own object.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from wal.clock import Clock
from wal.errors import UnsupportedError
from wal.storage.base import ChangedError
from wal.storage.s3_errors import Reply, S3Error, is_foreign, read_reply, translate
from wal.storage.s3_names import ATTRIBUTE, TOKEN, Place, from_header
from wal.storage.s3_options import check_botocore, settings

T = TypeVar("T")

_QUESTIONS = 4  # attempts of a read
_ORDERS = 12  # attempts of a write that the server turned away: frequent with several writers of one key
_FIRST_PAUSE = 0.05  # seconds, doubled each time up to _LONGEST_PAUSE; the wait is half to all of it
_LONGEST_PAUSE = 2.0

_CLOSING = 5.0  # seconds to wait for connections to close
_PART_OF = 8 << 20  # bytes; a server must honour ranges of objects larger than this

_clients: weakref.WeakSet[S3Client] = weakref.WeakSet()
_inherited: list[object] = []  # in a forked child: never closed, since the connections are the parent's


@dataclass(frozen=True, slots=True)
class Object:
    """What a reply says about an object."""

    size: int  # bytes of the whole object, whatever range was asked for
    version: str  # its ETag as the server reports it, with quotes
    attribute: bytes | None
    token: str | None  # of the call that wrote it


class S3Client:
    """Methods that make requests raise S3Error, which `fail` translates to an OSError."""

    def __init__(self, place: Place, options: Mapping[str, Any], clock: Clock) -> None:
        self.place = place
        self.clock = clock
        check_botocore()
        self._settings = settings(options)
        self._lock = threading.Lock()
        self._filesystem: Any = None
        _clients.add(self)

    def __repr__(self) -> str:
        return f"S3Client({self.place.url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} holds credentials and is not pickled: open the URL again with its options")

    def endpoint(self) -> str:
        """Scheme, host and port of the server, wherever it is configured: options, environment or profile."""
        parts = urlsplit(str(self._run(_endpoint, "", {})))
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    # --- requests --------------------------------------------------------------------------------------------------

    def ask(self, method: str, **parameters: Any) -> Any:
        """A read request, retried after transient errors."""
        return self._repeat(lambda: self._run(_call, method, parameters), lambda e: e.transient, _QUESTIONS)

    def order(self, method: str, **parameters: Any) -> Any:
        """A write, retried only if it was not done. After a status of 0, or 500 and above, the outcome is unknown."""
        return self._repeat(lambda: self._run(_call, method, parameters), lambda e: e.reply.turned_away, _ORDERS)

    def get(self, key: str, **parameters: Any) -> tuple[bytes, Object]:
        """(the content, or the part that `Range` names; the object), in one request."""
        parameters["Key"] = key

        def run() -> tuple[bytes, Object]:
            body, reply = self._run(_fetch, "get_object", parameters)
            found = self._object(reply)
            if not _is_asked(body, reply, found, parameters):
                raise self.strange("the server sent something else than what was asked for")
            return body, found

        return self._repeat(run, lambda e: e.transient, _QUESTIONS)

    def head(self, key: str) -> Object | None:
        """The object; None if there is none. A missing bucket looks the same, since the reply has no body."""
        try:
            return self._object(self.ask("head_object", Key=key))
        except S3Error as error:
            if error.reply.missing:
                return None
            raise

    def pages(self, prefix: str, *, delimiter: str = "", limit: int = 1000) -> Iterator[dict[str, Any]]:
        """The pages of a LIST, up to `limit` keys each."""
        more: dict[str, Any] = {"Delimiter": delimiter} if delimiter else {}
        while True:
            page = self.ask("list_objects_v2", Prefix=prefix, MaxKeys=limit, **more)
            goes_on = self.told(page, "IsTruncated", "the reply is not a listing")  # a gateway's page would look empty
            yield page
            if not goes_on:
                return
            more["ContinuationToken"] = self.told(page, "NextContinuationToken")

    # --- errors ----------------------------------------------------------------------------------------------------

    def fail(self, failure: S3Error, what: str, name: str) -> NoReturn:
        """Raise the OSError for a failed request, if the caller has no special case for it."""
        place = f"s3://{self.place.bucket}" if failure.reply.missing_bucket else self.place.describe(name)
        raise translate(failure, what, place) from failure.original

    def strange(self, why: str) -> S3Error:
        """The error for a reply of a good status whose content makes no sense."""
        return S3Error(Reply(0, "", why), OSError(errno.EPROTO, why))

    def told(self, reply: Mapping[str, Any], name: str, why: str = "") -> Any:
        """A field that every such reply has, even if a proxy or a cut connection lost it. Raises S3Error."""
        try:
            return reply[name]
        except KeyError:
            raise self.strange(why or f"the reply has no {name}") from None

    def changed(self, what: str, name: str, why: str) -> ChangedError:
        return ChangedError(errno.ESTALE, f"{what}: {why}", self.place.describe(name))

    def missing(self, what: str, name: str) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, f"{what}: no such object", self.place.describe(name))

    def _object(self, reply: Mapping[str, Any]) -> Object:
        _, _, total = str(reply.get("ContentRange", "")).partition("/")
        metadata = reply.get("Metadata", {})
        return Object(
            size=int(total) if total.isdigit() else int(self.told(reply, "ContentLength")),
            version=str(self.told(reply, "ETag")),
            attribute=from_header(metadata.get(ATTRIBUTE)),
            token=metadata.get(TOKEN),
        )

    # --- internals -------------------------------------------------------------------------------------------------

    def token(self) -> str:
        """A random token for one call, stored in the metadata of the object that it writes."""
        return self.clock.token(16).hex()

    def close(self) -> None:
        with self._lock:
            filesystem, self._filesystem = self._filesystem, None
        if filesystem is not None:
            filesystem.finalizer()

    def forget(self) -> None:
        """In a forked child: the event loop's thread and the connections are the parent's."""
        if self._filesystem is not None:
            _inherited.append(self._filesystem)
        self._filesystem = None
        self._lock = threading.Lock()  # a thread that does not exist here may have held the old one

    def _repeat(self, run: Callable[[], T], again: Callable[[S3Error], bool], attempts: int) -> T:
        pause = _FIRST_PAUSE
        while True:
            attempts -= 1
            try:
                return run()
            except S3Error as error:
                if not attempts or not again(error):
                    raise
            jitter = int.from_bytes(self.clock.token(2), "big") / (1 << 16)
            self.clock.sleep(pause * (0.5 + jitter / 2))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _run(self, coroutine: Callable[..., Any], method: str, parameters: Mapping[str, Any]) -> Any:
        from fsspec.asyn import get_loop, sync

        filesystem = self._opened()
        try:
            return sync(get_loop(), coroutine, filesystem, method, {"Bucket": self.place.bucket, **parameters})
        except Exception as error:
            if not is_foreign(error):
                raise
            raise S3Error(read_reply(error), error) from error

    def _opened(self) -> Any:
        with self._lock:
            if self._filesystem is None:
                from fsspec.asyn import get_loop
                from s3fs import S3FileSystem

                filesystem = S3FileSystem(**self._settings)
                filesystem.retries = 1  # no retries by s3fs: `_repeat` decides
                # Closes connections with the client or before the interpreter exits; otherwise aiohttp warns.
                filesystem.finalizer = weakref.finalize(self, _close, filesystem, get_loop(), os.getpid())
                self._filesystem = filesystem
            return self._filesystem


async def _call(filesystem: Any, method: str, parameters: Mapping[str, Any]) -> Any:
    return await filesystem._call_s3(method, **parameters)


async def _endpoint(filesystem: Any, method: str, parameters: Mapping[str, Any]) -> Any:
    return (await filesystem.set_session()).meta.endpoint_url


async def _fetch(filesystem: Any, method: str, parameters: Mapping[str, Any]) -> tuple[bytes, Any]:
    reply = await filesystem._call_s3(method, **parameters)
    async with reply["Body"] as body:
        if "Range" in parameters and "ContentRange" not in reply and reply["ContentLength"] > _PART_OF:
            # Checked before the content is read: it could exceed the memory.
            raise UnsupportedError("this S3 server sends whole objects where a range was asked for")
        return await body.read(), reply


async def _shut(filesystem: Any) -> None:
    if getattr(filesystem, "_s3creator", None) is not None:  # no session before the first request
        await filesystem._s3creator.__aexit__(None, None, None)


def _close(filesystem: Any, loop: asyncio.AbstractEventLoop, pid: int) -> None:
    if pid != os.getpid() or not loop.is_running():
        return
    closing = asyncio.run_coroutine_threadsafe(_shut(filesystem), loop)
    try:
        asyncio.get_running_loop()  # the garbage collector runs in a loop's thread: waiting could block for ever
    except RuntimeError:
        with suppress(TimeoutError):
            closing.result(_CLOSING)


def _is_asked(body: bytes, reply: Mapping[str, Any], found: Object, asked: Mapping[str, Any]) -> bool:
    """Whether the content is all of the object, or the range that was asked for, and of the version."""
    if asked.get("IfMatch", found.version) != found.version:
        return False
    said = reply.get("ContentRange")
    first, _, last = str(asked.get("Range", "")).removeprefix("bytes=").partition("-")
    if said is None:
        return len(body) == found.size and first in ("", "0")
    if not first:
        return False
    end = min(int(last) + 1, found.size)
    return said == f"bytes {first}-{end - 1}/{found.size}" and len(body) == end - int(first)


def _forget_in_child() -> None:
    for client in list(_clients):
        client.forget()


os.register_at_fork(after_in_child=_forget_in_child)
