"""Storage options on a command line: `-o key=value`, as often as needed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


def add_option(parser: argparse.ArgumentParser) -> None:
    """Let `parser` take `-o`; what was given is its `option`."""
    parser.add_argument("-o", dest="option", action="append", default=[], metavar="KEY=VALUE", help="storage option")


def parse_options(given: Sequence[str]) -> dict[str, Any]:
    """The options. Raises ValueError for what is not `key=value`."""
    options = {}
    for option in given:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise ValueError(f"-o takes key=value, not {option!r}")
        options[key] = value
    return options
