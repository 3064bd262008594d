"""Long tests begin first. So what is left for the end is short, and workers that steal from each other end together.

The order of files, and of the tests in each, stays the one that was drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest


@pytest.hookimpl(trylast=True)  # after the draw
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = long_first(items, _is_long, lambda item: item.path, workers)


def _is_long(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("slow", "trust"))


def long_first(
    items: list[Any], is_long: Callable[[Any], bool], file_of: Callable[[Any], Any], workers: int
) -> list[Any]:
    """The items in as many equal runs as there are workers, each of which begins with whole files that hold long ones:
    to begin with, every worker is given one such run."""
    files = [list(several) for _, several in groupby(items, file_of)]
    shares: list[list[Any]] = [[] for _ in range(workers)]
    for file in (file for file in files if any(map(is_long, file))):
        min(shares, key=lambda share: sum(map(is_long, share))).extend(file)
    short = [item for file in files if not any(map(is_long, file)) for item in file]
    ordered: list[Any] = []
    for number, share in enumerate(shares):
        size = (len(items) - len(ordered)) // (workers - number)
        filling = max(0, size - len(share))
        ordered += [*share, *short[:filling]]
        del short[:filling]
    return ordered
