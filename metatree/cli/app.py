"""The group of commands and how they end: data on stdout, messages on stderr, exit codes as stated in each help."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import click

from metatree import __version__
from metatree.printing import with_stdout

from .check import check
from .doctor import doctor
from .ending import fail
from .gc import gc
from .output import complain
from .repair import repair

_INTERRUPTED = 128 + signal.SIGINT


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="metatree")
def commands() -> None:
    """The transactional, file-native tree database: plain folders and metadata.json.

    To recover a tree explicitly after a crash, use metatree-recover.

    Exit codes: 0 ok, 1 differs or false, 2 usage or no tree that can be opened, 3 not found, 4 conflict,
    5 lock timeout, 6 corruption, 7 recovery needed.
    """


commands.add_command(check)
commands.add_command(doctor)
commands.add_command(gc)
commands.add_command(repair)


def run() -> int:
    """Run the command with the arguments of this process; returns the exit code."""
    signal.signal(signal.SIGTERM, _end)
    return with_stdout("metatree", _run)


def _run() -> int:
    try:
        code = commands.main(prog_name="metatree", standalone_mode=False)
    except click.ClickException as error:
        return _fail(error)
    except click.Abort:
        _tell_json(None, "KeyboardInterrupt", "interrupted", _INTERRUPTED)
        complain("interrupted")
        return _INTERRUPTED
    return code if isinstance(code, int) else 0


def _fail(error: click.ClickException) -> int:
    """Tell of wrong usage as click does, but with the names in it escaped; returns the exit code."""
    if not sys.argv[1:]:
        error.show()  # the help
        return error.exit_code
    context = error.ctx if isinstance(error, click.UsageError) else None
    message = error.format_message()
    _tell_json(context.params.get("root") if context is not None else None, "UsageError", message, error.exit_code)
    if context is not None:
        click.echo(f"{context.get_usage()}\nTry '{context.command_path} --help' for help.\n", err=True)
    complain(f"Error: {message}")
    return error.exit_code


def _tell_json(root: str | None, error: str, message: str, code: int) -> None:
    """With --json, print the object of an error that ended the command before it could do so itself."""
    if "--json" in sys.argv[1:]:
        fail(root, error, message, code)


def _end(number: int, frame: FrameType | None) -> None:
    """Raise an exception, so that a command removes its temporary files."""
    raise SystemExit(128 + number)
