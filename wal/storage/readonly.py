"""Any other filesystem that fsspec knows (memory, github, http, gcs, abfs, sftp, zip, …), for reading only.

Nothing is known of how these write: so nothing is written. Nothing is decided on `exists()`, which says False to every
error. Attributes are not kept. `read` is one call of the library's own and is not promised to be untorn where a file
is replaced meanwhile; what the engine writes is checksummed above.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO, NoReturn, TypeVar, cast

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
        return Capabilities(writable=False, append_log=False, attributes=False, reason=self._why)

    # --- reading -------------------------------------------------------------------------------------------------

    def read(self, name: str) -> Stored:
        self._check_file(name)
        return Stored(self._run(name, lambda filesystem, path: bytes(filesystem.cat_file(path))), None)

    def open(self, name: str) -> BinaryIO:
        self._check_file(name)
        return cast(BinaryIO, self._run(name, lambda filesystem, path: filesystem.open(path, "rb")))

    def attribute(self, name: str) -> bytes | None:
        if self.entry(name) is None:
            raise FileNotFoundError(errno.ENOENT, "no such file or folder", self._shown(name))
        return None

    def list(self, folder: str) -> list[Entry]:
        found = self.entry(folder)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such folder", self._shown(folder))
        if found.kind is not Kind.FOLDER:
            raise NotADirectoryError(errno.ENOTDIR, "is no folder", self._shown(folder))
        items = self._run(folder, lambda filesystem, path: filesystem.ls(path, detail=True))
        # Object stores list a folder's own marker among its entries.
        return [_entry(item) for item in items if not self._is_itself(item["name"], folder)]

    def _is_itself(self, listed: str, folder: str) -> bool:
        _, root = self._filesystem()
        return listed.strip("/") == f"{root.rstrip('/')}/{folder}".strip("/")

    def entry(self, name: str) -> Entry | None:
        try:
            item = self._run(name, lambda filesystem, path: filesystem.info(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        kind, size = _KINDS.get(item["type"], Kind.OTHER), item.get("size") or 0
        return Entry(name.rpartition("/")[2], kind, 0 if kind is Kind.FOLDER else int(size))

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
        """Call the filesystem. What it raises becomes an OSError: these libraries have errors of every make."""
        segments = name.split("/") if name else []
        if "\0" in name or any(segment in _FORBIDDEN for segment in segments):
            raise ValueError(f"not a name below the root: {name!r}")
        filesystem, root = self._filesystem()
        path = "/".join([root.rstrip("/"), *segments]) if segments else root
        try:
            filesystem.invalidate_cache()  # a listing that was kept is another program's past
            return call(filesystem, path)
        except FileNotFoundError:
            failure: OSError = FileNotFoundError(errno.ENOENT, "no such file or folder", self._shown(name))
        except NotADirectoryError:
            failure = NotADirectoryError(errno.ENOTDIR, "a folder on the way is none", self._shown(name))
        except PermissionError:
            failure = PermissionError(errno.EACCES, "not allowed", self._shown(name))
        except Exception as error:  # noqa: BLE001
            failure = OSError(errno.EIO, f"{type(error).__name__}: {hide_secrets(str(error))}", self._shown(name))
        raise failure  # outside of the handlers: the original may quote a URL with its secrets

    def _filesystem(self) -> tuple[Any, str]:
        """One for each thread of each process: some of them cannot be shared, none survives a fork."""
        if getattr(self._local, "process", None) != os.getpid():
            self._local.opened = self._connect()
            self._local.process = os.getpid()
        return cast(tuple[Any, str], self._local.opened)

    def _connect(self) -> tuple[Any, str]:
        import fsspec  # late: it takes 65 ms

        try:
            found = fsspec.core.url_to_fs(self._given, skip_instance_cache=True, **self._options)
        except (ValueError, ImportError) as error:
            failure = UnsupportedError(f"{self._scheme}:// roots cannot be opened: {hide_secrets(str(error))}")
        else:
            return cast(tuple[Any, str], found)
        raise failure

    def close(self) -> None:
        self._local = threading.local()

    # --- everything else is refused --------------------------------------------------------------------------------

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

    def open_file(self, name: str, *, writable: bool) -> RandomFile:
        self._refuse()

    def lock(self, name: str) -> Lock:
        self._refuse()


def _entry(item: Mapping[str, Any]) -> Entry:
    name = str(item["name"]).rstrip("/").rpartition("/")[2]
    kind = _KINDS.get(item["type"], Kind.OTHER)
    return Entry(name, kind, 0 if kind is Kind.FOLDER else int(item.get("size") or 0))


def hide_secrets(text: str) -> str:
    """A text without what URLs in it may hide: user and password, and the query of a signed URL."""
    text = re.sub(r"(?<=://)[^/@\s:]*(:[^/@\s]*)?@", "", text)
    return re.sub(r"(?<=[^\s?])\?[^\s'\")]*=[^\s'\")]*", "", text)
