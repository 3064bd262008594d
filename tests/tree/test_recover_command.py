"""`metatree-recover` as an operator meets it: on trees that killed processes left, and on damaged ones."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from metatree import (
    CorruptionError,
    FormatError,
    LockTimeoutError,
    Metatree,
    UnavailableError,
    __version__,
    recover_command,
)
from metatree.outcome import Edit
from metatree.recovery import Recovered, plan
from tests.tree.model import empty_disk, open_tree

CHECKOUT = Path(__file__).resolve().parents[2]
LEVELS = ("model", "version")
BIG = bytes(range(256)) * 400  # 100 KiB: above what travels inside a record, so it is staged
TORN = b"\xf7WLf half a frame"  # begins as a frame does
SEGMENT = ".wal/00000000000000000001.log"
KEYS = {
    "root": str,
    "dry_run": bool,
    "clean": bool,
    "redo": int,
    "head": int,
    "records": int,
    "tail_bytes": int,
    "tail_files": list,
    "adopted": int,
    "nodes": int,
    "blobs": int,
    "removed": int,
    "staged": list,
    "scratch": list,
    "edited": list,
    "failed": dict,
    "damage": list,
}

# One process with two handles: one in the middle of a transaction, one that has committed but not applied.
KILLED = """
import os, signal, sys
from metatree import Metatree
root, big = sys.argv[1], bytes(range(256)) * 400
unfinished = Metatree(root)
txn = unfinished.transaction("never finished").__enter__()
unfinished.put("m/v3", big, name="weights")
committed = Metatree(root, apply="background")
with committed.transaction("finished"):
    committed.put("m/v2", b"two", name="weights")
    committed.put("m/v2", big, name="large")
    committed.update("m", active="v2")
os.kill(os.getpid(), signal.SIGKILL)
"""


def in_memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree as the process above left it: v2 is in the log but in no folder, v3 is staged only."""
    base = tmp_path_factory.mktemp("killed")
    for attempt in range(50):
        root = base / str(attempt)
        with Metatree(str(root), LEVELS) as tree:
            tree.put("m/v1", b"one", name="weights")
            tree.update("m", active="v1")
            tree.put("other/v1", b"untouched", name="weights")
        done = subprocess.run([sys.executable, "-c", KILLED, str(root)], env=environment())
        assert done.returncode == -9
        if not (root / "m" / "v2").exists():  # else the files were faster than the signal
            return root
    raise AssertionError("the files followed every time")


@pytest.fixture
def root(killed: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy to recover; at the end the tree in it is whole, unless the test says that it is not."""
    copy = tmp_path / "tree"
    shutil.copytree(killed, copy)  # with its attributes
    (copy / ".wal" / "tmp" / "unfinished").write_bytes(b"half")
    yield copy
    if (copy / "DAMAGED").exists():
        return
    with Metatree(str(copy)) as tree:
        report = tree.check(deep=True)
        assert report.ok, str(report)
        assert tree.find("m").metadata["active"] == "v2"
        assert b"".join(tree.get("m/<active>/weights")) == b"two"
        assert tree.children("m") == ["v1", "v2"]


@pytest.fixture
def recover(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = recover_command.main([str(argument) for argument in arguments])
        except SystemExit as ended:  # argparse
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


Recover = Callable[..., tuple[int, str, str]]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONWARNINGS": "error"}


def everything(root: Path) -> dict[str, tuple[bytes, dict[str, bytes]]]:
    """Each file and folder with its content and attributes, the engine's own included."""
    found = {}
    for path in [root, *root.rglob("*")]:
        attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)} if sys.platform == "linux" else {}
        found[str(path.relative_to(root))] = (path.read_bytes() if path.is_file() else b"", attributes)
    return found


def mark_damaged(root: Path) -> None:
    """The test leaves a damaged tree behind on purpose."""
    (root / "DAMAGED").touch()


