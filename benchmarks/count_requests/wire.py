"""Counts HTTP exchanges in the client libraries of S3 (aiobotocore) and WebHDFS (requests), retries and redirects too.

It imports nothing of this checkout: metatreedb 0.2.3 is counted with it in an environment of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Wire:
    """What went over the wire so far. Bytes are those of bodies; headers add some hundred to each request."""

    requests: int = 0
    sent: int = 0
    received: int = 0

    def watch(self) -> None:
        """Count from now on, in whichever of the libraries are there."""
        self._watch_s3()
        self._watch_webhdfs()

    def _watch_s3(self) -> None:
        from aiobotocore.httpsession import AIOHTTPSession  # type: ignore[import-untyped]

        plain = AIOHTTPSession.send

        async def send(session: Any, request: Any) -> Any:
            reply = await plain(session, request)
            self.requests += 1
            self.sent += _length(request.headers, "X-Amz-Decoded-Content-Length", "Content-Length")
            if request.method != "HEAD":
                told = _length(reply.headers, "Content-Length")
                self.received += told or (0 if request.stream_output else len(await reply.content))
            return reply

        AIOHTTPSession.send = send

    def _watch_webhdfs(self) -> None:
        from requests.adapters import HTTPAdapter

        plain = HTTPAdapter.send

        def send(adapter: Any, request: Any, *arguments: Any, **options: Any) -> Any:
            reply = plain(adapter, request, *arguments, **options)
            self.requests += 1
            self.sent += _length(request.headers, "Content-Length")
            self.received += _length(reply.headers, "Content-Length") or len(reply.content)
            return reply

        HTTPAdapter.send = send  # type: ignore[assignment,method-assign]


def _length(headers: Mapping[str, Any], *names: str) -> int:
    """What the first of these headers says; 0 if there is none of them."""
    for name in names:
        value = headers.get(name)
        if value is not None:
            return int(value)
    return 0
