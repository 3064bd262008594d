"""W2: many puts in one transaction. W11: durable records one by one, from threads, and in transactions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter_ns

from benchmarks.measure import Step, Workload, contestant
from benchmarks.peers import PEERS
from benchmarks.peers.base import BLOB, Measured, Store, place
from benchmarks.workloads.sizes import Sizes

WHOLE = (
    "metatree",  # files in place when it returns
    "metatree background",  # durable when it returns
    "sqlite fresh",
    "sqlite steady",
    "lmdb",
    "diskcache",
    "deltalake",
    "floor: raw log",
    "floor: current",
)
LIMITED = ("icechunk", "metatreedb 0.2.3")  # minutes otherwise; fewer puts flatter them
GROUPS = (10, 100, 1_000)
THREADS = 8
GROUPING = ("metatree", "metatree background", "sqlite steady", "floor: raw log")
THREADED = ("metatree", "metatree background")


def batch(count: int, store: Store) -> Step:
    """One transaction; the time of one of its puts."""

    def step(number: int) -> Measured:
        versions = [f"v{each}" for each in range(count)]
        begin = perf_counter_ns()
        outcome = store.put_many(f"m{number}", versions, BLOB)
        micros = (perf_counter_ns() - begin) / 1000
        return Measured((outcome.value if isinstance(outcome, Measured) else micros) / count)

    return step


def singly(count: int, store: Store) -> Step:
    """`count` puts, one after the other; the time of one."""

    def step(number: int) -> Measured:
        begin = perf_counter_ns()
        for each in range(count):
            store.put(*place(number * count + each), BLOB)
        return Measured((perf_counter_ns() - begin) / 1000 / count)

    return step


def together(threads: int, count: int, store: Store) -> Step:
    """`count` puts, spread over threads; the time of one."""
    each_one = max(1, count // threads)

    def puts(model: str) -> None:
        for each in range(each_one):
            store.put(model, f"v{each}", BLOB)

    def step(number: int) -> Measured:
        begin = perf_counter_ns()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(puts, [f"r{number}-t{thread}" for thread in range(threads)]))
        return Measured((perf_counter_ns() - begin) / 1000 / (each_one * threads))

    return step


def workloads(sizes: Sizes) -> list[Workload]:
    whole = [contestant(PEERS[name], partial(batch, sizes.batch)) for name in WHOLE]
    limited = [contestant(PEERS[name], partial(batch, sizes.limited), f"{sizes.limited} puts only") for name in LIMITED]
    rates = [contestant(PEERS[name], partial(singly, sizes.steps), "single puts") for name in GROUPING]
    rates += [
        contestant(PEERS[name], partial(together, THREADS, sizes.steps), f"{THREADS} threads") for name in THREADED
    ]
    rates += [
        contestant(PEERS[name], partial(batch, group), f"transactions of {group:,}")
        for group in GROUPS
        for name in GROUPING
    ]
    title = f"{sizes.batch:,} puts in one transaction: one of them"
    return [
        Workload("W2", title, [*whole, *limited], steps=1, warmup=1, verb="put_many", rounds=3),
        Workload("W11", "durable records: one of them", rates, steps=3, warmup=1, verb="put"),
    ]
