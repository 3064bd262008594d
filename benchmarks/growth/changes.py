"""Curves of what changes a tree: one durable change against what is there already, transactions against their size."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.growth.curve import Curve, Step, Store, micros
from benchmarks.growth.fit import Growth
from benchmarks.growth.trees import KEYS, KIB, Trees
from metatree import Metatree

MODES = ("sync", "background")
DECADES = (100, 1_000, 10_000, 100_000)


@contextmanager
def put_into_wide(apply: str, trees: Trees, size: int) -> Iterator[Step]:
    with Metatree(trees.wide(size), apply=apply) as tree:
        yield lambda number: tree.put(f"g/m/{apply}{number}", KIB, name="w")


@contextmanager
def put_into_balanced(apply: str, trees: Trees, size: int) -> Iterator[Step]:
    with Metatree(trees.balanced(size), apply=apply) as tree:
        yield lambda number: tree.put(f"g0/m0/{apply}{number}", KIB, name="w")


@contextmanager
def put_after_records(trees: Trees, size: int) -> Iterator[Step]:
    with Metatree(trees.fresh(), KEYS) as tree:
        tree.put("g/m/v", b"small", name="w")
        for number in range(size):
            tree.update("g/m/v", step=number)
        yield lambda number: tree.put(f"g/m/n{number}", KIB, name="w")


@contextmanager
def put_large(trees: Trees, size: int) -> Iterator[Step]:
    with Metatree(trees.fresh(), KEYS) as tree, tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "w"
        source.write_bytes(bytes(size))
        yield lambda number: tree.put(f"g/m/v{number}", source)


@contextmanager
def update_of_keys(trees: Trees, size: int) -> Iterator[Step]:
    with Metatree(trees.fresh(), KEYS) as tree:
        tree.put("g/m/v", b"small", name="w")
        tree.update("g/m/v", {f"key-{number}": number for number in range(size)})
        yield lambda number: tree.update("g/m/v", {"key-0": -number - 1})


@contextmanager
def delete_among_read(trees: Trees, size: int) -> Iterator[Step]:
    with Metatree(trees.balanced(size)) as tree:
        for _ in tree.walk():
            pass

        def step(number: int) -> float:
            tree.put(f"g0/m0/gone{number}", KIB, name="w")
            return micros(lambda: tree.delete(f"g0/m0/gone{number}", recursive=True))

        yield step


Verb = Callable[[Metatree, str, int], None]


@contextmanager
def in_one_transaction(verb: Verb, trees: Trees, size: int) -> Iterator[Step]:
    """So many calls of `verb`; what one of them costs, its share of the commit and of the files included."""
    with Metatree(trees.fresh(), KEYS) as tree:

        def block(number: int) -> None:
            with tree.transaction():
                for call in range(size):
                    verb(tree, f"g/m{number}", call)

        def step(number: int) -> float:
            with tree.transaction():
                for call in range(size if verb is delete else verb is update):
                    tree.put(f"g/m{number}/v{call}", b"small", name="w")
            return micros(lambda: block(number)) / size

        yield step


def put(tree: Metatree, model: str, number: int) -> None:
    tree.put(f"{model}/v{number}", KIB, name="w")


def update(tree: Metatree, model: str, number: int) -> None:
    tree.update(f"{model}/v0", {f"key-{number}": number})


def delete(tree: Metatree, model: str, number: int) -> None:
    tree.delete(f"{model}/v{number}", recursive=True)


def curves() -> Iterator[Curve]:
    for mode in MODES:
        yield Curve(
            f"put-children-{mode}",
            f"a durable put of 1 KiB as a new node, {mode}",
            "children of the node above",
            DECADES,
            partial(put_into_wide, mode),
            Growth.FLAT,
            "the log gets one name; a long list of children follows in the background",
        )
    for mode in MODES:
        yield Curve(
            f"put-nodes-{mode}",
            f"a durable put of 1 KiB as a new node, {mode}",
            "nodes of the tree",
            DECADES[1:],
            partial(put_into_balanced, mode),
            Growth.FLAT,
            "a put reads and writes the nodes on its path",
        )
    yield from _single()
    yield from _transactions()


def _single() -> Iterator[Curve]:
    yield Curve(
        "put-records",
        "a durable put of 1 KiB as a new node",
        "records since the checkpoint",
        (10, 100, 1_000, 8_000),
        put_after_records,
        Growth.FLAT,
        "nothing goes through the records that are applied",
    )
    yield Curve(
        "put-bytes",
        "a durable put",
        "bytes of the blob",
        (1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 26),
        put_large,
        Growth.LINEAR,
        "each byte is copied once",
        steps=5,
    )
    yield Curve(
        "update-keys",
        "a durable update of one key",
        "keys of the node",
        (1, 10, 100, 1_000, 10_000),
        update_of_keys,
        Growth.LINEAR,
        "up to 16 KiB the node's file is written each time; beyond that it follows",
    )
    yield Curve(
        "delete-nodes",
        "a durable delete of one node",
        "nodes that the handle has read",
        DECADES[1:],
        delete_among_read,
        Growth.FLAT,
        "a delete looks at what it deletes",
        steps=20,
    )


def _transactions() -> Iterator[Curve]:
    kinds: tuple[tuple[str, Verb, str], ...] = (
        ("puts", put, "a put of 1 KiB as a new node of one parent"),
        ("updates", update, "an update of one key of one node"),
        ("deletes", delete, "a delete of one of a node's children"),
    )
    for name, verb, title in kinds:
        store: Callable[[Trees, int], AbstractContextManager[Step]] = partial(in_one_transaction, verb)
        yield transaction(name, title, store)


def transaction(name: str, title: str, store: Store) -> Curve:
    return Curve(
        f"transaction-{name}",
        f"{title}, in a transaction of many",
        "calls in the transaction",
        (100, 1_000, 10_000),
        store,
        Growth.FLAT,
        "each call costs the same, whatever was called before it",
        steps=1,
        rounds=3,
        warmup=0,
    )
