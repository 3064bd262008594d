"""A host dies with the right to apply in its hands: the others wait for TTL, and not a moment longer.

The clock of those who wait is the test's: it goes on only while they sleep.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

import wal
from tests.hosts.conftest import LEVELS, Shared, environment

TTL = 15.0
LOOKS = 80  # at most, while waiting: the pauses between them double up to a fifth of a second

HOLDER = """
import os, signal, sys
from torture_place import Place
tree = Place.decode(sys.argv[1]).open(apply="background")
tree.put("m/v1", b"of the dead", name="b")
with tree._engine.committer.hold():
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Sleeping(wal.Clock):
    """Time passes only in `sleep`."""

    def __init__(self) -> None:
        self.now, self.sleeps = 1000.0, 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps += 1


@pytest.fixture
def held(there: Shared) -> Shared:
    """A tree whose committer died, holding the right; a commit of his is not in the files yet."""
    there.open(LEVELS).close()
    done = subprocess.run(
        [sys.executable, "-c", HOLDER, there.place.encode()], env={**environment(), "PYTHONWARNINGS": "error"}
    )
    assert done.returncode == -9
    return there


@pytest.fixture
def log(held: Shared) -> Iterator[tuple[wal.WriteAheadLog, Sleeping]]:
    clock = Sleeping()
    storage = held.place.storage()
    opened = wal.open_log(storage, kind="slots", clock=clock, ttl=TTL)
    yield opened, clock
    opened.close()
    storage.close()


def test_who_waits_takes_over_exactly_ttl_after_its_first_look(
    log: tuple[wal.WriteAheadLog, Sleeping],
) -> None:
    waiting, clock = log
    with waiting.right() as tenure:
        assert tenure.died is True
    assert TTL <= clock.now - 1000.0 < TTL + 0.1  # in a bucket a slot is taken as well, at the second try
    assert 5 < clock.sleeps <= LOOKS
    before = clock.now
    with waiting.right() as tenure:
        assert tenure.died is False
    assert clock.now == before, "who came after a living holder waits for nobody"


def test_who_does_not_want_to_wait_so_long_is_told_who_holds_it(
    log: tuple[wal.WriteAheadLog, Sleeping],
) -> None:
    waiting, clock = log
    said = r"within 3 s, held by .+@.+:\d+, without a sign of life for 3 s"
    with pytest.raises(wal.LockBusyError, match=said), waiting.right(timeout=3):
        raise AssertionError("not to be had")
    assert clock.now - 1000.0 == pytest.approx(3)


def test_the_next_host_finishes_what_the_dead_one_had_committed(held: Shared) -> None:
    place = type(held.place)(held.place.root, held.place.options, held.place.mount, ttl=0.1)
    with place.open() as tree:
        assert b"".join(tree.get("m/v1/b")) == b"of the dead", "readers wait for nobody"
        tree.put("m/v2", b"of the living", name="b")
        assert held.plain.read("m/v1/b") == b"of the dead"
        assert held.metadata("m") == {"children": ["v1", "v2"]}
    held.assert_clean()
