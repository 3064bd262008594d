"""The command `metatree`. Its library, click, is an extra: a program that imports `metatree` does not need it."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command with the arguments of this process; returns the exit code."""
    try:
        from .app import run
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        print("metatree: the command needs the package click: pip install 'metatreedb[cli]'", file=sys.stderr)
        return 2
    return run()
