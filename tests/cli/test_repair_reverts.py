"""`metatree repair` with choices: what `--revert` brings back and leaves alone, what `--path` names, how it is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from metatree import Metatree
from metatree.cli.app import commands

Run = Callable[..., tuple[int, str]]

OLD = Path(__file__).parents[1] / "tree/data/metatreedb-0.2.3"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree after a clean close."""
    with Metatree(tmp_path / "tree", ("model", "version")) as tree:
        tree.put("m/v1", b"weights", name="w")
        tree.update("m/v1", auc=0.9)
        tree.put("m/v2", b"weights", name="w")
    return tmp_path / "tree"


@pytest.fixture
def run() -> Run:
    """The command in this process: (exit code, stdout and stderr)."""

    def run(*arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(commands, ["repair", *map(str, arguments)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    return run


def plain(root: Path) -> dict[str, bytes]:
    """Every file but the engine's own."""
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {name: data for name, data in files.items() if not name.startswith((".wal", ".lock", ".metatree"))}


# --- what the engine did not put there --------------------------------------------------------------------------------


def copied(root: Path) -> Path:
    """As `cp -r` does, without attributes."""
    copy = root.with_name("copy")
    shutil.copytree(root, copy, copy_function=shutil.copyfile)
    return copy


def adopted(root: Path) -> Path:
    """A tree of metatreedb 0.2.3 after its first opening."""
    old = root.with_name("old")
    shutil.copytree(OLD / "tree", old, copy_function=shutil.copyfile)
    Metatree(old).close()
    return old


@pytest.mark.parametrize("made", [copied, adopted])
def test_a_revert_leaves_every_blob_of_a_tree_without_marks(made: Callable[[Path], Path], root: Path, run: Run) -> None:
    tree = made(root)
    before = plain(tree)
    code, out = run(tree, "--revert", "--yes")
    assert code == 1 and "  left alone: " in out
    assert plain(tree) == before
    assert not (tree / ".wal/quarantine/repaired").exists()
    assert run(tree, "--adopt", "--yes")[0] == 0
    assert plain(tree) == before


def test_a_revert_leaves_foreign_files_and_folders_and_says_so(root: Path, run: Run) -> None:
    (root / ".git").mkdir()
    (root / ".git/HEAD").write_text("ref: refs/heads/main")
    (root / ".DS_Store").write_bytes(b"\0")
    (root / "m/v1/notes.txt").write_text("mine")
    before = plain(root)
    told = (
        "  left alone: 2 files and 1 folder the engine did not put here; --adopt takes files in, "
        "--revert --path NAME sets one aside"
    )
    code, out = run(root, "--revert")
    assert code == 1 and told in out.splitlines()
    assert "run it again with --yes" not in out
    code, out = run(root, "--revert", "--yes")
    assert code == 1 and told in out.splitlines()
    assert out.splitlines()[-4] == "what remains:"
    assert plain(root) == before
    assert {step["action"] for step in json.loads(run(root, "--revert", "--json")[1])["steps"]} == {"leave"}


def test_a_revert_sets_aside_what_is_named_and_not_what_is_below_it(root: Path, run: Run) -> None:
    (root / ".git").mkdir()
    (root / ".git/HEAD").write_text("ref: refs/heads/main")
    (root / "m/v1/notes.txt").write_text("mine")
    assert run(root, "--revert", "--yes", "--path", "m/v1")[0] == 1
    assert (root / "m/v1/notes.txt").exists()
    code, out = run(root, "--revert", "--yes", "--path", ".git/", "--path", "m/v1/notes.txt")
    assert code == 0 and "  kept      .wal/quarantine/repaired/.git" in out.splitlines()
    assert (root / ".wal/quarantine/repaired/m/v1/notes.txt").read_text() == "mine"
    assert not (root / ".git").exists()


def test_a_plan_tells_that_a_revert_leaves_what_is_not_named(root: Path, run: Run) -> None:
    (root / "m/v1/notes.txt").write_text("mine")
    assert "            --revert: left alone, unless --path names it" in run(root)[1].splitlines()
    assert "            --revert: goes to .wal/quarantine" in run(root, "--path", "m/v1/notes.txt")[1].splitlines()
