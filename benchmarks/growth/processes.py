"""Curves of several processes that put into one model at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from time import perf_counter

from benchmarks.growth.changes import MODES
from benchmarks.growth.curve import Curve, Step
from benchmarks.growth.fit import Growth
from benchmarks.growth.trees import KEYS, KIB, Trees
from metatree import Metatree

PUTS = 400  # of all processes together
PATIENCE = 120  # seconds until a worker that died breaks the barrier


def work(path: Path, apply: str, prefix: str, puts: int, barrier: Barrier) -> None:
    with Metatree(path, apply=apply) as tree:
        tree.exists("g/m")  # opening is not what is measured
        barrier.wait(PATIENCE)
        for number in range(puts):
            tree.put(f"g/m/{prefix}-{number}", KIB, name="w")
        barrier.wait(PATIENCE)


@contextmanager
def together(apply: str, trees: Trees, size: int) -> Iterator[Step]:
    path = trees.fresh()
    with Metatree(path, KEYS) as tree:
        tree.put("g/m", KIB, name="w")

    done = 0

    def step(number: int) -> float:
        """One round of all processes; the time of one put."""
        nonlocal done
        spawn = get_context("spawn")
        barrier = spawn.Barrier(size + 1)
        puts = PUTS // size
        prefixes = [f"r{number}-p{process}" for process in range(size)]
        workers = [spawn.Process(target=work, args=(path, apply, prefix, puts, barrier)) for prefix in prefixes]
        for worker in workers:
            worker.start()
        barrier.wait(PATIENCE)
        begin = perf_counter()
        barrier.wait(PATIENCE)
        seconds = perf_counter() - begin
        for worker in workers:
            worker.join()
        done += puts * size
        return seconds / (puts * size) * 1e6

    yield step
    with Metatree(path) as tree:
        assert len(tree.children("g/m")) == done, "acknowledged puts were lost"


def curves() -> Iterator[Curve]:
    for mode in MODES:
        yield Curve(
            f"put-processes-{mode}",
            f"a durable put of 1 KiB, all processes together, {mode}",
            "processes that put into one node",
            (1, 2, 4, 8),
            partial(together, mode),
            Growth.FLAT,
            "they take turns, and lose nothing by it",
            steps=1,
            rounds=3,
            warmup=0,
        )
