"""The place of an examination: a temporary folder below the URL, removed afterwards."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import wal
from metatree import layout


class Place:
    """A folder that exists, and in it a temporary folder for the examination.

    The temporary folder is a root of its own, so a storage keeps its temporary files in it too: one removal removes
    everything, and nothing that was there before is ever written.
    """

    def __init__(self, url: str, options: Mapping[str, Any], clock: wal.Clock) -> None:
        """Changes nothing. Raises what `wal.open_storage` raises."""
        self.options = dict(options)
        self.around, self.examined = _nearest(url, options)
        self._name = f"{layout.PROBE}{clock.token(8).hex()}"
        self.url = ""  # of the temporary folder
        self._made: wal.Storage | None = None

    def make(self) -> wal.Storage:
        """Make the temporary folder; returns it as a storage. Raises OSError, UnsupportedError."""
        found = self.around.entry(layout.LOG)
        if found is not None and found.kind is wal.Kind.FOLDER:  # a tree: hide the folder in its log's
            self._name = f"{layout.LOG}/probe-{self._name.removeprefix(layout.PROBE)}"
        self.url = _below(self.examined, self._name)
        wal.make_root(self.url, self.options)
        self._made = wal.open_storage(self.url, self.options)
        return self._made

    def remove(self) -> str:
        """Remove the temporary folder, if it was made, and close everything; its URL if that failed, else ""."""
        leftover = ""
        try:
            if self._made is not None:
                self._made.close()
            if self.url:
                self.around.erase(self._name)
        except (OSError, wal.WalError):
            leftover = f"{self.around.url.rstrip('/')}/{self._name}"
        finally:
            self.around.close()
        return leftover


def _nearest(url: str, options: Mapping[str, Any]) -> tuple[wal.Storage, str]:
    """The storage at `url`, or at the nearest folder above it that exists: where a new root would be made."""
    if not url:
        raise ValueError("a path or URL is needed")
    at: str | None = url
    missing: FileNotFoundError | None = None
    while at is not None:
        try:
            storage = wal.open_storage(at, options)
        except FileNotFoundError as error:
            missing = missing or error
            at = _above(at)
            continue
        if missing is None or storage.capabilities.slot_log or storage.capabilities.append_log:
            return storage, at
        storage.close()  # a new root cannot be made in a read-only storage
        break
    raise missing or FileNotFoundError(url)


def _above(url: str) -> str | None:
    """The folder above; None if there is none."""
    path = wal.local_path(url)
    if path is not None:
        path = os.path.abspath(path)
        above = os.path.dirname(path)
        return None if above == path else above
    scheme, _, rest = url.partition("://")
    host, slash, _ = rest.rstrip("/").rpartition("/")
    return f"{scheme}://{host}/" if slash else None


def _below(url: str, name: str) -> str:
    path = wal.local_path(url)
    if path is not None:
        return os.path.join(os.path.abspath(path), name)
    return f"{url}{'' if url.endswith('/') else '/'}{name}"  # keeps the three slashes of webhdfs:///
