"""`metatree-recover` where hosts share the storage: in the open, under the right, and beside living writers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from metatree import recover_command
from metatree.cli.app import commands
from tests.hosts.conftest import LEVELS, Shared, environment

BIG = bytes(range(256)) * 400  # 100 KiB: above what travels inside a record, so it is staged

# Two handles of one process: one in the middle of a transaction, one that has committed but not applied.
KILLED = """
import os, signal, sys
from torture_place import Place
place, big = Place.decode(sys.argv[1]), bytes(range(256)) * 400
unfinished = place.open()
txn = unfinished.transaction("never finished").__enter__()
unfinished.put("m/v3", big, name="weights")
committed = place.open(apply="background")
with committed.transaction("finished"):
    committed.put("m/v2", b"two", name="weights")
    committed.put("m/v2", big, name="large")
    committed.update("m", active="v2")
    committed.delete("m/v0", recursive=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
Recover = Callable[..., tuple[int, str]]


@pytest.fixture
def killed(there: Shared) -> Shared:
    """A tree as that process left it: v2 is in the log but in no folder, v3 is staged only, v0 should have gone."""
    with there.open(LEVELS) as tree:
        for version in ("v0", "v1"):
            tree.put(f"m/{version}", version.encode(), name="weights")
        tree.update("m", active="v1")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, there.place.encode()], env={**environment(), "PYTHONWARNINGS": "error"}
    )
    assert done.returncode == -9
    assert "m/v2/weights" not in there.files() and "m/v0/weights" in there.files()
    return there


def redo_of(there: Shared) -> int:
    """Up to where the fixture's checkpoint trimmed the log: in a bucket the first committer takes a slot as well."""
    return 4 if there.kind == "seaweedfs" else 3


@pytest.fixture
def recover(there: Shared, capsys: pytest.CaptureFixture[str]) -> Recover:
    """The command in this process, with the place's options: (exit code, stdout)."""

    def run(*more: str) -> tuple[int, str]:
        options = [word for key, value in there.place.options.items() for word in ("-o", f"{key}={value}")]
        code = recover_command.main([there.place.root, *options, *more])
        captured = capsys.readouterr()
        assert captured.err == ""
        return code, captured.out

    return run


def staged(there: Shared) -> set[str]:
    return {name for name in there.plain.everything() if name.startswith(".wal/staged/")}


def content(there: Shared) -> dict[str, bytes]:
    return {name: there.plain.read(name) for name in there.plain.everything()}


def test_the_plan_changes_nothing_then_all_is_replayed_and_a_second_run_is_clean(
    killed: Shared, recover: Recover
) -> None:
    root, before, redo = killed.place.root, content(killed), redo_of(killed)
    code, out = recover("--dry-run")
    assert (code, content(killed)) == (0, before)
    lines = out.splitlines()
    assert lines[0] == f"{root}: log after {redo} up to {redo + 1}"
    assert lines[1] == "  1 transactions would be replayed"
    assert lines[2] == "  2 metadata.json files and 2 blobs would be rewritten, 1 removed"
    assert lines[3:] == ["  (if no program has the tree open now: a living writer needs no replay)"]

    code, out = recover()
    lines = out.splitlines()
    assert (code, lines[:2]) == (0, [f"{root}: log after {redo} up to {redo + 1}", "  1 transactions were replayed"])
    assert len(lines) == 3 and lines[2].startswith("  2 metadata.json files and 2 blobs were rewritten, ")
    assert killed.metadata("m") == {"children": ["v1", "v2"], "active": "v2"}
    assert killed.plain.read("m/v2/weights") == b"two" and killed.plain.read("m/v2/large") == BIG
    assert killed.files() == {
        *("metadata.json", "m/metadata.json", "m/v1/metadata.json", "m/v1/weights"),
        *("m/v2/metadata.json", "m/v2/weights", "m/v2/large"),
    }

    before = {name: killed.plain.read(name) for name in killed.files()}
    code, out = recover()
    assert (code, out.splitlines()) == (0, [f"{root}: log after {redo + 1} up to {redo + 1}", CLEAN])
    assert {name: killed.plain.read(name) for name in killed.files()} == before
    killed.assert_clean()


CLEAN = "clean: nothing to replay, nothing to set aside"


@pytest.mark.parametrize("there", ["seaweedfs", "hdfs"], indirect=True)
def test_a_check_says_that_commits_wait_for_a_recovery_until_it_ran(killed: Shared, recover: Recover) -> None:
    options = [word for key, value in killed.place.options.items() for word in ("-o", f"{key}={value}")]

    def check() -> tuple[int, list[str]]:
        done = CliRunner().invoke(commands, ["check", killed.place.root, "--json", *options])
        report = json.loads(done.stdout)
        kinds = [each["kind"] for each in (*report["problems"], *report["notes"]) if each["weight"] != "leftover"]
        assert report["clean"] is not bool(kinds)
        return done.exit_code, kinds

    assert check() == (7, ["not-recovered"])
    assert recover()[0] == 0
    assert check() == (0, [])


