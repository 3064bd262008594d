"""The system kills a real process, or fails it, at its N-th call of a kind: the unmodified program, under `strace`.

What the boundary class of the storage does not see is struck as well: locks, opening, Python's own calls. An ordinary
run tries a seeded part of all points, a night as many as it has time for. `METATREE_INJECTED_SEED` repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.figures import Layer
from tests.servers.debian import need
from tests.tree.conftest import fast_path as fast_path
from tests.trust.lives import EMPTY, LIVES, Notes, live, make_start, states, wrong

SEED = os.environ.get("METATREE_INJECTED_SEED", f"{random.randrange(1 << 32):08x}")
PROJECT = Path(__file__).resolve().parents[2]
PARTS = {"kill": 0.4, "error": 0.03}  # of all points, in an ordinary run
FLOORS = {"kill": 30, "error": 25}  # of each life
NIGHT = {"kill": 1_300, "error": 12_000}  # all of them, or nearly


def inject(layer: Layer, life: str, mode: str) -> None:
    name = f"real processes, {mode} at the N-th system call"
    need(layer, name, {"strace": "strace"})
    trial = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True)
    if trial.returncode:
        layer.not_run(name, f"strace may not trace here: {trial.stderr.strip()}")
    command = [sys.executable, "-B", "-m", "tests.trust.injected", life, "--mode", mode, "--seed", SEED]
    command += ["--part", str(PARTS[mode]), "--seconds", str(layer.seconds(name, len(LIVES)))]
    done = subprocess.run(
        command, cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True
    )
    assert done.stdout, done.stderr[-4000:]
    summary = json.loads(done.stdout)
    assert not summary["findings"], "\n\n".join(summary["findings"][:5])
    layer.report(
        name,
        summary["struck"],
        floor=FLOORS[mode],
        night=NIGHT[mode] // len(LIVES),
        unit="points",
        note=f"{life} {summary['struck']}/{summary['points']} seed {SEED}",
    )


@pytest.mark.parametrize("life", LIVES)
def test_a_process_killed_at_its_nth_system_call_loses_nothing_acknowledged(layer: Layer, life: str) -> None:
    inject(layer, life, "kill")


@pytest.mark.parametrize("life", LIVES)
def test_a_system_call_that_fails_is_told_or_the_result_is_right(layer: Layer, life: str) -> None:
    inject(layer, life, "error")


# --- that it would be noticed -----------------------------------------------------------------------------------------


@pytest.fixture
def lived(fast_path: Path) -> tuple[str, list[object], Notes]:
    """A life without a fault, and what it left."""
    life = LIVES["puts"]
    make_start(life.start, f"{fast_path}/known")
    known = states(life, f"{fast_path}/known")
    make_start(life.start, f"{fast_path}/tree")
    notes = Notes()
    live(life, f"{fast_path}/tree", notes)
    return f"{fast_path}/tree", known, notes  # type: ignore[return-value]


def killed(begun: int, acknowledged: int) -> Notes:
    notes = Notes()
    notes.begin(begun)
    notes.acknowledge(acknowledged)
    return notes


def test_what_a_whole_life_left_is_right_and_what_it_did_not_leave_is_wrong(
    lived: tuple[str, list[object], Notes],
) -> None:
    root, known, notes = lived
    last = len(known) - 1
    assert notes.counts == (last, last) and wrong(known, notes, root) is None  # type: ignore[arg-type]
    assert wrong(known, killed(last, last), root) is None  # type: ignore[arg-type]
    assert wrong(known, killed(last, last - 1), root) is None, "one in flight may have committed"  # type: ignore[arg-type]
    lost = wrong([*known, EMPTY], killed(last + 1, last + 1), root)  # type: ignore[list-item]
    assert lost is not None and "neither the acknowledged state" in lost
    uncalled = wrong(known, killed(last - 1, last - 2), root)  # type: ignore[arg-type]
    assert uncalled is not None and "neither the acknowledged state" in uncalled


def test_damage_that_a_fault_left_is_noticed(lived: tuple[str, list[object], Notes]) -> None:
    root, known, notes = lived
    (Path(root) / "m/v7/b").write_bytes(b"SEVEN")
    assert wrong(known, notes, root) is not None  # type: ignore[arg-type]
