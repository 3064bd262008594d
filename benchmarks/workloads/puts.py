"""W1: one durable put of 1 KiB as a new version. W3: one durable update. W6: a put into a node with many children."""

from __future__ import annotations

from functools import partial

from benchmarks.measure import Step, Workload, contestant
from benchmarks.peers import PEERS
from benchmarks.peers.base import BLOB, Store, place
from benchmarks.workloads.sizes import Sizes

EVERYBODY = (
    "metatree",
    "metatree background",
    "sqlite fresh",
    "sqlite steady",
    "lmdb",
    "diskcache",
    "deltalake",
    "icechunk",
    "metatreedb 0.2.3",
    "plain files",
    "plain files, fsync",
    "floor: raw log",
    "floor: deferred",
    "floor: current",
)
LISTS = (
    "metatree",
    "metatree background",
    "sqlite steady",
    "metatreedb 0.2.3",
    "plain files",
    "floor: deferred",
    "floor: current",
)


def put(store: Store) -> Step:
    return lambda number: store.put(*place(number), BLOB)


def update(store: Store) -> Step:
    store.put("m", "v", BLOB)
    return lambda number: store.update("m", "v", {"step": number})


def put_beside(children: int, store: Store) -> Step:
    store.fill("m", [f"old{number}" for number in range(children)])
    return lambda number: store.put("m", f"v{number}", BLOB)


def workloads(sizes: Sizes) -> list[Workload]:
    puts = [contestant(PEERS[name], put) for name in EVERYBODY]
    updates = [contestant(PEERS[name], update) for name in EVERYBODY]
    beside = [
        contestant(PEERS[name], partial(put_beside, children), size)
        for name in LISTS
        for size, children in zip(("few", "many"), sizes.children, strict=True)
    ]
    few, many = sizes.children
    title = f"a put into a node with {few:,} (few) or {many:,} (many) children"
    return [
        Workload("W1", "one durable put, 1 KiB, new version", puts, sizes.steps, warmup=20, verb="put"),
        Workload("W3", "one durable update of one node", updates, sizes.steps, warmup=20, verb="update"),
        Workload("W6", title, beside, sizes.steps // 3 + 1, warmup=5, verb="put"),
    ]
