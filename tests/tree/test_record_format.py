"""The bytes of a record are pinned: docs/log_format.md, "Records of the tree", describes exactly these.

The files in golden/ were written once. A failure here means that logs which exist could not be read any more, or that
older programs could not read new ones: that takes a new format number and a decision record, never a new golden file.
"""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from metatree import jsontext
from metatree.errors import CorruptionError, FormatError
from metatree.facts import (
    BlobFact,
    BlobGone,
    ChildFact,
    Fact,
    Header,
    Inline,
    KeysFact,
    NodeFact,
    NodeGone,
    Slice,
    decode_facts,
    decode_header,
    encode,
    encode_header,
)

GOLDEN = Path(__file__).parent / "golden"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "log_format.md"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


HEADER = Header(
    txid="2a-00112233445566aa",
    at="2025-01-02T03:04:05.678901+00:00",
    who="ana@lab:4711",
    changes={"": {"new": ["fräulein"]}, "fräulein": {"set": ["auc"], "new": ["v1"]}, "fräulein/v1": {"put": ["w.bin"]}},
    message="nightly “build”",
    key="nightly-7",
    staged=True,
)
BARE = Header(txid="0-0000000000000000", at="2025-01-02T03:04:05.678901+00:00", who="ana@lab:4711")

# One fact of each kind and one content of each kind, with every kind of JSON value.
FACTS: list[Fact] = [
    NodeGone(("old",)),
    BlobFact(("fräulein", "v1"), "w.bin", 3, digest(b"\x00\x01\xff"), Inline(b"\x00\x01\xff")),
    BlobFact(("fräulein", "v1"), "dir/sub/x", 5, digest(b"hello"), Inline(b"hello")),
    BlobFact(("fräulein", "v1"), "empty", 0, digest(b""), Inline(b"")),
    BlobFact(("fräulein", "v1"), "big", 70_000, digest(b"big"), Slice(".wal/staged/2a-00112233445566aa/1")),
    BlobFact(("fräulein", "v1"), "many", 9, digest(b"many"), Slice(".wal/staged/2a-00112233445566aa/pack", 123)),
    BlobGone(("fräulein", "v1"), "old.bin"),
    NodeFact(("fräulein", "v1"), {}, ()),
    NodeFact(
        ("fräulein",),
        {
            "auc": 0.93,
            "n": 2**63,
            "neg": -(2**63),
            "on": True,
            "off": None,
            "deep": {"a": [1, 1.0, "x\n\t\u0001\u2028"]},
        },
        ("v1", "v2"),
    ),
    KeysFact(("large",), {"stage": "candidate"}, ("gone",)),
    ChildFact((), "fräulein", True),
    ChildFact((), "old", False),
]
NAMES = {"header": encode_header(HEADER), "header-bare": encode_header(BARE), "body": encode(HEADER, FACTS).body}


def golden(name: str) -> bytes:
    return (GOLDEN / f"record-{name}.bin").read_bytes()


