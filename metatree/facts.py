"""Facts: what a transaction did; and a log record <-> bytes. Pure. Format: docs/log_format.md, "Records of the tree".

Facts are effective (decided at the record's own position), addressed by path, and the last writer wins: applying them
in order, any number of times, from any state in between, ends in the same tree. There is no move, copy or ensure.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import wal

from . import jsontext, layout, parts
from .errors import CorruptionError, FormatError
from .location import Path, check_name, join
from .values import MAX_DEPTH

FORMAT = 1
ABORTING = 2  # the format of a record that aborts: a version that would ignore the abort must refuse the log


class Inline(NamedTuple):
    """Content that the record itself carries."""

    data: bytes


class Slice(NamedTuple):
    """Content in a staged file: the whole of it (`offset` None) or a part of a pack."""

    file: str
    offset: int | None = None


Source = Inline | Slice


class NodeFact(NamedTuple):
    """The whole content of a node's metadata.json."""

    path: Path
    keys: dict[str, Any]
    children: tuple[str, ...]


class NodeGone(NamedTuple):
    """A node was dropped, with everything below it."""

    path: Path


class KeysFact(NamedTuple):
    """Changed keys of a large node."""

    path: Path
    set: dict[str, Any]
    unset: tuple[str, ...]


class ChildFact(NamedTuple):
    """A change of one name in the children list of the large node `path`."""

    path: Path
    name: str
    created: bool  # False: dropped


class BlobFact(NamedTuple):
    """A blob's content."""

    path: Path  # its node
    name: str  # with '/' inside a directory blob
    size: int  # bytes
    sha256: str  # 64 hex digits
    source: Source


class BlobGone(NamedTuple):
    """A blob was dropped; a directory blob with its files."""

    path: Path
    name: str


Fact = NodeFact | NodeGone | KeysFact | ChildFact | BlobFact | BlobGone

Changes = dict[str, dict[str, list[str]]]
"""What a transaction touched: node path -> {"set", "unset": keys, "new", "gone": children, "put", "del": blobs}."""


class Header(NamedTuple):
    """The part of a record that is kept for ever, for validation, for finding a transaction, and as history."""

    txid: str
    at: str  # UTC, ISO 8601; for people
    who: str  # user@host:pid; for people
    changes: Changes = {}  # noqa: RUF012  # never changed
    message: str | None = None
    key: str | None = None  # idempotency key
    staged: bool = False  # has files in the staging area
    aborts: tuple[str, ...] = ()  # ids of transactions that can no longer be committed


_BEGINNINGS = tuple(b'{"v":%d,' % known for known in (FORMAT, ABORTING))  # of every header that this version writes
_PREFIX = struct.Struct("<I")  # length of the facts' JSON; inline content follows it
_TOUCHED = frozenset({"set", "unset", "new", "gone", "put", "del"})


class _Encoded(wal.Record):
    """A record made by this process, with its header and facts, which need not be parsed."""

    says: tuple[Header, Sequence[Fact]]


def header_of(record: wal.Record) -> Header:
    """The record's header. Raises as `decode_header`."""
    return record.says[0] if isinstance(record, _Encoded) else decode_header(record.header)


def facts_of(record: wal.Record) -> Sequence[Fact]:
    """The record's facts. Raises as `decode_facts`, and FormatError for a record of a newer format."""
    if isinstance(record, _Encoded):
        return record.says[1]
    check_format(record.header)
    return decode_facts(record.body or b"")


def check_format(header: bytes) -> None:
    """Raises FormatError for a header of a newer format. Only `decode_header` parses the rest."""
    if not header.startswith(_BEGINNINGS):
        decode_header(header)


def encode(header: Header, facts: Sequence[Fact]) -> wal.Record:
    """The log record of a transaction. Raises InvalidLocationError, InvalidMetadataError for what `decode_facts` would
    refuse."""
    inline: list[bytes] = []
    offset = 0
    rows: list[list[Any]] = []
    for fact in facts:
        rows.append(_row(fact, offset))
        if type(fact) is BlobFact and type(fact.source) is Inline:
            inline.append(fact.source.data)
            offset += len(fact.source.data)
    text = jsontext.dump(rows)
    record = _Encoded(encode_header(header), b"".join([_PREFIX.pack(len(text)), text, *inline]))
    record.says = header, facts
    return record


def encode_header(header: Header) -> bytes:
    """A header's JSON, without empty fields."""
    value: dict[str, Any] = {
        "v": ABORTING if header.aborts else FORMAT,
        "txid": header.txid,
        "at": header.at,
        "who": header.who,
    }
    if header.message:
        value["message"] = header.message
    if header.key:
        value["key"] = header.key
    if header.staged:
        value["staged"] = True
    if header.aborts:
        value["aborts"] = header.aborts
    value["changes"] = header.changes
    return jsontext.dump(value)


