"""A test that traces something itself ends nobody else's tracing."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEST = """
import sys

def look(frame, event, argument):
    return look

sys.settrace(look)

def test_one():
    sys.settrace(None)

def test_two():
    assert sys.gettrace() is look
    sys.settrace(None)

def teardown_module():
    assert sys.gettrace() is look
    sys.settrace(None)
"""
pytest_plugins = ["pytester"]


def test_whoever_traces_the_tests_goes_on_after_one_that_traces_something_itself(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(TEST)
    pytester.runpytest_subprocess("-p", "tests.tracing", "-p", "no:randomly").assert_outcomes(passed=2)
    pytester.runpytest_subprocess("-p", "no:randomly").assert_outcomes(passed=1, failed=1, errors=1)
