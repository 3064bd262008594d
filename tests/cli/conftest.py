"""The command, and a tree for it to look after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from metatree import Metatree
from metatree.cli.app import commands

Run = Callable[..., tuple[int, str]]


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
    """The command in this process: (exit code, stdout)."""

    def run(*arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(commands, [str(argument) for argument in arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout

    return run
