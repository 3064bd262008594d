"""Curves of directory blobs: what is done beside one, or to one of its files, against what else is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.growth.changes import transaction
from benchmarks.growth.curve import Curve, Step, micros
from benchmarks.growth.fit import Growth
from benchmarks.growth.trees import KEYS, Trees
from metatree import Metatree


@contextmanager
def put_beside(trees: Trees, size: int) -> Iterator[Step]:
    """A directory blob and so many puts beside it in one transaction; what one of them costs, its share included."""
    source = trees.files(1)
    with Metatree(trees.fresh(), KEYS) as tree:

        def block(node: str) -> None:
            with tree.transaction():
                tree.put(node, source, name="d", recursive=True)
                for call in range(size):
                    tree.put(node, b"small", name=f"b{call}")

        yield lambda number: micros(lambda: block(f"g/m/v{number}")) / size


@contextmanager
def delete_all(trees: Trees, size: int) -> Iterator[Step]:
    """A delete of each file in one transaction; what one of them costs, its share included."""
    source = trees.files(size)
    with Metatree(trees.fresh(), KEYS) as tree:

        def block(node: str) -> None:
            with tree.transaction():
                for file in range(size):
                    tree.delete(f"{node}/d/f{file}")

        def step(number: int) -> float:
            tree.put(f"g/m/v{number}", source, name="d", recursive=True)
            return micros(lambda: block(f"g/m/v{number}")) / size

        yield step


@contextmanager
def delete_one(trees: Trees, size: int) -> Iterator[Step]:
    source = trees.files(size)
    with Metatree(trees.fresh(), KEYS) as tree:

        def step(number: int) -> float:
            tree.put(f"g/m/v{number}", source, name="d", recursive=True)
            return micros(lambda: tree.delete(f"g/m/v{number}/d/f0"))

        yield step


def curves() -> Iterator[Curve]:
    yield transaction("puts-beside-directory", "a put into a node that has got a directory blob", put_beside)
    yield Curve(
        "transaction-deletes-files",
        "a delete of a file of a directory blob, in a transaction of many",
        "files of the directory blob",
        (30, 300, 3_000),
        delete_all,
        Growth.FLAT,
        "the first one lists them, the others need not",
        steps=1,
        rounds=3,
        warmup=0,
    )
    yield Curve(
        "delete-files",
        "a durable delete of one file of a directory blob",
        "files of the directory blob",
        (30, 300, 3_000),
        delete_one,
        Growth.LINEAR,
        "they are listed, since a folder goes with its last file",
        steps=5,
        rounds=3,
    )
