"""Whoever traces the tests (coverage, a debugger) goes on after a test that traces something itself.

There is one trace function. Without this, what runs after such a test would count as never run.
"""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    before = sys.gettrace()
    try:
        return (yield)
    finally:
        if sys.gettrace() is not before:
            sys.settrace(before)