def _row(fact: Fact, offset: int) -> list[Any]:
    path = join(fact.path)
    parts.path(path)
    match fact:
        case NodeFact():
            return ["node", path, parts.keys(fact.keys), parts.children(fact.path, list(fact.children))]
        case BlobFact():
            row: list[Any] = ["blob", path, parts.blob_name(fact.name), fact.size, fact.sha256]
            match fact.source:
                case Inline():
                    return [*row, "inline", offset]
                case Slice(file, None):
                    return [*row, "staged", file]
                case Slice(file, at):
                    return [*row, "pack", file, at]
        case NodeGone():
            return ["gone", path]
        case KeysFact():
            return ["keys", path, parts.keys(fact.set), fact.unset]
        case ChildFact():
            return ["child", path, check_name(fact.name), fact.created]
        case BlobGone():
            return ["unblob", path, parts.blob_name(fact.name)]


def decode_header(data: bytes) -> Header:
    """Parse a header and check its types. Raises FormatError (newer format), CorruptionError."""
    try:
        value = jsontext.load(data)
        if type(value["v"]) is not int:
            raise ValueError("the format is not a number")
        if value["v"] not in (FORMAT, ABORTING):
            raise FormatError(f"the log holds a record of format {value['v']}; this version knows {ABORTING}: upgrade")
        aborts = tuple(parts.texts(value["aborts"])) if value["v"] == ABORTING else ()
        txid, at, who, staged = value["txid"], value["at"], value["who"], value.get("staged", False)
        message, key = value.get("message"), value.get("key")
        parts.join_texts((txid, at, who, "" if message is None else message, "" if key is None else key))
        if type(staged) is not bool:
            raise ValueError("`staged` is neither true nor absent")
        changes = value["changes"]
        for change in changes.values():
            for kind, names in change.items():
                if kind not in _TOUCHED or type(names) is not list:
                    raise ValueError(f"{kind!r} is not a kind of change")
                parts.join_texts(names)
        return Header(txid, at, who, changes, message, key, staged, aborts)
    except parts.MALFORMED as error:
        raise CorruptionError(f"a record's header in the log cannot be parsed: {error!r}") from error


def decode_facts(body: bytes) -> list[Fact]:
    """Parse a body. Raises FormatError for an unknown fact, CorruptionError for anything that no transaction can have
    written: a log may come from an untrusted source, and no name in it may lead out of the root."""
    try:
        (length,) = _PREFIX.unpack_from(body)
        start = _PREFIX.size + length
        if start > len(body):
            raise ValueError("shorter than its own length field")
        text = body[_PREFIX.size : start]
        rows = jsontext.load(text)
        if type(rows) is not list:
            raise ValueError("the facts are not a list")
        facts = [_fact(row, body, start) for row in rows]
        brackets = text.count(b"[") + text.count(b"{") - 1 - len(rows)
        if brackets > MAX_DEPTH:
            usual = 2 * sum(isinstance(fact, (NodeFact, KeysFact)) for fact in facts)
            if brackets - usual > MAX_DEPTH:
                jsontext.dump(rows)  # raises for values nested too deeply to be written to a file again
        return facts
    except parts.MALFORMED as error:
        raise CorruptionError(f"a record's body in the log cannot be parsed: {error!r}") from error


def _fact(row: list[Any], body: bytes, start: int) -> Fact:
    if type(row) is not list:
        raise ValueError("a fact is not a list")
    kind, path = row[0], parts.path(row[1])
    match kind:
        case "node":
            _, _, keys, children = row
            return NodeFact(path, parts.keys(keys), parts.children(path, children))
        case "gone":
            if len(row) != 2 or not path:
                raise ValueError("a dropped node has more than a path")
            return NodeGone(path)
        case "keys":
            _, _, keys, unset = row
            return KeysFact(path, parts.keys(keys), tuple(parts.texts(unset)))
        case "child":
            _, _, name, created = row
            if type(created) is not bool:
                raise ValueError("a child is neither created nor dropped")
            return ChildFact(path, check_name(name), created)
        case "unblob":
            _, _, name = row
            return BlobGone(path, parts.blob_name(name))
        case "blob":
            _, _, name, size, sha256, *source = row
            if not parts.is_size(size) or not parts.is_sha256(sha256):
                raise ValueError("a blob's size or sha256 is not valid")
            return BlobFact(path, parts.blob_name(name), size, sha256, _source(source, size, body, start))
        case _:
            raise FormatError(f"the log holds a fact of the unknown kind {kind!r}: written by a newer version, upgrade")


def _source(source: list[Any], size: int, body: bytes, start: int) -> Source:
    match source:
        case ["inline", offset] if parts.is_size(offset):
            data = body[start + offset : start + offset + size]
            if len(data) != size:
                raise ValueError("inline content is cut short")
            return Inline(data)
        case ["staged", str(file)]:
            return Slice(layout.check_staged(file))
        case ["pack", str(file), offset] if parts.is_size(offset) and parts.is_size(offset + size):
            return Slice(layout.check_staged(file), offset)
        case ["inline" | "staged" | "pack", *_]:
            raise ValueError("content is nowhere")
    raise FormatError(f"the log holds content of the unknown kind {source[0]!r}: written by a newer version, upgrade")
