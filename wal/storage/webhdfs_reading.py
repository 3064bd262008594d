"""The reading half of the WebHDFS storage: each read is of one file of one identity."""

from __future__ import annotations

import errno
from typing import BinaryIO

from wal.storage.base import Entry, Kind, Stored, UnsafePathError
from wal.storage.webhdfs_client import Client, Status
from wal.storage.webhdfs_files import open_reader
from wal.storage.webhdfs_url import Address, check_name

_TURNS = 200  # attempts of a read during which the file is replaced: on a busy server each may be overtaken


class HdfsReading:
    """The reading methods of `Storage` for one root."""

    def __init__(self, client: Client, address: Address, *, attributes: bool) -> None:
        self._client = client
        self._address = address
        self._attributes = attributes

    @property
    def url(self) -> str:
        return self._address.url

    def _path(self, name: str) -> str:
        check_name(name)
        return self._address.join(name)

    def read(self, name: str) -> Stored:
        for _ in range(_TURNS):
            status, path = self._file(name)
            try:
                data = self._client.download(status.path) if status.size else b""
                attribute = self._client.attribute(status.path) if self._attributes else None
            except FileNotFoundError:
                continue  # replaced: content and attribute must be of one file
            if len(data) == status.size:  # otherwise another program appends to it
                return Stored(data, attribute)
        raise OSError(errno.EBUSY, f"changed {_TURNS} times while it was read", path)

    def _file(self, name: str) -> tuple[Status, str]:
        path = self._path(name)
        status = self._client.status(path)
        if status is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        if status.kind is Kind.FOLDER:
            raise IsADirectoryError(errno.EISDIR, "is a folder", path)
        if status.kind is Kind.OTHER:
            raise UnsafePathError(errno.ELOOP, "a symbolic link, not followed", path)
        return status, path

    def open(self, name: str) -> BinaryIO:
        for _ in range(_TURNS):
            status, path = self._file(name)
            try:
                return open_reader(self._client, status, path)
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
        raise OSError(errno.EBUSY, f"changed {_TURNS} times while it was opened", path)

    def attribute(self, name: str) -> bytes | None:
        path = self._path(name)
        if self._attributes:
            return self._client.attribute(path)
        if self._client.status(path) is None:
            raise FileNotFoundError(errno.ENOENT, "no such file or folder", path)
        return None

    def list(self, folder: str) -> list[Entry]:
        path = self._path(folder)
        found = self._client.list(path)
        if any(not name for name, _ in found):
            raise NotADirectoryError(errno.ENOTDIR, "is a file", path)
        return [Entry(name, status.kind, status.size) for name, status in found]

    def entry(self, name: str) -> Entry | None:
        status = self._client.status(self._path(name))
        return None if status is None else Entry(name.rpartition("/")[2], status.kind, status.size)
