"""What a stranger's bytes reach: each decoder with bytes to begin with, and how to make a changed input whole again.

`run` decodes and checks what it got; it raises nothing but AssertionError for an input that broke a promise, and
whatever escapes a decoder that is not one of our own errors. `mend` makes the checksums and lengths right, so that
a mutation gets behind them; half of the inputs go in as they are.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import ingest_manifest as manifest

import wal
from metatree import config, facts, folders, jsontext, layout, location
from metatree.errors import CorruptionError, FormatError, InvalidLocationError
from wal.checkpoint import Checkpoint
from wal.claim import Claim
from wal.errors import LogCorruptionError, LogFormatError
from wal.format import (
    BATCH,
    CRC,
    FRAME_FIELDS,
    FRAME_HEADER,
    FRAME_MAGIC,
    HEADERS,
    HISTORY_MAGIC,
    RESERVED,
    SEGMENT_FIELDS,
    SEGMENT_MAGIC,
    SLOT_FIELDS,
    SLOT_MAGIC,
    SLOT_STATE,
)
from wal.frame import decode_records, encode_batch, encode_seal, find_later, intact, parse_header
from wal.head import HeadFile, new_head
from wal.history import frames
from wal.log import Record
from wal.segment import SegmentHeader, first_log_crc, frame_at, records, successor
from wal.slot import NO_LINK, Slot, decode

LOG_ID = bytes(range(16))
RECORDS = (Record(b'{"v": 1}', b"body of the first"), Record(b"second", b""))
CORRUPT = (LogCorruptionError, LogFormatError)


@dataclass(frozen=True)
class Decoder:
    """One way in."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    mend: Callable[[bytes], bytes] | None = None  # None: no checksum covers it


# --- the log: frame, segment, history, slot, head ---------------------------------------------------------------------


def run_frame(data: bytes) -> None:
    header = parse_header(data, 0)
    if header is not None and intact(data, 0, header):
        with suppress(ValueError):
            if header.kind in (BATCH, HEADERS):
                found = decode_records(data, 0, header)
                assert sum(len(r.header) + len(r.body or b"") for r in found) <= len(data)
    at = find_later(data, 0)
    assert at is None or 0 <= at < len(data)


def mend_frame(data: bytes) -> bytes:
    payload = data[FRAME_HEADER:]
    kind = data[4] % 4 if len(data) > 4 else BATCH
    lsn = int.from_bytes(data[16:18].ljust(2, b"\0"), "little")
    return _frame(kind, lsn, 0, payload)


def _frame(kind: int, lsn: int, previous: int, payload: bytes) -> bytes:
    fields = FRAME_FIELDS.pack(FRAME_MAGIC, kind, RESERVED, len(payload), lsn, previous)
    whole = fields + CRC.pack(crc32(payload, crc32(fields))) + payload
    return whole + bytes(-len(whole) % 8)


def run_segment(data: bytes) -> None:
    magic = HISTORY_MAGIC if data[3:4] == b"H" else SEGMENT_MAGIC
    try:
        header = SegmentHeader.decode(data, "file", magic)
        assert SegmentHeader.decode(header.encode(magic), "file", magic) == header
        for found in frames(header, data, "file", sealed=magic == HISTORY_MAGIC):
            if successor(found, "file") is None:
                records(found, "file")
                again = frame_at(lambda length, offset: data[offset : offset + length], len(data), found.offset)
                assert again is not None and again.header == found.header
    except CORRUPT as error:
        assert "file" in str(error)


