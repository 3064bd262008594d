"""`check` where hosts share the storage: commits that are durable but not in the files, and that nobody is applying."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

import wal
from metatree import Metatree, behind, marks
from metatree.clock import Clock
from tests.tree.storages import again, at
from wal.testing.objects import MemoryObjects

Make = Callable[..., Metatree]

pytestmark = pytest.mark.between_hosts


def kinds(tree: Metatree) -> list[tuple[str, str]]:
    """What a check by a reader on another host finds."""
    with again(tree, read_only=True) as reader:
        report = reader.check()
    return [(each.path, each.kind) for each in (*report.problems, *report.notes)]


@pytest.mark.everywhere
def test_commits_that_no_program_applies_are_told_until_one_does(make_tree: Make) -> None:
    tree = make_tree(apply="background")
    tree.put("m/v1", b"1", name="w")
    tree.flush()
    assert kinds(tree) == []
    tree._engine.committer.stop()  # as if it was killed: it commits, and applies nothing more
    with tree.transaction():
        tree.put("m/v2", b"2", name="w")
        tree.update("m", active="v2")
    assert not at(tree, "m/v2/w").exists()
    assert kinds(tree) == [(".wal", "not-recovered")]
    with again(tree, read_only=True) as reader:
        (step,) = reader.repair(dry_run=True).steps
        assert (step.path, step.action) == (".wal", "recover")
    with again(tree) as other:
        assert other.recover().records
    assert at(tree, "m/v2/w").exists()
    assert kinds(tree) == []


def test_a_repair_that_applies_commits_leaves_edits_by_hand_that_nobody_chose_to_revert(make_tree: Make) -> None:
    tree = make_tree(apply="background")
    tree.put("m/v1", b"1", name="w")
    tree.flush()
    tree._engine.committer.stop()  # as if it was killed
    tree.put("m/v2", b"2", name="w")
    at(tree, "m/v1/metadata.json").write_bytes(b'{"by hand": 1}')
    with again(tree, read_only=True) as reader:
        plan = {step.path: step.action for step in reader.repair(dry_run=True).steps}
    assert plan == {".wal": "recover", "m/v1/metadata.json": "choose"}
    with again(tree) as other:
        done = other.repair()
        assert at(tree, "m/v1/metadata.json").read_bytes() == b'{"by hand": 1}'
        assert done.remains is not None and [each.path for each in done.remains.problems] == ["m/v1/metadata.json"]
        assert other.repair(edits="revert").clean


def test_commits_that_a_living_program_is_about_to_apply_are_in_its_hands(make_tree: Make) -> None:
    tree = make_tree(apply="background")
    for number in range(5):
        tree.put(f"m/v{number}", b"1", name="w")
        assert kinds(tree) == []


def test_a_batch_that_changes_nothing_waits_for_nobody(make_tree: Make) -> None:
    tree = make_tree()
    tree.put("m/v1", b"1", name="w")
    tree._engine.log.settle()
    assert tree.unapplied == 1
    assert kinds(tree) == []


# --- how long it waits ------------------------------------------------------------------------------------------------


class Time(Clock):
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return True


class Log:
    """A log with three commits, of which `said` tells at each look (applied, held, counter)."""

    def __init__(self, said: Iterator[tuple[int, bool, int]]) -> None:
        storage = MemoryObjects()
        with Metatree(storage, ("model",)) as tree:
            tree._engine.log.trim = lambda upto: None  # type: ignore[method-assign]
            for number in range(3):
                tree.put(f"m{number}", b"", name="w")
        self._log = wal.open_log(storage, read_only=True)
        self._said = said

    def trimmed(self, *, fresh: bool = False) -> int:
        return 0

    def read(self, after: int, upto: int) -> Iterator[wal.Batch]:
        return self._log.read(after, upto)

    @property
    def last(self) -> int:
        return max(batch.lsn for batch in self._log.read(0) if batch.records)

    def applying(self) -> wal.Applying:
        applied, held, counter = next(self._said)
        numbers = [0] * 8
        numbers[marks.APPLIED] = applied
        return wal.Applying(tuple(numbers), held, ("token", 1, counter), 15.0)


def asked(said: Callable[[Time], Iterator[tuple[int, bool, int]]]) -> tuple[bool, float]:
    """(whether commits are told, the seconds that were waited)."""
    clock = Time()
    log = Log(said(clock))
    found = behind.unattended(cast(Any, log), clock, log.last)
    return found is not None, clock.now


def test_who_holds_the_right_and_gives_no_sign_of_life_is_waited_for_as_long_as_by_a_writer() -> None:
    def said(_: Time) -> Iterator[tuple[int, bool, int]]:
        while True:
            yield 0, True, 7

    told, waited = asked(said)
    assert told and 15 <= waited < 16


def test_who_holds_the_right_and_lives_is_applying_them() -> None:
    def said(clock: Time) -> Iterator[tuple[int, bool, int]]:
        while True:
            yield 0, True, int(clock.now / 5)

    told, waited = asked(said)
    assert not told and 30 <= waited < 31


def test_who_tries_again_and_again_and_applies_nothing_is_no_help() -> None:
    def said(_: Time) -> Iterator[tuple[int, bool, int]]:
        for look in range(1000):
            yield 0, look % 2 == 1, look

    told, waited = asked(said)
    assert told and 4 <= waited < 6


def test_who_gets_on_is_waited_for_anew() -> None:
    def said(clock: Time) -> Iterator[tuple[int, bool, int]]:
        while True:
            yield min(3, int(clock.now / 3)), False, int(clock.now)

    told, waited = asked(said)
    assert told and 12 <= waited < 14
