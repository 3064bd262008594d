"""Folders and metadata.json by hand, as programs without a database do it: with fsync of each step, and without."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.base import BLOB_NAME, CHUNK, Peer, Store

METADATA = "metadata.json"


class Folders(Store):
    """A folder for each node. Two writers at once would lose updates: there is no lock."""

    def __init__(self, root: Path, *, sync: bool) -> None:
        self._root = str(root)
        self._sync = sync

    def put(self, model: str, version: str, content: bytes) -> None:
        above = self._model(model)
        self._make(f"{above}/{version}")
        self._write(f"{above}/{version}/{BLOB_NAME}", content)
        self._finish(above, version)

    def put_file(self, model: str, version: str, source: Path) -> None:
        above = self._model(model)
        self._make(f"{above}/{version}")
        copy(source, f"{above}/{version}/{BLOB_NAME}", sync=self._sync)
        self._finish(above, version)

    def _finish(self, above: str, version: str) -> None:
        """The version's metadata, then its name in the model's list, so that nobody finds it half done."""
        self._replace(f"{above}/{version}", {})
        metadata = self._read(above)
        metadata["children"].append(version)
        self._replace(above, metadata)

    def update(self, model: str, version: str, values: Mapping[str, Any]) -> None:
        folder = f"{self._root}/{model}/{version}".rstrip("/")
        self._replace(folder, {**self._read(folder), **values})

    def find_active(self, model: str) -> object:
        above = f"{self._root}/{model}"
        return self._read(f"{above}/{self._read(above)['active']}")

    def get(self, model: str, version: str) -> int:
        with open(f"{self._root}/{model}/{version}/{BLOB_NAME}", "rb", buffering=0) as file:
            return sum(map(len, iter(lambda: file.read(CHUNK), b"")))

    def download(self, model: str, version: str, target: Path) -> None:
        copy(f"{self._root}/{model}/{version}/{BLOB_NAME}", target, sync=False)

    def fill(self, model: str, versions: Sequence[str]) -> None:
        self._replace(self._model(model), {"children": [*versions]})

    def versions(self, model: str) -> set[str]:
        return set(self._read(f"{self._root}/{model}")["children"])

    def _model(self, model: str) -> str:
        above = f"{self._root}/{model}"
        if not os.path.exists(above):
            self._make(above)
            self._replace(above, {"children": []})
        return above

    def _make(self, folder: str) -> None:
        os.mkdir(folder)
        self._sync_folder(os.path.dirname(folder))

    def _write(self, path: str, content: bytes) -> None:
        with open(path, "xb", buffering=0) as file:
            file.write(content)
            if self._sync:
                os.fsync(file.fileno())

    def _read(self, folder: str) -> dict[str, Any]:
        with open(f"{folder}/{METADATA}", "rb") as file:
            metadata: dict[str, Any] = json.loads(file.read())
        return metadata

    def _replace(self, folder: str, metadata: Mapping[str, Any]) -> None:
        self._write(f"{folder}/.new", json.dumps(metadata).encode())
        os.replace(f"{folder}/.new", f"{folder}/{METADATA}")
        self._sync_folder(folder)

    def _sync_folder(self, folder: str) -> None:
        if self._sync:
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def copy(source: str | Path, target: str | Path, *, sync: bool) -> None:
    """A new file with the content of another, as Python's library copies it: within the kernel."""
    shutil.copyfile(source, target)
    if sync:
        with open(target, "rb+", buffering=0) as new:
            os.fsync(new.fileno())


@contextmanager
def opened(folder: Path, *, sync: bool) -> Iterator[Folders]:
    yield Folders(folder, sync=sync)


PEERS = (
    Peer("plain files", partial(opened, sync=False), "json"),
    Peer("plain files, fsync", partial(opened, sync=True), "json"),
)
