"""Trees for tests. Whoever uses a tree has it checked at the end: every invariant, in both directions."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metatree import Metatree

LEVELS = ("model", "version")


def assert_clean(root: Path | str) -> None:
    """Open the tree once more, as any later process would, and check all of it."""
    with Metatree(str(root)) as tree:
        report = tree.check(deep=True)
    assert report.ok, str(report)


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """An empty folder in memory where the machine has one: for tests that make many trees."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="metatree-test-", dir=base))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=["sync", "background"])
def apply(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_tree(fast_path: Path) -> Iterator[Callable[..., Metatree]]:
    """Opens trees below `fast_path` (default name 'tree'); closes them, then checks each that still is a tree."""
    opened: list[Metatree] = []

    def make(name: str = "tree", keys: tuple[str, ...] | None = LEVELS, **options: object) -> Metatree:
        tree = Metatree(str(fast_path / name), keys, **options)  # type: ignore[arg-type]
        opened.append(tree)
        return tree

    yield make
    for tree in opened:
        tree.close()
    for root in {tree.root for tree in opened}:
        if os.path.exists(os.path.join(root, ".metatree")):
            assert_clean(root)


@pytest.fixture
def tree(make_tree: Callable[..., Metatree], apply: str) -> Metatree:
    """An empty tree of two levels, in both ways of applying."""
    return make_tree(apply=apply)
