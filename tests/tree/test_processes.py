"""Real processes on one tree: nothing is lost, nothing waits longer than for a holder's death, errors name who."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wal
from metatree import ApplyPendingWarning, LockTimeoutError, Metatree
from metatree.engine import Engine
from metatree.errors import translated
from metatree.facts import decode_header
from tests.tree.conftest import LEVELS, assert_clean

REPOSITORY = Path(__file__).resolve().parents[2]

# Each script says when it is ready and waits for the word, so that all begin at once.
BEGIN = """
import json, sys
from metatree import Metatree, MetatreeError
root, number = sys.argv[1], int(sys.argv[2])
def wait():
    print("ready", flush=True)
    sys.stdin.readline()
"""


def begin(script: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment, **options}
    return subprocess.Popen(command, **pipes)


def together(script: str, count: int, root: Path) -> list[Any]:
    """`count` processes run the script at once; what each printed as JSON."""
    processes = [begin(BEGIN + script, root, number) for number in range(count)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, outputs
    return [json.loads(output or "null") for output in outputs]


@pytest.fixture
def root(fast_path: Path) -> Iterator[Path]:
    yield fast_path / "tree"
    assert_clean(fast_path / "tree")


def headers(root: Path) -> list[tuple[wal.Position, Any]]:
    """Every record's place and header, read from the log without the tree."""
    log = wal.open_log(wal.open_storage(str(root)), read_only=True)
    found = [
        (wal.Position(batch.lsn, index), decode_header(record.header))
        for batch in log.read(0)
        for index, record in enumerate(batch.records)
    ]
    log.close()
    return found


def metadata(root: Path, node: str) -> Any:
    return json.loads((root / node / "metadata.json").read_bytes())


# --- nothing is lost ------------------------------------------------------------------------------------------------


def test_eight_processes_setting_ten_keys_each_of_one_node_set_eighty(root: Path) -> None:
    with Metatree(root, LEVELS) as tree:
        tree.put("m/v", b"", name="blob")
    script = """
tree = Metatree(root)
wait()
for key in range(10):
    tree.update("m/v", {f"process {number} key {key}": key})
tree.close()
"""
    together(script, 8, root)
    expected = {f"process {process} key {key}": key for process in range(8) for key in range(10)}
    assert metadata(root, "m/v") == expected
    with Metatree(root) as tree:
        assert dict(tree.find("m/v").metadata) == expected


@pytest.mark.parametrize("mode", ["sync", "background"])
def test_four_processes_putting_a_hundred_children_each_leave_them_in_the_order_of_the_log(
    root: Path, mode: str
) -> None:
    Metatree(root, LEVELS).close()
    script = f"""
tree = Metatree(root, apply={mode!r})
wait()
for child in range(100):
    tree.put(f"m/p{{number}}c{{child}}", b"", name="blob")
tree.close()
"""
    together(script, 4, root)
    with Metatree(root) as tree:
        children = tree.children("m")
    created = [name for _, header in headers(root) for name in header.changes.get("m", {}).get("new", ())]
    assert len(created) == 400
    assert children == created == metadata(root, "m")["children"]
    for process in range(4):  # and each process's own in its own order
        own = [name for name in children if name.startswith(f"p{process}c")]
        assert own == [f"p{process}c{child}" for child in range(100)]


def test_two_processes_incrementing_one_counter_with_run_count_exactly(root: Path) -> None:
    with Metatree(root, LEVELS) as tree:
        tree.put("m/v", b"", name="blob")
        tree.update("m/v", n=0)
    script = """
tree = Metatree(root)
wait()
seen = []
for _ in range(100):
    def increment(txn):
        seen_now = tree.find("m/v").metadata["n"]
        tree.update("m/v", n=seen_now + 1)
        return seen_now + 1
    seen.append(tree.run(increment, attempts=1000))
tree.close()
print(json.dumps(seen))
"""
    one, other = together(script, 2, root)
    assert metadata(root, "m/v") == {"n": 200}
    assert sorted(one + other) == list(range(1, 201))  # each value was set by exactly one
    assert one == sorted(one) and other == sorted(other)


# --- creating and adopting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", range(5))
def test_creators_of_one_root_at_once_make_one_tree(root: Path, attempt: int) -> None:
    script = """
wait()
tree = Metatree(root, ("model", "version"))
tree.put(f"m{number}/v", b"content", name="blob")
tree.close()
"""
    together(script, 3, root)
    with Metatree(root) as tree:
        assert sorted(tree.children("")) == ["m0", "m1", "m2"]
    assert len({header.txid for _, header in headers(root)}) == 3


