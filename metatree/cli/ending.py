"""How a command ends: its exit code, and its message if it failed."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from contextlib import contextmanager

import click

import wal
from metatree import (
    BlobNotFoundError,
    CommitUnknownError,
    ConflictError,
    CorruptionError,
    LockTimeoutError,
    MetatreeError,
    NodeNotFoundError,
)

from .output import complain


class Code(enum.IntEnum):
    """Exit codes; the numbers are stable (docs/decisions/0035)."""

    OK = 0
    DIFFERS = 1  # the answer is no: something deviates or remains to be done
    USAGE = 2  # nothing was done: wrong arguments, or the tree cannot be opened or read now
    NOT_FOUND = 3  # no such node or blob
    CONFLICT = 4  # with another commit
    LOCK_TIMEOUT = 5
    CORRUPTION = 6
    RECOVERY_NEEDED = 7  # the files lack commits that the log holds, and no program is applying them


_CODES: tuple[tuple[type[Exception], Code], ...] = (
    (NodeNotFoundError, Code.NOT_FOUND),
    (BlobNotFoundError, Code.NOT_FOUND),
    (ConflictError, Code.CONFLICT),
    (LockTimeoutError, Code.LOCK_TIMEOUT),
    (CorruptionError, Code.CORRUPTION),
    (CommitUnknownError, Code.RECOVERY_NEEDED),
)


def code_of(error: Exception) -> Code:
    """The exit code for an error that ended a command."""
    if isinstance(error.__cause__, wal.UnsafePathError):
        return Code.CORRUPTION  # there is a link where the tree has a folder
    return next((code for kind, code in _CODES if isinstance(error, kind)), Code.USAGE)


@contextmanager
def ending(context: click.Context, root: str, *, as_json: bool) -> Iterator[None]:
    """Around a command's work: an error of the tree or its storage becomes a message and an exit code.

    With `as_json`, stdout holds one JSON object in any case; for an error, with `root`, `error`, `message` and `exit`.
    """
    try:
        yield
    except (MetatreeError, wal.WalError, OSError, TypeError, ValueError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        name, code = type(error).__name__, code_of(error)
        if as_json:
            fail(root, name, str(error), code)
        complain(f"{context.command_path}: {root or repr(root)}: {name}: {error}")
        context.exit(code)


def fail(root: str | None, error: str, message: str, code: int) -> None:
    """Print the JSON object of an error. `root`: None if the command does not know it."""
    click.echo(json.dumps({"root": root, "error": error, "message": message, "exit": int(code)}, indent=2))