def mend_segment(data: bytes) -> bytes:
    """A header, and behind it a chain of frames: where each ends is told by the bytes of its length field."""
    history = data[3:4] == b"H"
    fields = bytearray(data[: SEGMENT_FIELDS.size].ljust(SEGMENT_FIELDS.size, b"\0"))
    fields[:16] = (HISTORY_MAGIC if history else SEGMENT_MAGIC) + (1).to_bytes(4, "little") + bytes(4)
    fields[40:48] = (1).to_bytes(8, "little")
    parts, crc, lsn, at = [bytes(fields), CRC.pack(crc32(fields))], int.from_bytes(fields[48:52], "little"), 0, 56
    while len(data) - at >= FRAME_HEADER and len(parts) < 20:
        length = min(int.from_bytes(data[at + 8 : at + 10], "little"), len(data) - at - FRAME_HEADER)
        kind = data[at + 4] % 4
        lsn += kind != 2
        frame = _frame(kind, lsn, crc, data[at + FRAME_HEADER : at + FRAME_HEADER + length])
        crc = CRC.unpack_from(frame, FRAME_FIELDS.size)[0]
        parts.append(frame)
        at += FRAME_HEADER + length + (-(FRAME_HEADER + length) % 8)
    return b"".join(parts)


def run_slot(data: bytes) -> None:
    try:
        slot = decode(data, "file")
    except CORRUPT as error:
        assert "file" in str(error)
        return
    assert decode(slot.encode(), "file") == slot
    assert len(slot.link()) == 32


def mend_slot(data: bytes) -> bytes:
    size = SLOT_FIELDS.size + SLOT_STATE.size
    body = bytearray(data[:-4].ljust(size, b"\0"))
    body[:16] = SLOT_MAGIC + (1).to_bytes(4, "little") + bytes(4)
    headers = min(int.from_bytes(body[SLOT_FIELDS.size - 8 : SLOT_FIELDS.size - 6], "little"), len(body) - size)
    body[SLOT_FIELDS.size - 8 : SLOT_FIELDS.size] = headers.to_bytes(8, "little")
    body[SLOT_FIELDS.size] = 1 + 2 * (body[SLOT_FIELDS.size] > 127)
    if body[SLOT_FIELDS.size] == BATCH:
        body[SLOT_FIELDS.size + 8 : size] = bytes(8) + (len(body) - size - headers).to_bytes(8, "little")
    return bytes(body) + CRC.pack(crc32(body))


