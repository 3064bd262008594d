"""Parts of a record that was read, each checked at once and fast: a log may come from a stranger. Pure.

Each check raises one of MALFORMED for what no transaction can have written, whatever its type is.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import Any

from .location import Path, check_blob_name, check_length, check_names, check_path, split
from .values import CHILDREN, MAX_KEY_BYTES, check_key

MALFORMED = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, struct.error)
_MAX_SIZE = 2**63 - 1  # bytes of a file

join_texts = "".join  # the fastest way to a TypeError unless all are strings
is_sha256 = re.compile("[0-9a-f]{64}").fullmatch


@lru_cache(maxsize=4096)  # neighbouring facts are of the same few nodes
def path(text: str) -> Path:
    """A node's path."""
    if type(text) is not str:
        raise ValueError("a path is no string")
    return check_path(split(text))


def blob_name(name: str) -> str:
    """A blob's name in its node."""
    if "/" in name:
        check_length(tuple(name.split("/")))
    return check_blob_name(name)


def keys(values: dict[str, Any]) -> dict[str, Any]:
    """Keys of a node. How deep their values are nested is left to the caller."""
    if type(values) is not dict:
        raise ValueError("keys are no object")
    for key in values:
        if not key or len(key) > MAX_KEY_BYTES // 4 or key == CHILDREN:
            check_key(key)
    return values


_lists: dict[Path, tuple[list[str], set[str]]] = {}  # long lists, as they were met last, and their names
_MAX_LISTS = 16
_LONG = range(32, 2048)  # names; a node that is logged whole has fewer


def children(path: Path, names: list[str]) -> tuple[str, ...]:
    """A node's children, each name once. Most often one more came since the record before: what stands in that one's
    list as well is only compared, and its strings are taken, which makes the next comparison fast."""
    if type(names) is not list:
        raise ValueError("children are no list")
    long = len(names) in _LONG
    kept = _lists.pop(path, None) if long else None  # nobody else has it now
    known, distinct = kept if kept is not None and names[: len(kept[0])] == kept[0] else ([], set())
    new = names[len(known) :]
    fresh = check_names(new)
    if len(fresh) != len(new) or not distinct.isdisjoint(fresh):
        raise ValueError("a child stands twice in the list")
    if not long:
        return tuple(names)
    known += new
    distinct |= fresh
    if len(_lists) >= _MAX_LISTS:
        _lists.clear()
    _lists[path] = known, distinct
    return tuple(known)


def texts(names: list[str]) -> list[str]:
    """A list of strings."""
    if type(names) is not list:
        raise ValueError("names are no list")
    join_texts(names)
    return names


def is_size(number: object) -> bool:
    """Whether it is a number of bytes."""
    return type(number) is int and 0 <= number <= _MAX_SIZE
