"""Translates errors of WebHDFS and of the HTTP library to OSError.

No message holds a URL's query, a token or a password, and no translated error keeps the original as its cause: the
HTTP library's messages quote the query, which may hold a delegation token.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Collection
from typing import Any

# Java exceptions of the server, by class name without package.
_CLASSES: dict[str, tuple[type[OSError], int]] = {
    "FileNotFoundException": (FileNotFoundError, errno.ENOENT),
    "FileAlreadyExistsException": (FileExistsError, errno.EEXIST),
    "AlreadyBeingCreatedException": (FileExistsError, errno.EEXIST),
    "ParentNotDirectoryException": (NotADirectoryError, errno.ENOTDIR),
    "PathIsNotDirectoryException": (NotADirectoryError, errno.ENOTDIR),
    "AccessControlException": (PermissionError, errno.EACCES),
    "SecurityException": (PermissionError, errno.EACCES),
    "AuthenticationException": (PermissionError, errno.EACCES),
    "AuthorizationException": (PermissionError, errno.EACCES),
    "InvalidToken": (PermissionError, errno.EACCES),
    "PathComponentTooLongException": (OSError, errno.ENAMETOOLONG),
    "MaxPathLengthExceededException": (OSError, errno.ENAMETOOLONG),
    "DSQuotaExceededException": (OSError, errno.EDQUOT),
    "NSQuotaExceededException": (OSError, errno.EDQUOT),
    "QuotaExceededException": (OSError, errno.EDQUOT),
}
_STATES = {
    "StandbyException": "this NameNode is a standby: name the active one as host",
    "SafeModeException": "the NameNode is in safe mode and accepts no changes (`hdfs dfsadmin -safemode get`)",
    "RetriableException": "the NameNode is not ready: it is starting, or in safe mode",
}


class RemoteError(OSError):
    """The server answered with an error; `exception` is the name of its Java class, "" if unknown."""

    exception: str = ""


def translate_reply(status: int, body: bytes, path: str, secrets: Collection[str]) -> OSError:
    """The error for a reply with an HTTP status of 400 or more, about `path`."""
    exception, message = _remote_exception(body)
    message = _hide(message, secrets)
    if exception in _STATES:
        return _remote(errno.EAGAIN, f"{_STATES[exception]} ({message})", path, exception)
    if "(is not a directory)" in message:  # may arrive as AccessControlException
        return NotADirectoryError(errno.ENOTDIR, message, path)
    if "name limit of" in message:  # a DataNode sends it without its class
        return _remote(errno.ENAMETOOLONG, message, path, exception)
    if exception in _CLASSES:
        kind, number = _CLASSES[exception]
        return kind(number, message, path) if kind is not OSError else _remote(number, message, path, exception)
    if exception:
        return _remote(errno.EIO, f"{exception}: {message}", path, exception)
    if status in (401, 407):
        return PermissionError(errno.EACCES, f"not authenticated (HTTP {status})", path)
    if status in (408, 504):
        return TimeoutError(errno.ETIMEDOUT, f"a gateway gave up waiting (HTTP {status})", path)
    return _remote(errno.EIO, f"HTTP {status}, not an answer of HDFS", path, "")


def translate_failure(error: Exception, path: str, secrets: Collection[str]) -> OSError:
    """The error for an exception of `requests`, about `path`: no reply arrived, or only a part of one."""
    import requests

    if isinstance(error, requests.ConnectTimeout):
        return TimeoutError(errno.ETIMEDOUT, "no connection within the time allowed", path)
    if isinstance(error, requests.Timeout):
        return TimeoutError(errno.ETIMEDOUT, "no answer within the time allowed", path)
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        if "timed out" in str(error):  # a time-out while reading the body has no class of its own
            return TimeoutError(errno.ETIMEDOUT, "the answer stopped for longer than is allowed", path)
        return ConnectionError(errno.ECONNRESET, f"the connection was refused or lost ({_reason(error)})", path)
    return OSError(errno.EIO, _hide(f"the HTTP request failed: {type(error).__name__}", secrets), path)


def _reason(error: BaseException) -> str:
    """The innermost cause with a message of the operating system: the library's own messages quote URLs."""
    seen: BaseException | None = error
    reason = type(error).__name__
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None and seen.strerror:
            reason = seen.strerror
        seen = seen.__cause__ or seen.__context__
    return reason


def _remote_exception(body: bytes) -> tuple[str, str]:
    """(class, message without the Java stack trace); empty strings if the body holds no exception."""
    try:
        described: Any = json.loads(body)["RemoteException"]
        exception, message = str(described["exception"]), str(described["message"])
    except (ValueError, KeyError, TypeError):
        return "", ""
    return exception.rpartition(".")[2].rpartition("$")[2], message.partition("\n\tat ")[0].strip()


def _remote(number: int, message: str, path: str, exception: str) -> RemoteError:
    error = RemoteError(number, message, path)
    error.exception = exception
    return error


def _hide(message: str, secrets: Collection[str]) -> str:
    for secret in secrets:
        message = message.replace(secret, "***")
    return message
