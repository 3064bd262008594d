"""W7: four processes put into one model at the same time; afterwards every acknowledged put is counted."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from time import perf_counter

from benchmarks.measure import Contestant, Step, Timed, Workload
from benchmarks.peers import BLOB, metatree, sqlite, sqlite_put

PROCESSES = 4
PATIENCE = 120  # seconds until a dead worker breaks the barrier


def metatree_worker(folder: Path, apply: str, prefix: str, puts: int, barrier: Barrier) -> None:
    with metatree(folder, apply) as tree:
        tree.exists("m")  # opening is not what is measured
        barrier.wait(PATIENCE)
        for number in range(puts):
            tree.put(f"m/{prefix}-{number}", BLOB, name="w")
        barrier.wait(PATIENCE)


def sqlite_worker(folder: Path, _: str, prefix: str, puts: int, barrier: Barrier) -> None:
    with sqlite(folder) as connection:
        barrier.wait(PATIENCE)
        for number in range(puts):
            sqlite_put(connection, "m", f"{prefix}-{number}")
        barrier.wait(PATIENCE)


def metatree_prepare(folder: Path) -> None:
    with metatree(folder) as tree:
        tree.put("m", BLOB, name="w")


def metatree_count(folder: Path) -> int:
    with metatree(folder) as tree:
        return len(list(tree.children("m")))


def sqlite_count(folder: Path) -> int:
    with sqlite(folder) as connection:
        (count,) = connection.execute("SELECT count(*) FROM node WHERE version != ''").fetchone()
        return int(count)


@dataclass(frozen=True, slots=True)
class Race:
    """Who runs against each other and how the outcome is counted."""

    worker: Callable[[Path, str, str, int, Barrier], None]
    prepare: Callable[[Path], object]  # the store exists before the race: creating it is another workload
    count: Callable[[Path], int]
    apply: str
    puts: int  # of each process

    def run(self, folder: Path, number: int) -> Timed:
        """One round; the time of one put, all processes together."""
        spawn = multiprocessing.get_context("spawn")
        barrier = spawn.Barrier(PROCESSES + 1)
        prefixes = [f"r{number}-p{process}" for process in range(PROCESSES)]
        arguments = [(folder, self.apply, prefix, self.puts, barrier) for prefix in prefixes]
        workers = [spawn.Process(target=self.worker, args=each) for each in arguments]
        for worker in workers:
            worker.start()
        barrier.wait(PATIENCE)
        begin = perf_counter()
        barrier.wait(PATIENCE)
        seconds = perf_counter() - begin
        for worker in workers:
            worker.join()
        assert self.count(folder) == (number + 1) * PROCESSES * self.puts, "acknowledged puts were lost"
        return Timed(seconds / (PROCESSES * self.puts) * 1e6)


def contestant(race: Race) -> Contestant:
    @contextmanager
    def opened(folder: Path) -> Iterator[Step]:
        race.prepare(folder)
        yield partial(race.run, folder)

    return opened


def workloads(steps: int) -> list[Workload]:
    puts = max(10, steps)
    contestants = {
        "metatree": contestant(Race(metatree_worker, metatree_prepare, metatree_count, "sync", puts)),
        "metatree background": contestant(Race(metatree_worker, metatree_prepare, metatree_count, "background", puts)),
        "sqlite": contestant(Race(sqlite_worker, sqlite_count, sqlite_count, "", puts)),
    }
    return [Workload("W7", f"{PROCESSES} processes, {puts} durable puts each, one model", contestants, 1, warmup=0)]
