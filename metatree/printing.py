"""The stdout of a command: it takes any text, and one that cannot be written ends the command with a message. What a
terminal would obey is escaped in text that may hold the names of others."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable

_FAILED = 2  # as for wrong usage


def shown(text: str) -> str:
    """Text as one line for a terminal: control characters, those that turn the direction of writing, and whatever else
    is not printable are escaped as `repr` does."""
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def with_stdout(program: str, command: Callable[[], int]) -> int:
    """Run a command; returns its exit code, or another one if stdout did not take all that it printed."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may hold what its encoding does not have
    try:
        try:
            return command()
        finally:
            if sys.stdout is not None:  # it is None if it was closed before the start
                sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has exited, as `head` does
        code = 128 + signal.SIGPIPE
    except OSError as error:
        code = _FAILED
        if sys.stderr is not None:
            text = f"{program}: its output cannot be written: {error}; run it again with another stdout"
            print(text, file=sys.stderr)
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python must not flush to it at exit
    return code
