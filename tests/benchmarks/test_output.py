"""What is written besides the table: JSON and a plot, from one small run of the whole program."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as program
from benchmarks.measure import Outcome, Result, Workload
from benchmarks.plot import Scale, svg
from benchmarks.workloads.sizes import TINY

SVG = "{http://www.w3.org/2000/svg}"


def test_one_run_prints_the_table_and_the_targets_and_writes_json_and_a_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "USUAL", TINY)
    places = ["--folder", str(tmp_path / "stores"), "--plots", str(tmp_path / "p"), "--json", str(tmp_path / "j.json")]
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "W10", "--rounds", "1", *places])
    program.main()
    printed = capsys.readouterr().out
    assert "target: metatree, readable at least 0.5 × as fast as sqlite fresh, readable" in printed
    document = json.loads((tmp_path / "j.json").read_text())
    assert {"cpus", "load", "disk"} <= set(document["machine"])
    assert {result["workload"] for result in document["results"]} == {"W10", "W10 outstanding"}
    assert {path.name for path in (tmp_path / "p").iterdir()} == {"W10.svg", "W10-outstanding.svg"}
    assert list((tmp_path / "stores").iterdir()) == []


def test_a_workload_that_is_not_there_is_said() -> None:
    with pytest.raises(SystemExit, match="no such workload: W99"):
        program.chosen("W1,W99", TINY)


def test_a_plot_has_a_dot_for_each_round_and_says_who_loses() -> None:
    workload = Workload("W1", "a <put> & more", [], steps=1)
    results = [
        Result("W1", "metatree", "", (10.0, 20.0), (10.0, 20.0), durable="yes"),
        Result("W1", "loser", "", (5.0, 500.0), (5.0, 500.0), outcome=Outcome(lost=0.5)),
    ]
    drawn = ElementTree.fromstring(svg(workload, results))  # noqa: S314 (made here)
    assert len(drawn.findall(f"{SVG}circle")) == 4
    texts = [text.text for text in drawn.iter(f"{SVG}text")]
    assert "W1: a <put> & more" in texts
    assert "252.5 · durable: no: loses 50.0%" in texts


def test_a_scale_covers_all_values_in_whole_decades() -> None:
    scale = Scale([3.0, 250.0])
    assert scale.marks() == [1.0, 10.0, 100.0, 1000.0]
    assert scale(1.0) < scale(3.0) < scale(250.0) < scale(1000.0)
    assert Scale([0.0]).marks() == [1.0, 10.0]
