"""Translates errors of S3 requests to `OSError`: the only module that inspects the libraries' exceptions.

The same refusal arrives as different classes from different servers (a refused put-if-absent is FileExistsError from
one and EINVAL from another), so the HTTP status of the reply decides, not the class.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PRECONDITION_FAILED = 412
NOT_FOUND = 404
RANGE_REFUSED = 416
_CONFLICT = 409
# "Another conditional write of this key is in progress": nothing was done, the request may be sent again.
_CONFLICT_CODES = {"ConditionalRequestConflict", "OperationAborted"}
_BUSY = {429, 503}
_PERMISSION = {401, 403}
_PERMISSION_CODES = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}  # 400, from AWS
_CONNECTION_NAMES = {
    "EndpointConnectionError",
    "ConnectionClosedError",
    "ConnectionError",
    "ClientPayloadError",
    "IncompleteRead",
    "IncompleteReadError",
    "ResponseStreamingError",
    "HTTPClientError",
    "ProxyConnectionError",
    "SSLError",
}
_QUESTIONS = {"read", "open", "list"}  # operations that change nothing: their outcome is never unknown
_TIMEOUT_NAMES = {
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "FSTimeoutError",
    "ServerTimeoutError",
    "SocketTimeoutError",
}
_CREDENTIAL_NAMES = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered."""

    status: int  # HTTP; 0: no answer, so the outcome of the request is unknown
    code: str  # the S3 error code; "" or the status again if the reply had no body (HEAD)
    message: str  # the server's message

    @property
    def missing_bucket(self) -> bool:
        return self.code == "NoSuchBucket"

    @property
    def missing(self) -> bool:
        """The key is absent (not its bucket)."""
        return self.status == NOT_FOUND and not self.missing_bucket

    @property
    def refused(self) -> bool:
        """A condition did not hold. If the request was repeated, the first one may have succeeded."""
        return self.status == PRECONDITION_FAILED

    @property
    def conflict(self) -> bool:
        return self.status == _CONFLICT and self.code in _CONFLICT_CODES

    @property
    def busy(self) -> bool:
        return self.status in _BUSY

    @property
    def turned_away(self) -> bool:
        """Nothing was done, and the same request may be sent again."""
        return self.busy or self.conflict


class S3Error(Exception):
    """A failed request, not translated yet. Never leaves this package."""

    def __init__(self, reply: Reply, original: BaseException) -> None:
        super().__init__(reply)
        self.reply = reply
        self.original = original

    @property
    def transient(self) -> bool:
        """Whether a read may be retried. A write must not be: its outcome is unknown."""
        if self.reply.status:
            return self.reply.busy or self.reply.status >= 500
        lost = _CONNECTION_NAMES | _TIMEOUT_NAMES
        return isinstance(self.original, OSError) or bool(_names(self.original) & lost)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__


def read_reply(error: BaseException) -> Reply:
    """The server's answer that an exception of s3fs or botocore carries."""
    for one in _chain(error):
        response: Any = getattr(one, "response", None)
        if isinstance(response, dict) and "Error" in response:
            told = response["Error"]
            code = str(told.get("Code", ""))
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if not status and code.isdigit():
                status = int(code)
            return Reply(int(status), code, str(told.get("Message", "")))
    return Reply(0, "", "")


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for one in _chain(error) for kind in type(one).__mro__}


def is_foreign(error: BaseException) -> bool:
    """Whether the error is of the libraries or the network, and not a mistake in this program."""
    return isinstance(error, OSError) or bool(
        _names(error)
        & (
            {"BotoCoreError", "ClientError", "ClientPayloadError", "FSTimeoutError"}
            | _CONNECTION_NAMES
            | _TIMEOUT_NAMES
        )
    )


def translate(failure: S3Error, what: str, place: str) -> OSError:
    """The `OSError` for a failed request; raise it `from failure.original`.

    `what` is the operation, `place` the URL of the object without any secret.
    """
    reply, names = failure.reply, _names(failure.original)
    if reply.missing_bucket:
        return OSError(errno.ENXIO, f"{what}: the bucket does not exist", place)
    if reply.code == "NoSuchUpload":
        return OSError(errno.EIO, f"{what}: the upload was aborted or completed by somebody else", place)
    if reply.status == NOT_FOUND:
        return FileNotFoundError(errno.ENOENT, f"{what}: no such object", place)
    if reply.status in _PERMISSION or reply.code in _PERMISSION_CODES or names & _CREDENTIAL_NAMES:
        return PermissionError(errno.EACCES, f"{what}: {_answer(reply) or 'no usable credentials were found'}", place)
    if reply.busy or reply.status == _CONFLICT:
        return OSError(errno.EBUSY, f"{what}: {_answer(reply)}", place)
    if reply.status:
        return OSError(errno.EIO, f"{what}: {_answer(reply)}", place)
    unknown = "no answer from the server"
    if what not in _QUESTIONS:
        unknown += "; whether the request took effect is unknown"
    strange = reply.message + unknown.removeprefix("no answer from the server") if reply.message else ""
    if names & _TIMEOUT_NAMES or isinstance(failure.original, TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, f"{what}: {unknown}", place)
    if names & _CONNECTION_NAMES or isinstance(failure.original, ConnectionError):
        return ConnectionError(errno.ECONNRESET, f"{what}: {unknown}", place)
    return OSError(errno.EIO, f"{what}: {strange or type(failure.original).__name__}", place)


def _answer(reply: Reply) -> str:
    if not reply.status:
        return ""
    return f"the server answered {reply.status} {reply.code if not reply.code.isdigit() else ''}".rstrip()
