"""A driver for WebHDFS on top of fsspec's: one method for each operation, with every reply and its boolean checked.

fsspec's own methods can lose or tear data: `mv` and `rm` ignore `{"boolean": false}`, files are created with
overwrite=true and filled while others see them, content is read by length first and then in ranges without a check of
the status, and there are no time-outs. So only its `_call` (authentication, quoting) and its session are used.

Operations that only read are sent a second time if the connection was lost; no other operation is sent twice.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from wal.storage.base import Kind
from wal.storage.webhdfs_errors import RemoteError, translate_failure, translate_reply
from wal.storage.webhdfs_session import make_filesystem
from wal.storage.webhdfs_url import Address

T = TypeVar("T")

ATTRIBUTE = "user.metatree"
_KINDS = {"FILE": Kind.FILE, "DIRECTORY": Kind.FOLDER}
_OK, _CREATED = 200, 201
_BINARY = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class Status:
    """What a path refers to."""

    kind: Kind
    size: int  # bytes; 0 for folders
    identity: int  # HDFS's number of the file or folder, never reused

    @property
    def path(self) -> str:
        """A path to this object, whatever its name, until it is deleted or replaced."""
        return f"/.reserved/.inodes/{self.identity}"


class Client:
    """Requests to one NameNode. Safe for threads and forks: no two requests share a filesystem at the same time, and
    a forked child uses none of its parent's."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._secrets = address.secrets()
        self._process = os.getpid()
        self._idle: list[Any] = []  # filesystems that no request uses; list.pop and append are atomic
        self.requests = 0  # HTTP requests sent so far, for tests and measurements; not exact with threads

    def close(self) -> None:
        """Close this process's connections. Those that a fork inherited belong to the parent."""
        self._own()
        while self._idle:
            self._idle.pop().session.close()

    # --- looking ---------------------------------------------------------------------------------------------------

    def status(self, path: str) -> Status | None:
        """What `path` refers to; None if nothing, or if a segment of it is a file."""
        try:
            reply = self._read("GETFILESTATUS", path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _status(_field(reply, path, "FileStatus"))

    def written_at(self, path: str) -> float:
        """When the file was closed, in seconds since 1970 by the NameNode's clock. Raises FileNotFoundError."""
        reply = self._read("GETFILESTATUS", path)
        return float(_field(reply, path, "FileStatus")["modificationTime"]) / 1000

    def list(self, path: str) -> list[tuple[str, Status]]:
        """The entries of a folder; a file lists itself under the name "". Raises FileNotFoundError."""
        found = _field(self._read("LISTSTATUS", path), path, "FileStatuses")
        return [(item["pathSuffix"], _status(item)) for item in found["FileStatus"]]

    def attribute(self, path: str) -> bytes | None:
        """The attribute of a file or folder. Raises FileNotFoundError."""
        found = _field(self._read("GETXATTRS", path, encoding="hex"), path, "XAttrs")
        for item in found:
            if item["name"] == ATTRIBUTE:
                return bytes.fromhex((item["value"] or "0x")[2:])  # an empty value arrives as null
        return None

    def keeps_attributes(self, path: str) -> bool:
        """Whether the NameNode keeps attributes (dfs.namenode.xattrs.enabled)."""
        try:
            self.attribute(path)
        except RemoteError as error:
            if "xattr" not in str(error).lower():
                raise
            return False
        return True

    def download(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """A file's content, or `length` bytes from `offset`, which must be inside. Raises FileNotFoundError."""
        ranges = {} if length is None else {"offset": offset, "length": length}

        def run() -> bytes:
            reply = self._call("OPEN", "get", path, redirect=False, **ranges)
            if "Location" in reply.headers:  # a gateway may send the content at once
                reply = self._follow("GET", reply, path)
            if reply.status_code != _OK:  # an error is raised already; this may be a redirect to a page for people
                raise OSError(errno.EPROTO, f"the answer, {reply.status_code}, is not the content", path)
            content: bytes = reply.content
            return content

        return _twice(run)

    # --- changing --------------------------------------------------------------------------------------------------

    def make_folder(self, path: str) -> None:
        """Create a folder and its parents; no error if it exists. Raises NotADirectoryError, FileExistsError."""
        if not self._boolean(self._call("MKDIRS", "put", path), path):
            raise OSError(errno.EIO, "the folder was not made, and HDFS does not say why", path)

    def rename(self, source: str, target: str, *, replace: bool) -> None:
        """Rename, atomic. `replace`: a file may replace a file; else an existing target is an error.

        Raises FileNotFoundError for a missing source or a missing parent of the target, FileExistsError, OSError for a
        target of another kind. After any other error the outcome is unknown.
        """
        # With options HDFS raises instead of answering false, and never moves *into* a folder that exists.
        options = "OVERWRITE" if replace else "NONE"
        reply = self._call("RENAME", "put", source, destination=target, renameoptions=options)
        if reply.content:
            raise OSError(errno.EPROTO, "this server ignores the options of RENAME", source)

    def knows_rename_options(self, path: str) -> bool:
        """Whether RENAME honours its options, tested with a `path` that does not exist. A gateway that ignores them
        (HttpFS) acknowledges every rename, and moves the source into an existing folder."""
        try:
            self.rename(path, f"{path}.renamed", replace=False)
        except FileNotFoundError:
            return True
        except OSError as error:
            return error.errno != errno.EPROTO  # no permission to write, or safe mode: unknown, but harmless
        return False

    def delete(self, path: str) -> bool:
        """Delete a file, or a folder with everything in it; False if there was nothing."""
        return self._boolean(self._call("DELETE", "delete", path, recursive="true"), path)

    def create(self, path: str, content: bytes | Iterable[bytes], *, parents: bool) -> None:
        """Create a file; others see it grow. Parts are sent as they come, in one request. When it returns, the data
        nodes have written and fsynced all of it (SYNC_BLOCK). `parents`: make missing ones, else FileNotFoundError.

        Raises FileExistsError, NotADirectoryError, and any OSError of the parts.
        """
        # The redirect is followed here: the HTTP library would send the content to the NameNode first.
        flag = "true" if parents else "false"
        flags = {"overwrite": "false", "createflag": "CREATE,SYNC_BLOCK", "createparent": flag}
        reply = self._call("CREATE", "put", path, redirect=False, **flags)
        if "Location" not in reply.headers:
            raise OSError(errno.EPROTO, "the NameNode names no DataNode to write to", path)
        done = self._follow("PUT", reply, path, content if isinstance(content, bytes) else _guarded(content))
        if done.status_code != _CREATED:
            raise OSError(errno.EPROTO, f"the DataNode did not say that it wrote it, but {done.status_code}", path)

    def set_attribute(self, path: str, value: bytes, *, replace: bool = False) -> None:
        """Attach the attribute. `replace`: replace an existing one."""
        flag = "CREATE,REPLACE" if replace else "CREATE"
        pairs = {"xattr.name": ATTRIBUTE, "xattr.value": f"0x{value.hex()}", "flag": flag}
        self._call("SETXATTR", "put", path, **pairs)

    # --- requests --------------------------------------------------------------------------------------------------

    def _follow(self, method: str, reply: Any, path: str, data: bytes | Iterable[bytes] | None = None) -> Any:
        headers = None if data is None else _BINARY

        def send(filesystem: Any) -> Any:
            location = filesystem._apply_proxy(reply.headers["Location"])
            return filesystem.session.request(method, location, data=data, headers=headers, allow_redirects=False)

        return self._send(send, path)

    def _read(self, operation: str, path: str, **arguments: str) -> Any:
        return _twice(lambda: self._call(operation, "get", path, **arguments))

    def _call(self, operation: str, method: str, path: str, **arguments: Any) -> Any:
        return self._send(lambda filesystem: filesystem._call(operation, method, path, **arguments), path)

    def _send(self, send: Callable[[Any], Any], path: str) -> Any:
        import requests

        self.requests += 1
        try:
            with self._filesystem() as filesystem:
                return send(filesystem)
        except requests.RequestException as error:
            failure = translate_failure(error, path, self._secrets)
        except _Refused as refused:
            failure = translate_reply(refused.status, refused.body, path, self._secrets)
        except _PartError as broken:
            failure = broken.error
        raise failure  # outside the handlers, so without the original as context: it quotes the URL

    @contextmanager
    def _filesystem(self) -> Iterator[Any]:
        self._own()
        try:
            filesystem = self._idle.pop()
        except IndexError:
            filesystem = make_filesystem(self._address)
            filesystem.session.hooks["response"].append(_refuse)
        try:
            yield filesystem
        finally:
            self._idle.append(filesystem)

    def _own(self) -> None:
        if self._process != os.getpid():
            self._idle, self._process = [], os.getpid()

    def _boolean(self, reply: Any, path: str) -> bool:
        return bool(_field(reply, path, "boolean"))


class _Refused(Exception):
    """Carries a reply with an error status out of fsspec's `_call`, which would drop the server's exception class."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def _refuse(reply: Any, **options: Any) -> None:
    if reply.status_code >= 400:
        raise _Refused(reply.status_code, reply.content)


class _PartError(Exception):
    """Carries an OSError of the source of parts through the HTTP library, which would treat it as its own."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def _guarded(parts: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from parts
    except OSError as error:
        raise _PartError(error) from error


def _twice(run: Callable[[], T]) -> T:
    with suppress(ConnectionError):
        return run()
    return run()  # outside the handler: the first error is not the context of the second


def _field(reply: Any, path: str, name: str) -> Any:
    try:
        return json.loads(reply.content)[name]
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(errno.EPROTO, f"the answer is not WebHDFS's: it has no {name!r}", path) from error


def _status(item: dict[str, Any]) -> Status:
    kind = _KINDS.get(item["type"], Kind.OTHER)
    return Status(kind, 0 if kind is Kind.FOLDER else int(item["length"]), int(item["fileId"]))
