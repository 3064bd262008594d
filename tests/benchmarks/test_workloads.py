"""Every workload runs, at a tiny size, with the peers that need nothing installed. How long it takes is not asked."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from benchmarks.measure import Contestant, Outcome, Ready, Result, Workload, contestant, ratio, run
from benchmarks.peers.base import BLOB, Peer
from benchmarks.table import table
from benchmarks.targets import TARGETS, Target, verdict, verdicts
from benchmarks.workloads import workloads
from benchmarks.workloads.sizes import FULL, TINY, USUAL

NEEDS_EXTRAS = ("lmdb", "diskcache", "deltalake", "icechunk", "metatreedb 0.2.3")
ALL = workloads(TINY)


def alone(workload: Workload, absent: Peer, *names: str) -> Workload:
    """A workload with one planted peer and a few of the others."""
    planted = contestant(absent, lambda store: lambda number: store.put("m", f"v{number}", BLOB))
    return replace(workload, contestants=[planted, *(each for each in workload.contestants if each.name in names)])


@pytest.mark.parametrize("workload", ALL, ids=[workload.name for workload in ALL])
def test_every_workload_measures_everybody_who_is_there(tmp_path: Path, workload: Workload) -> None:
    present = [each for each in workload.contestants if each.peer not in NEEDS_EXTRAS]
    workload = replace(workload, contestants=present, warmup=min(2, workload.warmup), steps=min(2, workload.steps))
    results = run(workload, tmp_path, rounds=1, settle=lambda: None)
    assert [result.name for result in results] == [each.name for each in present]
    assert all(len(result.rounds) == 1 and result.rounds[0] >= 0 for result in results)
    assert {result.outcome for result in results} == {Outcome()}, "nobody loses anything"
    text = "\n".join([*table(workload, results), *verdicts(workload.name, results, journal=False)])
    assert all(each.name in text for each in present)


@pytest.mark.parametrize("workload", ALL, ids=[workload.name for workload in ALL])
def test_nobody_who_is_not_installed_stops_a_workload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workload: Workload
) -> None:
    def absent(module: str) -> NoReturn:
        raise ModuleNotFoundError(module)

    monkeypatch.setattr(importlib, "import_module", absent)
    extras = [each for each in workload.contestants if each.peer in NEEDS_EXTRAS[:-1]]
    results = run(replace(workload, contestants=extras), tmp_path, rounds=1, settle=lambda: None)
    assert [result.absent for result in results] == ["not installed (pip install '.[bench]')"] * len(extras)


def test_every_target_is_of_a_workload_and_of_those_who_do_it() -> None:
    for sizes in (TINY, USUAL, FULL):
        names = {(workload.name, each.name) for workload in workloads(sizes) for each in workload.contestants}
        for target in TARGETS:
            assert (target.workload, target.of) in names
            assert not target.than or (target.workload, target.than) in names


def test_contestants_of_a_workload_have_names_of_their_own() -> None:
    for workload in ALL:
        names = [each.name for each in workload.contestants]
        assert len(set(names)) == len(names)


def results(**rounds: tuple[float, ...]) -> list[Result]:
    return [Result("W1", name, "", times) for name, times in rounds.items()]


def test_a_ratio_is_that_of_the_rounds_that_had_both() -> None:
    found = results(mine=(10.0, 1000.0, 10.0), other=(20.0, 2000.0, 30.0))
    assert ratio(found, "mine", "other") == 2.0
    assert ratio(found, "mine", "nobody") is None
    nothing = [Result("W", "mine", "", rounds=(0.0,)), Result("W", "other", "", rounds=(2.0,))]
    assert ratio(nothing, "mine", "other") is None and ratio(nothing, "other", "mine") == 0.0


def test_a_verdict_says_by_how_much_a_target_is_missed() -> None:
    found = results(mine=(10.0,), other=(8.0,))
    assert verdict(Target("W1", "mine", 0.5, "other"), found).endswith("0.80 ×, met")
    assert verdict(Target("W1", "mine", 1.0, "other"), found).endswith("0.80 ×, missed by 20%")
    assert verdict(Target("W1", "mine", limit=12.0), found).endswith("10.0, met")
    assert verdict(Target("W1", "mine", limit=8.0), found).endswith("10.0, missed by 25%")
    assert verdict(Target("W1", "mine", 1.0, "nobody"), found).endswith("not measured")


def test_a_target_for_one_kind_of_disk_is_for_no_other() -> None:
    of_sync = [
        [line for line in verdicts("W1", [], journal=journal) if "metatree at least" in line and "sqlite" in line]
        for journal in (False, True, None)
    ]
    assert [len(lines) for lines in of_sync] == [1, 1, 1]
    assert "0.7" in of_sync[0][0] and "1 ×" in of_sync[1][0]


def planted(name: str, happened: list[str]) -> Callable[[Path], AbstractContextManager[Ready]]:
    @contextmanager
    def opened(folder: Path) -> Iterator[Ready]:
        yield Ready(lambda number: happened.append(f"{name}{number}"), lambda: happened.append(f"{name} rests"))

    return opened


def test_contestants_are_measured_in_turning_order_and_rest_after_each_turn(tmp_path: Path) -> None:
    happened: list[str] = []
    everybody = [Contestant(name, planted(name, happened)) for name in ("a", "b")]
    run(Workload("W0", "", everybody, steps=2, warmup=1), tmp_path, rounds=2, settle=lambda: happened.append("settle"))
    expected = [
        *("a0", "a rests", "settle", "b0", "b rests", "settle"),
        *("a1", "a2", "a rests", "settle", "b1", "b2", "b rests", "settle"),
        *("b3", "b4", "b rests", "settle", "a3", "a4", "a rests", "settle"),
    ]
    assert happened == expected
