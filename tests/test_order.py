"""The order of tests: long ones first, for each worker."""

from __future__ import annotations

import pytest

from tests.order import long_first

FILES = {"a": 4, "B": 3, "c": 9, "D": 2, "e": 1, "F": 1}  # capitals: the first test of the file is long
ITEMS = [(name, number) for name, count in FILES.items() for number in range(count)]


def is_long(item: tuple[str, int]) -> bool:
    return item[0].isupper() and item[1] == 0


@pytest.mark.parametrize("workers", range(1, 6))
def test_nothing_is_lost_and_every_worker_begins_with_the_long_ones(workers: int) -> None:
    ordered = long_first(ITEMS, is_long, lambda item: item[0], workers)
    assert sorted(ordered) == sorted(ITEMS)
    starts = [len(ITEMS) * number // workers for number in range(workers)]
    assert sum(is_long(ordered[start]) for start in starts) == min(workers, 3)
    for name in "BDF":  # what a file sets up for its tests is set up once
        first = ordered.index((name, 0))
        assert ordered[first : first + FILES[name]] == [(name, number) for number in range(FILES[name])]


def test_one_worker_keeps_the_order_otherwise() -> None:
    ordered = long_first(ITEMS, is_long, lambda item: item[0], 1)
    assert "".join(dict.fromkeys(name for name, _ in ordered)) == "BDFace"


def test_a_share_of_long_files_that_is_more_than_its_part_displaces_nothing() -> None:
    assert long_first([("A", 0), ("A", 1), ("A", 2), ("b", 0)], is_long, lambda item: item[0], 2) == [
        ("A", 0), ("A", 1), ("A", 2), ("b", 0),
    ]  # fmt: skip
