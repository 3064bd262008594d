"""The profile of an operation names the part of the library that its time goes to."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from benchmarks.children import CHECKOUT
from benchmarks.profile import EVERY, PARTS, Sampler, profile, subjects
from benchmarks.profile_import import profile_import
from benchmarks.profile_import import shares as shares_of_import
from benchmarks.workloads.sizes import TINY
from metatree import commit

SUBJECTS = {f"{each.name} {each.title}": each for each in subjects(TINY)}
ROW = re.compile(r" {4}(\S.*?) +(\d+)% +([\d,.]+) us")


def shares(lines: list[str]) -> dict[str, int]:
    return {match[1]: int(match[2]) for match in map(ROW.fullmatch, lines) if match}


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_operation_can_be_looked_into(name: str, tmp_path: Path) -> None:
    lines = profile(SUBJECTS[name], tmp_path / "it", seconds=0.01)
    assert lines[0].startswith(name.split()[0])
    assert shares(lines).keys() <= PARTS.keys()
    floor = SUBJECTS[name].floor
    assert floor is None or lines[-2].startswith(f"    {floor.peer} ")


@pytest.mark.parametrize(
    ("owner", "name", "part"),
    [(commit, "encode", "transaction"), (os, "fdatasync", "the flush"), (os, "pwrite", "other system calls")],
)
def test_what_is_slow_is_where_the_time_goes(
    owner: object, name: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = getattr(owner, name)

    def slow(*given: object) -> object:
        time.sleep(0.02)
        return fast(*given)

    monkeypatch.setattr(owner, name, slow)
    found = shares(profile(SUBJECTS["W1 one put, metatree background"], tmp_path / "it", seconds=0.1))
    assert found[part] > 60, found


def test_what_is_shorter_than_the_time_between_two_samples_is_seen_from_its_beginning_to_its_end() -> None:
    def work(file: str) -> None:
        code = compile("while time.perf_counter() < end: pass", str(CHECKOUT / file), "exec")
        exec(code, {"time": time, "end": time.perf_counter() + EVERY / 3})  # noqa: S102

    sampler = Sampler()
    for _ in range(1000):
        with sampler.sampling():
            work("metatree/commit.py")
            work("benchmarks/profile.py")
    early, late = sampler.parts["transaction"], sampler.parts["this program"]
    assert 0.1 < early / late < 10, sampler.parts  # about 1; a busy machine stops the program at any place, for long


def test_an_import_is_divided_among_the_packages_that_it_needs() -> None:
    report = "\n".join(
        f"import time: {own:9} | {own:10} | {name}"
        for name, own in (("site", 900), ("json", 30), ("orjson.orjson", 20), ("orjson", 5), ("  wal.log", 7))
    )
    assert shares_of_import(report) == {"Python's library": 30, "orjson": 25, "wal": 7, "metatree": 0}
    lines = profile_import(seconds=0.01)
    assert shares(lines).keys() == {"Python's library", "orjson", "wal", "metatree"}
    assert lines[-2].startswith("    import orjson ")
