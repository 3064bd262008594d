"""`metatree repair` of a tree whose writer was killed: what the recovery kept of edits is adopted, left or told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metatree import Metatree

Run = Callable[..., tuple[int, str]]


def killed(root: Path, *lines: str) -> None:
    """What a process leaves that did this with `tree` and was killed."""
    program = ["import os, sys", "from metatree import Metatree", "tree = Metatree(sys.argv[1], ('model', 'version'))"]
    program += [*lines, "os._exit(0)"]
    subprocess.run([sys.executable, "-c", "\n".join(program), str(root)], check=True)


def write_into(file: Path, data: bytes) -> None:
    """As a program that opens it for writing, or as decay: the file keeps its attribute."""
    with file.open("r+b") as opened:
        opened.truncate(0)
        opened.write(data)


def replace(file: Path, data: bytes) -> None:
    """As `sed -i` and editors do: the new file has no attribute."""
    file.unlink()
    file.write_bytes(data)


def planned(out: str) -> dict[str, str]:
    return {step["path"]: step["action"] for step in json.loads(out)["steps"]}


def blob(root: Path, location: str) -> bytes:
    with Metatree(root, read_only=True) as tree:
        return b"".join(tree.get(location))


def test_a_second_edit_of_one_blob_is_not_taken_for_one_of_the_blob_beside_it(root: Path, run: Run) -> None:
    """The copy of the second edit is numbered, which gives it the name of the other blob."""
    killed(root, "tree.put('m/v', b'one', name='w')", "tree.put('m/v', b'two', name='w.1')")
    write_into(root / "m/v/w", b"edit 1")
    killed(root)
    write_into(root / "m/v/w", b"edit 2")
    code, out = run("repair", root, "--adopt", "--path", "m/v", "--deep", "--yes", "--json")
    done: dict[str, Any] = json.loads(out)
    assert code == 0 and planned(out) == {"m/v/w": "adopt"}
    assert [name.rpartition("/")[2] for name in done["kept"]] == ["w.1"]
    assert (blob(root, "m/v/w"), blob(root, "m/v/w.1")) == (b"edit 2", b"two")


@pytest.mark.parametrize("deep", [("--deep",), ()])
def test_rot_that_a_recovery_replaced_is_adopted_only_by_name(deep: tuple[str, ...], root: Path, run: Run) -> None:
    killed(root, "tree.put('m/v', b'good content', name='w')")
    write_into(root / "m/v/w", b"good context")
    if deep:
        plan = run("repair", root, "--adopt", *deep)[1]
        assert "  revert    m/v/w: " in plan and "it is adopted only if --path names it" in plan
    code, out = run("repair", root, "--adopt", "--yes", *deep)
    (kept,) = (line.split()[-1] for line in out.splitlines() if line.startswith("  kept      "))
    assert code == 0 and "adopted by" not in out and ("  revert    m/v/w: " in out) is bool(deep)
    assert (root / kept).read_bytes() == b"good context"
    assert blob(root, "m/v/w") == b"good content"


@pytest.mark.parametrize("deep", [("--deep",), ()])
def test_a_blob_that_was_edited_in_place_is_adopted_from_the_quarantine_by_name(
    deep: tuple[str, ...], root: Path, run: Run
) -> None:
    killed(root, "tree.put('m/v', b'good content', name='w')")
    write_into(root / "m/v/w", b"good context")
    with Metatree(root) as tree:  # recovers
        (kept,) = tree.recover().edited
        plan = tree.repair(edits="adopt", dry_run=True)
        assert (plan.steps, plan.kept) == ([], [kept])
        plan = tree.repair(edits="adopt", paths=["m/v/w"], deep=bool(deep), dry_run=True)
        assert [(step.path, step.action, step.source) for step in plan.steps] == [("m/v/w", "adopt", kept)]
        assert tree.repair(edits="adopt", paths=["m/v/w"], deep=bool(deep)).clean
    assert blob(root, "m/v/w") == b"good context"


def test_a_metadata_json_in_a_directory_blob_is_adopted_as_a_blob(root: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/metadata.json").write_bytes(b'{"orig": 1}')
    killed(root, f"tree.put('m/v', {str(tmp_path / 'd')!r}, name='d', recursive=True)")
    (root / "m/v/d/metadata.json").write_bytes(b'{"hand": 1}')
    path = "m/v/d/metadata.json"
    code, out = run("repair", root, "--deep", "--adopt", "--path", path, "--yes", "--json")
    assert code == 0 and planned(out) == {path: "adopt"}
    assert blob(root, path) == b'{"hand": 1}'


@pytest.mark.parametrize("edit", [b'{"a":', b"[]"])
@pytest.mark.parametrize("write", [write_into, replace])
def test_a_kept_edit_that_no_node_can_have_is_told_and_not_adopted(
    write: Callable[[Path, bytes], Any], edit: bytes, root: Path, run: Run
) -> None:
    killed(root, "tree.put('m/v', b'good content', name='w')", "tree.update('m/v', x=1)")
    write(root / "m/v/metadata.json", edit)
    code, out = run("repair", root, "--adopt", "--yes")
    assert code == 0 and "FAILED" not in out and "adopt" not in out
    (kept,) = (line.split()[-1] for line in out.splitlines() if line.startswith("  kept      "))
    assert (root / kept).read_bytes() == edit
    with Metatree(root, read_only=True) as tree:
        assert dict(tree.find("m/v").metadata) == {"x": 1}


def test_what_the_plan_promised_and_nobody_did_is_not_told_as_done(
    root: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process repairs the tree between the plan and its opening for writing."""
    (root / "m/v1/notes").write_bytes(b"mine")
    repair = Metatree.repair

    def overtaken(tree: Metatree, **options: Any) -> Any:
        plan = repair(tree, **options)
        (root / "m/v1/notes").unlink(missing_ok=True)
        return plan

    monkeypatch.setattr(Metatree, "repair", overtaken)
    code, out = run("repair", root, "--adopt", "--yes")
    assert code == 0 and "m/v1/notes" not in out
