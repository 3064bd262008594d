"""`-o key=value` of the commands: the options of the storage, as `Metatree(url, storage_options=...)` takes them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

_WORDS = {"true": True, "false": False, "null": None}


def parse_options(texts: Iterable[str]) -> dict[str, Any]:
    """The options on a command line. Raises ValueError, without the value in its message: it may be a secret.

    A value is text, except that true, false, null, {...} and [...] are parsed as JSON. Numbers stay text, since
    access keys can look like numbers.
    """
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError("key=value is expected, as in -o endpoint_url=http://host:9000")
        options[key] = _value(key, value)
    return options


def _value(key: str, text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if text[:1] not in ("{", "["):
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(f"the value of {key} is not valid JSON") from None  # the cause would show it
