"""The command `metatree` itself: how it is found, what it says when it cannot work, and how it ends."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import metatree

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


def test_an_unknown_command_is_wrong_usage() -> None:
    done = run("-m", "metatree.cli", "no-such")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'no-such'" in done.stderr


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
