"""LMDB as it comes: each transaction is flushed. A version is two keys: its metadata, and its blob."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.base import Peer, Store, optional

MAP_SIZE = 8 << 30  # of address space; the file takes what it needs


class Environment(Store):
    """One open environment."""

    def __init__(self, environment: Any) -> None:
        self.environment = environment

    def put(self, model: str, version: str, content: bytes) -> None:
        self.put_many(model, (version,), content)

    def put_many(self, model: str, versions: Sequence[str], content: bytes) -> None:
        with self.environment.begin(write=True) as txn:
            txn.put(f"n/{model}".encode(), b"{}", overwrite=False)
            for version in versions:
                txn.put(f"n/{model}/{version}".encode(), b"{}", overwrite=False)
                txn.put(f"b/{model}/{version}".encode(), content, overwrite=False)

    def update(self, model: str, version: str, values: Mapping[str, Any]) -> None:
        key = f"n/{model}/{version}".rstrip("/").encode()
        with self.environment.begin(write=True) as txn:
            txn.put(key, json.dumps({**json.loads(txn.get(key)), **values}).encode())

    def find_active(self, model: str) -> object:
        with self.environment.begin() as txn:
            active = json.loads(txn.get(f"n/{model}".encode()))["active"]
            return json.loads(txn.get(f"n/{model}/{active}".encode()))

    def versions(self, model: str) -> set[str]:
        prefix = f"n/{model}/".encode()
        found = set()
        with self.environment.begin() as txn, txn.cursor() as cursor:
            cursor.set_range(prefix)
            for key in cursor.iternext(values=False):
                if not key.startswith(prefix):
                    break
                found.add(key[len(prefix) :].decode())
        return found


@contextmanager
def opened(folder: Path) -> Iterator[Environment]:
    with closing(optional("lmdb").open(str(folder / "lmdb"), map_size=MAP_SIZE)) as environment:
        yield Environment(environment)


PEERS = (Peer("lmdb", opened, "lmdb"),)
