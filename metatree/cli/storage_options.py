"""`-o key=value`: the options of the storage, as `Metatree(url, storage_options=...)` takes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
_WORDS = {"true": True, "false": False, "null": None}


def _parse(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    options = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            # What was given is not repeated: it may be a secret.
            raise click.BadParameter("key=value is expected, as in -o endpoint_url=http://host:9000")
        options[key] = _value(key, value)
    return options


def _value(key: str, text: str) -> Any:
    """JSON for what cannot be a text: true, false, null, {…}, […]. Numbers stay text, since keys can look like one."""
    if text in _WORDS:
        return _WORDS[text]
    if text[:1] not in ("{", "["):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"the value of {key} is no JSON") from error


def storage_options(command: F) -> F:
    """The option for a command that opens a storage."""
    return click.option(
        "-o",
        "--option",
        "options",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_parse,
        help="An option of the storage, as its library takes it: endpoint_url, key, secret, profile for s3; user, "
        "token for webhdfs. true, false, null, {...} and [...] are read as JSON. Others can read a command line: "
        "secrets are better in AWS_SECRET_ACCESS_KEY or a profile.",
    )(command)
