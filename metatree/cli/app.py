"""The group of commands and how they end: data on stdout, messages on stderr, exit codes as stated in each help."""

from __future__ import annotations

import signal
from types import FrameType

import click

from metatree import __version__
from metatree.printing import with_stdout

from .check import check
from .doctor import doctor
from .gc import gc
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
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        return _INTERRUPTED
    return code if isinstance(code, int) else 0


def _end(number: int, frame: FrameType | None) -> None:
    """Raise an exception, so that a command removes its temporary files."""
    raise SystemExit(128 + number)
