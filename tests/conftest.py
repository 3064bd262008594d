"""What several rooms of tests share: servers, each of which starts only for a test that asks for it, and figures."""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator

import pytest

pytest_plugins = ["tests.figures", "tests.order", "tests.servers.hdfs", "tests.servers.s3", "tests.tracing"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing that is made here is garbage: it is neither looked for here nor among it later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def little_to_collect() -> None:
    """What all modules before have left takes a second to look through: that is done once, and not at each collection
    of garbage that comes after it."""
    gc.collect()
    gc.freeze()
