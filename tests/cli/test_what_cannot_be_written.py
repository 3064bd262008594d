"""`check`, `repair`, `metatree-recover` where files may not be written: what was committed is in the log, undamaged."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from metatree import Metatree, UnavailableError, recover_command
from metatree.cli.check import code_of
from metatree.cli.ending import Code
from metatree.findings import Weight
from tests.tree.model import ROOT, MemoryPosix, empty_disk, open_tree
from wal.testing import Boundary, Call

T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parents[2]
AS_ANOTHER = """
import os, sys
sys.path.insert(0, sys.argv.pop(1))
import ctypes, hashlib, json, portalocker  # before the rights to read the libraries may be gone
from metatree import Metatree, recover_command
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""
COMMITS = """
Metatree(sys.argv[1]).update("m", active="v1")
os._exit(0)
"""
REFUSALS = [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT]


class Refuses(Boundary):
    """A disk on which nothing below one folder may be changed."""

    def __init__(self, disk: MemoryPosix, folder: str, number: int) -> None:
        super().__init__(disk)
        self._folder = f"{ROOT}/{folder}/"
        self.refusal: int | None = number

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        targets = (call.path, *(name for name in call.arguments if isinstance(name, str)))
        if call.number and self.refusal is not None and any(name.startswith(self._folder) for name in targets):
            raise OSError(self.refusal, os.strerror(self.refusal), call.path)
        return run()


