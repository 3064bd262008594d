"""Any other filesystem that fsspec knows (memory, github, http, gcs, abfs, sftp, zip, …), for reading only.

How these write is unknown, so nothing is written. `exists()` is not used, since it returns False after any error.
Attributes are not kept. `read` is one call of the library and may return a torn mixture if the file is replaced during
it; the engine checks what it wrote by checksums.
"""

from __future__ import annotations

import errno
import io
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO, NoReturn, TypeVar, cast
from urllib.parse import quote, unquote

from wal.errors import UnsupportedError
from wal.storage.base import (
    Capabilities,
    Content,
    Entry,
    Kind,
    Lock,
    Publication,
    RandomFile,
    StagedFile,
    Storage,
    Stored,
    UnsafePathError,
)

T = TypeVar("T")

_KINDS = {"file": Kind.FILE, "directory": Kind.FOLDER}
_FORBIDDEN = ("", ".", "..")


class ReadOnlyStorage:
    """`Storage` over an fsspec URL; every writing method raises UnsupportedError."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        """`options` go to the filesystem. Raises UnsupportedError for a scheme that fsspec does not know or whose
        library is not installed; FileNotFoundError, NotADirectoryError for the root."""
        self._given = url
        self._options = dict(options or {})
        self._scheme = url.partition("://")[0].lower()
        self._web = self._scheme in ("http", "https")
        self.url = hide_secrets(url)
        self._local = threading.local()
        self._why = (
            f"{self._scheme}:// roots can only be read: copy the tree to a local disk to change it, "
            "or open it with read_only=True"
        )
        root = self.entry("")
        if root is None:
            raise FileNotFoundError(errno.ENOENT, "no such folder", self.url)
        if root.kind is not Kind.FOLDER:
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", self.url)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            writable=False, append_log=False, attributes=False, reason=self._why, filesystem=self._scheme
        )

    # --- reading -------------------------------------------------------------------------------------------------

    def read(self, name: str) -> Stored:
        self._check_file(name)
        return Stored(self._run(name, lambda filesystem, path: bytes(filesystem.cat_file(path))), None)

    def open(self, name: str) -> BinaryIO:
        self._check_file(name)
        opened = self._run(name, lambda filesystem, path: filesystem.open(path, "rb"))
        return cast(BinaryIO, io.BufferedReader(_Translated(opened, self._shown(name)), 1 << 16))

    def attribute(self, name: str) -> bytes | None:
        if self.entry(name) is None:
            raise FileNotFoundError(errno.ENOENT, "no such file or folder", self._shown(name))
        return None

    def list(self, folder: str) -> list[Entry]:
        found = self.entry(folder)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such folder", self._shown(folder))
        if found.kind is not Kind.FOLDER:
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", self._shown(folder))
        items = self._run(folder, lambda filesystem, path: filesystem.ls(path, detail=True))
        # A listing may hold more: the marker of the folder itself in object stores, links to other pages on a web page.
        place = self._path(self._filesystem()[1], folder).strip("/")
        return [self._entry(item) for item in items if item["name"].strip("/").rpartition("/")[0] == place]

    def entry(self, name: str) -> Entry | None:
        try:
            item = self._run(name, lambda filesystem, path: filesystem.info(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        found = self._entry(item)
        # A web server has no folders, but it redirects a request for one to the same URL with a slash.
        if self._web and (not name or str(item.get("url", "")).endswith("/")):
            return Entry(name.rpartition("/")[2], Kind.FOLDER, 0)
        return Entry(name.rpartition("/")[2], found.kind, found.size)

    def _entry(self, item: Mapping[str, Any]) -> Entry:
        name = str(item["name"]).rstrip("/").rpartition("/")[2]
        kind = _KINDS.get(item["type"], Kind.OTHER)
        # Listings of web servers have no sizes.
        return Entry(
            unquote(name) if self._web else name, kind, 0 if kind is Kind.FOLDER else int(item.get("size") or 0)
        )

    def _check_file(self, name: str) -> None:
        found = self.entry(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", self._shown(name))
        if found.kind is Kind.FOLDER:
            raise IsADirectoryError(errno.EISDIR, "is a folder", self._shown(name))
        if found.kind is Kind.OTHER:
            raise UnsafePathError(errno.ELOOP, "a link or special file, not followed", self._shown(name))

    def _shown(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}" if name else self.url

    def _run(self, name: str, call: Callable[[Any, str], T]) -> T:
        """Call the filesystem with the path of `name`."""
        filesystem, root = self._filesystem()
        path = self._path(root, name)

        def run() -> T:
            filesystem.invalidate_cache()  # another program may have changed the tree since
            return call(filesystem, path)

        return _translated(run, self._shown(name))

    def _path(self, root: str, name: str) -> str:
        segments = name.split("/") if name else []
        if "\0" in name or any(segment in _FORBIDDEN for segment in segments):
            raise ValueError(f"not a name below the root: {name!r}")
        quoted = [quote(segment) for segment in segments] if self._web else segments
        return "/".join([root.rstrip("/"), *quoted] if root else quoted)  # an archive's root is ""

    def _filesystem(self) -> tuple[Any, str]:
        """(filesystem, root) of this thread and process: some filesystems cannot be shared, none survives a fork."""
        if getattr(self._local, "process", None) != os.getpid():
            self._local.opened = self._connect()
            self._local.process = os.getpid()
        return cast(tuple[Any, str], self._local.opened)

    def _connect(self) -> tuple[Any, str]:
        import fsspec  # imported here: it takes 65 ms

        try:
            found = fsspec.core.url_to_fs(self._given, skip_instance_cache=True, **self._options)
        except (ValueError, ImportError) as error:
            failure = UnsupportedError(f"{self._scheme}:// roots cannot be opened: {hide_secrets(str(error))}")
        else:
            return cast(tuple[Any, str], found)
        raise failure

    def reset_after_fork(self) -> None:
        """Does nothing: see `close`."""

    def close(self) -> None:
        self._local = threading.local()

    # --- not supported -----------------------------------------------------------------------------------------------

    def _refuse(self) -> NoReturn:
        raise UnsupportedError(f"{self.url}: {self._why}")

    def create(self, name: str, data: bytes) -> bool:
        self._refuse()

    def publish(
        self, name: str, content: Content, attribute: bytes, *, durable: bool, expect: str | None = None
    ) -> str:
        self._refuse()

    def publish_folder(self, name: str, files: Sequence[Publication]) -> bool:
        self._refuse()

    def set_aside(self, name: str, aside: str) -> str | None:
        self._refuse()

    def make_folder(self, name: str, attribute: bytes | None = None) -> None:
        self._refuse()

    def stage(self, name: str) -> StagedFile:
        self._refuse()

    def stage_existing(self, source: str, name: str, *, share: bool) -> None:
        self._refuse()

    def sync_folder(self, name: str) -> None:
        self._refuse()

    def sync(self, touched: Iterable[str]) -> None:
        self._refuse()

    def erase(self, name: str) -> None:
        self._refuse()

    def versions(self, name: str) -> dict[str, str]:
        self._refuse()

    def remove(self, name: str, expect: str) -> None:
        self._refuse()

    def fenced(self, folder: str) -> Storage:
        self._refuse()

    def retire(self, folder: str, aside: str) -> None:
        self._refuse()

    def open_file(self, name: str, *, writable: bool) -> RandomFile:
        self._refuse()

    def lock(self, name: str) -> Lock:
        self._refuse()


class _Translated(io.RawIOBase):
    """A library's open file whose errors are translated to OSError."""

    def __init__(self, opened: Any, shown: str) -> None:
        self._opened = opened
        self._shown = shown

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return _translated(lambda: bool(self._opened.seekable()), self._shown)

    def tell(self) -> int:
        return _translated(lambda: int(self._opened.tell()), self._shown)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return _translated(lambda: int(self._opened.seek(offset, whence)), self._shown)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = _translated(lambda: bytes(self._opened.read(len(view))), self._shown)
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._opened.close()
        super().close()


