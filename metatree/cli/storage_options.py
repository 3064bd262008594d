"""`-o key=value` as an option of click; metatree/options.py parses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from metatree.options import parse_options

F = TypeVar("F", bound=Callable[..., Any])


def _parse(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    try:
        return parse_options(values)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def storage_options(command: F) -> F:
    """The option for a command that opens a storage."""
    return click.option(
        "-o",
        "--option",
        "options",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_parse,
        help="An option of the storage library: endpoint_url, key, secret, profile for s3; user, token for webhdfs. "
        "true, false, null, {...} and [...] are read as JSON. Other users can see a command line: put secrets into "
        "AWS_SECRET_ACCESS_KEY or a profile.",
    )(command)
