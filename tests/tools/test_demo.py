"""tools/demo.py as `make demo` starts it, and that it says so when something is not as promised."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def run(checkout: Path, temporary: Path) -> subprocess.CompletedProcess[str]:
    """The demo of a checkout, with its temporary folders below `temporary`."""
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(checkout), "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(checkout / "tools" / "demo.py")]
    # elsewhere than in the checkout: `python -m` would find that one's packages first
    return subprocess.run(command, env=environment, cwd=temporary, capture_output=True, text=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the demo needs, to break things in."""
    copy = tmp_path / "checkout"
    for name in ("metatree", "wal", "tools"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "metatreedb.py"):
        shutil.copy(CHECKOUT / name, copy / name)
    return copy


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file.name} has changed; change this test with it"
    file.write_text(text.replace(old, new, 1))


def test_the_demo_keeps_every_promise_prints_the_same_each_time_and_leaves_nothing_behind(tmp_path: Path) -> None:
    first, second = run(CHECKOUT, tmp_path), run(CHECKOUT, tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.count("[ok]") == 12
    assert 'metatree = Metatree("/tmp/my-model-repository", ("model", "version"))' in first.stdout  # verbatim
    assert "clean: nothing to replay, nothing to set aside" in first.stdout
    assert without_random_names(second.stdout) == without_random_names(first.stdout)
    assert list(tmp_path.iterdir()) == []


def without_random_names(text: str) -> str:
    """The text without the temporary folder's name and the transaction ids, which are made of chance."""
    return re.sub(r"metatree-demo-\w+|staged/[0-9a-f]+-[0-9a-f]{16}", "...", text)


def test_a_quick_start_that_leaves_something_else_fails_the_demo(checkout: Path, tmp_path: Path) -> None:
    change(checkout / "README.md", 'metatree.update(active="v2")', 'metatree.update(active="v1")')
    done = run(checkout, tmp_path)
    assert done.returncode == 1
    assert "NOT AS PROMISED: every metadata.json holds what the README says" in done.stderr


def test_a_readme_without_its_quick_start_fails_the_demo(checkout: Path, tmp_path: Path) -> None:
    change(checkout / "README.md", "## Quick start", "## Start")
    assert "README.md has its quick start" in run(checkout, tmp_path).stderr


def test_a_recovery_that_forgets_a_commit_fails_the_demo(checkout: Path, tmp_path: Path) -> None:
    change(
        checkout / "metatree" / "recovery.py",
        "        effect, records = fold_counted(log, redo, head)",
        "        effect, records = fold_counted(log, head, head)",
    )
    done = run(checkout, tmp_path)
    assert done.returncode == 1
    assert "NOT AS PROMISED" in done.stderr


def test_a_half_transaction_in_the_folders_fails_the_demo(checkout: Path, tmp_path: Path) -> None:
    change(
        checkout / "tools" / "crash_demo.py",
        'print("in the middle", flush=True)',
        'os.mkdir(f"{root}/my-awful-model/v5"); open(f"{root}/my-awful-model/v5/weights.bin", "w").close()\n'
        '        print("in the middle", flush=True)',
    )
    done = run(checkout, tmp_path)
    assert done.returncode == 1
    assert "the folders show neither" in done.stderr
