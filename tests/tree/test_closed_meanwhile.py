"""A tree that is closed while another thread is at work in it, which holds a right longer than the closer waits: the
work is done, or `ClosedError`, and never an error of a descriptor. What was told is true."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress

import pytest

from metatree import ClosedError, CommitUnknownError, Metatree, UnavailableError
from tests.tree.model import BIG, LEVELS, MemoryPosix, clone, empty_disk, open_tree
from tests.wal.test_log_closed import ClosedAt
from wal import MemoryStorage

WORK: dict[str, Callable[[Metatree], object]] = {
    "checkpoint": lambda tree: tree.checkpoint(),
    "find": lambda tree: tree.find("m/v1").metadata.get("x"),
    "flush": lambda tree: tree.flush(),
    "put": lambda tree: tree.put("m/v2", BIG, name="large"),
    "update": lambda tree: tree.update("m", active="v1"),
}


def impatient(posix: ClosedAt) -> Metatree:
    tree = Metatree(MemoryStorage(posix), LEVELS)
    engine = tree._engine
    engine.committer._lock_timeout = 0.0
    for right in (engine.log._apply_right, engine.log.append_right):  # type: ignore[attr-defined]
        right._timeout = 0.0
    return tree


@pytest.mark.parametrize("name", WORK)
def test_whoever_is_at_work_in_a_tree_that_is_closed_is_done_or_learns_that(name: str) -> None:
    base, call, ended = empty_disk(), 0, False
    while not ended:
        call += 1
        disk: MemoryPosix = clone(base)
        posix = ClosedAt(disk)
        tree = impatient(posix)
        tree.put("m/v1", b"weights", name="w")

        def close(tree: Metatree = tree) -> None:
            with suppress(UnavailableError):  # files may be behind: the next that opens it brings them up to date
                tree.close()

        done: bool | None = True  # None: in doubt
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the commit is durable
            posix.plan(call, close)
            try:
                WORK[name](tree)
            except (ClosedError, CommitUnknownError) as error:
                assert isinstance(error, CommitUnknownError) or "descriptor" not in str(error)
                done = False if isinstance(error, ClosedError) else None
            posix.plan(0, close)
        ended = not posix.closers
        for closer in posix.closers:
            closer.join()
        close()
        with open_tree(disk) as tree:
            assert tree.check(deep=True).ok
            if name == "put" and done is not None:
                assert tree.exists("m/v2/large") == done, call
            if name == "update" and done is not None:
                assert ("active" in tree.find("m").metadata) == done, call
    assert call > 1, "it was never closed"