def _translated(run: Callable[[], T], shown: str) -> T:
    """Call a library, and translate any exception to an OSError."""
    try:
        return run()
    except FileNotFoundError as error:
        failure: OSError = _absent_or_failed(error, shown)
    except NotADirectoryError:
        failure = NotADirectoryError(errno.ENOTDIR, "a parent is not a folder", shown)
    except PermissionError:
        failure = PermissionError(errno.EACCES, "not allowed", shown)
    except Exception as error:  # noqa: BLE001
        failure = OSError(errno.EIO, f"{type(error).__name__}: {hide_secrets(str(error))}", shown)
    raise failure  # outside the handlers, so without the original as context: it may quote a URL with secrets


def _absent_or_failed(error: FileNotFoundError, shown: str) -> OSError:
    """fsspec raises FileNotFoundError even if a web server cannot be reached, refuses or fails; the cause tells."""
    cause = error.__cause__
    status = getattr(cause, "status", None)
    if status in (401, 403):
        return PermissionError(errno.EACCES, f"the server answered {status}", shown)
    if cause is None or isinstance(cause, FileNotFoundError) or status in (404, 410):
        return FileNotFoundError(errno.ENOENT, "no such file or folder", shown)
    told = f"the server answered {status}" if status else f"{type(cause).__name__}: {hide_secrets(str(cause))}"
    return OSError(errno.EIO, told, shown)


def hide_secrets(text: str) -> str:
    """A text without the secrets of URLs in it: user and password, and the query of a signed URL."""
    text = re.sub(r"(?<=://)[^/@\s:]*(:[^/@\s]*)?@", "", text)
    return re.sub(r"(?<=[^\s?])\?[^\s'\")]*=[^\s'\")]*", "", text)
