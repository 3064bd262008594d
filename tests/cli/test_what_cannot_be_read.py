"""`metatree check` and `repair` of files that the user may not read: whole or damaged, nothing is known of them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from metatree import Metatree
from tests.tree.model import ROOT, MemoryPosix, empty_disk, open_tree
from wal.testing import ALL_CALLS, Boundary, Call

T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parents[2]
AS_ANOTHER = """
import os, sys
sys.path.insert(0, sys.argv.pop(1))
import ctypes, hashlib, json, portalocker  # before the rights to read the libraries may be gone
from metatree.cli import check, repair
from metatree.cli.app import commands
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
commands()
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """A tree that any user may read, in a folder of which that is true all the way up."""
    with tempfile.TemporaryDirectory(prefix="metatree-test-") as folder:
        Path(folder).chmod(0o755)
        root = Path(folder, "tree")
        with Metatree(root, ("model", "version")) as tree:
            tree.put("m/v1", b"weights", name="w")
            tree.put("m/v2", b"weights", name="w")
            tree.put("n/v1", b"weights", name="w")
        yield root
        (root / "m/v1").chmod(0o700)


def run(*arguments: object) -> tuple[int, str]:
    """The command as a user who is not the superuser: (exit code, stdout)."""
    command = [sys.executable, "-c", AS_ANOTHER, str(CHECKOUT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in range(8) and "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def found(out: str) -> dict[str, str]:
    report = json.loads(out)
    return {each["path"]: each["kind"] for each in (*report["problems"], *report["notes"])}


@pytest.mark.parametrize("name", ["m/v1/metadata.json", "m/v1/w", "m/v1", "m/metadata.json"])
def test_what_this_user_may_not_read_is_no_damage(root: Path, name: str) -> None:
    (root / name).chmod(0)
    shown = "m/v1/metadata.json" if name == "m/v1" else name  # the first in it that is asked for
    code, out = run("check", root, "--deep", "--json")
    assert (code, found(out)) == (2, {shown: "cannot-read"})
    assert json.loads(out)["problems"][0]["weight"] == "cannot read" and not json.loads(out)["ok"]
    code, out = run("check", root, "--deep")
    assert code == 2 and "DAMAGE" not in out and "backup" not in out
    assert f"{shown}: cannot be read: Permission denied" in out and "as a user who may read it" in out
    if name != "m/v1":
        assert f"(it belongs to {(root / name).owner()})" in out


def test_damage_beside_it_is_worse(root: Path) -> None:
    (root / "m/v1/metadata.json").chmod(0)
    (root / "n/v1/metadata.json").unlink()
    code, out = run("check", root, "--json")
    assert (code, found(out)) == (6, {"m/v1/metadata.json": "cannot-read", "n/v1/metadata.json": "node-missing"})


def test_repair_plans_nothing_for_it(root: Path) -> None:
    (root / "m/v1/metadata.json").chmod(0)
    code, out = run("repair", root, "--json")
    (step,) = json.loads(out)["steps"]
    assert (code, step["action"], step["kind"]) == (2, "cannot", "cannot-read")
    assert "backup" not in step["detail"] and "may read it" in step["detail"]


def test_one_edit_that_cannot_be_adopted_does_not_stop_the_others(root: Path) -> None:
    if os.geteuid() == 0:
        for path in (root, *root.rglob("*")):
            os.chown(path, 65534, 65534)
    for name in ("m", "n"):
        file = root / name / "metadata.json"
        file.write_text(json.dumps({**json.loads(file.read_bytes()), "note": 1}))
    (root / "m/v1").chmod(0)  # whether it is a node, as the list says, cannot be seen
    code, out = run("repair", root, "--adopt", "--yes", "--json")
    (root / "m/v1").chmod(0o755)
    done = json.loads(out)
    assert "Permission denied" in done["failed"]["m/metadata.json"] and [*done["failed"]] == ["m/metadata.json"]
    assert code == 2 and not done["clean"]
    with Metatree(root, read_only=True) as tree:
        assert tree.find("n").metadata["note"] == 1
        assert [each.path for each in tree.check().problems] == ["m/metadata.json"]


class Refuses(Boundary):
    """A disk that does not give out what is in one file or folder."""

    def __init__(self, disk: MemoryPosix, name: str, number: int) -> None:
        super().__init__(disk, counted=ALL_CALLS)
        self._path = f"{ROOT}/{name}"
        self._refusal = number

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.path == self._path and call.method in ("open_read", "listdir", "getxattr"):
            raise OSError(self._refusal, os.strerror(self._refusal), call.path)
        return run()


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize("name", ["m/v1/metadata.json", "m/v1/w", "m/v1"])
def test_what_the_system_does_not_give_out_is_told_apart_from_damage(name: str, number: int, read_only: bool) -> None:
    disk = empty_disk()
    with open_tree(disk) as tree:
        tree.put("m/v1", b"weights", name="w")
    with open_tree(Refuses(disk, name, number), read_only=read_only) as tree:
        report = tree.check(deep=True)
        assert [(each.path, each.kind) for each in report.problems] == [(name, "cannot-read")], str(report)
        assert os.strerror(number) in report.problems[0].reason
        (step,) = tree.repair(dry_run=True, deep=True).steps
        assert step.action == "cannot"
