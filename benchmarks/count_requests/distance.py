"""One process that commits to a tree far away: whatever asks the server takes so much longer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter, sleep
from typing import Any

import wal
from metatree import Metatree
from wal.testing.hosts import watched

KEYS = ("model", "version")
DELAY = 0.03  # seconds: as between a machine and a bucket in the same region
THREADS = (1, 8, 32)
SECONDS = 6.0
ASKING = ("create", "publish", "read", "attribute", "entry", "list", "versions", "remove", "open", "set_aside", "erase")


@dataclass(frozen=True, slots=True)
class Distant:
    """What was committed while so many threads did nothing else."""

    threads: int
    commits: float  # a second
    slots: float  # a second
    applied: float  # puts whose files came into place, a second


def commit(url: str, options: dict[str, Any]) -> Iterator[Distant]:
    """Single puts in the background, by more and more threads of one handle; each time in a tree of its own."""
    for threads in THREADS:
        wal.make_root(f"{url}-{threads}", options)
        storage = watched(wal.open_storage(f"{url}-{threads}", options), _later)
        with Metatree(storage, KEYS, apply="background") as tree:
            tree.put("m/v", b"", name="w")
            yield _run(tree, threads)


def _later(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
    if method in ASKING:
        sleep(DELAY)
    return run()


def _run(tree: Metatree, threads: int) -> Distant:
    counts = [0] * threads
    first, begin = tree.lsn, perf_counter()

    def work(thread: int) -> None:
        while perf_counter() < begin + SECONDS:
            tree.put(f"m{thread}/v{counts[thread]}", bytes(1000), name="w")
            counts[thread] += 1

    workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = perf_counter() - begin
    slots = tree.lsn - first
    tree.flush()
    return Distant(threads, sum(counts) / seconds, slots / seconds, sum(counts) / (perf_counter() - begin))
