"""`metatree check` and `metatree repair` as an operator meets them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import wal
from metatree import Metatree
from metatree.cli.app import commands
from metatree.findings import KINDS

CHECKOUT = Path(__file__).resolve().parents[2]
CHECK_KEYS = ["root", "ok", "clean", "head", "nodes", "blobs", "deep", "bytes", "problems", "notes", "exit"]
FINDING_KEYS = ["path", "reason", "kind", "weight", "remedies"]
REPAIR_KEYS = ["root", "clean", "done", "head", "steps", "kept", "failed", "lsn", "remains", "exit"]
EDIT = b'{"auc": 0.5}'

Run = Callable[..., tuple[int, str]]


def everything(root: Path) -> dict[str, tuple[bytes, int]]:
    """Each file and folder, with its content and when it was changed."""
    paths = [root, *root.rglob("*")]
    return {str(path): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns) for path in paths}


def replace(file: Path, data: bytes) -> None:
    """As `sed -i` and editors do."""
    file.unlink()
    file.write_bytes(data)


def write_into(file: Path, data: bytes) -> None:
    with file.open("r+b") as stream:
        stream.truncate(0)
        stream.write(data)


def left_by_a_killed_process(root: Path) -> None:
    program = "import os, signal, sys\nfrom metatree import Metatree\ntree = Metatree(sys.argv[1])\n"
    program += "tree.put('m/v3', b'three', name='w')\nos.kill(os.getpid(), signal.SIGKILL)"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    assert subprocess.run([sys.executable, "-c", program, str(root)], env=environment).returncode == -signal.SIGKILL


def found(out: str) -> dict[str, str]:
    """Path -> kind, of everything in a check's JSON."""
    report = json.loads(out)
    return {each["path"]: each["kind"] for each in (*report["problems"], *report["notes"])}


# --- check ------------------------------------------------------------------------------------------------------------


def test_a_healthy_tree_is_clean_and_untouched(root: Path, run: Run) -> None:
    before = everything(root)
    assert run("check", root) == (0, f"{root}: clean: 4 nodes, 2 blobs, log to 3\n")
    code, out = run("check", root, "--deep", "--json")
    report = json.loads(out)
    assert (code, list(report)) == (0, CHECK_KEYS)
    assert (report["clean"], report["nodes"], report["blobs"], report["bytes"]) == (True, 4, 2, 14)
    assert run("repair", root) == (0, f"{root}: clean: nothing to repair\n")
    assert everything(root) == before


def test_every_kind_of_edit_is_named_with_its_path_and_kind(root: Path, run: Run) -> None:
    replace(root / "m/v1/metadata.json", EDIT)
    write_into(root / "m/metadata.json", b'{"children": ["v1", "v2"], "x": 1}')
    (root / "m/v1/notes.txt").write_text("mine")
    (root / "m/folder").mkdir()
    (root / "m/v1/W").write_text("twin")
    (root / "m/v1/link").symlink_to("/etc")
    code, out = run("check", root, "--json")
    assert code == 1
    assert found(out) == {
        "m/metadata.json": "node-edited",
        "m/v1/metadata.json": "node-replaced",
        "m/v1/notes.txt": "blob-extra",
        "m/folder": "folder-extra",
        "m/v1/W": "blob-extra",
        "m/v1/w": "twin",
        "m/v1/link": "link",
    }
    for each in (*json.loads(out)["problems"], *json.loads(out)["notes"]):
        assert list(each) == FINDING_KEYS
        assert (each["weight"], tuple(each["remedies"])) == (KINDS[each["kind"]][0].value, KINDS[each["kind"]][1])


def test_damage_is_six_and_worse_than_an_edit(root: Path, run: Run) -> None:
    (root / "m/v1/notes.txt").write_text("mine")
    write_into(root / "m/v2/w", b"rotten!")
    assert run("check", root)[0] == 1  # the blob's content was not read
    code, out = run("check", root, "--deep")
    assert code == 6
    assert "  DAMAGE   m/v2/w: its content is not what was put" in out and "  by hand  m/v1/notes.txt: " in out
    (root / "m/v1/metadata.json").unlink()
    assert found(run("check", root, "--json")[1])["m/v1/metadata.json"] == "node-missing"
    assert run("check", root)[0] == 6


