"""The parts that the commands share: exit codes, `--json`, progress."""

from __future__ import annotations

import json
import sys

import click
import pytest
from click.testing import CliRunner

import metatree
import wal
from metatree.cli.ending import Code, code_of, ending
from metatree.cli.progress import Progress
from metatree.cli.trees import opened, tree_command


def test_each_error_has_its_exit_code() -> None:
    codes = {
        metatree.NodeNotFoundError("x"): 3,
        metatree.BlobNotFoundError("x"): 3,
        metatree.ConflictError("x"): 4,
        metatree.LockTimeoutError("x"): 5,
        metatree.CorruptionError("x"): 6,
        metatree.CommitUnknownError("x", "1-ab"): 7,
        metatree.UnavailableError("x"): 2,
        metatree.MetatreeError("x"): 2,
        metatree.FormatError("x"): 2,
        metatree.ReadOnlyError("x"): 2,
        TypeError("x"): 2,
    }
    assert {type(error).__name__: int(code_of(error)) for error in codes} == {
        type(error).__name__: code for error, code in codes.items()
    }
    unsafe = metatree.InvalidLocationError("x")
    unsafe.__cause__ = wal.UnsafePathError("x")
    assert code_of(unsafe) is Code.CORRUPTION


@click.command()
@tree_command
@click.pass_context
def keys(context: click.Context, root: str, options: dict[str, object], as_json: bool) -> None:
    with ending(context, root, as_json=as_json), opened(root, options, read_only=True) as tree:
        click.echo(json.dumps(tree.keys))


def test_an_error_is_a_message_and_with_json_an_object_as_well() -> None:
    done = CliRunner().invoke(keys, ["/no/such"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "keys: /no/such: MetatreeError: /no/such does not exist\n"
    done = CliRunner().invoke(keys, ["/no/such", "--json"])
    assert done.exit_code == 2 and done.stderr
    found = json.loads(done.stdout)
    assert found == {"root": "/no/such", "error": "MetatreeError", "message": "/no/such does not exist", "exit": 2}


def test_a_long_job_shows_a_bar_on_a_terminal_and_nothing_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Progress() as progress:
        progress("checking", 0.5)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress() as progress:
        progress("3 nodes", 0.5)
        progress("4 nodes", 0.6)  # too soon after the other
    out, err = capsys.readouterr()
    assert out == ""
    assert "[############............] 3 nodes …" in err and "4 nodes" not in err
    assert err.endswith("\r\x1b[K")