@pytest.mark.parametrize("there", ["seaweedfs"], indirect=True)
def test_a_repair_without_a_choice_leaves_an_edit_by_hand_and_with_one_reverts_it(there: Shared) -> None:
    options = [word for key, value in there.place.options.items() for word in ("-o", f"{key}={value}")]

    def repair(*more: str) -> tuple[int, str]:
        done = CliRunner().invoke(commands, ["repair", there.place.root, "--yes", *more, *options])
        return done.exit_code, done.stdout

    with there.open(LEVELS) as living:
        living.put("m/v1", b"one", name="weights")
        there.plain.write("m/v1/metadata.json", b'{"by hand": 1}')
        code, out = repair()
        assert (code, out.splitlines()[0]) == (1, f"{there.place.root}: nothing repaired: 1 needs a choice")
        assert there.metadata("m/v1") == {"by hand": 1}
        code, out = repair("--revert")
        assert (code, there.metadata("m/v1")) == (0, {}), out
    with there.open() as living:
        living.put("m/v2", b"two", name="weights")
        there.plain.write("m/metadata.json", b'{"children": ["v1", "v2"], "by hand": 1}')
        there.plain.write("m/v2/metadata.json", b"{")
        code, out = repair()
        assert (code, out.splitlines()[0]) == (1, f"{there.place.root}: 1 repaired; 1 needs a choice")
        assert (there.metadata("m")["by hand"], there.metadata("m/v2")) == (1, {})
        code, out = repair("--adopt")
        assert (code, there.metadata("m")["by hand"]) == (0, 1), out
    there.assert_clean()


@pytest.mark.parametrize("there", ["seaweedfs"], indirect=True)
def test_the_report_as_json(killed: Shared, recover: Recover) -> None:
    code, out = recover("--json")
    found = json.loads(out)
    assert (code, found["root"], found["clean"]) == (0, killed.place.root, False)
    assert (found["redo"], found["head"], found["records"]) == (4, 5, 1)
    assert (found["staged"], found["scratch"], found["failed"], found["damage"]) == ([], [], {}, [])
    assert json.loads(recover("--json")[1])["clean"] is True
    for secret in ("secret", "key"):
        assert f'"{secret}"' not in out


def test_what_another_hosts_writer_has_staged_stays_and_can_be_committed(there: Shared, recover: Recover) -> None:
    """Nobody can know that it is dead; so nothing is set aside, neither staged nor unfinished files."""
    with there.open(LEVELS, apply="background") as living:
        with living.transaction("as recovery runs"):
            living.put("m/v1", BIG, name="weights")
            before = staged(there)
            assert len(before) == 1
            there.plain.write(".wal/tmp/unfinished", b"half")
            code, out = recover()
            assert (code, out.splitlines()[1:]) == (0, [CLEAN])
            assert staged(there) == before
            assert there.plain.read(".wal/tmp/unfinished") == b"half"
        living.flush()
        assert there.plain.read("m/v1/weights") == BIG
        notes = {note.path: note.reason for note in living.check(deep=True).notes}
        assert "still running or has died" in notes[".wal/tmp/unfinished"]
    there.assert_clean()


@pytest.mark.parametrize("there", ["seaweedfs", "mount"], indirect=True)
def test_a_handle_recovers_beside_others(killed: Shared) -> None:
    with killed.open() as one, killed.open() as other:
        assert one.recover(dry_run=True).records == 1
        done = one.recover()
        assert (done.records, done.failed, done.clean) == (1, {}, False)
        other.update("m", active="v1")
        again = other.recover()
        assert (again.redo, again.head, again.records) == (redo_of(killed), redo_of(killed) + 2, 2)
        assert other.find("m/<active>").path == "m/v1"
    killed.assert_clean()


def test_what_came_to_harm_since_the_last_checkpoint_is_written_again(killed: Shared, recover: Recover) -> None:
    with killed.open() as tree:
        tree.flush()
        killed.plain.write("m/metadata.json", b'{"children": ["v1"')
        killed.plain.write("m/v2/weights", b"something else")
        tree._engine.abandon()
    code, out = recover()
    assert code == 0 and out.count("edited by hand, kept as .wal/quarantine/") == 2
    assert killed.metadata("m") == {"children": ["v1", "v2"], "active": "v2"}
    assert killed.plain.read("m/v2/weights") == b"two"
    kept = {name for name in killed.plain.everything() if name.startswith(".wal/quarantine/edited/")}
    assert {killed.plain.read(name) for name in kept} == {b'{"children": ["v1"', b"something else"}
    killed.assert_clean()
