"""W4: find("m/<active>") and its metadata, warm."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Contestant, Ready, Step, Workload, contestant
from benchmarks.peers import PEERS
from benchmarks.peers.base import BLOB, Store
from benchmarks.workloads.sizes import Sizes

VERSIONS = 20
VALUES: dict[str, object] = {"auc": 0.93, "stage": "candidate"}
EVERYBODY = (
    "metatree",
    "sqlite steady",
    "lmdb",
    "diskcache",
    "deltalake",
    "icechunk",
    "metatreedb 0.2.3",
    "plain files",
)


def find(store: Store) -> Step:
    for number in range(VERSIONS):
        store.put("m", f"v{number}", BLOB)
    store.update("m", "v7", VALUES)
    store.update("m", "", {"active": "v7"})
    return lambda number: store.find_active("m")


@contextmanager
def look(folder: Path) -> Iterator[Ready]:
    """What is known already, and one look whether it still holds: a number in a file."""
    (folder / "head").write_bytes(bytes(8))
    descriptor = os.open(folder / "head", os.O_RDONLY)
    known: dict[bytes, dict[str, object]] = {bytes(8): {"active": "v7", "v7": json.loads(json.dumps(VALUES))}}

    def step(number: int) -> object:
        state = known[os.pread(descriptor, 8, 0)]
        return dict(state[state["active"]])  # type: ignore[index, call-overload]

    yield Ready(step)
    os.close(descriptor)


def workloads(sizes: Sizes) -> list[Workload]:
    everybody = [contestant(PEERS[name], find) for name in EVERYBODY]
    everybody.append(Contestant("floor: one pread", look))
    return [Workload("W4", 'find("m/<active>") and its metadata, warm', everybody, sizes.steps * 10, warmup=200)]
