"""A plugin of pytest: which test runs which line, and how long it takes. For a run under `coverage`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator

import pytest
from coverage import Coverage

TIMES = "COVERING_TIMES"  # names the file for the times: JSON, seconds by node id
_seconds: dict[str, float] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    running = Coverage.current()
    assert running is not None
    running.switch_context(item.nodeid)
    began = time.monotonic()
    result = yield
    _seconds[item.nodeid] = time.monotonic() - began
    return result


def pytest_sessionfinish() -> None:
    with open(os.environ[TIMES], "w", encoding="utf-8") as file:
        json.dump(_seconds, file)
