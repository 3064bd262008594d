"""Metatree, in its two ways to apply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.base import BLOB_NAME, CHUNK, KEYS, Peer, Store
from metatree import Metatree


class Tree(Store):
    """A tree as people hold it."""

    def __init__(self, tree: Metatree) -> None:
        self.tree = tree

    def put(self, model: str, version: str, content: bytes) -> None:
        self.tree.put(f"{model}/{version}", content, name=BLOB_NAME)

    def put_many(self, model: str, versions: Sequence[str], content: bytes) -> None:
        with self.tree.transaction():
            for version in versions:
                self.tree.put(f"{model}/{version}", content, name=BLOB_NAME)

    def put_file(self, model: str, version: str, source: Path) -> None:
        self.tree.put(f"{model}/{version}", source, name=BLOB_NAME)

    def update(self, model: str, version: str, values: Mapping[str, Any]) -> None:
        self.tree.update(f"{model}/{version}" if version else model, values)

    def find_active(self, model: str) -> object:
        return dict(self.tree.find(f"{model}/<active>").metadata)

    def get(self, model: str, version: str) -> int:
        """As a program reads a file."""
        with self.tree.open(f"{model}/{version}/{BLOB_NAME}") as stream:
            return sum(map(len, iter(lambda: stream.read(CHUNK), b"")))

    def download(self, model: str, version: str, target: Path) -> None:
        self.tree.get(f"{model}/{version}/{BLOB_NAME}", target)  # what it returns would read the file once more

    def versions(self, model: str) -> set[str]:
        return set(self.tree.children(model))

    def rest(self) -> None:
        self.tree.flush()


@contextmanager
def opened(folder: Path, apply: str) -> Iterator[Tree]:
    with Metatree(folder / "tree", KEYS, apply=apply) as tree:
        yield Tree(tree)


PEERS = (
    Peer("metatree", partial(opened, apply="sync"), "metatree"),
    Peer("metatree background", partial(opened, apply="background"), "metatree"),
)