def end_of_log(root: Path) -> int:
    """Where the next frame would begin: frames are aligned to 8 bytes, zeros follow them."""
    return -(-len((root / SEGMENT).read_bytes().rstrip(b"\0")) // 8) * 8


def overwrite(file: Path, offset: int, data: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


# --- recovering -------------------------------------------------------------------------------------------------------


def test_what_was_committed_is_completed_and_what_was_not_is_set_aside(root: Path, recover: Recover) -> None:
    code, out, err = recover(root)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{root}: log after 3 up to 4"
    assert lines[1] == "  1 transactions were replayed"
    assert lines[2] == "  2 metadata.json files and 2 blobs were rewritten, 0 removed"
    assert lines[3].startswith("  staged blobs were set aside: .wal/staged/3-")
    assert lines[4:] == ["  unfinished files were set aside: .wal/tmp/unfinished"]
    assert (root / "m" / "v2" / "weights").read_bytes() == b"two"
    assert not (root / "m" / "v3").exists()


def test_what_is_set_aside_is_kept_byte_by_byte(root: Path, recover: Recover) -> None:
    recover(root)
    (staged,) = (root / ".wal" / "quarantine" / "staged").iterdir()
    assert [file.read_bytes() for file in staged.iterdir()] == [BIG]
    assert (root / ".wal" / "quarantine" / "tmp" / "unfinished").read_bytes() == b"half"


def test_a_second_run_says_clean_and_changes_no_file_that_people_read(root: Path, recover: Recover) -> None:
    recover(root)
    before = {name: found for name, found in everything(root).items() if not name.startswith(".wal")}
    code, out, _ = recover(root)
    assert code == 0
    assert out.splitlines() == [f"{root}: log after 4 up to 4", "clean: nothing to replay, nothing to set aside"]
    assert {name: found for name, found in everything(root).items() if not name.startswith(".wal")} == before


def test_a_dry_run_prints_the_plan_and_changes_nothing(root: Path, recover: Recover) -> None:
    before = everything(root)
    code, out, _ = recover(root, "--dry-run")
    assert code == 0
    assert "  1 transactions would be replayed" in out.splitlines()
    assert "  2 metadata.json files and 2 blobs would be rewritten, 0 removed" in out.splitlines()
    assert "  unfinished files would be set aside: .wal/tmp/unfinished" in out.splitlines()
    assert everything(root) == before


def test_a_plan_counts_what_was_put_and_what_was_dropped() -> None:
    with open_tree(empty_disk()) as tree:
        for version in ("v0", "v1", "v2", "v3"):
            tree.put(f"m/{version}", b"x", name="b")
        tree.checkpoint()
        for version in ("v0", "v1", "v2"):
            tree.delete(f"m/{version}", recursive=True)
        tree.delete("m/v3/b")
        tree.put("m/v3", b"y", name="c")
        tree.put("m/v3", b"z", name="d")
        tree.update("m/v3", n=1)
        for shared in (False, True):
            found = plan(tree._engine.storage, tree._engine.log, shared=shared)
            assert (found.records, found.nodes, found.blobs, found.removed) == (7, 2, 2, 4)


def test_a_dry_run_names_what_the_run_then_does(root: Path, recover: Recover) -> None:
    plan = json.loads(recover(root, "--dry-run", "--json")[1])
    done = json.loads(recover(root, "--json")[1])
    assert plan.pop("dry_run") is True
    assert done.pop("dry_run") is False
    assert plan == done


def test_a_dry_run_names_the_damage_that_the_run_would_leave_and_no_other(root: Path, recover: Recover) -> None:
    mark_damaged(root)
    (root / "other/v1/weights").unlink()  # of a commit before the last checkpoint
    (root / "m/metadata.json").unlink()  # the replay writes it again
    before = everything(root)
    code, out, _ = recover(root, "--dry-run", "--json")
    plan = json.loads(out)
    assert (code, plan["clean"], everything(root)) == (1, False, before)
    assert [each["path"] for each in plan["damage"]] == ["other/v1/weights"]
    code, out, _ = recover(root, "--dry-run")
    assert code == 1 and "  DAMAGE: other/v1/weights: is missing: commit " in out and "damage remains: " in out
    code, out, _ = recover(root, "--json")
    assert (code, json.loads(out)["damage"]) == (1, plan["damage"])
    code, out, _ = recover(root, "--dry-run")  # with nothing to replay
    assert code == 1 and "clean" not in out and "  DAMAGE: other/v1/weights: is missing: commit " in out


def test_the_json_has_the_same_keys_whatever_happened(root: Path, recover: Recover) -> None:
    for arguments in (["--dry-run"], [], []):  # a plan, a recovery, a clean run
        code, out, _ = recover(root, "--json", *arguments)
        state = json.loads(out)
        assert code == 0
        assert {key: type(value) for key, value in state.items()} == KEYS
        assert list(state) == list(KEYS)


@pytest.mark.parametrize(
    "done",
    [
        {"records": 1},
        {"tail_bytes": 1},
        {"adopted": 1},
        {"staged": ["a"]},
        {"scratch": ["a"]},
        {"edits": {"a": Edit("b", "node-edited")}},
        {"errors": {"a": OSError("why")}},
    ],
    ids=str,
)
def test_a_recovery_that_had_one_thing_to_do_was_not_clean(done: dict[str, Any]) -> None:
    assert Recovered(redo=1, head=2).clean
    assert not Recovered(redo=1, head=2, **done).clean


def test_a_hand_edit_that_the_replay_replaces_is_kept_and_named(root: Path, recover: Recover) -> None:
    edited = root / "m" / "metadata.json"
    edited.write_text('{"children": ["v1"], "active": "by hand"}')
    code, out, _ = recover(root)
    assert code == 0
    (line,) = (line for line in out.splitlines() if "edited by hand" in line)
    assert json.loads((root / line.partition("kept as ")[2]).read_text())["active"] == "by hand"
    assert recover(root)[1].endswith("clean: nothing to replay, nothing to set aside\n")


@pytest.mark.parametrize("what", ["metadata.json", "link"])
def test_what_was_changed_by_hand_is_no_damage_and_stays(what: str, root: Path, recover: Recover) -> None:
    recover(root)
    path = root / "m" / ("lnk" if what == "link" else what)
    if what == "link":
        path.symlink_to("v1")
    else:
        path.write_text('{"children": ["v1", "v2"], "active": "v2", "note": 1}')
    code, out, _ = recover(root)
    assert code == 0
    assert f"  by hand: m/{path.name}: " in out and "clean" not in out
    assert "DAMAGE" not in out and "backup" not in out
    assert (
        out.splitlines()[-1]
        == f"edits by hand: `metatree repair {root}` shows what adopting or reverting each would do"
    )
    code, out, _ = recover(root, "--json")
    state = json.loads(out)
    assert (code, state["clean"], [each["weight"] for each in state["damage"]]) == (0, False, ["edit"])
    if what == "link":
        path.unlink()
    with Metatree(root) as tree:
        assert tree.repair(edits="adopt").clean


def test_damage_beside_an_edit_is_still_damage(root: Path, recover: Recover) -> None:
    mark_damaged(root)
    recover(root)
    (root / "m/lnk").symlink_to("v1")
    (root / "other/metadata.json").write_bytes(b"{")
    code, out, _ = recover(root)
    assert code == 1
    assert "  by hand: m/lnk: " in out and "  DAMAGE: other/metadata.json: " in out
    assert "damage remains: " in out and "edits by hand: " in out


def test_a_tree_of_a_newer_version_is_no_damage(root: Path, recover: Recover) -> None:
    config = root / ".metatree"
    good = config.read_bytes()
    config.write_bytes(json.dumps({**json.loads(good), "format": 99}).encode())
    for more in ([], ["--dry-run"]):
        code, _, err = recover(root, *more)
        assert code == 2 and "FormatError" in err
    config.write_bytes(good)
    recover(root)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CorruptionError("cut"), 1),
        (UnavailableError("no answer"), 2),
        (LockTimeoutError("held by another host"), 2),
        (FormatError("newer"), 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_damage_is_called_damage(
    error: Exception, expected: int, recover: Recover, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Metatree:
        raise error

    monkeypatch.setattr(recover_command, "Metatree", fail)
    assert recover("somewhere")[0] == expected


# --- a torn tail, and damage ------------------------------------------------------------------------------------------


def test_a_torn_tail_is_quarantined_and_reported(root: Path, recover: Recover) -> None:
    end = end_of_log(root)
    overwrite(root / SEGMENT, end, TORN)
    code, out, _ = recover(root)
    assert code == 0
    (line,) = (line for line in out.splitlines() if "torn tail" in line)
    assert line.startswith("  17 bytes of torn tail were moved to .wal/quarantine/")
    assert (root / line.rpartition("moved to ")[2]).read_bytes() == TORN
    assert end_of_log(root) == end
    assert "clean" in recover(root)[1]


def test_the_plan_names_a_torn_tail_too(root: Path, recover: Recover) -> None:
    overwrite(root / SEGMENT, end_of_log(root), TORN)
    before = everything(root)
    plan = json.loads(recover(root, "--dry-run", "--json")[1])
    assert everything(root) == before
    assert (plan["tail_bytes"], plan["clean"]) == (len(TORN), False)


def test_a_log_cut_inside_what_was_acknowledged_is_damage_and_says_where(root: Path, recover: Recover) -> None:
    mark_damaged(root)
    os.truncate(root / SEGMENT, end_of_log(root) - 8)
    before = everything(root)
    for _ in range(2):  # not repaired by trying again, and not made worse
        code, out, err = recover(root)
        assert code == 1
        assert out == ""
        assert "CorruptionError" in err
        assert SEGMENT in err
    assert {n: f for n, f in everything(root).items() if n != "DAMAGED"} == {
        n: f for n, f in before.items() if n != "DAMAGED"
    }


def test_damage_that_remains_is_named_with_what_to_do_until_it_is_mended(root: Path, recover: Recover) -> None:
    file = root / "other" / "metadata.json"  # no record since the redo mark holds it: its file is the only copy
    good = file.read_bytes()
    overwrite(file, 0, b"?")
    code, out, _ = recover(root)
    assert code == 1
    assert any(line.startswith("  DAMAGE: other/metadata.json: ") for line in out.splitlines())
    assert out.splitlines()[-1].startswith("damage remains: ")
    assert (root / "m" / "v2" / "weights").read_bytes() == b"two"  # what could be recovered was
    assert "clean" not in out
    code, out, _ = recover(root, "--json")
    assert code == 1
    assert json.loads(out)["clean"] is False
    assert [finding["path"] for finding in json.loads(out)["damage"]] == ["other/metadata.json"]
    overwrite(file, 0, good)
    assert recover(root)[0] == 0


def test_a_commit_that_cannot_be_applied_is_named_until_it_can(root: Path, recover: Recover) -> None:
    staged, away = root / ".wal" / "staged", root.with_name("away")
    staged.rename(away)  # the blobs that its record names
    for _ in range(2):
        code, out, err = recover(root)
        assert code == 1
        assert any(line.startswith("  NOT brought up to date: m/v2: ") for line in out.splitlines()), out + err
        assert out.splitlines()[-1].startswith("damage remains: ")
    shutil.copytree(away, staged, dirs_exist_ok=True)
    assert recover(root)[0] == 0
    assert (root / "m" / "v2" / "large").read_bytes() == BIG


def test_an_error_is_one_object_with_json_as_well(root: Path, recover: Recover) -> None:
    mark_damaged(root)
    (root / ".metatree").write_bytes(b"{")
    code, out, err = recover(root, "--json")
    assert code == 1
    state = json.loads(out)
    assert list(state) == ["root", "error", "message"]
    assert state["error"] == "CorruptionError"
    assert ".metatree" in err


def test_a_folder_that_is_no_tree_is_refused_and_left_alone(tmp_path: Path, recover: Recover) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    for name in ("notes", "missing"):
        code, _, err = recover(tmp_path / name)
        assert code == 2
        assert str(tmp_path / name) in err
    assert everything(tmp_path).keys() == {".", "notes", "notes/a.txt"}


@pytest.mark.parametrize("root", ["nope://x", "", "file://elsewhere/x", "old", "empty", "file/x"])
def test_what_cannot_be_recovered_here_is_wrong_usage_and_no_advice_to_create(
    root: str, tmp_path: Path, recover: Recover, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(Path(__file__).parent / "data/metatreedb-0.2.3/tree", tmp_path / "old")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    before = everything(tmp_path)
    for more in ([], ["--dry-run"], ["--json"]):
        code, _, err = recover(root, *more)
        assert code == 2
        assert root in err and "keys" not in err and "new tree" not in err
    assert everything(tmp_path) == before


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_tree_of_0_2_3_is_not_adopted_but_the_line_that_does_is_named(
    more: list[str], tmp_path: Path, recover: Recover
) -> None:
    """A recovery is harmless to repeat; an adoption cannot be undone, and is asked for by name."""
    old = Path(shutil.copytree(Path(__file__).parent / "data/metatreedb-0.2.3/tree", tmp_path / "it's old"))
    before = everything(old)
    code, _, err = recover(old, *more)
    assert code == 2 and everything(old) == before
    assert "cannot be undone" in err
    subprocess.run([sys.executable, "-c", err.partition("then run: ")[2]], check=True, cwd=CHECKOUT)
    assert recover(old, *more)[0] == 0


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [[], ["a", "b"], ["a", "--no-such"], ["a", "--jso"], ["a", "-o"], ["a", "-o", "key"], ["a", "-o", "=value"]],
)
def test_wrong_usage_is_two(arguments: list[str], recover: Recover) -> None:
    code, out, err = recover(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: metatree-recover ")


def test_help_tells_the_exit_codes(recover: Recover) -> None:
    code, out, _ = recover("--help")
    assert code == 0
    assert "exit codes: 0 clean or recovered, 1 damage remains, 2 usage" in out


def test_the_version_is_that_of_the_package(recover: Recover) -> None:
    assert recover("--version") == (0, f"metatree-recover, version {__version__}\n", "")


def test_options_go_to_the_storage_the_first_equals_sign_divides(
    root: Path, recover: Recover, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    class Recording(Metatree):
        def __init__(self, root: str, **options: Any) -> None:
            seen.append(options.pop("storage_options"))
            super().__init__(root, **options)

    monkeypatch.setattr(recover_command, "Metatree", Recording)
    assert recover(root, "-o", "endpoint_url=http://h:1/?a=b", "-o", "empty=")[0] == 0
    assert seen == [{"endpoint_url": "http://h:1/?a=b", "empty": ""}] * 2


def test_options_mean_the_same_as_those_of_the_other_command(
    root: Path, recover: Recover, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def record(root: str, **arguments: Any) -> Metatree:
        seen.append(arguments["storage_options"])
        raise TypeError("enough")

    monkeypatch.setattr(recover_command, "Metatree", record)
    words = ["anon=true", "token=null", 'client_kwargs={"region_name": "eu"}', "list=[1]", "key=0123", "text=True"]
    assert recover(root, *(part for word in words for part in ("-o", word)))[0] == 2
    assert seen == [
        {
            "anon": True,
            "token": None,
            "client_kwargs": {"region_name": "eu"},
            "list": [1],
            "key": "0123",
            "text": "True",
        }
    ]
    code, _, err = recover(root, "-o", "secret={hunter2")
    assert code == 2 and "the value of secret is not valid JSON" in err and "hunter2" not in err


@pytest.mark.parametrize("server", ["webhdfs://127.0.0.1:9/x"])
def test_a_server_that_is_not_reached_is_no_damage(server: str, recover: Recover) -> None:
    code, _, err = recover(server)
    assert code == 2
    assert "UnavailableError" in err and "refused" in err


def test_an_option_that_a_local_root_does_not_have_is_refused_without_its_value(root: Path, recover: Recover) -> None:
    before = everything(root)
    code, out, err = recover(root, "-o", "secret=hunter2")
    assert code == 2
    assert "secret" in err
    assert "hunter2" not in out + err
    assert everything(root) == before
    assert recover(root)[0] == 0


# --- how it is started ------------------------------------------------------------------------------------------------


def test_it_runs_as_a_module(root: Path) -> None:
    command = [sys.executable, "-m", "metatree.recover_command", str(root)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  1 transactions were replayed" in done.stdout.splitlines()
    bad = subprocess.run([*command[:3]], env=environment(), capture_output=True, text=True)
    assert bad.returncode == 2


def test_the_installed_command_is_this_function(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scripts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["metatree-recover"].partition(":")
    assert getattr(importlib.import_module(module), name)([str(root)]) == 0
    assert "  1 transactions were replayed" in capsys.readouterr().out.splitlines()


def test_it_starts_when_the_libraries_of_other_storages_do_not(root: Path) -> None:
    broken = ("fsspec", "s3fs", "aiobotocore", "botocore", "aiohttp", "orjson")
    start = (
        f"import sys; sys.modules.update(dict.fromkeys({broken!r}))\n"
        "from metatree.recover_command import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", start, str(root)], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  1 transactions were replayed" in done.stdout.splitlines()
