"""Several processes that commit to one tree: how many commits one slot carries while all want the next one."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier, Event
from time import perf_counter, sleep
from typing import Any

import wal
from metatree import Metatree

KEYS = ("model", "version")
SHAPES = ((1, 1), (2, 1), (4, 1), (8, 1), (1, 8), (2, 8), (4, 8))  # processes, threads of each
SECONDS = 6.0
PATIENCE = 120.0  # seconds until a worker that died breaks the barrier
ASKED = 20  # times that a slot's round trip is measured


@dataclass(frozen=True, slots=True)
class Contended:
    """What was committed while a shape ran."""

    processes: int
    threads: int
    commits: float  # a second
    slots: float  # a second
    lost: int  # acknowledged commits that are not there

    @property
    def carried(self) -> float:
        """Commits of one slot."""
        return self.commits / self.slots


def round_trip(url: str, options: dict[str, Any]) -> float:
    """Seconds that one slot takes when nobody else wants it."""
    wal.make_root(f"{url}/asked", options)
    storage = wal.open_storage(f"{url}/asked", options)
    times = []
    for number in range(ASKED):
        begin = perf_counter()
        assert storage.create(f"{number}", bytes(1500))
        times.append(perf_counter() - begin)
    storage.close()
    return statistics.median(times)


def contend(url: str, options: dict[str, Any]) -> Iterator[Contended]:
    """Every shape, each in a tree of its own."""
    for processes, threads in SHAPES:
        yield _run(f"{url}/contended-{processes}-{threads}", options, processes, threads)


def _run(url: str, options: dict[str, Any], processes: int, threads: int) -> Contended:
    spawn = get_context("spawn")
    with Metatree(url, KEYS, **options) as tree:
        tree.put("m", b"there", name="w")
        first = tree.lsn
    barrier, end = spawn.Barrier(processes + 1), spawn.Event()
    arguments = [(url, options, f"p{process}", threads, barrier, end) for process in range(processes)]
    workers = [spawn.Process(target=work, args=each) for each in arguments]
    for worker in workers:
        worker.start()
    barrier.wait(PATIENCE)
    begin = perf_counter()
    sleep(SECONDS)
    end.set()
    barrier.wait(PATIENCE)
    seconds = perf_counter() - begin
    for worker in workers:
        worker.join()
    with Metatree(url, **options) as tree:
        told = sum(int(value) for value in tree.find("m").metadata.values())
        found = sum(name.startswith("p") for name in tree.children("m"))
        slots = tree.lsn - first - processes  # each worker has told its count in a commit of its own
    return Contended(processes, threads, told / seconds, slots / seconds, told - found)


def work(url: str, options: dict[str, Any], name: str, threads: int, barrier: Barrier, end: Event) -> None:
    """Put until the end; then tell how often that was acknowledged."""
    with Metatree(url, apply="background", **options) as tree:
        tree.exists("m")
        counts = [0] * threads

        def puts(thread: int) -> None:
            while not end.is_set():
                tree.put(f"m/{name}-{thread}-{counts[thread]}", bytes(1024), name="w")
                counts[thread] += 1

        running = [threading.Thread(target=puts, args=(thread,)) for thread in range(threads)]
        barrier.wait(PATIENCE)
        for each in running:
            each.start()
        for each in running:
            each.join()
        barrier.wait(PATIENCE)
        tree.update("m", {name: sum(counts)})
