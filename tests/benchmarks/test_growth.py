"""Growth: the verdicts on made-up costs, and that every curve can be measured. Nothing here depends on the time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.growth.__main__ import all_curves
from benchmarks.growth.curve import QUICK, Curve, Measured, Step, measure
from benchmarks.growth.fit import Growth, fit
from benchmarks.growth.plot import svg
from benchmarks.growth.report import summary, table
from benchmarks.growth.trees import Trees
from metatree import Metatree

SIZES = (100, 1_000, 10_000, 100_000)


def made_up(cost: Callable[[int], float], expected: Growth) -> Curve:
    @contextmanager
    def store(trees: Trees, size: int) -> Iterator[Step]:
        yield lambda number: cost(size)

    return Curve("made-up", "costs <from> a formula & no tree", "things", SIZES, store, expected, "it says so")


def measured(cost: Callable[[int], float], expected: Growth, folder: Path) -> Measured:
    return measure(made_up(cost, expected), Trees(folder), quick=False)


def circles(document: str) -> int:
    parsed = ElementTree.fromstring(document)  # noqa: S314 - our own
    return len(parsed.findall("{http://www.w3.org/2000/svg}circle"))


@pytest.mark.parametrize(
    ("cost", "growth"),
    [
        (lambda size: 200.0, Growth.FLAT),
        (lambda size: 200.0 + size / 1_000, Growth.FLAT),
        (lambda size: 0.5 * size, Growth.LINEAR),
        (lambda size: size**0.5, Growth.LINEAR),
        (lambda size: 0.001 * size**2, Growth.WORSE),
        (lambda size: float(size) ** 1.5, Growth.WORSE),
    ],
)
def test_the_exponent_decides(cost: Callable[[int], float], growth: Growth) -> None:
    assert fit(SIZES, [cost(size) for size in SIZES]).growth is growth


def test_a_fixed_cost_does_not_hide_what_grows_at_the_end() -> None:
    linear = fit(SIZES, [5_000 + size for size in SIZES])
    assert linear.exponent < linear.end and linear.growth is Growth.LINEAR
    assert fit(SIZES, [1e6 + size**2 for size in SIZES]).growth is Growth.WORSE


def test_noise_within_a_fifth_leaves_a_flat_cost_flat() -> None:
    assert fit(SIZES, [220.0, 200.0, 190.0, 230.0]).growth is Growth.FLAT


def test_the_exponents_are_those_of_the_formula() -> None:
    found = fit(SIZES, [3 * size**2 for size in SIZES])
    assert found.exponent == pytest.approx(2) and found.end == pytest.approx(2) and found.ratio == pytest.approx(1e6)


def test_what_grows_faster_than_expected_is_named(tmp_path: Path) -> None:
    as_expected = measured(lambda size: 7.0 * size, Growth.LINEAR, tmp_path)
    worse = measured(lambda size: float(size**2), Growth.LINEAR, tmp_path)
    better = measured(lambda size: 9.0, Growth.LINEAR, tmp_path)
    assert (as_expected.met, worse.met, better.met) == (True, False, True)
    assert [*summary([as_expected, worse, better])] == [
        "\n2 of 3 curves grow as expected or less",
        "    made-up: worse than linear, expected: linear",
    ]
    assert "NOT MET" in [*table(worse)][-1] and "NOT MET" not in [*table(better)][-1]


def test_a_plot_is_well_formed_and_shows_every_size(tmp_path: Path) -> None:
    found = measured(lambda size: 7.0 * size, Growth.LINEAR, tmp_path)
    assert circles(svg(found)) == len(SIZES)


def test_an_operation_that_measures_nothing_is_timed(tmp_path: Path) -> None:
    calls: list[int] = []

    @contextmanager
    def store(trees: Trees, size: int) -> Iterator[Step]:
        yield calls.append

    curve = Curve("timed", "", "", (1,), store, Growth.FLAT, "", steps=3, rounds=2, warmup=1)
    assert measure(curve, Trees(tmp_path), quick=False).costs[0] > 0
    assert calls == [0, 1, 2, 3, 4, 5, 6]


def test_trees_have_the_size_that_is_asked_for(tmp_path: Path) -> None:
    trees = Trees(tmp_path)
    with Metatree(trees.balanced(30)) as tree:
        assert sum(1 for node in tree.walk() if node.path.count("/") == 2) == 30
        assert tree.exists("g0/m0/v0")
    with Metatree(trees.wide(7)) as tree:
        assert len(tree.children("g/m")) == 7
    with Metatree(trees.past(12)) as tree:
        assert tree.lsn == 12
    assert sorted(file.name for file in trees.files(3).iterdir()) == ["f0", "f1", "f2"]
    assert trees.wide(7) == trees.wide(7) and trees.fresh() != trees.fresh()


@pytest.mark.slow
def test_every_curve_can_be_measured_and_plotted(tmp_path: Path) -> None:
    result, plots = tmp_path / "growth.json", tmp_path / "plots"
    command = [sys.executable, "-m", "benchmarks.growth", "--quick", "--folder", str(tmp_path)]
    done = subprocess.run(
        [*command, "--json", str(result), "--svg", str(plots)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = {curve["name"]: curve for curve in json.loads(result.read_text())["curves"]}
    assert set(found) == set(all_curves())
    for name, curve in found.items():
        assert tuple(curve["sizes"]) == QUICK and all(cost > 0 for cost in curve["costs"]), name
        assert f"\n{name}  " in done.stdout
        assert circles((plots / f"{name}.svg").read_text(encoding="utf-8")) == len(QUICK)


def test_a_curve_that_does_not_exist_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks.growth", "--only", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no such curve: nonsense" in done.stderr
