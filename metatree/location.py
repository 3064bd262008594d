"""Locations: parse, validate, substitute. Pure: no I/O.

A location is a string `"model/v1"`, a tuple of segments `("model", "v1")`, or a dict from level names to segments
`{"model": "m", "version": {"metadata": "active"}}`. A segment is a plain name or a **reference**, written `<key>`:
the value of that key in the metadata of the node reached so far.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from .errors import InvalidLocationError

Path = tuple[str, ...]
Location = str | Sequence[str] | Mapping[str, Any]

MAX_SEGMENT = 200  # bytes of UTF-8: the 255 of most filesystems, less room for temporary suffixes
MAX_PATH = 900  # bytes of UTF-8: below S3's limit for keys, with room for a root

_RESERVED = {"metadata.json", ".wal", ".lock", ".metatree", "lost+found"}
_DEVICES = {"con", "prn", "aux", "nul"} | {f"{name}{n}" for name in ("com", "lpt") for n in "123456789¹²³"}
_PLAIN = re.compile("[0-9A-Za-z][0-9A-Za-z_-]{0,198}").fullmatch  # most names: valid unless a device's
_FORBIDDEN = set('\\/*?[]:<>"|')
_FORBIDDEN_CATEGORIES = {"Cc", "Cs", "Cn", "Zl", "Zp"}
_BIDI = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c\ufeff")


class Reference(NamedTuple):
    """A segment to be replaced by the value of a key of the node reached so far."""

    key: str


Segment = str | Reference


def fold_name(name: str) -> str:
    """Two names that are equal in this form may not stand side by side, so that a tree can be copied to any
    filesystem."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def check_name(name: object) -> str:
    """`name` as a plain str, if it is valid as a segment on every storage. Raises InvalidLocationError."""
    if type(name) is not str:
        if not isinstance(name, str):
            raise InvalidLocationError(f"a segment is a string, not {type(name).__name__}: {name!r}")
        name = str.__str__(name)  # an instance of a subclass
    if _PLAIN(name) and name.lower() not in _DEVICES:
        return name
    reason = _fault(name)
    if reason:
        raise InvalidLocationError(f"{name!r} cannot be a segment of a location: {reason}")
    return name


_good: set[str] = set()  # names found valid, so that only the new ones of a long list are checked
_MAX_GOOD = 1 << 16


def check_names(names: Collection[str]) -> frozenset[str]:
    """Check many names as `check_name` does; the result holds each once."""
    distinct = frozenset(names)
    new = distinct - _good
    for name in new:
        check_name(name)
    if len(_good) > _MAX_GOOD:
        _good.clear()
    _good.update(new)
    return distinct


@lru_cache(maxsize=4096)
def _fault(name: str) -> str:
    if not name:
        return "it is empty"
    if name in (".", ".."):
        return "it would leave its folder"
    bad = sorted(
        c for c in set(name) if c in _FORBIDDEN or c in _BIDI or unicodedata.category(c) in _FORBIDDEN_CATEGORIES
    )
    if bad:
        return f"it holds {', '.join(repr(c) for c in bad)}"
    if unicodedata.normalize("NFC", name) != name:
        return "it is not in Unicode's composed form (NFC)"
    if len(name.encode()) > MAX_SEGMENT:
        return f"it is longer than {MAX_SEGMENT} bytes"
    if name[-1] in ". ":
        return "it ends in a dot or a space"
    if name[0] == " ":
        return "it begins with a space"
    return _reserved(name)


def _reserved(name: str) -> str:
    low = fold_name(name)
    if low in _RESERVED:
        return "the name is reserved for the engine"
    if low.endswith(".tmp") or low.startswith(".nfs"):
        return "such names are reserved for temporary files"
    if low.partition(".")[0].rstrip() in _DEVICES:
        return "it is the name of a device on Windows"
    return ""


def check_inner(name: object) -> str:
    """A segment inside a directory blob: the engine has no files there, so names such as metadata.json are allowed."""
    return str.__str__(name) if isinstance(name, str) and fold_name(name) in _RESERVED else check_name(name)


def check_blob_name(name: str) -> str:
    """`name` if it is valid as a blob's name, with `/` for files of a directory blob. Raises InvalidLocationError."""
    top, *inner = name.split("/")
    check_name(top)
    for segment in inner:
        check_inner(segment)
    return name


@lru_cache(maxsize=1024)  # one call asks for the same path more than once
def check_path(path: Path) -> Path:
    """`path` if every segment is valid and the whole is not too long. Raises InvalidLocationError."""
    for name in path:
        check_name(name)
    return check_length(path)


