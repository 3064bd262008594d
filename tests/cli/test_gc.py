"""`metatree gc` as an operator meets it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from metatree import Metatree
from metatree.cli.app import commands

DEAD = "0-00112233445566aa"
KEYS = ["root", "clean", "done", "old", "scratch", "young", "foreign", "bytes", "kept", "erased", "exit"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree that a living writer has open (else opening it is a recovery), with what another one left."""
    return tmp_path / "tree"


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(commands, ["gc", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


def test_the_plan_is_printed_and_done_with_yes(root: Path) -> None:
    with Metatree(root, ("model", "version")):
        folder = root / ".wal/staged" / DEAD
        folder.mkdir(parents=True)
        (folder / "1").write_bytes(b"1234")
        for path in (folder / "1", folder):
            os.utime(path, (time.time() - 7200,) * 2)
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        code, out = run(root)
        assert code == 0 and f"young     .wal/staged/{DEAD}" in out
        code, out = run(root, "--older-than", "1h")
        assert code == 1 and f"old       .wal/staged/{DEAD}" in out and out.endswith("--yes to do this\n")
        code, out = run(root, "--older-than", "90m", "--json")
        plan = json.loads(out)
        assert (code, plan["exit"], list(plan)) == (1, 1, KEYS)
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
        code, out = run(root, "--older-than", "1h", "--yes")
        assert code == 0 and f"kept      .wal/quarantine/staged/{DEAD}" in out
        assert not folder.exists()
        assert run(root, "--older-than", "0s", "--yes") == (0, f"{root}: clean: nothing to remove\n")


@pytest.mark.parametrize("wrong", ["", "1", "h", "-1h", "1 h", "1w", "1.5h"])
def test_a_wrong_duration_is_usage(root: Path, wrong: str) -> None:
    Metatree(root, ("model", "version")).close()
    assert run(root, f"--older-than={wrong}")[0] == 2


def test_no_tree_is_usage_in_json_too(tmp_path: Path) -> None:
    code, out = run(tmp_path / "nothing", "--json")
    assert code == 2 and "error" in json.loads(out)