def test_creators_with_different_levels_make_one_tree_and_the_others_are_told(root: Path) -> None:
    script = """
keys = [("model", "version"), ("a", "b", "c")][number]
wait()
try:
    Metatree(root, keys).close()
    print(json.dumps([keys, None]))
except MetatreeError as error:
    print(json.dumps([keys, str(error)]))
"""
    answers = together(script, 2, root)
    winners = [tuple(keys) for keys, error in answers if error is None]
    assert len(winners) == 1
    with Metatree(root) as tree:
        assert tree.keys == winners[0]
    (error,) = [error for _, error in answers if error is not None]
    assert "model, version" in error and "a, b, c" in error


@pytest.mark.parametrize("attempt", range(3))
def test_adopters_of_one_old_tree_at_once_adopt_it_once(root: Path, attempt: int) -> None:
    (root / "m" / "v1").mkdir(parents=True)
    (root / ".metatree").write_text('{"keys": ["model", "version"], "locking_enabled": true}')
    (root / "metadata.json").write_text('{"children": ["m"]}')
    (root / "m" / "metadata.json").write_text('{"children": ["v1"], "active": "v1"}')
    (root / "m" / "v1" / "metadata.json").write_text("{}")
    (root / "m" / "v1" / "blob").write_bytes(b"old")
    script = """
wait()
tree = Metatree(root)
tree.put(f"m/new{number}", b"new", name="blob")
print(json.dumps(b"".join(tree.get("m/<active>/blob")).decode()))
tree.close()
"""
    assert together(script, 3, root) == ["old"] * 3
    with Metatree(root) as tree:
        assert sorted(tree.children("m")) == ["new0", "new1", "new2", "v1"]
        assert tree.children("m")[0] == "v1"


# --- holders --------------------------------------------------------------------------------------------------------

# Stops itself (as a debugger or a full disk queue would) at a call it makes while it holds a right.
HOLDER = """
import os, signal, sys
import wal
from metatree import Metatree
from wal.testing import Boundary
root, method, part = sys.argv[1:]
class Stopping(Boundary):
    armed = False
    def around(self, call, run, tear):
        if self.armed and call.method == method and part in call.path:
            self.armed = False
            os.kill(os.getpid(), signal.SIGSTOP)
        return run()
posix = Stopping()
tree = Metatree(wal.LocalStorage(root, posix))
posix.armed = True
tree.update("m/v", holder=1)
"""
IN_APPEND = ("fdatasync", ".log")  # written, not flushed: the right to append is held
IN_APPLY = ("rename", "m/v/metadata.json")  # committed, its file not in place: the right to apply is held


@pytest.fixture
def stopped(root: Path) -> Iterator[Callable[[tuple[str, str]], int]]:
    """Starts a holder and waits until it has stopped itself; its id. It is killed at the end."""
    with Metatree(root, LEVELS) as tree:
        tree.put("m/v", b"", name="blob")
    holders: list[subprocess.Popen[str]] = []

    def start(where: tuple[str, str]) -> int:
        holder = begin(HOLDER, root, *where)
        holders.append(holder)
        _, status = os.waitpid(holder.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "the holder ended without meeting the call"
        return holder.pid

    yield start
    for holder in holders:
        holder.kill()
        holder.communicate()


@pytest.mark.parametrize("where", [IN_APPEND, IN_APPLY], ids=["append", "apply"])
def test_a_killed_holder_delays_nobody_beyond_its_death(
    root: Path, stopped: Callable[[tuple[str, str]], int], where: tuple[str, str]
) -> None:
    other = begin(BEGIN + "tree = Metatree(root)\nwait()\ntree.update('m/v', other=2)\ntree.close()\n", root, 0)
    assert other.stdout is not None and other.stdout.readline() == "ready\n"
    holder = stopped(where)
    assert other.stdin is not None
    other.stdin.write("go\n")
    other.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):  # it does wait while the holder lives ...
        other.wait(timeout=0.5)
    os.kill(holder, signal.SIGKILL)
    other.communicate()  # ... and no longer: the default time limit is a minute, and then it would fail
    assert other.returncode == 0
    # The holder's own commit was written in both cases, so whoever came next had to settle it: whole, and durable.
    assert metadata(root, "m/v") == {"holder": 1, "other": 2}


