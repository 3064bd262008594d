"""Fast checks of the parts of a record: of one that was read, since a log may come from an untrusted source, and of one
to be written, since nobody could read it otherwise. Pure.

Each check raises one of MALFORMED for anything that no transaction can have written, whatever its type.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import Any

from .location import MAX_PATH, Path, check_blob_name, check_length, check_name, check_names, split
from .values import CHILDREN, MAX_KEY_BYTES, check_key

MALFORMED = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, struct.error)
_MAX_SIZE = 2**63 - 1  # bytes of a file

join_texts = "".join  # the fastest check that all are strings: raises TypeError
is_sha256 = re.compile("[0-9a-f]{64}").fullmatch


@lru_cache(maxsize=4096)  # consecutive facts concern the same few nodes
def path(text: str) -> Path:
    """A node's path."""
    if type(text) is not str:
        raise ValueError("a path is not a string")
    names = split(text)
    for name in names:
        check_name(name)
    return check_length(names) if len(text) > MAX_PATH // 4 else names


_lists: dict[Path, tuple[tuple[str, ...], set[str]]] = {}  # children as they were read last, and (perhaps more) names
_MAX_LISTS, _MAX_LIST = 64, 1024  # nodes; names of one: about as many as a record holds


def children(node: Path, names: list[str]) -> tuple[str, ...]:
    """All children of a node. Most often they are as they were read last, or one more came: then only that one is
    checked, and the others are the strings that are held already."""
    if type(names) is not list:
        raise ValueError("children are no list")
    if not names:
        return ()
    known, among = _lists.get(node) or ((), set())
    if len(known) == len(names) and known == tuple(names):
        return known
    result = (*known, names[-1])
    if names[-1] not in among and result == tuple(names):
        check_name(names[-1])
        among.add(names[-1])
    else:
        result, among = tuple(names), set(check_names(names))
        if len(among) != len(names):
            raise ValueError("a child stands twice in the list")
    if len(names) <= _MAX_LIST:
        if len(_lists) >= _MAX_LISTS:
            _lists.clear()
        _lists[node] = result, among
    return result


@lru_cache(maxsize=4096)  # most nodes have blobs of the same few names
def blob_name(name: str) -> str:
    """A blob's name in its node."""
    if "/" in name:
        check_length(tuple(name.split("/")))
    return check_blob_name(name)


def keys(values: dict[str, Any]) -> dict[str, Any]:
    """The keys of a node. The caller checks how deep their values are nested."""
    if type(values) is not dict:
        raise ValueError("keys are not an object")
    for key in values:
        if not key or len(key) > MAX_KEY_BYTES // 4 or key == CHILDREN:
            check_key(key)
    return values


def texts(names: list[str]) -> list[str]:
    """A list of strings."""
    if type(names) is not list:
        raise ValueError("names are not a list")
    join_texts(names)
    return names


def is_size(number: object) -> bool:
    """Whether it is a valid number of bytes."""
    return type(number) is int and 0 <= number <= _MAX_SIZE
