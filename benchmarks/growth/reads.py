"""Curves of what only reads, by a warm handle."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks.growth.changes import DECADES
from benchmarks.growth.curve import Curve, Step, micros
from benchmarks.growth.fit import Growth
from benchmarks.growth.trees import KEYS, Trees
from metatree import Metatree

Question = Callable[[Metatree], object]


@contextmanager
def ask_balanced(question: Question, trees: Trees, size: int) -> Iterator[Step]:
    with Metatree(trees.balanced(size)) as tree:
        yield lambda number: micros(lambda: question(tree))


@contextmanager
def walk_balanced(trees: Trees, size: int) -> Iterator[Step]:
    with Metatree(trees.balanced(size)) as tree:

        def step(number: int) -> float:
            found = 0

            def walk() -> None:
                nonlocal found
                found = sum(1 for _ in tree.walk())

            return micros(walk) / found

        yield step


@contextmanager
def children_of_wide(trees: Trees, size: int) -> Iterator[Step]:
    with Metatree(trees.wide(size)) as tree:
        yield lambda number: micros(lambda: tree.children("g/m"))


@contextmanager
def get_large(trees: Trees, size: int) -> Iterator[Step]:
    with Metatree(trees.fresh(), KEYS) as tree:
        tree.put("g/m/v", os.urandom(size), name="w")

        def get() -> None:
            for _ in tree.get("g/m/v/w"):
                pass

        yield lambda number: micros(get)


QUESTIONS: dict[str, tuple[str, Question]] = {
    "find": ("find of one node and its metadata", lambda tree: dict(tree.find("g0/m0/v0").metadata)),
    "children": ("the children of one node", lambda tree: tree.children("g0")),
    "list": ("the list of one node's blobs", lambda tree: tree.list("g0/m0/v0")),
}


def curves() -> Iterator[Curve]:
    for name, (title, question) in QUESTIONS.items():
        yield Curve(
            f"{name}-nodes",
            f"{title}, warm",
            "nodes of the tree",
            DECADES[1:],
            partial(ask_balanced, question),
            Growth.FLAT,
            "a read looks at the nodes on its path",
            steps=200,
        )
    yield Curve(
        "walk-nodes",
        "one node of a walk of the whole tree, warm",
        "nodes of the tree",
        DECADES[1:],
        walk_balanced,
        Growth.FLAT,
        "each node is met once",
        steps=1,
        rounds=3,
    )
    yield Curve(
        "children-children",
        "the children of one node, warm",
        "children of the node",
        DECADES,
        children_of_wide,
        Growth.LINEAR,
        "the answer grows",
    )
    yield Curve(
        "get-bytes",
        "get of a blob",
        "bytes of the blob",
        (1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 26),
        get_large,
        Growth.LINEAR,
        "each byte is read and hashed once",
        steps=5,
    )
