"""Idempotency keys are remembered for ever, by a handle whose memory of them is bounded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import wal
from metatree import Metatree, used_keys
from metatree.facts import Header
from metatree.used_keys import UsedKeys

LEVELS = ("model", "version")


class Headers:
    """A log's headers: `key 1` in batch 1 and so on, two records a batch; every third record has no key."""

    def __init__(self, records: int = 0) -> None:
        self.all: list[tuple[wal.Position, Header]] = []
        self.read: list[tuple[int, int]] = []  # of each reading: after which LSN, how many
        for _ in range(records):
            self.add()

    def add(self) -> None:
        number = len(self.all)
        key = None if number % 3 == 2 else f"key {number}"
        self.all.append((wal.Position(1 + number // 2, number % 2), Header("0-1", "", "", key=key)))

    @property
    def head(self) -> int:
        return self.all[-1][0].lsn

    def used(self) -> Iterator[tuple[str, wal.Position]]:
        return ((header.key, position) for position, header in self.all if header.key is not None)

    def since(self, base: int) -> Iterator[tuple[wal.Position, Header]]:
        self.read.append((base, 0))
        for position, header in self.all:
            if position.lsn > base:
                self.read[-1] = (base, self.read[-1][1] + 1)
                yield position, header


def assert_bounded(used: UsedKeys) -> None:
    assert len(used._recent) <= used_keys.RECENT_KEYS
    assert len(used._filter) in (0, used_keys.FILTER_BYTES)


@pytest.fixture(params=[1, 32, 4096], ids=["a filter that is full", "a small filter", "a filter with room"])
def bounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used_keys, "RECENT_KEYS", 8)
    monkeypatch.setattr(used_keys, "FILTER_BYTES", request.param)


@pytest.mark.usefixtures("bounds")
def test_in_a_long_life_of_a_handle_its_memory_of_keys_is_bounded_and_every_used_key_is_known() -> None:
    log = Headers()
    used = UsedKeys(log.since)
    for _ in range(300):
        log.add()
        log.add()
        assert used.find(f"new {log.head}", log.head) is None
        assert_bounded(used)
    for key, position in [*log.used(), *reversed([*log.used()])]:
        assert used.find(key, log.head) == position
        assert_bounded(used)


@pytest.mark.usefixtures("bounds")
def test_a_handle_that_has_just_opened_knows_every_used_key_too() -> None:
    log = Headers(600)
    for key, position in log.used():
        assert UsedKeys(log.since).find(key, log.head) == position
    assert UsedKeys(log.since).find("new", log.head) is None


def test_the_bound_does_not_depend_on_how_long_keys_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used_keys, "RECENT_KEYS", 50)
    log = Headers()
    log.all = [(wal.Position(n + 1, 0), Header("0-1", "", "", key=f"{n}" * 3000)) for n in range(50)]
    used = UsedKeys(log.since)
    assert used.find("7" * 3000, log.head) == (8, 0)
    assert sum(map(sys.getsizeof, used._recent)) < 50 * 100


def test_a_new_key_costs_no_second_reading_of_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used_keys, "RECENT_KEYS", 8)
    log = Headers(3000)
    used = UsedKeys(log.since)
    assert used.find("key 0", log.head) == (1, 0)
    del log.read[:]
    for number in range(300):
        log.add()
        assert used.find(f"new {number}", log.head) is None
    assert max(count for _, count in log.read) <= 2


def test_a_key_of_the_last_ones_costs_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used_keys, "RECENT_KEYS", 8)
    log = Headers(3000)
    used = UsedKeys(log.since)
    for key, position in [*log.used()][-8:]:
        assert used.find(key, log.head) == position
    assert used.find("key 0", log.head) == used.find("key 0", log.head) == (1, 0)
    assert [base for base, _ in log.read] == [0, 0]  # the first of all, and the one for `key 0`


def test_a_search_in_vain_is_not_repeated_where_the_append_right_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used_keys, "RECENT_KEYS", 8)
    monkeypatch.setattr(used_keys, "FILTER_BYTES", 1)
    log = Headers(3000)
    used = UsedKeys(log.since)
    assert used.find("new", log.head) is None
    assert [count > 2900 for _, count in log.read] == [True, True]
    for _ in range(20):  # others commit meanwhile, and so many that some of these keys are forgotten too
        log.add()
    del log.read[:]
    assert used.find("new", log.head) is None
    assert sum(count for _, count in log.read) < 60
    position, header = log.all[-16]
    assert header.key is not None and used.find(header.key, log.head) == position


@pytest.mark.parametrize("at", range(1, 120, 3))
def test_no_key_is_lost_to_an_interrupt(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used_keys, "RECENT_KEYS", 4)
    log = Headers(40)
    used, left = UsedKeys(log.since), at

    def interrupt(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != used_keys.__file__:
            return None
        left -= event == "line"
        if left == 0:
            raise KeyboardInterrupt
        return interrupt

    sys.settrace(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            used.find("key 0", log.head)
    finally:
        sys.settrace(None)
    for key, position in log.used():
        assert used.find(key, log.head) == position


def use(tree: Metatree, number: int) -> tuple[int | None, bool]:
    with tree.transaction(idempotency_key=f"job {number}") as txn:
        if not txn.replayed:
            tree.update("m", last=number)
    return txn.lsn, txn.replayed


@pytest.mark.usefixtures("bounds")
def test_a_key_that_the_handle_no_longer_holds_still_commits_nothing(fast_path: Path) -> None:
    """Also when its record was trimmed, on another handle, and after reopening."""
    root, numbers = fast_path / "tree", range(60)
    with Metatree(root, LEVELS) as tree, Metatree(root) as other:
        tree.put("m/v1", b"", name="b")
        first = [use((tree, other)[number % 2], number) for number in numbers]
        assert not any(replayed for _, replayed in first) and len({lsn for lsn, _ in first}) == len(numbers)
        for handle in (tree, other):
            assert [use(handle, number) for number in numbers] == [(lsn, True) for lsn, _ in first]
            assert_bounded(handle._engine.committing._keys)
        tree.checkpoint()
        assert [use(other, number) for number in numbers] == [(lsn, True) for lsn, _ in first]
    with Metatree(root) as tree:
        lsn = tree.lsn
        assert [use(tree, number) for number in numbers] == [(lsn, True) for lsn, _ in first]
        assert tree.lsn == lsn and tree.find("m").metadata["last"] == numbers[-1]
        assert use(tree, 1000) == (lsn + 1, False)
        assert_bounded(tree._engine.committing._keys)
