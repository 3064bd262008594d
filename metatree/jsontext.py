"""JSON text: the one module through which this package reads and writes it.

Uses orjson if it is installed, else the standard library (free-threaded Python). Both write the same values; a digest
is always of the bytes that were written, never of a second serialisation.
"""

from __future__ import annotations

import json
from typing import Any

try:
    import orjson
except ImportError:  # pragma: no cover - only where no wheel of orjson exists
    orjson = None  # type: ignore[assignment]


def dump(value: Any) -> bytes:
    """Compact UTF-8, keys in their order."""
    if orjson is not None:
        return orjson.dumps(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def dump_readable(value: Any) -> bytes:
    """Indented by two, with a newline at the end: for files that people read."""
    if orjson is not None:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False).encode() + b"\n"


def load(data: bytes) -> Any:
    """Parse UTF-8 JSON. Raises ValueError, of which orjson's and json's errors are subclasses."""
    if orjson is not None:
        return orjson.loads(data)
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, parse_int=_bounded)
        if "\\u" in text:
            dump(value)  # raises UnicodeEncodeError for a lone surrogate
        return value
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def load_strict(data: bytes) -> Any:
    """Parse like `load`, but raise ValueError for a key that occurs twice in an object (orjson keeps the last)."""
    return json.loads(data.decode("utf-8"), object_pairs_hook=_no_twice, parse_constant=_no_constant)


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return result


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large")
    return number


def _bounded(text: str) -> int | float:
    number = int(text)
    return number if -(2**63) <= number < 2**64 else _finite(text)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
