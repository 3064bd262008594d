"""Curves of peak memory, each measured in a process of its own: MiB beyond what it had before."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from benchmarks.growth.changes import DECADES
from benchmarks.growth.curve import Curve, Step
from benchmarks.growth.fit import Growth
from benchmarks.growth.trees import KEYS, KIB, Trees
from metatree import Metatree

FINEST = 1.0  # MiB; what is less cannot be told from chance

Work = Callable[[Path, int], float]


def peak() -> float:
    """MiB that this process has had at most."""
    if sys.platform == "linux":  # getrusage would count what the parent had when it started this process
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def transaction(path: Path, size: int) -> float:
    with Metatree(path, KEYS) as tree:
        tree.put("g/m/v", KIB, name="w")
        before = peak()
        with tree.transaction():
            for number in range(size):
                tree.put(f"g/m/v{number}", KIB, name="w")
        return peak() - before


def one_put(path: Path, size: int) -> float:
    before = peak()
    with Metatree(path) as tree:
        number = tree.lsn
        tree.put(f"g0/m0/memory{number}", KIB, name="w")
    return peak() - before


def walk(path: Path, size: int) -> float:
    with Metatree(path) as tree:
        before = peak()
        for _ in tree.walk():
            pass
        return peak() - before


def blob(path: Path, size: int) -> float:
    source = path.with_suffix(".source")
    with source.open("wb") as file:
        file.truncate(size)
    with Metatree(path, KEYS) as tree:
        tree.put("g/m/v", KIB, name="w")
        before = peak()
        tree.put("g/m/v", source, name="large")
        for _ in tree.get("g/m/v/large"):
            pass
        return peak() - before


@contextmanager
def elsewhere(work: Work, balanced: bool, trees: Trees, size: int) -> Iterator[Step]:
    """`work` in a process of its own, on a balanced tree of this size or in a new folder."""

    def step(number: int) -> float:
        path = trees.balanced(size) if balanced else trees.fresh()
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return max(FINEST, pool.submit(work, path, size).result())

    yield step


curve = partial(Curve, steps=1, rounds=1, warmup=0, unit="MiB")


def curves() -> Iterator[Curve]:
    yield curve(
        "memory-transaction",
        "a transaction of puts of 1 KiB",
        "puts in the transaction",
        (1_000, 3_000, 10_000, 30_000),
        partial(elsewhere, transaction, False),
        Growth.LINEAR,
        "its records are kept until it commits",
    )
    yield curve(
        "memory-nodes",
        "open and one put",
        "nodes of the tree",
        DECADES[1:],
        partial(elsewhere, one_put, True),
        Growth.FLAT,
        "a put reads the nodes on its path",
    )
    yield curve(
        "memory-walk",
        "a walk of the whole tree",
        "nodes of the tree",
        DECADES[1:],
        partial(elsewhere, walk, True),
        Growth.LINEAR,
        "parsed nodes are kept, up to 64 MiB by the length of their text",
    )
    yield curve(
        "memory-blob",
        "put and get of a blob",
        "bytes of the blob",
        (1 << 20, 1 << 23, 1 << 26, 1 << 28),
        partial(elsewhere, blob, False),
        Growth.FLAT,
        "content is copied piece by piece",
    )
