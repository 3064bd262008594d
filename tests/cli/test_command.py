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


def test_a_reader_that_leaves_early_causes_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m metatree.cli doctor {tmp_path} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=CHECKOUT)
    assert done.stderr == ""
