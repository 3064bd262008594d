"""diskcache as it comes, with nothing ever evicted: SQLite without a flush per commit, large values as files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.base import Peer, Store, optional


class Cache(Store):
    """One open cache."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    def put(self, model: str, version: str, content: bytes) -> None:
        self.put_many(model, (version,), content)

    def put_many(self, model: str, versions: Sequence[str], content: bytes) -> None:
        with self.cache.transact():
            self.cache.add(f"n/{model}", "{}")
            for version in versions:
                self.cache.add(f"n/{model}/{version}", "{}")
                self.cache.add(f"b/{model}/{version}", content)

    def update(self, model: str, version: str, values: Mapping[str, Any]) -> None:
        key = f"n/{model}/{version}".rstrip("/")
        with self.cache.transact():
            self.cache[key] = json.dumps({**json.loads(self.cache[key]), **values})

    def find_active(self, model: str) -> object:
        with self.cache.transact():  # the one way to read twice in one state
            active = json.loads(self.cache[f"n/{model}"])["active"]
            return json.loads(self.cache[f"n/{model}/{active}"])

    def versions(self, model: str) -> set[str]:
        prefix = f"n/{model}/"
        return {key[len(prefix) :] for key in self.cache if key.startswith(prefix)}


@contextmanager
def opened(folder: Path) -> Iterator[Cache]:
    with optional("diskcache").Cache(str(folder / "cache"), eviction_policy="none", size_limit=1 << 50) as cache:
        yield Cache(cache)


PEERS = (Peer("diskcache", opened, "diskcache"),)