def test_a_leftover_is_told_and_deviates_from_nothing(root: Path, run: Run) -> None:
    (root / ".wal/tmp").mkdir(exist_ok=True)
    (root / ".wal/tmp/unfinished").write_bytes(b"half")
    code, out = run("check", root)
    assert code == 0 and "  left     .wal/tmp/unfinished: " in out
    assert run("repair", root)[0] == 0


def test_what_a_killed_process_left_waits_for_a_recovery_and_a_living_one_is_none(root: Path, run: Run) -> None:
    tree = Metatree(root)
    tree.put("m/v4", b"four", name="w")
    assert run("check", root, "--deep")[0] == 0
    tree.close()
    left_by_a_killed_process(root)
    before = everything(root)
    code, out = run("check", root, "--json")
    assert (code, found(out)) == (7, {".wal": "not-recovered"})
    code, out = run("repair", root)
    assert code == 7 and "  recover   .wal: holds 1 commits" in out
    assert everything(root) == before
    code, out = run("repair", root, "--yes")
    assert code == 0 and out.endswith("clean: nothing deviates any more\n")
    assert run("check", root)[0] == 0


def test_a_check_waits_its_turn_so_that_no_opener_takes_it_for_a_writer(root: Path) -> None:
    storage = wal.open_storage(str(root), {})
    opening, alive = storage.lock(".wal/opening"), storage.lock(".wal/alive")
    log = wal.open_log(storage, read_only=True, lock_timeout=0.1)
    assert log.attended() is False
    assert alive.acquire(timeout=0)  # it holds nothing any more
    alive.release()
    assert opening.acquire(timeout=0)  # an opener at its recovery
    assert log.attended() is True
    opening.release()
    assert alive.acquire(shared=True, timeout=0)  # a writer
    assert log.attended() is True
    for each in (log, opening, alive, storage):
        each.close()


def test_what_is_no_tree_is_wrong_usage_with_one_object(tmp_path: Path, run: Run) -> None:
    for command in ("check", "repair"):
        code, out = run(command, tmp_path, "--json")
        assert code == 2
        assert list(json.loads(out)) == ["root", "error", "message", "exit"]


def test_a_folder_of_a_tree_is_none_and_the_tree_above_it_is_named(root: Path) -> None:
    (root / "m/empty").mkdir()
    for folder in ("m/v1", "m", "m/empty"):
        done = CliRunner().invoke(commands, ["check", str(root / folder)])
        assert done.exit_code == 2
        assert f"; it lies inside the tree {root.resolve()}: name that folder" in done.stderr
    done = CliRunner().invoke(commands, ["check", str(root.parent)])
    assert done.exit_code == 2 and "inside the tree" not in done.stderr


def test_a_damaged_log_is_six(root: Path, run: Run) -> None:
    (root / ".metatree").write_bytes(b"{")
    for command in ("check", "repair"):
        assert run(command, root)[0] == 6


@pytest.mark.parametrize("what", ["missing", "damaged"])
def test_a_head_file_that_the_log_supplies_is_rebuilt_by_a_repair(what: str, root: Path, run: Run) -> None:
    head = root / ".wal/head"
    if what == "missing":
        head.unlink()
    else:
        head.write_bytes(b"?" * head.stat().st_size)
    code, out = run("check", root, "--json")
    (problem,) = json.loads(out)["problems"]
    assert (code, problem["kind"], problem["remedies"]) == (6, "log-head", ["recover"])
    code, out = run("repair", root)
    assert code == 6 and "by hand" not in out and "  recover   .wal: " in out
    code, out = run("repair", root, "--yes")
    assert code == 0 and "nothing deviates any more" in out
    assert run("check", root)[0] == 0


def test_a_head_file_that_is_damaged_under_a_program_is_not_repaired_but_the_way_is_told(root: Path, run: Run) -> None:
    head = root / ".wal/head"
    with Metatree(root):
        good = head.read_bytes()
        write_into(head, b"?" * len(good))
        done = CliRunner().invoke(commands, ["repair", str(root), "--yes"])
        assert done.exit_code == 6 and "while others use it: close them, then open it again" in done.stderr
        code, out = run("repair", root)
        assert code == 6 and "unless programs have it open for writing: close these first" in out
    assert run("repair", root, "--yes")[0] == 0


# --- repair -----------------------------------------------------------------------------------------------------------


