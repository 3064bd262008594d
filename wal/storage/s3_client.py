"""Requests to one bucket: through s3fs, one at a time, each with its own parameters, and with as few repeats as can be.

Why not the file calls of s3fs: they repeat writes up to fifty times, drop conditions from what is large, split a read
into ranges without a version, and ask for a length before they ask for the bytes.

What is repeated here: questions, a few times, on errors that pass; a write only when the server turned it away
(429, 503, 409 "conditional request conflict"). Below, aiohttp repeats a request once by itself when a connection that
it kept open turns out to be closed, so a writer must always expect to meet its own object.
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
from typing import Any, NoReturn
from urllib.parse import urlsplit

from wal.clock import Clock
from wal.errors import UnsupportedError
from wal.storage.base import ChangedError
from wal.storage.s3_errors import S3Error, is_foreign, read_reply, translate
from wal.storage.s3_names import ATTRIBUTE, TOKEN, Place, from_header
from wal.storage.s3_options import check_botocore, settings

_QUESTIONS = 4  # attempts
_ORDERS = 12  # attempts of a write that was not done: with several writers on one key a server may say so often
_FIRST_PAUSE = 0.05  # seconds, doubled each time up to _LONGEST_PAUSE; half to all of it is waited
_LONGEST_PAUSE = 2.0

_CLOSING = 5.0  # seconds that connections have to close
_PART_OF = 8 << 20  # bytes: an object larger than this must come in the ranges that are asked for

_clients: weakref.WeakSet[S3Client] = weakref.WeakSet()
_inherited: list[object] = []  # in a forked child: kept, never closed, since the connections are the parent's


@dataclass(frozen=True, slots=True)
class Object:
    """What a reply tells of an object."""

    size: int  # bytes of the whole object, whatever range was asked for
    version: str  # its ETag, as the server gave it, quotes and all
    attribute: bytes | None
    token: str | None  # of the call that wrote it


class S3Client:
    """Each method that asks or orders raises S3Error; `fail` turns it into the OSError that it means."""

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
        """Scheme, host and port of the server that is really asked: options, environment and profile may name it."""
        parts = urlsplit(str(self._run(_endpoint, "", {})))
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    # --- requests --------------------------------------------------------------------------------------------------

    def ask(self, method: str, **parameters: Any) -> Any:
        """A question, asked again on errors that pass."""
        return self._repeat(lambda: self._run(_call, method, parameters), lambda e: e.transient, _QUESTIONS)

    def order(self, method: str, **parameters: Any) -> Any:
        """A write, sent again only if it was not done. A reply of status 0, or 500 and above: outcome unknown."""
        return self._repeat(lambda: self._run(_call, method, parameters), lambda e: e.reply.turned_away, _ORDERS)

    def get(self, key: str, **parameters: Any) -> tuple[bytes, Object]:
        """The body, or the part of it that `Range` names, and what it is of, in one request."""
        parameters["Key"] = key
        body, reply = self._repeat(
            lambda: self._run(_fetch, "get_object", parameters), lambda e: e.transient, _QUESTIONS
        )
        return body, _object(reply)

    def head(self, key: str) -> Object | None:
        """What is there; None if nothing. A missing bucket looks the same: the reply has no body that told it."""
        try:
            return _object(self.ask("head_object", Key=key))
        except S3Error as error:
            if error.reply.missing:
                return None
            raise

    def pages(self, prefix: str, *, delimiter: str = "", limit: int = 1000) -> Iterator[dict[str, Any]]:
        """The pages of a LIST, up to `limit` keys each."""
        more: dict[str, Any] = {"Delimiter": delimiter} if delimiter else {}
        while True:
            page = self.ask("list_objects_v2", Prefix=prefix, MaxKeys=limit, **more)
            yield page
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    # --- errors ----------------------------------------------------------------------------------------------------

    def fail(self, failure: S3Error, what: str, name: str) -> NoReturn:
        """Raise what a failed request means, for whoever knows nothing better."""
        place = f"s3://{self.place.bucket}" if failure.reply.missing_bucket else self.place.describe(name)
        raise translate(failure, what, place) from failure.original

    def changed(self, what: str, name: str, why: str) -> ChangedError:
        return ChangedError(errno.ESTALE, f"{what}: {why}", self.place.describe(name))

    def missing(self, what: str, name: str) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, f"{what}: no such object", self.place.describe(name))

    # --- how -------------------------------------------------------------------------------------------------------

    def token(self) -> str:
        """A name for one call, to be found again in the metadata of what it wrote."""
        return self.clock.token(16).hex()

    def close(self) -> None:
        with self._lock:
            filesystem, self._filesystem = self._filesystem, None
        if filesystem is not None:
            filesystem.finalizer()

    def forget(self) -> None:
        """In a forked child: the loop's thread stayed with the parent, and so did the right to its connections."""
        if self._filesystem is not None:
            _inherited.append(self._filesystem)
        self._filesystem = None
        self._lock = threading.Lock()  # the parent's may have been held by a thread that is not here

    def _repeat(self, run: Callable[[], Any], again: Callable[[S3Error], bool], attempts: int) -> Any:
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
                filesystem.retries = 1  # s3fs repeats around each request; `_repeat` decides instead
                # Closes the connections with the client, or before the interpreter ends: aiohttp complains if not.
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
            # Before the bytes are taken: they could be more than there is memory.
            raise UnsupportedError("this S3 server sends whole objects where a range was asked for")
        return await body.read(), reply


async def _shut(filesystem: Any) -> None:
    if getattr(filesystem, "_s3creator", None) is not None:  # nothing was asked yet: no session
        await filesystem._s3creator.__aexit__(None, None, None)


def _close(filesystem: Any, loop: asyncio.AbstractEventLoop, pid: int) -> None:
    if pid != os.getpid() or not loop.is_running():
        return
    closing = asyncio.run_coroutine_threadsafe(_shut(filesystem), loop)
    try:
        asyncio.get_running_loop()  # the collector ran in a loop's thread: waiting there could be for ever
    except RuntimeError:
        with suppress(TimeoutError):
            closing.result(_CLOSING)


def _object(reply: Mapping[str, Any]) -> Object:
    _, _, total = str(reply.get("ContentRange", "")).partition("/")
    metadata = reply.get("Metadata", {})
    return Object(
        size=int(total) if total.isdigit() else int(reply["ContentLength"]),
        version=str(reply["ETag"]),
        attribute=from_header(metadata.get(ATTRIBUTE)),
        token=metadata.get(TOKEN),
    )


def _forget_in_child() -> None:
    for client in list(_clients):
        client.forget()


os.register_at_fork(after_in_child=_forget_in_child)