class _Held:
    """A file of which only its bytes are there."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def size(self) -> int:
        return len(self.data)

    def pread(self, length: int, offset: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def pwrite(self, data: bytes, offset: int) -> None:
        self.data[offset : offset + len(data)] = data

    def datasync(self) -> None:
        raise AssertionError("a head is not synced")

    def close(self) -> None:
        raise AssertionError("not here")


def run_head(data: bytes) -> None:
    head = HeadFile(_Held(data))
    head.belongs_to(LOG_ID)
    durable = head.durable()
    assert durable is None or 0 <= durable < 2**64
    state = head.state()
    assert state is None or state[0] == durable
    assert all(0 <= head.load_mark(index) < 2**64 for index in range(8))
    head.rebuild(LOG_ID, 7, 3)
    assert head.belongs_to(LOG_ID) and head.state() == (7, 7)


# --- small JSON files of the log --------------------------------------------------------------------------------------


def run_checkpoint(data: bytes) -> None:
    try:
        found = Checkpoint.decode(data, "file")
    except CORRUPT as error:
        assert "file" in str(error)
        return
    assert Checkpoint.decode(found.encode(), "file") == found


def mend_checkpoint(data: bytes) -> bytes:
    try:
        fields = json.loads(data)
        fields.pop("crc", None)
        line = json.dumps(fields, separators=(",", ":")).encode() + b"\n"
        whole = {**fields, "crc": f"{crc32(line):08x}"}
        return json.dumps(whole, separators=(",", ":")).encode() + b"\n"
    except (ValueError, AttributeError, TypeError, RecursionError):
        return data


def run_claim(data: bytes) -> None:
    claim = Claim.decode(data)
    if claim is not None:
        assert Claim.decode(claim.encode()) == claim


# --- records of the tree, and its files -------------------------------------------------------------------------------


def run_header(data: bytes) -> None:
    with suppress(CorruptionError, FormatError):
        header = facts.decode_header(data)
        again = facts.encode_header(header)  # an empty message is written as none
        assert facts.encode_header(facts.decode_header(again)) == again


def run_facts(data: bytes) -> None:
    with suppress(CorruptionError, FormatError):
        found = facts.decode_facts(data)
        for fact in found:
            inside(layout.folder(fact.path))
            if isinstance(fact, facts.BlobFact | facts.BlobGone):
                inside(layout.blob(fact.path, fact.name))
            if isinstance(fact, facts.BlobFact) and isinstance(fact.source, facts.Slice):
                inside(fact.source.file)
                assert fact.source.file.startswith(f"{layout.STAGED}/")
        header = facts.Header("t", "now", "me")
        again = facts.decode_facts(facts.encode(header, found).body or b"")
        assert again == found
        assert [*map(type, again)] == [*map(type, found)], "facts of two kinds with the same fields are equal"


def mend_facts(data: bytes) -> bytes:
    """The length in front says where the JSON ends: at the last bracket that closes."""
    end = data.rfind(b"]") + 1
    return max(end - 4, 0).to_bytes(4, "little") + data[4:]


def inside(name: str) -> None:
    """Fails for a name that could lead out of the root, or onto a file of the engine."""
    segments = name.split("/") if name else []
    assert not any(segment in ("", ".", "..") or "\0" in segment or "\\" in segment for segment in segments), name


def run_metadata(data: bytes) -> None:
    marked = facts.jsontext.dump({"lsn": 1, "sha256": folders.digest(data)})
    for attribute in (None, marked, b'{"lsn": 1, "sha256": "0"}'):
        try:
            node = folders.parse_node("m/metadata.json", wal.Stored(data, attribute))
        except CorruptionError as error:
            assert "m/metadata.json" in str(error)
            continue
        if attribute is not marked:
            for child in node.children:
                location.check_name(child)
            jsontext.load(folders.render(node.keys, list(node.children)))


def run_attribute(data: bytes) -> None:
    found = folders.Attribute.decode(data)
    assert found is None or (isinstance(found.lsn, int) and isinstance(found.sha256, str))


def run_config(data: bytes) -> None:
    storage: Any = SimpleNamespace(read=lambda name: wal.Stored(data, None), url="memory")
    try:
        found = config.read(storage)
    except (CorruptionError, FormatError):
        return
    assert found is not None
    for key in found.keys:
        location.check_name(key)


# --- what people hand in ----------------------------------------------------------------------------------------------

JSONL = manifest.Options("jsonl", manifest.Columns(), False, 3)
CSV = manifest.Options("csv", manifest.Columns(), True, 3)


def run_jsonl(data: bytes) -> None:
    _rows(manifest._json_rows(io.BytesIO(data)), JSONL)


def run_csv(data: bytes) -> None:
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", errors="surrogateescape", newline="")
    with suppress(manifest.ManifestError):
        _rows(manifest._csv_rows(text, CSV), CSV)


def _rows(raws: Iterator[tuple[int, Any]], options: manifest.Options) -> None:
    for batch in manifest.batches_of(raws, Path("/base"), options):
        for row in batch.rows:
            assert isinstance(row.source, str) and isinstance(row.name, str)
            run_place(row.location)
        for reject in batch.rejects:
            assert reject.line > 0 and reject.reason is not None


def run_location(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    value: Any = text
    if text[:1] in "[{":
        with suppress(ValueError, RecursionError):
            value = json.loads(text)
    run_place(tuple(value) if isinstance(value, list) else value)


def run_place(value: Any) -> None:
    if not isinstance(value, str | tuple | dict):
        return
    with suppress(InvalidLocationError):
        segments = location.parse(value, ("model", "version"))
        for segment in segments:
            if isinstance(segment, location.Reference):
                with suppress(InvalidLocationError):
                    inside(location.substitute(segment, {segment.key: segment.key}, ()))
            else:
                inside(segment)


# --- the table --------------------------------------------------------------------------------------------------------

_first, _crc = encode_batch(1, first_log_crc(LOG_ID), RECORDS)
_second, _last = encode_batch(2, _crc, RECORDS[:1])
_SEGMENT = SegmentHeader(LOG_ID, 1, 1, first_log_crc(LOG_ID)).encode() + _first + _second
_SLOT = Slot(LOG_ID, 3, bytes(16), NO_LINK, RECORDS)
_PLACE = ("m", "v1")
_FACTS = (
    facts.NodeFact(("m",), {"a": [1, {"b": None}]}, ("v1", "v2")),
    facts.KeysFact(_PLACE, {"auc": 0.5}, ("old",)),
    facts.ChildFact(("m",), "v3", True),
    facts.BlobFact(_PLACE, "d/w", 3, "0" * 64, facts.Inline(b"abc")),
    facts.BlobFact(_PLACE, "x", 3, "0" * 64, facts.Slice(layout.staged("1-00", 1))),
    facts.BlobFact(_PLACE, "y", 3, "0" * 64, facts.Slice(layout.pack("1-00"), 4)),
    facts.BlobGone(_PLACE, "z"),
    facts.NodeGone(("gone",)),
)
_HEADER = facts.Header("1-00", "2026-01-01T00:00:00Z", "me@here:1", {"m": {"set": ["a"], "new": ["v1"]}}, "why", "k")
_RECORD = facts.encode(_HEADER, _FACTS)

DECODERS: dict[str, Decoder] = {
    "frame": Decoder(run_frame, (_first, _frame(HEADERS, 2, 0, b"\1\0\0\0\2\0\0\0hi")), mend_frame),
    "segment": Decoder(
        run_segment,
        (
            _SEGMENT + encode_seal(2, _last, 2)[0] + bytes(64),
            SegmentHeader(LOG_ID, 1, 1, 0).encode(HISTORY_MAGIC) + _frame(HEADERS, 1, 0, b"\1\0\0\0\2\0\0\0hi"),
        ),
        mend_segment,
    ),
    "slot": Decoder(run_slot, (_SLOT.encode(), _SLOT.without_bodies(5).encode()), mend_slot),
    "head": Decoder(run_head, (new_head(LOG_ID, 9)[:320],)),
    "checkpoint": Decoder(run_checkpoint, (Checkpoint(LOG_ID.hex(), 5, 1, 56).encode(),), mend_checkpoint),
    "claim": Decoder(run_claim, (Claim(LOG_ID.hex(), "00", "me@here:1", 4, True, 2, False, (0,) * 8).encode(),)),
    "header": Decoder(run_header, (_RECORD.header,)),
    "facts": Decoder(run_facts, (_RECORD.body or b"",), mend_facts),
    "metadata": Decoder(run_metadata, (b'{"children": ["v1", "v2"], "a": [1, {"b": 1.5}], "c": "\\u00fc"}',)),
    "attribute": Decoder(run_attribute, (folders.Attribute(3, "0" * 64).encode(),)),
    "config": Decoder(run_config, (config.render(("model", "version"), LOG_ID.hex(), "append"),)),
    "jsonl": Decoder(
        run_jsonl,
        (
            b'{"location": "m/v1", "source": "a.bin", "auc": 0.5}\n{"location": ["m", "v2"], "source": "s3://b/k", '
            b'"name": "x"}\n{"location": {"model": "<a>"}, "source": "../x"}\n',
        ),
    ),
    "csv": Decoder(run_csv, (b'\xef\xbb\xbflocation,source,name,auc\r\nm/v1,a.bin,,0.5\r\n"m/v2","b,\n",x,true\r\n',)),
    "location": Decoder(
        run_location, (b"m/v1/blob/inner", b"<a>/<b>", b'["m", "<x>"]', b'{"model": {"metadata": "a"}}')
    ),
}
