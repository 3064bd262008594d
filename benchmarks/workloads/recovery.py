"""W10: what a writer that was killed leaves, until it can be read, and until all files show it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import orjson

from benchmarks.children import run_to_death
from benchmarks.measure import Contestant, Ready, Workload
from benchmarks.peers import PEERS
from benchmarks.peers.base import BLOB, KEYS, Measured, place
from benchmarks.peers.floors import write_versions
from benchmarks.peers.metatree import Tree
from benchmarks.peers.sqlite import Database
from benchmarks.workloads.sizes import Sizes
from metatree import Metatree

Reach = Callable[[Path, int], AbstractContextManager[object]]
"""Opens what is there; the clock stops when it is entered. Gets the number of puts."""


def main() -> None:
    """In the child: puts, and dies. "held": nothing is applied and no checkpoint made, so that all is left."""
    name, folder, puts, how = sys.argv[1:]
    with PEERS[name].open(Path(folder)) as store:
        if how == "held":
            assert isinstance(store, Tree)
            store.tree._engine.committer.stop()
            store.tree._engine.committed = lambda position: None  # type: ignore[method-assign]
        for number in range(int(puts)):
            store.put(*place(number), BLOB)
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def tree_readable(folder: Path, puts: int) -> Iterator[None]:
    with Metatree(folder / "tree", read_only=True) as tree:
        tree.find(place(puts - 1)).metadata  # noqa: B018
        yield


@contextmanager
def tree_applied(folder: Path, puts: int) -> Iterator[None]:
    with Metatree(folder / "tree") as tree:
        tree.flush()
        yield


@contextmanager
def rows_readable(folder: Path, puts: int) -> Iterator[None]:
    with PEERS["sqlite fresh"].open(folder) as store:
        assert isinstance(store, Database)
        sql = "SELECT metadata FROM node WHERE model = ? AND version = ?"
        assert store.connection.execute(sql, place(puts - 1)).fetchone() is not None
        yield


@contextmanager
def rows_applied(folder: Path, puts: int) -> Iterator[None]:
    with PEERS["sqlite fresh"].open(folder) as store:
        store.rest()
        yield


@contextmanager
def records_parsed(folder: Path, puts: int) -> Iterator[list[dict[str, Any]]]:
    yield [orjson.loads(line) for line in (folder / "records").read_bytes().splitlines()]


@contextmanager
def records_applied(folder: Path, puts: int) -> Iterator[None]:
    with records_parsed(folder, puts) as records:
        for model, group in groupby(records, key=itemgetter("model")):
            write_versions(str(folder / model), [], [record["version"] for record in group], BLOB)
        yield


def write_records(folder: Path, puts: int) -> None:
    places = map(place, range(puts))
    lines = [orjson.dumps({"model": model, "version": version, "size": len(BLOB)}) for model, version in places]
    (folder / "records").write_bytes(b"\n".join(lines))


def killed(peer: str, how: str, folder: Path, puts: int) -> None:
    run_to_death("benchmarks.workloads.recovery", peer, folder, puts, how)


def contestant(peer: str, variant: str, leave: Callable[[Path, int], None], reach: Reach, puts: int) -> Contestant:
    @contextmanager
    def opened(folder: Path) -> Iterator[Ready]:
        left = folder / "left"
        left.mkdir()
        leave(left, puts)
        yield Ready(partial(once, folder))

    def once(folder: Path, number: int) -> Measured:
        copy = folder / f"try{number}"
        shutil.copytree(folder / "left", copy)
        begin = perf_counter_ns()
        with reach(copy, puts):
            return Measured((perf_counter_ns() - begin) / 1000)

    return Contestant(peer, opened, variant)


def outstanding(puts: int) -> Contestant:
    """Of a writer that goes on as fast as it can: how many records the next one has to replay."""

    @contextmanager
    def opened(folder: Path) -> Iterator[Ready]:
        yield Ready(partial(count, folder))

    def count(folder: Path, number: int) -> Measured:
        left = folder / f"try{number}"
        left.mkdir()
        killed("metatree background", "free", left, puts)
        with Metatree(left / "tree", KEYS, read_only=True) as tree:
            return Measured(tree.recover(dry_run=True).records)

    return Contestant("metatree background", opened)


def workloads(sizes: Sizes) -> list[Workload]:
    tree, rows = partial(killed, "metatree background", "held"), partial(killed, "sqlite fresh", "free")
    everybody = [
        contestant("metatree", "readable", tree, tree_readable, sizes.records),
        contestant("sqlite fresh", "readable", rows, rows_readable, sizes.records),
        contestant("floor: parse", "readable", write_records, records_parsed, sizes.records),
        contestant("metatree", "applied", tree, tree_applied, sizes.records),
        contestant("sqlite fresh", "applied", rows, rows_applied, sizes.records),
        contestant("floor: parse, write files", "applied", write_records, records_applied, sizes.records),
    ]
    title = f"recovery of {sizes.records:,} puts after kill -9"
    left = f"records to replay after kill -9, of {2 * sizes.records:,} puts in a row"
    return [
        Workload("W10", title, everybody, steps=1, rounds=3),
        Workload("W10 outstanding", left, [outstanding(2 * sizes.records - 1)], steps=1, unit="records", rounds=1),
    ]
