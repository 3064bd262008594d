"""What a transaction did, as facts, and a log record <-> bytes. Pure. Bytes: docs/log_format.md, "Records of the tree".

Facts are effective (decided at the record's own position), addressed by path, and the last writer wins: applying them
in order, any number of times, from any state in between, ends in the same tree. There is no move, copy or ensure.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import wal

from . import jsontext, layout
from .errors import CorruptionError, FormatError
from .location import Path, check_blob_name, check_name, check_path, join, split

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Inline:
    """Content that the record itself carries."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Slice:
    """Content in a staged file: the whole of it (`offset` None) or a part of a pack."""

    file: str
    offset: int | None = None


Source = Inline | Slice


@dataclass(frozen=True, slots=True)
class NodeFact:
    """All that is in a node's metadata.json."""

    path: Path
    keys: dict[str, Any]
    children: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeGone:
    """A node is gone, with all below it."""

    path: Path


@dataclass(frozen=True, slots=True)
class KeysFact:
    """Some keys of a large node."""

    path: Path
    set: dict[str, Any]
    unset: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChildFact:
    """One name in the long children list of the node `path`."""

    path: Path
    name: str
    created: bool  # False: dropped


@dataclass(frozen=True, slots=True)
class BlobFact:
    """A blob's content."""

    path: Path  # its node
    name: str  # with '/' inside a directory blob
    size: int  # bytes
    sha256: str  # 64 hex digits
    source: Source


@dataclass(frozen=True, slots=True)
class BlobGone:
    """A blob is gone; a directory blob with all below it."""

    path: Path
    name: str


Fact = NodeFact | NodeGone | KeysFact | ChildFact | BlobFact | BlobGone

Changes = dict[str, dict[str, list[str]]]
"""What a transaction touched: node path -> {"set", "unset": keys, "new", "gone": children, "put", "del": blobs}."""


@dataclass(frozen=True, slots=True)
class Header:
    """The part of a record that is kept for ever: to validate against, to find a transaction, and for history."""

    txid: str
    at: str  # UTC, ISO 8601; for people
    who: str  # user@host:pid; for people
    changes: Changes = field(default_factory=dict)
    message: str | None = None
    key: str | None = None  # idempotency key
    staged: bool = False  # has files in the staging area


_PREFIX = struct.Struct("<I")  # length of the facts' JSON; inline content follows it


def encode(header: Header, facts: Sequence[Fact]) -> wal.Record:
    """The log record of a transaction."""
    inline: list[bytes] = []
    offset = 0
    rows: list[list[Any]] = []
    for fact in facts:
        rows.append(_row(fact, offset))
        if isinstance(fact, BlobFact) and isinstance(fact.source, Inline):
            inline.append(fact.source.data)
            offset += len(fact.source.data)
    text = jsontext.dump(rows)
    return wal.Record(encode_header(header), b"".join([_PREFIX.pack(len(text)), text, *inline]))


def encode_header(header: Header) -> bytes:
    """A header's JSON; empty fields are left out."""
    value: dict[str, Any] = {"v": FORMAT, "txid": header.txid, "at": header.at, "who": header.who}
    for name in ("message", "key", "staged"):
        if getattr(header, name):
            value[name] = getattr(header, name)
    value["changes"] = header.changes
    return jsontext.dump(value)


def _row(fact: Fact, offset: int) -> list[Any]:
    path = join(fact.path)
    match fact:
        case NodeFact():
            return ["node", path, fact.keys, fact.children]
        case NodeGone():
            return ["gone", path]
        case KeysFact():
            return ["keys", path, fact.set, fact.unset]
        case ChildFact():
            return ["child", path, fact.name, fact.created]
        case BlobGone():
            return ["unblob", path, fact.name]
        case BlobFact():
            row: list[Any] = ["blob", path, fact.name, fact.size, fact.sha256]
            match fact.source:
                case Inline():
                    return [*row, "inline", offset]
                case Slice(file, None):
                    return [*row, "staged", file]
                case Slice(file, at):
                    return [*row, "pack", file, at]


def decode_header(data: bytes) -> Header:
    """Parse a header. Raises FormatError (newer format), CorruptionError."""
    try:
        value = jsontext.load(data)
        if value["v"] != FORMAT:
            raise FormatError(f"the log holds a record of format {value['v']}; this version knows {FORMAT}: upgrade")
        return Header(
            txid=value["txid"],
            at=value["at"],
            who=value["who"],
            changes=value["changes"],
            message=value.get("message"),
            key=value.get("key"),
            staged=value.get("staged", False),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptionError(f"a record's header in the log does not parse: {error!r}") from error


def decode_facts(body: bytes) -> list[Fact]:
    """Parse a body. Raises FormatError for an unknown fact, CorruptionError, also for names that no tree can have: a
    log may come from a stranger, and no name in it leads out of the root."""
    try:
        (length,) = _PREFIX.unpack_from(body)
        start = _PREFIX.size + length
        if start > len(body):
            raise ValueError("shorter than its own length field")
        return [_fact(row, body, start) for row in jsontext.load(body[_PREFIX.size : start])]
    except (ValueError, KeyError, TypeError, IndexError, struct.error) as error:
        raise CorruptionError(f"a record's body in the log does not parse: {error!r}") from error


def _fact(row: list[Any], body: bytes, start: int) -> Fact:
    kind, path = row[0], check_path(split(row[1]))
    match kind:
        case "node":
            return NodeFact(path, row[2], tuple(map(check_name, row[3])))
        case "gone":
            return NodeGone(path)
        case "keys":
            return KeysFact(path, row[2], tuple(row[3]))
        case "child":
            return ChildFact(path, check_name(row[2]), row[3])
        case "unblob":
            return BlobGone(path, check_blob_name(row[2]))
        case "blob":
            return BlobFact(path, check_blob_name(row[2]), row[3], row[4], _source(row, body, start))
        case _:
            raise FormatError(f"the log holds a fact of the unknown kind {kind!r}: written by a newer version, upgrade")


def _source(row: list[Any], body: bytes, start: int) -> Source:
    kind = row[5]
    if kind == "inline":
        begin = start + row[6]
        data = body[begin : begin + row[3]]
        if len(data) != row[3]:
            raise ValueError("inline content is cut short")
        return Inline(data)
    if kind in ("staged", "pack"):
        return Slice(layout.check_staged(row[6]), row[7] if kind == "pack" else None)
    raise FormatError(f"the log holds content of the unknown kind {kind!r}: written by a newer version, upgrade")
