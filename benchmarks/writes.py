"""W1: one durable put of 1 KiB as a new version. W3: one durable update of one node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Contestant, Step, Workload
from benchmarks.peers import BLOB, metatree, raw_log, sqlite, sqlite_put, sqlite_update

HEADER = bytes(200)  # about what a record says besides its content


def metatree_puts(apply: str) -> Contestant:
    @contextmanager
    def contestant(folder: Path) -> Iterator[Step]:
        with metatree(folder, apply) as tree:
            yield lambda number: tree.put(f"m/v{number}", BLOB, name="w")

    return contestant


def metatree_updates(apply: str) -> Contestant:
    @contextmanager
    def contestant(folder: Path) -> Iterator[Step]:
        with metatree(folder, apply) as tree:
            tree.put("m/v1", BLOB, name="w")
            yield lambda number: tree.update("m/v1", {"step": number})

    return contestant


@contextmanager
def sqlite_puts(folder: Path) -> Iterator[Step]:
    with sqlite(folder) as connection:
        yield lambda number: sqlite_put(connection, "m", f"v{number}")


@contextmanager
def sqlite_updates(folder: Path) -> Iterator[Step]:
    with sqlite(folder) as connection:
        sqlite_put(connection, "m", "v1")
        yield lambda number: sqlite_update(connection, "m", "v1", {"step": number})


@contextmanager
def floor_puts(folder: Path) -> Iterator[Step]:
    with raw_log(folder) as log:
        yield lambda number: log.append(HEADER + BLOB)


@contextmanager
def floor_updates(folder: Path) -> Iterator[Step]:
    with raw_log(folder) as log:
        yield lambda number: log.append(HEADER)


def workloads(steps: int) -> list[Workload]:
    puts: dict[str, Contestant] = {
        "metatree": metatree_puts("sync"),
        "metatree background": metatree_puts("background"),
        "sqlite": sqlite_puts,
        "raw log": floor_puts,
    }
    updates: dict[str, Contestant] = {
        "metatree": metatree_updates("sync"),
        "metatree background": metatree_updates("background"),
        "sqlite": sqlite_updates,
        "raw log": floor_updates,
    }
    return [
        Workload("W1", "one durable put, 1 KiB, new version", puts, steps, warmup=20),
        Workload("W3", "one durable update of one node", updates, steps, warmup=20),
    ]
