"""Whether a peer keeps the promise is found out, not believed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.durable import Proofs, flushes, verdict
from benchmarks.measure import Outcome, Result, Workload, run
from benchmarks.table import promise
from benchmarks.workloads.processes import PROCESSES, contestant
from tests.benchmarks.planted import PEERS

PLANTED = "tests.benchmarks.planted"
TRACE = """\
11 fdatasync(3)                      = 0
11 access("/benchmark-step-2", F_OK) = -1 ENOENT (No such file or directory)
12 fsync(4 <unfinished ...>
11 access("/etc/localtime", F_OK)    = 0
12 <... fsync resumed>)              = 0
11 faccessat2(AT_FDCWD, "/benchmark-step-3", F_OK, 0) = -1 ENOENT (No such file or directory)
11 fdatasync(3)                      = -1 EIO (Input/output error)
11 msync(0x7f, 4096, MS_ASYNC)       = 0
11 access("/benchmark-step-4", F_OK) = -1 ENOENT (No such file or directory)
11 msync(0x7f, 4096, MS_SYNC)        = 0
11 syncfs(3)                         = 0
11 access("/benchmark-step-end", F_OK) = -1 ENOENT (No such file or directory)
11 fsync(3)                          = 0
"""


def can_trace() -> bool:
    strace = shutil.which("strace")
    return strace is not None and subprocess.run([strace, "-o", "/dev/null", "true"]).returncode == 0


def test_a_flush_counts_for_the_operation_in_which_it_ended_if_it_succeeded() -> None:
    assert flushes(TRACE.splitlines()) == [1, 0, 2]


def test_each_operation_needs_a_flush_of_its_own() -> None:
    assert verdict([1, 1, 3]) == "yes"
    assert verdict([3, 0, 0]) == "no: 2 of 3 calls without a sync"
    assert verdict([0, 0, 0]) == "no: never syncs"


@pytest.mark.parametrize(
    ("peer", "found"),
    [
        ("sound", "yes"),
        ("never syncs", "no: never syncs"),
        ("syncs now and then", "no: 3 of 5 calls without a sync"),
    ],
)
def test_a_peer_planted_without_a_sync_is_caught(tmp_path: Path, peer: str, found: str) -> None:
    answer = Proofs(tmp_path, PLANTED)(peer, "put")
    assert answer == found if can_trace() else answer.startswith("not looked at: ")


@pytest.mark.parametrize("peer", ["metatree", "metatree background", "sqlite fresh", "sqlite steady"])
@pytest.mark.parametrize("verb", ["put", "put_many", "update"])
def test_metatree_and_sqlite_flush_before_they_return(tmp_path: Path, peer: str, verb: str) -> None:
    answer = Proofs(tmp_path)(peer, verb)
    assert answer == "yes" if can_trace() else answer.startswith("not looked at: ")


def test_a_peer_that_cannot_be_run_is_not_called_durable(tmp_path: Path) -> None:
    assert Proofs(tmp_path, PLANTED)("sound", "update").startswith("not looked at: ")


def test_a_peer_planted_to_lose_puts_is_shown_as_losing(tmp_path: Path) -> None:
    racers = [contestant(PEERS[name], puts=3) for name in ("sound", "forgets")]
    sound, forgets = run(Workload("W7", "", racers, steps=1), tmp_path, rounds=1, settle=lambda: None)
    assert sound.outcome == Outcome()
    assert forgets.outcome == Outcome(lost=PROCESSES / (3 * PROCESSES + 1))
    assert promise(forgets) == "no: loses 30.8%"


def test_a_peer_that_breaks_during_the_race_has_lost_everything_and_does_not_stop_it(tmp_path: Path) -> None:
    race = Workload("W7", "", [contestant(PEERS["breaks"], puts=3)], steps=1)
    (broken,) = run(race, tmp_path, rounds=2, settle=lambda: None)
    assert broken.outcome.lost == 1.0
    assert broken.outcome.refused > 0.5


def test_losing_is_said_even_of_one_that_flushes() -> None:
    assert promise(Result("W7", "p", "", outcome=Outcome(0.5, 0.25), durable="yes")) == "no: loses 50.0%, refuses 25.0%"
    assert promise(Result("W7", "p", "", outcome=Outcome(0.0, 0.25), durable="yes")) == "yes, refuses 25.0%"