@pytest.mark.parametrize("where", [IN_APPEND, IN_APPLY], ids=["append", "apply"])
def test_the_next_opener_after_a_killed_holder_finds_everything_in_order(
    root: Path, stopped: Callable[[tuple[str, str]], int], where: tuple[str, str]
) -> None:
    os.kill(stopped(where), signal.SIGKILL)
    with Metatree(root) as tree:
        tree.update("m/v", other=2)
        assert dict(tree.find("m/v").metadata) == {"holder": 1, "other": 2}
        assert tree.unapplied == 0


def test_a_stopped_holder_of_the_append_right_is_named_with_host_and_age(
    root: Path, stopped: Callable[[tuple[str, str]], int]
) -> None:
    engine = Engine(wal.LocalStorage(str(root)), None, read_only=False, apply="sync", lock_timeout=0.2)
    holder = stopped(IN_APPEND)
    with pytest.raises(LockTimeoutError) as caught, translated():
        engine.change(lambda draft: draft.update(("m", "v"), {"late": True}))
    message = str(caught.value)
    assert isinstance(caught.value, TimeoutError)
    assert "append" in message and f"process {holder} " in message
    assert f"on host {socket.gethostname()}" in message
    assert re.search(r"running for \d+ s, stopped", message)
    os.kill(holder, signal.SIGKILL)
    engine.change(lambda draft: draft.update(("m", "v"), {"late": True}))  # nothing had been changed: once more
    engine.close()
    assert [header.changes["m/v"] for _, header in headers(root) if "set" in header.changes.get("m/v", {})] == [
        {"set": ["holder"]},
        {"set": ["late"]},
    ]


def test_a_stopped_holder_of_the_right_to_apply_makes_no_commit_fail_but_flush_names_it(
    root: Path, stopped: Callable[[tuple[str, str]], int]
) -> None:
    engine = Engine(wal.LocalStorage(str(root)), None, read_only=False, apply="sync", lock_timeout=0.2)
    holder = stopped(IN_APPLY)
    with pytest.warns(ApplyPendingWarning, match=f"(?s)process {holder} .*running for .* s, stopped"):
        engine.change(lambda draft: draft.update(("m", "v"), {"late": True}))  # returns: it is durable (E15)
    assert engine.committer.unapplied() == 2
    with (
        pytest.raises(LockTimeoutError, match=f"(?s)apply.*process {holder} .*on host {socket.gethostname()}"),
        translated(),
    ):
        engine.committer.flush()
    with Metatree(root, read_only=True) as reader:
        assert dict(reader.find("m/v").metadata) == {"holder": 1, "late": True}
    os.kill(holder, signal.SIGKILL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.committer.flush()
    assert metadata(root, "m/v") == {"holder": 1, "late": True}
    engine.close()


# --- idempotency keys -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["commuting", "conflicting"])
def test_of_two_processes_with_one_idempotency_key_one_commits_and_the_other_is_given_its_lsn(
    root: Path, body: str
) -> None:
    with Metatree(root, LEVELS) as tree:
        tree.put("jobs", b"", name="blob")
    # Where the blocks themselves conflict, the loser may learn that first; the documented reaction is to run it again.
    where = {"commuting": "jobs/{job}by{number}", "conflicting": "job{job}/by{number}"}[body]
    script = f"""
from metatree import ConflictError
tree = Metatree(root)
wait()
answers = []
for job in range(25):
    while True:
        try:
            with tree.transaction(idempotency_key=f"job {{job}}") as txn:
                tree.put(f"{where}", b"", name="blob")
            break
        except ConflictError:
            if {body!r} == "commuting":
                raise
    answers.append([txn.lsn, txn.replayed])
tree.close()
print(json.dumps(answers))
"""
    one, other = together(script, 2, root)
    with Metatree(root) as tree:
        for job in range(25):
            assert sorted([one[job][1], other[job][1]]) == [False, True], "one commits, one is replayed"
            assert one[job][0] == other[job][0], "the replayed one has the LSN of the other"
            winner = 0 if not one[job][1] else 1
            assert tree.exists(where.format(job=job, number=winner))
            assert not tree.exists(where.format(job=job, number=1 - winner))
    keys = [header.key for _, header in headers(root) if header.key]
    assert sorted(keys) == sorted(f"job {job}" for job in range(25))
