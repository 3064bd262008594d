"""Icechunk: a group for each model and version, the blob an array of bytes in it, a commit for each change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.base import BLOB_NAME, CHUNK, Peer, Store, optional


class Repository(Store):
    """One repository; each verb has a session of its own."""

    def __init__(self, icechunk: Any, zarr: Any, numpy: Any, folder: Path) -> None:
        self._icechunk = icechunk
        self._zarr = zarr
        self._numpy = numpy
        icechunk.set_logs_filter("error")  # it warns that commits on local files are not safe: W7 shows that
        storage = icechunk.local_filesystem_storage(str(folder / "repository"))
        self._repository = icechunk.Repository.open_or_create(storage)

    def put(self, model: str, version: str, content: bytes) -> None:
        self.put_many(model, (version,), content)

    def put_file(self, model: str, version: str, source: Path) -> None:
        self.put(model, version, source.read_bytes())

    def put_many(self, model: str, versions: Sequence[str], content: bytes) -> None:
        session = self._repository.writable_session("main")
        root = self._zarr.open_group(session.store, mode="a")
        shape, chunks = (len(content),), (min(len(content), CHUNK),)
        for version in versions:
            node = root.create_group(f"{model}/{version}")
            blob = node.create_array(BLOB_NAME, shape=shape, chunks=chunks, dtype="u1", compressors=None)
            blob[:] = self._numpy.frombuffer(content, "u1")
        self._commit(session)

    def update(self, model: str, version: str, values: Mapping[str, Any]) -> None:
        session = self._repository.writable_session("main")
        path = f"{model}/{version}".rstrip("/")
        self._zarr.open_group(session.store, path=path, mode="r+").attrs.update(values)
        self._commit(session)

    def find_active(self, model: str) -> object:
        store = self._repository.readonly_session("main").store
        active = self._zarr.open_group(store, path=model, mode="r").attrs["active"]
        return self._zarr.open_group(store, path=f"{model}/{active}", mode="r").attrs.asdict()

    def get(self, model: str, version: str) -> int:
        store = self._repository.readonly_session("main").store
        blob = self._zarr.open_array(store, path=f"{model}/{version}/{BLOB_NAME}", mode="r")
        return sum(blob[at : at + CHUNK].nbytes for at in range(0, blob.shape[0], CHUNK))

    def versions(self, model: str) -> set[str]:
        store = self._repository.readonly_session("main").store
        return set(self._zarr.open_group(store, path=model, mode="r").group_keys())

    def _commit(self, session: Any) -> None:
        """Others who commit meanwhile are not a conflict, since they change other groups."""
        session.commit("change", rebase_with=self._icechunk.ConflictDetector(), rebase_tries=100)


@contextmanager
def opened(folder: Path) -> Iterator[Repository]:
    yield Repository(optional("icechunk"), optional("zarr"), optional("numpy"), folder)


PEERS = (Peer("icechunk", opened, "icechunk"),)
