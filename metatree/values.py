"""Checks which values metadata may hold. Pure: checks and copies in one pass, so nothing is shared with the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import jsontext
from .errors import InvalidMetadataError

MAX_DEPTH = 100
MAX_KEYS_BYTES = 1 << 20  # all keys of one node, as JSON, children not counted
MAX_KEY_BYTES = 1024
CHILDREN = "children"
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1


def check_values(values: Mapping[Any, Any]) -> dict[str, Any]:
    """A deep copy of `values` as plain JSON types. Raises InvalidMetadataError naming the key."""
    if not isinstance(values, Mapping):
        raise InvalidMetadataError(f"values are a dict, not {type(values).__name__}")
    checked = {check_key(key): _copy(value, (key,)) for key, value in values.items()}
    check_size(checked)
    return checked


def merge(values: Mapping[str, Any] | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """The keys set by `update(values, **more)`, checked and copied."""
    if values is not None and not isinstance(values, Mapping):
        raise InvalidMetadataError(f"values are a dict, not {type(values).__name__}")
    return check_values({**(values or {}), **more})


def check_value(key: str, value: Any) -> Any:
    """One value, checked and copied."""
    return check_values({key: value})[key]


def check_key(key: object) -> str:
    """`key` as a plain str, if it can be a metadata key. Raises InvalidMetadataError."""
    if not isinstance(key, str):
        raise InvalidMetadataError(f"a metadata key is a string, not {type(key).__name__}: {key!r}")
    if key == CHILDREN:
        raise InvalidMetadataError("the key 'children' belongs to the engine: put and delete change it")
    if not key:
        raise InvalidMetadataError("a metadata key cannot be empty")
    key = _check_text(key, (key,))
    if len(key.encode()) > MAX_KEY_BYTES:
        raise InvalidMetadataError(f"the metadata key {key[:40]!r}... is longer than {MAX_KEY_BYTES} bytes")
    return key


def check_size(keys: Mapping[str, Any]) -> None:
    """Raises InvalidMetadataError if the keys of one node take more than 1 MiB as JSON."""
    size = len(jsontext.dump(keys))
    if size > MAX_KEYS_BYTES:
        raise InvalidMetadataError(f"the node's keys take {size} bytes, more than {MAX_KEYS_BYTES}; put it as a blob")


def _copy(value: Any, path: tuple[object, ...]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _check_text(value, path)
    if isinstance(value, int):
        if not _MIN_INT <= value <= _MAX_INT:
            raise InvalidMetadataError(f"{_at(path)}: the integer does not fit into 64 bits")
        return int(value)
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise InvalidMetadataError(f"{_at(path)}: {value} is not JSON")
        return float(value)
    return _copy_container(value, path)


def _copy_container(value: Any, path: tuple[object, ...]) -> Any:
    if len(path) > MAX_DEPTH:
        raise InvalidMetadataError(f"{_at(path[:3])}: nested deeper than {MAX_DEPTH}, or in a circle")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidMetadataError(f"{_at(path)}: the key {key!r} is not a string")
            _check_text(key, path)
        return {str.__str__(key): _copy(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copy(item, (*path, index)) for index, item in enumerate(value)]
    raise InvalidMetadataError(f"{_at(path)}: {type(value).__name__} is not JSON; store it as a blob or as text")


def _check_text(text: str, path: tuple[object, ...]) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidMetadataError(f"{_at(path)}: a lone surrogate is not valid Unicode text") from error
    return str.__str__(text)  # the str value: `str()` of a subclass, such as an enum, may differ


def _at(path: tuple[object, ...]) -> str:
    return "key " + ".".join(ascii(part).strip("'") for part in path[:4])


def same_value(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal, types included: 1, 1.0 and true are three values."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_value(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(same_value(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and bool(one == other)
