"""One allocation fails while a tree is used: an error or the right result, and the tree is as before or as after.

The handle then goes on or refuses, another one finds a whole state and takes the next put. `METATREE_MEMORY_SEED`
repeats a run; a finding prints the command that repeats its point.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.figures import Layer

SEED = os.environ.get("METATREE_MEMORY_SEED", f"{random.randrange(1 << 32):08x}")
PROJECT = Path(__file__).resolve().parents[2]
NAME = "allocations that fail"
POINTS, POINTS_AT_NIGHT = 100, 2_000  # of each operation; the smallest has 800

IN_A_GROUP = """
import _testcapi, signal
from wal.group import Group

class Work:
    def flush(self, take):
        for entry in take():
            entry.settle(entry.position, entry.error)

signal.alarm(30)
for number in range(1, 100):
    group = Group(Work())
    try:
        _testcapi.set_nomemory(number, number + 1)
        try:
            group.submit(lambda head, mates: None)
        finally:
            _testcapi.remove_mem_hooks()
    except (MemoryError, RuntimeError):  # the latter: no memory for a lock
        group.submit(lambda head, mates: None)
print("done")
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(
        [sys.executable, "-B", *command], cwd=PROJECT, env=environment, capture_output=True, text=True
    )


def needs_the_hook(layer: Layer) -> None:
    if importlib.util.find_spec("_testcapi") is None:
        layer.not_run(NAME, "this Python has no _testcapi, whose hook lets allocations fail")


def test_a_leader_without_memory_loses_nobody_who_waits(layer: Layer) -> None:
    needs_the_hook(layer)
    done = run("-c", IN_A_GROUP)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-4000:]


OPERATIONS = ("put", "staged put", "update", "delete", "transaction", "find", "checkpoint", "open")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_failed_allocation_is_told_or_the_result_is_right(operation: str, layer: Layer) -> None:
    needs_the_hook(layer)
    sizes = ["--points", POINTS, "--most", POINTS_AT_NIGHT, "--seconds", layer.seconds(NAME, len(OPERATIONS))]
    done = run("-m", "tests.trust.starved", operation, *map(str, sizes), "--seed", SEED)
    assert done.stdout, done.stderr[-4000:]
    summary = json.loads(done.stdout)
    assert not summary["findings"], "\n\n".join(summary["findings"][:5])
    assert summary["endings"].get("raised", 0) > summary["points"] // 2, f"hardly any was noticed: {summary}"
    died = sum(count for ending, count in summary["endings"].items() if ending.startswith("died"))
    layer.report(NAME, summary["points"], floor=POINTS, night=POINTS_AT_NIGHT, unit="points", note=f"seed {SEED}")
    layer.report(NAME, died, floor=0, night=0, unit="of them: the interpreter itself died, which to the tree is a kill")
