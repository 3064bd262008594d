"""The profile of an operation names the part of the library that its time goes to."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from benchmarks.profile import PARTS, profile, subjects
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
