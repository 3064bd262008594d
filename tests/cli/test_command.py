"""The command `metatree` itself: how it is found, what it says when it cannot work, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

import metatree
from metatree.cli import app
from metatree.cli.app import commands
from metatree.recover_command import main as metatree_recover

CHECKOUT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=CHECKOUT)


def test_the_entry_point_is_the_command() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["metatree"].partition(":")
    assert callable(getattr(import_module(module), name))
    assert [each for each in project["dependencies"] if each.startswith("click")] == []
    assert [each for each in project["optional-dependencies"]["cli"] if each.startswith("click")]


def test_without_click_it_says_what_to_install_and_ends_with_two() -> None:
    hidden = "import sys; sys.modules['click'] = None\nfrom metatree.cli import main\nsys.exit(main())"
    done = run("-c", hidden)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "metatree: the command needs the package click: pip install 'metatreedb[cli]'\n"


@pytest.mark.parametrize("module", ["metatree", "metatree.cli"])
def test_the_version_is_that_of_the_package(module: str) -> None:
    done = run("-m", module, "--version")
    assert (done.returncode, done.stdout) == (0, f"metatree, version {metatree.__version__}\n")


def test_help_names_the_commands_and_is_no_error() -> None:
    done = run("-m", "metatree.cli", "--help")
    assert done.returncode == 0
    assert "doctor" in done.stdout and "metatree-recover" in done.stdout
    assert "..." not in done.stdout.partition("Commands:")[2]  # no sentence is cut
    alone = run("-m", "metatree.cli")
    assert (alone.returncode, alone.stdout) == (2, "") and "\n  doctor " in alone.stderr


def test_an_unknown_command_is_wrong_usage() -> None:
    done = run("-m", "metatree.cli", "no-such")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'no-such'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "knows", "message"),
    [
        (["check"], False, "Missing argument 'ROOT'"),
        (["check", "{root}", "more"], True, "unexpected extra argument (more)"),
        (["check", "{root}", "--no-such"], False, "No such option"),
        (["gc", "{root}", "--older-than", "xx"], True, "'xx' is not a duration"),
        (["gc", "--older-than", "xx", "{root}", "-o", "key"], True, "'xx' is not a duration"),
        (["repair", "--adopt", "--revert"], False, "Missing argument 'ROOT'"),
        (["repair", "--adopt", "--revert", "{root}"], True, "exclude each other"),
        (["doctor"], False, "Missing argument 'URL'"),
        (["no-such"], False, "No such command 'no-such'"),
    ],
    ids=str,
)
def test_wrong_usage_is_one_object_with_json(
    arguments: list[str],
    knows: bool,
    message: str,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["metatree", *(each.format(root=root) for each in arguments)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert app._run() == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err
    monkeypatch.setattr(sys, "argv", [*arguments, "--json"])
    assert app._run() == 2
    found = json.loads(capsys.readouterr().out)
    assert message in found.pop("message")
    assert found == {"root": str(root) if knows else None, "error": "UsageError", "exit": 2}


def test_a_file_name_in_wrong_usage_is_escaped(root: Path) -> None:
    done = run("-m", "metatree.cli", "check", str(root), "\x1b[2J")
    assert r"unexpected extra argument (\x1b[2J)" in done.stderr


COMMANDS = ["metatree.cli check", "metatree.cli repair", "metatree.recover_command"]


def bash(command: str, module: str, root: Path) -> subprocess.CompletedProcess[str]:
    command = command.format(f"{sys.executable} -m {module} {root}")
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=CHECKOUT)


@pytest.fixture
def deviating(root: Path) -> Path:
    """A tree with something to report about a node with a Chinese name."""
    with metatree.Metatree(root) as tree:
        tree.put("模型/v1", b"weights", name="w")
    (root / "模型/v1/w").unlink()
    (root / "模型/v1/w").symlink_to("/etc/hostname")
    return root


@pytest.mark.parametrize("module", COMMANDS)
def test_a_name_that_stdout_has_no_letters_for_is_printed_all_the_same(module: str, deviating: Path) -> None:
    plain = bash("PYTHONIOENCODING=utf-8 {}", module, deviating)
    done = bash("PYTHONIOENCODING=latin-1 {}", module, deviating)
    assert (done.returncode, done.stderr) == (plain.returncode, plain.stderr)
    assert "模型/v1/w" in plain.stdout
    assert done.stdout == plain.stdout.replace("模型", r"\u6a21\u578b")


@pytest.mark.parametrize("module", COMMANDS)
def test_a_stdout_that_takes_nothing_is_a_message_and_the_exit_code_two(module: str, deviating: Path) -> None:
    done = bash("{} > /dev/full", module, deviating)
    program = "metatree-recover" if "recover" in module else "metatree"
    assert (done.returncode, done.stdout) == (2, "")
    why = "its output cannot be written: [Errno 28] No space left on device; run it again with another stdout"
    assert done.stderr == f"{program}: {why}\n"


@pytest.mark.parametrize("module", COMMANDS)
def test_a_closed_stdout_changes_no_exit_code(module: str, deviating: Path) -> None:
    done = bash("{} >&-", module, deviating)
    assert (done.returncode, done.stderr) == (bash("{}", module, deviating).returncode, "")


def test_a_reader_that_leaves_early_causes_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m metatree.cli doctor {tmp_path} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=CHECKOUT)
    assert done.stderr == ""


# --- names of others --------------------------------------------------------------------------------------------------

CLEARS, FORGES, TURNS = "\x1b[2J\x1b[H", "x\ntree: clean: nothing to repair", "\u202egpj.exe\x07\x9b2J"


@pytest.fixture
def hostile(root: Path) -> Path:
    """A tree whose author gave files names that a terminal obeys, wherever a command looks."""
    for name in (CLEARS, FORGES, TURNS):
        (root / "m/v1" / name).write_bytes(b"x")
        (root / "m/v2" / f"link {name}").symlink_to("/etc/hostname")
        (root / "m" / f"folder {name}").mkdir()
    leave(root)
    return root


def leave(root: Path) -> None:
    for name in (CLEARS, FORGES, TURNS):
        (root / ".wal/staged" / f"staged {name}").mkdir(parents=True)
        (root / ".wal/tmp").mkdir(exist_ok=True)
        (root / ".wal/tmp" / f"scratch {name}").write_bytes(b"x")
        os.utime(root / ".wal/tmp" / f"scratch {name}", (0, 0))


def assert_harmless(out: str, lines: int) -> None:
    """No character but those of colours and ends of lines is obeyed, and no line is another's."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert all(line.isprintable() for line in plain.split("\n")), plain
    assert not [line for line in plain.split("\n") if line.startswith("tree: ")]
    assert sum(r"\x1b[2J\x1b[H" in line for line in plain.split("\n")) >= lines, plain


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["check"], 5),
        (["repair"], 3),
        (["repair", "--adopt", "--yes"], 2),
        (["repair", "--revert", "--path", "m", "--path", f"m/v1/{CLEARS}", "--yes"], 2),
        (["repair", "--path", f"m/{CLEARS}"], 1),
        (["gc", "--older-than", "0s"], 2),
        (["gc", "--older-than", "0s", "--yes"], 1),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_names_that_a_terminal_would_obey_are_escaped(arguments: list[str], lines: int, hostile: Path) -> None:
    command, *more = arguments
    with metatree.Metatree(hostile):  # sets aside what is left
        leave(hostile)
        done = CliRunner().invoke(commands, [command, str(hostile), *more], color=True)
        assert_harmless(done.output, lines)
        if "--path" not in more:
            found = CliRunner().invoke(commands, [command, str(hostile), *more, "--json"])
            json.loads(found.stdout)
            assert all(line.isprintable() for line in found.stdout.split("\n"))


def test_a_recovery_escapes_them_too(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (["--dry-run"], []):
        metatree_recover([str(hostile), *more])
        out, err = capsys.readouterr()
        assert_harmless(out, 2)
        assert err == ""


def test_messages_of_errors_escape_them_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / f"no {CLEARS}"
    for command in ("check", "repair", "gc", "doctor"):
        done = CliRunner().invoke(commands, [command, str(missing)], color=True)
        assert done.exit_code == (0 if command == "doctor" else 2)
        assert_harmless(done.output, 1)
    assert metatree_recover([str(missing)]) == 2
    assert_harmless(capsys.readouterr().err, 1)
