"""How a command ends: its exit code, and what it says when it could not do its work."""

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


class Code(enum.IntEnum):
    """What a program may react to; the numbers are stable (docs/decisions/0035)."""

    OK = 0
    DIFFERS = 1  # the answer is "no": something deviates, is to be done, is not so
    USAGE = 2  # nothing was done: wrong arguments, or no tree there that can be opened, or read, now
    NOT_FOUND = 3  # no such node or blob
    CONFLICT = 4  # another commit got in between
    LOCK_TIMEOUT = 5
    CORRUPTION = 6
    RECOVERY_NEEDED = 7  # the log holds what the files do not show, and no program is at it


_CODES: tuple[tuple[type[Exception], Code], ...] = (
    (NodeNotFoundError, Code.NOT_FOUND),
    (BlobNotFoundError, Code.NOT_FOUND),
    (ConflictError, Code.CONFLICT),
    (LockTimeoutError, Code.LOCK_TIMEOUT),
    (CorruptionError, Code.CORRUPTION),
    (CommitUnknownError, Code.RECOVERY_NEEDED),
)


def code_of(error: Exception) -> Code:
    """The exit code of a command that an error ended."""
    if isinstance(error.__cause__, wal.UnsafePathError):
        return Code.CORRUPTION  # a link stands where the tree has a folder
    return next((code for kind, code in _CODES if isinstance(error, kind)), Code.USAGE)


@contextmanager
def ending(context: click.Context, root: str, *, as_json: bool) -> Iterator[None]:
    """Around a command's work: an error of the tree or its storage becomes a message and an exit code.

    With `as_json` stdout holds one object whatever happens; of an error its `root`, `error` and `message`.
    """
    try:
        yield
    except (MetatreeError, wal.WalError, OSError, TypeError, ValueError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        name = type(error).__name__
        if as_json:
            click.echo(json.dumps({"root": root, "error": name, "message": str(error)}, indent=2))
        click.echo(f"{context.command_path}: {root or repr(root)}: {name}: {error}", err=True)
        context.exit(code_of(error))
