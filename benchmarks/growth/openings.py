"""Curves of opening a tree, after a clean close and after a kill. The files are in the system's cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from benchmarks.growth.changes import DECADES
from benchmarks.growth.curve import Curve, Step, micros
from benchmarks.growth.fit import Growth
from benchmarks.growth.trees import KEYS, KIB, Trees
from metatree import Metatree

KILLED = 9  # the exit code of one that was not asked
LEFT = 100  # records that a killed process leaves, where those are not what grows


def opened(path: Path, location: str) -> float:
    """What it takes to open a tree and to find one node."""
    trees: list[Metatree] = []

    def first_find() -> None:
        tree = Metatree(path)
        trees.append(tree)
        tree.find(location)

    cost = micros(first_find)
    trees[0].close()
    return cost


@contextmanager
def after_close(trees: Trees, size: int) -> Iterator[Step]:
    path = trees.balanced(size)
    yield lambda number: opened(path, "g0/m0/v0")


@contextmanager
def after_kill(trees: Trees, size: int) -> Iterator[Step]:
    path = trees.balanced(size)

    def step(number: int) -> float:
        kill_after(path, f"g0/kill{number}", LEFT)
        return opened(path, "g0/m0/v0")

    yield step


@contextmanager
def after_history(trees: Trees, size: int) -> Iterator[Step]:
    path = trees.past(size)
    yield lambda number: opened(path, "g/m/v")


@contextmanager
def first_key(trees: Trees, size: int) -> Iterator[Step]:
    path = trees.past(size)

    def step(number: int) -> float:
        with Metatree(path) as tree:
            return micros(lambda: use_key(tree))

    def use_key(tree: Metatree) -> None:
        with tree.transaction(idempotency_key="load"):
            tree.update("g/m/v", loaded=True)

    yield step


@contextmanager
def recovery(trees: Trees, size: int) -> Iterator[Step]:
    def step(number: int) -> float:
        path = trees.fresh()
        kill_after(path, "g/m", size)
        return opened(path, "g/m/v0")

    yield step


def kill_after(path: Path, model: str, records: int) -> None:
    """Have another process put so many nodes, and die."""
    process = get_context("spawn").Process(target=put_and_die, args=(path, model, records))
    process.start()
    process.join()
    assert process.exitcode == KILLED, "the process that should leave a log to recover failed"


def put_and_die(path: Path, model: str, records: int) -> None:
    tree = Metatree(path, KEYS, apply="background")
    for number in range(records):
        tree.put(f"{model}-{number // 50}/v{number}" if number else f"{model}/v0", KIB, name="w")
    os._exit(KILLED)


def curves() -> Iterator[Curve]:
    yield Curve(
        "open-closed",
        "open and one find, after a clean close",
        "nodes of the tree",
        DECADES[1:],
        after_close,
        Growth.FLAT,
        "the time to open depends on the log since the checkpoint, never on the tree",
        steps=20,
    )
    yield Curve(
        "open-killed",
        f"open and one find, after a kill that left {LEFT} records",
        "nodes of the tree",
        DECADES[1:],
        after_kill,
        Growth.FLAT,
        "the time to open depends on the log since the checkpoint, never on the tree",
        steps=3,
        rounds=3,
    )
    yield from _by_records()


def _by_records() -> Iterator[Curve]:
    yield Curve(
        "open-history",
        "open and one find, after a clean close",
        "records ever committed",
        (100, 1_000, 10_000),
        after_history,
        Growth.FLAT,
        "what a checkpoint trimmed is not read",
        steps=20,
    )
    yield Curve(
        "first-key",
        "a handle's first transaction with an idempotency key",
        "records ever committed",
        (100, 1_000, 10_000),
        first_key,
        Growth.LINEAR,
        "the key may have been used at any time: all headers are read once",
        steps=3,
        rounds=3,
    )
    yield Curve(
        "recovery",
        "open and one find, after a kill",
        "records to recover",
        (10, 100, 1_000, 8_000),
        recovery,
        Growth.LINEAR,
        "each record is read once, each file written once",
        steps=1,
        rounds=2,
        warmup=0,
    )
