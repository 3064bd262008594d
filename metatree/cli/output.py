"""What a command prints for people. Names in it may be anybody's: what a terminal would obey is escaped here, and only
here; JSON escapes it by itself."""

from __future__ import annotations

from typing import NamedTuple

import click

from metatree.printing import shown


class Styled(NamedTuple):
    """A part of a line in a colour of its own."""

    text: str
    colour: str | None = None
    bold: bool | None = None
    dim: bool | None = None


Line = str | tuple[str | Styled, ...]  # whole, or in parts


def tell(*lines: Line) -> None:
    """Print lines to stdout."""
    click.echo("\n".join(map(_rendered, lines)))


def complain(text: str) -> None:
    """Print a message to stderr."""
    click.echo(shown(text), err=True)


def _rendered(line: Line) -> str:
    parts = (line,) if isinstance(line, str) else line
    return "".join(shown(part) if isinstance(part, str) else _styled(part) for part in parts)


def _styled(part: Styled) -> str:
    return click.style(shown(part.text), fg=part.colour, bold=part.bold, dim=part.dim)