def test_a_plan_tells_the_choice_and_changes_nothing(root: Path, run: Run) -> None:
    replace(root / "m/v1/metadata.json", EDIT)
    before = everything(root)
    code, out = run("repair", root)
    assert code == 1
    assert out.splitlines() == [
        f"{root}: plan, nothing is changed yet",
        "  choose    m/v1/metadata.json: has no attribute of the engine: replaced by another program, or copied "
        "without attributes",
        "            --adopt: a commit sets the node's keys to those in the file",
        "            --revert: the log holds no content of it since the last checkpoint: restore it from a backup, or "
        "adopt it",
        "changed by hand: add --adopt or --revert (and --path, for some of them); otherwise they stay as they are",
    ]
    assert everything(root) == before
    code, out = run("repair", root, "--adopt", "--json")
    plan = json.loads(out)
    assert (code, list(plan)) == (1, REPAIR_KEYS)
    assert [step["action"] for step in plan["steps"]] == ["adopt"]
    assert everything(root) == before


def test_with_yes_an_edit_is_adopted_and_a_second_run_says_clean(root: Path, run: Run) -> None:
    replace(root / "m/v1/metadata.json", EDIT)
    (root / "m/v2/notes.txt").write_text("mine")
    code, out = run("repair", root, "--adopt", "--yes", "--path", "m/v1")
    assert code == 1 and "  adopted by commit 4" in out.splitlines()
    assert out.splitlines()[-2:] == [
        "what remains:",
        "  by hand  m/v2/notes.txt: a file the engine did not put here; it reads as a blob",
    ]
    code, out = run("repair", root, "--revert", "--yes", "--path", "m/v2/notes.txt")
    assert code == 0 and "  kept      .wal/quarantine/repaired/4/m/v2/notes.txt" in out.splitlines()
    assert run("repair", root, "--adopt", "--yes") == (0, f"{root}: clean: nothing to repair\n")
    with Metatree(root) as tree:
        assert dict(tree.find("m/v1").metadata) == {"auc": 0.5}


def test_a_copy_without_attributes_is_adopted_whole(root: Path, run: Run) -> None:
    copy = root.with_name("copy")
    shutil.copytree(root, copy, copy_function=shutil.copyfile)
    assert run("check", copy)[0] == 1
    assert run("repair", copy, "--adopt", "--yes")[0] == 0
    assert run("check", copy, "--deep")[0] == 0
    with Metatree(copy) as tree:
        assert dict(tree.find("m/v1").metadata) == {"auc": 0.9}


def test_rot_is_adopted_only_by_name(root: Path, run: Run) -> None:
    write_into(root / "m/v2/w", b"rotten!")
    code, out = run("repair", root, "--deep", "--adopt", "--yes")
    assert code == 6 and "  cannot    m/v2/w: " in out
    assert run("repair", root, "--deep", "--adopt", "--yes", "--path", "m/v2/w")[0] == 0
    assert run("check", root, "--deep")[0] == 0


def test_a_blob_that_is_missing_since_a_checkpoint_is_given_up_only_by_name(root: Path, run: Run) -> None:
    (root / "m/v2/w").unlink()
    code, out = run("check", root)
    assert code == 6 and "  DAMAGE   m/v2/w: is missing: commit " in out
    code, out = run("repair", root, "--adopt", "--yes")
    assert code == 6 and "  cannot    m/v2/w: " in out and out.count("backup") == 1 and "--adopt with --path" in out
    assert run("repair", root, "--adopt", "--yes", "--path", "m/v2/w")[0] == 0
    assert run("check", root, "--deep")[0] == 0


def test_what_a_killed_process_had_committed_is_kept_and_an_edit_of_it_can_be_adopted(root: Path, run: Run) -> None:
    left_by_a_killed_process(root)
    replace(root / "m/v3/metadata.json", EDIT)
    plan: dict[str, Any] = json.loads(run("repair", root, "--json")[1])
    assert {step["path"]: step["action"] for step in plan["steps"]} == {
        "m/v3/metadata.json": "revert",  # as any opener would
        ".wal": "recover",
    }
    code, out = run("repair", root, "--adopt", "--yes", "--json")
    done = json.loads(out)
    assert code == 0 and done["lsn"] == 5
    assert done["kept"] == [".wal/quarantine/edited/4/m/v3/metadata.json"]
    with Metatree(root) as tree:
        assert dict(tree.find("m/v3").metadata) == {"auc": 0.5}
        assert b"".join(tree.get("m/v3/w")) == b"three"