def check_length(path: Path) -> Path:
    """`path` if the whole of it is not too long. Raises InvalidLocationError."""
    if sum(map(len, path)) + len(path) > MAX_PATH // 4:
        length = len("/".join(path).encode())
        if length > MAX_PATH:
            raise InvalidLocationError(f"the location is {length} bytes long, more than {MAX_PATH}")
    return path


def parse(location: Location, keys: Sequence[str]) -> tuple[Segment, ...]:
    """The segments of a location, each valid by itself. Raises InvalidLocationError before any I/O.

    From the third segment on it may be a file in a directory blob, so only `check_inner` is applied: what it is turns
    out when it is resolved.
    """
    if isinstance(location, str):
        return parse_string(location)
    if isinstance(location, tuple):
        segments = _parse_parts(location)
    elif isinstance(location, Mapping):
        segments = _parse_mapping(location, keys)
    elif isinstance(location, Sequence) and not isinstance(location, (bytes, bytearray)):
        segments = _parse_parts(location)
    else:
        raise InvalidLocationError(f"a location is a string, a tuple or a dict, not {type(location).__name__}")
    return _checked(segments)


def _checked(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    check_length(tuple([s for s in segments if isinstance(s, str)]))
    return segments


@lru_cache(maxsize=1024)
def parse_string(location: str) -> tuple[Segment, ...]:
    """`parse` for a string, whose meaning does not depend on the tree's levels."""
    if location == "":
        return ()
    if location[0] == "/" or location[-1] == "/" or "//" in location:
        where = "begins with '/'" if location[0] == "/" else "ends in '/'" if location[-1] == "/" else "holds '//'"
        names = "/".join(name for name in location.split("/") if name)
        hint = f"write {names!r}" if names else "the root is ''"
        raise InvalidLocationError(f"{location!r} {where}: a location is names below the root, so {hint}")
    segments = _parse_parts(location.split("/"))
    return segments if len(location) <= MAX_PATH // 4 else _checked(segments)


def _parse_parts(parts: Sequence[object]) -> tuple[Segment, ...]:
    return tuple([_parse_segment(part) if place < 2 else _parse_inner(part) for place, part in enumerate(parts)])


def _parse_inner(part: object) -> Segment:
    return check_inner(part) if isinstance(part, str) and part[:1] != "<" else _parse_segment(part)


def _parse_segment(part: object) -> Segment:
    if isinstance(part, str) and part[:1] == "<" and part[-1] == ">" and len(part) > 2:
        return Reference(part[1:-1])
    return check_name(part)


def _parse_mapping(location: Mapping[str, Any], keys: Sequence[str]) -> tuple[Segment, ...]:
    unknown = [name for name in location if name not in keys]
    if unknown:
        raise InvalidLocationError(f"{unknown[0]!r} is not a level of this tree; its levels are {', '.join(keys)}")
    segments: list[Segment] = []
    for depth, key in enumerate(keys):
        if key not in location:
            break
        segments.append(_parse_level(location[key]))
        if len(segments) != depth + 1:
            break
    if len(segments) != len(location):
        missing = keys[len(segments)]
        raise InvalidLocationError(f"the location names a level below {missing!r} but not {missing!r} itself")
    return tuple(segments)


def _parse_level(value: object) -> Segment:
    if isinstance(value, Mapping):
        if set(value) == {"value"}:
            return check_name(value["value"])
        if set(value) == {"metadata"} and isinstance(value["metadata"], str) and value["metadata"]:
            return Reference(value["metadata"])
        raise InvalidLocationError(f"a level is a name, {{'value': name}} or {{'metadata': key}}, not {value!r}")
    return _parse_segment(value)


def substitute(reference: Reference, metadata: Mapping[str, Any], node: Path) -> str:
    """The name that a reference stands for. Raises InvalidLocationError if the value is not a valid segment."""
    where = "/".join(node) or "the root"
    if reference.key not in metadata:
        raise InvalidLocationError(f"<{reference.key}>: {where} has no key {reference.key!r}")
    value = metadata[reference.key]
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InvalidLocationError(f"<{reference.key}>: the value in {where} is {value!r}, not a string or integer")
    try:
        return check_name(str(value))
    except InvalidLocationError as error:
        raise InvalidLocationError(f"<{reference.key}>: the value in {where} is not a valid name: {error}") from error


def join(path: Path) -> str:
    """A path as text, for records and messages; the root is ''."""
    return "/".join(path)


def split(text: str) -> Path:
    """The inverse of `join`."""
    return tuple(text.split("/")) if text else ()
