"""The table of the layers of trust."""

import pytest

from tests.figures import Figure, Layer, table


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
