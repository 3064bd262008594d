"""One server for all workers of a run: to start a real one, and to warm it up, takes both cores for seconds."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

Serving = Callable[[Path], AbstractContextManager[str]]


def shared(name: str, request: pytest.FixtureRequest, serving: Serving) -> str:
    """What `serving` tells of the server that it keeps on a folder. The first worker that asks starts it, and ends it
    when it is done itself and nobody uses it any more. Raises what `serving` raises."""
    base: Path = request.getfixturevalue("tmp_path_factory").getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    context = _used(folder, serving)
    said = context.__enter__()
    # not by a fixture: who waits there for the others would be in its last test, whose time is limited
    request.config.add_cleanup(partial(context.__exit__, None, None, None))
    return said


@contextmanager
def _used(folder: Path, serving: Serving) -> Iterator[str]:
    told = folder / "told"
    with open(folder / "lock", "a") as lock:  # held shared by who uses the server, exclusively by who starts or ends it
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            while not told.exists():
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not told.exists():
                    yield from _kept(told, serving, lock.fileno())
                    return
                fcntl.flock(lock, fcntl.LOCK_SH)
            yield told.read_text()
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # a child may still have the descriptor


def _kept(told: Path, serving: Serving, lock: int) -> Iterator[str]:
    with serving(told.parent) as said:
        told.write_text(said)
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            yield said
        finally:
            fcntl.flock(lock, fcntl.LOCK_EX)
            told.unlink()
