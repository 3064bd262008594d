"""Reads of many nodes by a handle that has read none: one by one, in threads, and in a walk, which asks ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import wal
from benchmarks.count_requests.wire import Wire
from metatree import Metatree

KEYS = ("model", "version")
NODES = 1000
THREADS = 8
PLAIN = 200  # plain requests that are timed

Way = Callable[[Metatree], None]


@dataclass(frozen=True, slots=True)
class Parallel:
    """How all nodes were read."""

    way: str
    requests: int
    seconds: float
    ratio: float  # to the time of as many plain requests, one by one, as there are nodes


def one_by_one(tree: Metatree) -> None:
    for number in range(NODES):
        dict(tree.find(f"m/v{number}").metadata)


def in_threads(tree: Metatree) -> None:
    def some(first: int) -> None:
        for number in range(first, NODES, THREADS):
            dict(tree.find(f"m/v{number}").metadata)

    threads = [threading.Thread(target=some, args=(first,)) for first in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_a_walk(tree: Metatree) -> None:
    found = sum(len(node.metadata) for node in tree.walk("m"))
    assert found == NODES


def read(url: str, options: dict[str, Any], wire: Wire) -> Iterator[Parallel]:
    """Every way, on a tree made for it."""
    with Metatree(url, KEYS, **options) as tree, tree.transaction():
        for number in range(NODES):
            tree.put(f"m/v{number}", b"small", name="w")
            tree.update(f"m/v{number}", accuracy=number)
    plain = _plain(url, options)
    ways: dict[str, Way] = {
        "find, one by one": one_by_one,
        f"find, in {THREADS} threads": in_threads,
        "walk": in_a_walk,
    }
    for name, way in ways.items():
        with Metatree(url, read_only=True, **options) as tree:
            before, begin = wire.requests, perf_counter()
            way(tree)
            seconds = perf_counter() - begin
            yield Parallel(name, wire.requests - before, seconds, seconds / (plain * NODES))


def _plain(url: str, options: dict[str, Any]) -> float:
    """Seconds of one plain read of a metadata.json."""
    storage = wal.open_storage(url, options)
    begin = perf_counter()
    for number in range(PLAIN):
        storage.read(f"m/v{number}/metadata.json")
    seconds = (perf_counter() - begin) / PLAIN
    storage.close()
    return seconds