@pytest.fixture(params=["orjson", "json"])
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Once with orjson, once with the standard library, as on a Python for which there is no orjson."""
    if request.param == "json":
        monkeypatch.setattr(jsontext, "orjson", None)
    else:
        assert jsontext.orjson is not None, "orjson is a dependency"
    return str(request.param)


def test_a_fixed_transaction_has_the_bytes_it_always_had(codec: str) -> None:
    record = encode(HEADER, FACTS)
    assert record.header == golden("header")
    assert record.body == golden("body")
    assert encode_header(BARE) == golden("header-bare")


def test_bytes_written_by_either_codec_are_read_by_the_other(codec: str) -> None:
    assert decode_header(golden("header")) == HEADER
    assert decode_header(golden("header-bare")) == BARE
    assert_same(decode_facts(golden("body")), FACTS)


def test_each_codec_reads_what_the_other_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [{"ä": 1e-7, "b": 1e22, "c": 123456789.125, "d": '\ud7ff\U0001f600"\\/', "e": [], "f": {}, "g": 2**64 - 1}]
    fast = [jsontext.dump(values), jsontext.dump_readable(values)]
    with monkeypatch.context() as patch:
        patch.setattr(jsontext, "orjson", None)
        slow = [jsontext.dump(values), jsontext.dump_readable(values)]
        for data in fast:
            assert_same(jsontext.load(data), values)
    for data in slow:
        assert_same(jsontext.load(data), values)
        assert_same(jsontext.load_strict(data), values)


@pytest.mark.parametrize("text", [b"NaN", b"[Infinity]", b'{"a": -Infinity}', b"\xff", b"", b"{", b"[1,]"])
def test_what_is_not_json_is_a_value_error_with_either_codec(codec: str, text: bytes) -> None:
    with pytest.raises(ValueError):
        jsontext.load(text)


def test_a_metadata_file_is_indented_by_two_and_ends_in_one_newline(codec: str) -> None:
    text = jsontext.dump_readable({"children": ["v1"], "ä": {"n": 1}})
    assert text.decode() == '{\n  "children": [\n    "v1"\n  ],\n  "ä": {\n    "n": 1\n  }\n}\n'
    assert jsontext.dump_readable({}) == b"{}\n"


def test_the_body_is_a_length_json_and_the_inline_content_end_to_end() -> None:
    body = golden("body")
    (length,) = struct.unpack("<I", body[:4])
    assert body[4 + length :] == b"\x00\x01\xff" + b"hello"
    assert [row[0] for row in jsontext.load(body[4 : 4 + length])] == [
        *("gone", "blob", "blob", "blob", "blob", "blob", "unblob", "node", "node", "keys", "child", "child")
    ]


def test_a_newer_format_or_an_unknown_fact_is_refused_and_never_skipped() -> None:
    with pytest.raises(FormatError, match="format 2"):
        decode_header(golden("header").replace(b'"v":1', b'"v":2'))
    for rows in ([["rename", "a", "b"]], [["blob", "a", "b", 1, "0" * 64, "elsewhere", 0]]):
        text = jsontext.dump(rows)
        with pytest.raises(FormatError, match="unknown kind"):
            decode_facts(struct.pack("<I", len(text)) + text)


def test_a_body_cut_anywhere_is_corruption_and_nothing_else() -> None:
    body = golden("body")
    for cut in range(len(body)):
        with pytest.raises(CorruptionError, match="body"):
            decode_facts(body[:cut])


def test_a_length_field_that_promises_more_than_there_is_is_corruption_before_anything_is_made_of_it() -> None:
    for length in (3, 2**32 - 1):
        with pytest.raises(CorruptionError, match="length"):
            decode_facts(struct.pack("<I", length) + b"[]")


def test_a_header_cut_anywhere_is_corruption_and_nothing_else() -> None:
    header = golden("header")
    for cut in range(len(header)):
        with pytest.raises(CorruptionError, match="header"):
            decode_header(header[:cut])


def test_the_document_shows_a_record_that_parses_as_it_says() -> None:
    chapter = DOCUMENT.read_text().partition("## Records of the tree")[2]
    blocks = re.findall(r"```text\n((?:[0-9a-f]{4}  .*\n)+)```", chapter)
    assert len(blocks) == 1, "the chapter has one worked example in hex"
    data = b"".join(bytes.fromhex(line[6:54]) for line in blocks[0].splitlines())
    facts = [
        BlobFact(("m",), "a", 2, digest(b"hi"), Inline(b"hi")),
        NodeFact(("m",), {"x": 1}, ()),
        NodeFact((), {}, ("m",)),
    ]
    assert_same(decode_facts(data), facts)
    assert data == encode(BARE, facts).body


def assert_same(one: Any, other: Any) -> None:
    """Equal, and of equal types all the way down: 1, 1.0 and true are three values."""
    assert one == other
    assert repr(one) == repr(other)
