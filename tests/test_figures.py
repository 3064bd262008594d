"""The table of the layers of trust, and how long they go on."""

import pytest

from tests import figures
from tests.figures import SHARES, Figure, Layer, table


def test_figures_of_one_layer_add_up_and_a_failure_is_named() -> None:
    rows = [
        (Figure("crashes", "points", 10, 5, 100), True),
        (Figure("crashes", "points", 1_990, 5, 100, "seed 7"), False),
        (Figure("cuts", "", 0, 0, 0, "no /dev/fuse", ran=False), True),
    ]
    _, crashes, cuts = table(rows)
    assert crashes.split() == ["crashes", "2,000", "10", "200", "points", "FAILED", "(seed", "7)"]
    assert cuts.split() == ["cuts", "not", "run", "no", "/dev/fuse"]


def test_a_layer_below_its_floor_fails_and_is_reported_all_the_same() -> None:
    properties: list[tuple[str, object]] = []
    with pytest.raises(AssertionError, match="4 points, at least 5"):
        Layer(properties).report("crashes", 4, floor=5, night=9, unit="points")
    assert len(properties) == 1


def test_in_an_ordinary_run_a_layer_ends_at_its_floor() -> None:
    layer = Layer([])
    assert layer.more("kill -9", 4, floor=5, night=9) and not layer.more("kill -9", 5, floor=5, night=9)
    assert layer.seconds("kill -9") == 0


def test_a_torture_goes_on_from_the_floor_until_the_time_or_the_work_of_a_night_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(figures, "TORTURE", True)
    monkeypatch.setattr(figures, "MINUTES", 10.0)
    monkeypatch.setattr(figures, "WORKERS", 2)
    monkeypatch.setitem(SHARES, "kill -9", 0.1)
    now = [1000.0]
    monkeypatch.setattr(figures.time, "monotonic", lambda: now[0])
    layer = Layer([])
    assert layer.seconds("kill -9", among=4) == pytest.approx(10 * 60 * 2 * 0.1 / 4)
    now[0] += 29
    assert layer.more("kill -9", 5, floor=5, night=9, among=4), "a second is left"
    assert not layer.more("kill -9", 9, floor=5, night=9, among=4), "a night's work is done"
    now[0] += 2
    assert layer.more("kill -9", 4, floor=5, night=9, among=4), "the floor is due whatever time it takes"
    assert not layer.more("kill -9", 5, floor=5, night=9, among=4)


def test_no_test_gets_more_time_than_all_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "TORTURE", True)
    monkeypatch.setattr(figures, "MINUTES", 1.0)
    monkeypatch.setattr(figures, "WORKERS", 64)
    assert Layer([]).seconds("schedules of a log of slots") <= 60


def test_the_shares_leave_time_for_the_layers_whose_size_is_fixed() -> None:
    assert 0.8 <= sum(SHARES.values()) <= 0.9