def behind(tree: Metatree) -> None:
    """A commit that the disk does not let the files follow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree.update("m", active="v1")


@pytest.mark.parametrize("number", REFUSALS)
def test_what_may_not_be_written_is_behind_the_log_and_no_damage(number: int) -> None:
    disk = empty_disk()
    with open_tree(disk) as tree:
        tree.put("m/v1", b"weights", name="w")
    posix = Refuses(disk, "m", number)
    with open_tree(posix) as tree:
        behind(tree)
        report = tree.check(deep=True)
        (found,) = report.problems
        assert (found.path, found.kind, found.weight) == ("m", "cannot-write", Weight.RECOVERY), str(report)
        assert os.strerror(number) in found.reason and "behind the log" in found.reason
        assert not report.ok and code_of(report) == Code.RECOVERY_NEEDED
        (step,) = tree.repair(dry_run=True).steps
        assert step.action == "cannot" and "backup" not in step.detail and "may write" in step.detail
        posix.refusal = None
        assert tree.check(deep=True).clean


def test_a_commit_whose_staged_content_is_lost_is_damage() -> None:
    disk = empty_disk()
    with open_tree(disk) as tree:
        tree.put("m/v1", b"weights", name="w")
    posix = Refuses(disk, "m", errno.EACCES)
    with open_tree(posix) as tree:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree.put("m/v1", b"x" * 100_000, name="large")
        (staged,) = disk.listdir(f"{ROOT}/.wal/staged")
        for name in disk.listdir(f"{ROOT}/.wal/staged/{staged}"):
            disk.unlink(f"{ROOT}/.wal/staged/{staged}/{name}")
        posix.refusal = None
        report = tree.check()
        assert {found.kind for found in report.problems} == {"not-applied", "content-missing"}
        assert code_of(report) == Code.CORRUPTION
        tree.delete("m/v1/large")


def run(program: str, *arguments: object) -> tuple[int, str]:
    """A program as a user who is not the superuser: (exit code, stdout)."""
    command = [sys.executable, "-c", AS_ANOTHER + program, str(CHECKOUT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


@pytest.fixture
def root() -> Iterator[Path]:
    """A tree of that user, with a commit that its files could not follow, in a folder that he may search."""
    with tempfile.TemporaryDirectory(prefix="metatree-test-") as folder:
        Path(folder).chmod(0o755)
        root = Path(folder, "tree")
        with Metatree(root, ("model", "version")) as tree:
            tree.put("m/v1", b"weights", name="w")
        if os.geteuid() == 0:
            for path in (root, *root.rglob("*")):
                os.chown(path, 65534, 65534)
        (root / "m").chmod(0o555)
        run(COMMITS, root)
        yield root
        (root / "m").chmod(0o755)


def test_a_recovery_that_may_not_write_says_so_and_not_that_damage_remains(root: Path) -> None:
    recover = "sys.exit(recover_command.main())"
    for _ in range(2):
        code, out = run(recover, root)
        assert code == 2 and "NOT brought up to date: m: PermissionError" in out, out
        assert "DAMAGE" not in out and "damage" not in out and "backup" not in out
        assert out.splitlines()[-1].startswith("not all could be read or written: ")
    code, out = run(recover, root, "--json")
    assert (code, json.loads(out)["clean"], [*json.loads(out)["failed"]]) == (2, False, ["m"])
    assert [found["weight"] for found in json.loads(out)["damage"]] == ["recovery"]
    (root / "m").chmod(0o755)
    assert run(recover, root)[0] == 0
    assert json.loads((root / "m/metadata.json").read_text())["active"] == "v1"


def test_a_recovery_that_meets_damage_as_well_says_that(root: Path) -> None:
    (root / "m/v1/metadata.json").write_bytes(b"{")
    code, out = run("sys.exit(recover_command.main())", root)
    assert code == 1 and "NOT brought up to date: m: PermissionError" in out
    assert "  DAMAGE: m/v1/metadata.json" in out and out.splitlines()[-1].startswith("damage remains: ")


@pytest.mark.parametrize("name", [".wal", ".", ".metatree", ".wal/checkpoint.json"])
@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["recover", "plan"])
def test_a_recovery_that_may_not_read_a_tree_does_not_say_that_damage_remains(
    root: Path, name: str, more: list[str]
) -> None:
    mode = (root / name).stat().st_mode
    (root / name).chmod(0)
    code, out = run("sys.exit(recover_command.main())", root, "--json", *more)
    (root / name).chmod(mode)
    assert (code, json.loads(out)["error"]) == (2, "UnavailableError")
    assert "Permission denied" in json.loads(out)["message"]


# --- no space ---------------------------------------------------------------------------------------------------------


class Full(Boundary):
    """A disk without space for another file; the log was given its space before, and changes in place."""

    def __init__(self, disk: MemoryPosix, number: int) -> None:
        super().__init__(disk)
        self.number = number

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if self.number and call.method == "pwrite" and not call.path.endswith((".log", "/head")):
            raise OSError(self.number, os.strerror(self.number))  # without a name, as the system does
        return run()


ADVICE = {errno.ENOSPC: "the disk is full: free space", errno.EDQUOT: "the quota is used up: free space or raise it"}


@pytest.mark.parametrize("number", ADVICE)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside a writer"])
def test_a_recovery_on_a_full_disk_says_that_and_finds_no_damage(
    number: int, alone: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = empty_disk()
    with open_tree(disk) as tree:
        tree.put("m/v1", b"weights", name="w")
    full = Full(disk, 0)
    tree = open_tree(full)
    tree.update(wal_mark=1)  # what a replay writes again, and any other pass finds in place
    full.number = number
    behind(tree)
    if alone:
        tree._engine.abandon()
    opened = lambda root, read_only=False, storage_options=None: open_tree(full, read_only=read_only)  # noqa: E731
    monkeypatch.setattr(recover_command, "Metatree", opened)
    code = recover_command.main([ROOT])
    said = capsys.readouterr()
    text = said.out + said.err
    assert code == 2 and os.strerror(number) in text, text
    assert ADVICE[number] in text.splitlines()[-1] and "DAMAGE" not in text and "backup" not in text
    assert not alone or "the root: OSError" in text
    if not alone:
        tree._engine.abandon()
    full.number = 0
    assert recover_command.main([ROOT]) == 0


def test_a_full_disk_is_named_with_its_tree_and_what_to_do() -> None:
    disk = empty_disk()
    with open_tree(disk) as tree:
        tree.put("m/v1", b"weights", name="w")
    full = Full(disk, errno.ENOSPC)
    with pytest.raises(UnavailableError) as caught, open_tree(full) as tree:
        tree.put("m/v2", b"x" * 100_000, name="large")
    advice = "nothing was changed. The disk is full: free space, then try again"
    assert str(caught.value) == f"{ROOT}: [Errno 28] No space left on device; {advice}"
