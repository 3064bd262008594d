"""Peers with a fault that the harness has to find, and one without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.peers.base import Peer, Store


class Heap(Store):
    """A file for each version."""

    def __init__(self, folder: Path, syncs: int, forgets: str, breaks: bool) -> None:
        self._folder = folder
        self._syncs = syncs
        self._forgets = forgets
        self._breaks = breaks
        self._puts = 0

    def put(self, model: str, version: str, content: bytes) -> None:
        self._puts += 1
        if self._breaks and version == "p0-1":
            (self._folder / "broken").touch()
        if (self._folder / "broken").exists():
            raise OSError("broken")
        if self._forgets and version.endswith(self._forgets):
            return
        with open(self._folder / version, "xb") as file:
            file.write(content)
            if self._syncs and self._puts % self._syncs == 0:
                file.flush()
                os.fsync(file.fileno())

    def versions(self, model: str) -> set[str]:
        if (self._folder / "broken").exists():
            raise OSError("broken")
        return {path.name for path in self._folder.iterdir()}


@contextmanager
def opened(folder: Path, syncs: int = 1, forgets: str = "", breaks: bool = False) -> Iterator[Heap]:
    yield Heap(folder, syncs, forgets, breaks)


PEERS = {
    "sound": Peer("sound", opened),
    "never syncs": Peer("never syncs", partial(opened, syncs=0)),
    "syncs now and then": Peer("syncs now and then", partial(opened, syncs=2)),
    "breaks": Peer("breaks", partial(opened, breaks=True)),
    "forgets": Peer("forgets", partial(opened, forgets="-1")),
}
