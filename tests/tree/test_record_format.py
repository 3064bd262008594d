"""The bytes of a record are pinned: docs/log_format.md, "Records of the tree", describes exactly these.

The files in golden/ were written once. A failure here means that logs which exist could not be read any more, or that
older programs could not read new ones: that takes a new format number and a decision record, never a new golden file.
"""

from __future__ import annotations

import copy
import hashlib
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metatree import folders, jsontext, layout, parts
from metatree.errors import CorruptionError, FormatError, InvalidLocationError, InvalidMetadataError
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
from metatree.fold import fold
from metatree.location import check_name
from metatree.nodes import NodeCache, NodeState
from metatree.values import check_values

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
ABORTING = Header(
    txid="2b-0000000000000000",
    at="2025-01-02T03:04:05.678901+00:00",
    who="ana@lab:4711",
    aborts=("0-00112233445566aa", "2a-00112233445566aa"),
)
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
    assert encode_header(ABORTING) == golden("header-aborting")


def test_bytes_written_by_either_codec_are_read_by_the_other(codec: str) -> None:
    assert decode_header(golden("header")) == HEADER
    assert decode_header(golden("header-bare")) == BARE
    assert decode_header(golden("header-aborting")) == ABORTING
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
    with pytest.raises(FormatError, match="format 3"):
        decode_header(golden("header").replace(b'"v":1', b'"v":3'))
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


# --- a log from a stranger: right CRC, wrong facts --------------------------------------------------------------------

SHA = "0" * 64
STAGED = ".wal/staged/1-0011223344556677"
WRONG_ROWS: list[Any] = [
    7,
    "gone",
    {"gone": "m"},
    [],
    ["gone"],
    ["gone", ""],
    ["gone", 0],
    ["gone", None],
    ["gone", ["m"]],
    ["gone", "m", 1],
    ["gone", "../m"],
    ["gone", "m//v"],
    ["node", "m", 5, ["a"]],
    ["node", "m", {}, "ab"],
    ["node", "m", {}, {"a": 1}],
    ["node", "m", {}, ["a", "a"]],
    ["node", "m", {}, ["a", 1]],
    ["node", "m", {}, [["a"]]],
    ["node", "m", {}, [".."]],
    ["node", "m", {}],
    ["node", "m", {"children": ["a"]}, []],
    ["node", "m", {"": 1}, []],
    ["node", "m", {"k" * 1025: 1}, []],
    ["node", "m", {"ä" * 513: 1}, []],
    ["keys", "m", {"a": 1}, 5],
    ["keys", "m", {"a": 1}, "ab"],
    ["keys", "m", {"a": 1}, [1]],
    ["keys", "m", ["a"], []],
    ["child", "m", "x", "yes"],
    ["child", "m", "x", 1],
    ["child", "m", 1, True],
    ["child", "m", "a/b", True],
    ["unblob", "m", 1],
    ["unblob", "m", ""],
    ["unblob", "m", ".."],
    ["unblob", "m", "d/../../x"],
    ["unblob", "m", "d/" + "x" * 100 + "/y" * 500],
    ["unblob", "m", "metadata.json"],
    ["unblob", "", ".wal/head"],
    *(["blob", "m", "b", size, SHA, "staged", f"{STAGED}/1"] for size in (-1, "1", True, None, 1.0, 2**63)),
    *(["blob", "m", "b", 1, sha, "staged", f"{STAGED}/1"] for sha in ("", "0" * 63, "G" * 64, 0, None, "A" * 64)),
    *(["blob", "m", "b", 1, SHA, "inline", offset] for offset in (-1, 1, "0", False, None, 2**63, 0.0)),
    *(["blob", "m", "b", 1, SHA, "pack", f"{STAGED}/pack", at] for at in (-1, 2**63 - 1, "0", True, None, 2**64 - 1)),
    ["blob", "m", "b", 1, SHA, "pack", f"{STAGED}/pack"],
    ["blob", "m", "b", 1, SHA, "inline"],
    ["blob", "m", "b", 1, SHA],
    *(
        ["blob", "m", "b", 1, SHA, "staged", name]
        for name in (1, None, ["x"], "x", ".wal/head", f"{STAGED}/", f"{STAGED}/..", f"{STAGED}/a/b", f"{STAGED}/\0",
                     ".wal/staged/../1", ".wal/staged/a\0b/1", ".wal/staged//1", f"{STAGED}/1\n", "/" + STAGED + "/1")
    ),
    ["blob", "m", 5, 1, SHA, "staged", f"{STAGED}/1"],
]  # fmt: skip


def body_of(rows: Any) -> bytes:
    text = jsontext.dump(rows)
    return struct.pack("<I", len(text)) + text + b"x"


@pytest.mark.parametrize("row", WRONG_ROWS, ids=lambda row: ascii(row)[:50])
def test_a_fact_that_no_transaction_can_have_written_is_corruption(row: Any, codec: str) -> None:
    with pytest.raises(CorruptionError, match="body"):
        decode_facts(body_of([["gone", "old"], row]))


@pytest.mark.parametrize("rows", [{}, "rows", None, 5, {"node": 1}], ids=repr)
def test_facts_that_are_no_list_are_corruption(rows: Any) -> None:
    with pytest.raises(CorruptionError, match="body"):
        decode_facts(body_of(rows))


@pytest.mark.parametrize("number", ["1e999", "-1e999", r'"\ud800"', r'{"\udfff": 1}', "NaN", "[" * 5000 + "]" * 5000])
def test_a_value_that_is_not_json_text_is_corruption(codec: str, number: str) -> None:
    text = f'[["node","m",{{"k":{number}}},[]]]'.encode()
    with pytest.raises(CorruptionError, match="body"):
        decode_facts(struct.pack("<I", len(text)) + text)


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"]": value, '"[': "{["}
    return value


@pytest.mark.parametrize("kind", ["node", "keys"])
def test_values_are_read_as_deep_as_they_can_be_written_but_never_too_deep_for_a_file(codec: str, kind: str) -> None:
    (fact,) = decode_facts(body_of([[kind, "m", check_values({"k": nested(100)}), []]]))
    assert isinstance(fact, NodeFact | KeysFact)
    assert (fact.keys if isinstance(fact, NodeFact) else fact.set) == {"k": nested(100)}
    for depth in (*range(100, 1100, 25), 5000):
        text = f'[["{kind}","m",{{"k":{"[" * depth}{"]" * depth}}},[]]]'.encode()
        try:
            (fact,) = decode_facts(struct.pack("<I", len(text)) + text)
        except CorruptionError:
            assert depth > 100
            continue
        folders.render(fact.keys if isinstance(fact, NodeFact) else fact.set, ["v1"])  # type: ignore[union-attr]
    assert depth == 5000
    with pytest.raises(CorruptionError, match="body"):
        decode_facts(struct.pack("<I", len(text)) + text)


@pytest.mark.parametrize(
    "wrong",
    [
        *({field: value} for field in ("txid", "at", "who") for value in (1, None, ["x"], {})),
        *({field: value} for field in ("message", "key") for value in (1, 0, False, [], {}, ["x"])),
        *({"staged": value} for value in ("yes", 1, 0, None, [])),
        *({"v": value} for value in (True, "1", None, 1.0, [])),
        *({"changes": value} for value in (None, [], "m", 1, {"m": []}, {"m": None}, {"m": "set"})),
        {"changes": {"m": {"set": "k"}}},
        *({"changes": {"m": {"put": value}}} for value in (None, 1, {"a": 1}, [1], [None], [["a"]], ["a", 2])),
        {"changes": {"m": {"sets": ["k"]}}},
    ],
    ids=repr,
)  # fmt: skip
def test_a_header_with_a_wrong_type_is_corruption(wrong: dict[str, Any]) -> None:
    value = jsontext.load(golden("header"))
    with pytest.raises(CorruptionError, match="header"):
        decode_header(jsontext.dump({**value, **wrong}))


@pytest.mark.parametrize("text", [b"[]", b"5", b"null", b'"v"', b"[1]"])
def test_a_header_that_is_no_object_is_corruption(text: bytes) -> None:
    with pytest.raises(CorruptionError, match="header"):
        decode_header(text)


RIGHT_ROWS = [
    ["node", "m", {"a": 1, "b": {"c": [None, True]}}, ["v1", "v2"]],
    ["gone", "m/v1"],
    ["keys", "m", {"a": 2.5}, ["b"]],
    ["child", "m", "v3", True],
    ["child", "", "m", False],
    ["unblob", "m/v1", "w.bin"],
    ["blob", "m/v1", "w.bin", 1, SHA, "inline", 0],
    ["blob", "m/v1", "d/x", 0, SHA, "inline", 1],
    ["blob", "m/v1", "big", 70_000, SHA, "staged", f"{STAGED}/1"],
    ["blob", "m/v1", "many", 9, SHA, "pack", f"{STAGED}/pack", 123],
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
ODD = st.recursive(
    SCALARS | st.sampled_from(["", "..", "m/v1", "d/x", "metadata.json", SHA, f"{STAGED}/1", "children", -1, 2**63]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("children"), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def mutated(draw: st.DrawFn) -> list[Any]:
    """Right rows of which some elements were replaced, dropped or added, at any depth."""
    rows = copy.deepcopy(draw(st.lists(st.sampled_from(RIGHT_ROWS), min_size=1, max_size=5)))
    for _ in range(draw(st.integers(0, 3))):
        target: Any = draw(st.sampled_from(rows))
        while isinstance(target, list) and target and draw(st.booleans()):
            deeper = [inner for inner in target if isinstance(inner, list) and inner]
            if not deeper:
                break
            target = draw(st.sampled_from(deeper))
        place = draw(st.integers(0, max(0, len(target) - 1)))
        match draw(st.sampled_from(("replace", "drop", "add"))):
            case "replace" if target:
                target[place] = draw(ODD)
            case "drop" if target:
                del target[place]
            case _:
                target.insert(place, draw(ODD))
    return rows


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutated())
def test_whatever_the_rows_are_they_are_refused_or_they_can_be_folded_and_stay_in_the_tree(rows: list[Any]) -> None:
    try:
        body = body_of(rows)
    except (TypeError, ValueError):
        return  # half a surrogate, or an integer that JSON cannot hold here: nobody can have written it
    try:
        facts = decode_facts(body)
    except (CorruptionError, FormatError):
        return
    effect = fold(facts)
    for path, inner in effect.walk():
        folders.render(inner.over_keys({}), list(inner.over_children(())))
        for name, fact in inner.blobs.items():
            if "/" not in name:
                check_name(name)
            assert ".." not in layout.blob(path, name).split("/")
            if fact is not None and isinstance(fact.source, Slice):
                assert fact.source.file.startswith(layout.STAGED + "/") and "\0" not in fact.source.file
        for name in path:
            check_name(name)
    cache = NodeCache()
    cache.keep(("m",), NodeState.of({"b": 1}, ["v1"]))
    for fact in facts:
        cache.forward([fact])
    assert encode(HEADER, facts).body is not None


def test_a_long_list_of_children_is_read_the_same_whatever_lists_of_the_node_were_read_before() -> None:
    """What stands in the list that was met last is only compared: that must never show."""
    names = [f"v{number}" for number in range(100)]
    grown, shorter, other = [*names, "new"], names[:-1], ["other", *names[1:]]
    moved, turned = [*names[1:], names[0]], names[::-1]
    lists = [names, grown, [*grown, "newer"], grown, shorter, names, other, moved, turned, names[:10], names]
    bad: list[list[Any]] = [[*names, "v7"], [*names, "new", "new"], [*names, ".."], [*names, 7], [*names, []]]

    def read(listed: list[Any]) -> NodeFact:
        text = jsontext.dump([["node", "m", {}, listed]])
        (fact,) = decode_facts(struct.pack("<I", len(text)) + text)
        assert isinstance(fact, NodeFact)
        return fact

    for before in lists:
        for after in lists:
            read(before)
            assert read(after).children == tuple(after)
        for wrong in bad:
            read(before)
            with pytest.raises(CorruptionError):
                read(wrong)
            assert read(grown).children == tuple(grown)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("pq"), st.lists(st.sampled_from(["a", "b", "c", "..", 1, "A"]), max_size=5))))
def test_a_list_of_children_is_checked_whole_whatever_was_read_of_the_node_before(read: list[Any]) -> None:
    for node, names in read:
        good = len({*names}) == len(names) and not {"..", 1} & {*names}
        for more in ([], ["d"], ["d", "e"], ["d", "d"]):  # as most often: one more than before
            if good and more != ["d", "d"]:
                assert parts.children((node,), [*names, *more]) == (*names, *more)
            else:
                with pytest.raises(ValueError):  # of whichever kind, the record is refused
                    parts.children((node,), [*names, *more])


def test_the_lists_of_a_bounded_number_of_nodes_are_kept_and_none_that_is_long() -> None:
    for number in range(3 * parts._MAX_LISTS):
        parts.children((f"n{number}",), ["a", "b"])
        assert 0 < len(parts._lists) <= parts._MAX_LISTS
    long = [f"c{number}" for number in range(parts._MAX_LIST + 1)]
    assert parts.children(("long",), long) == tuple(long)
    assert ("long",) not in parts._lists


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


CONTENT = (1, digest(b"x"), Inline(b"x"))
UNREADABLE: list[Fact] = [
    NodeGone(("m", "v1.tmp")),
    NodeGone(("m", "a/b\n")),
    NodeFact(("CON",), {}, ()),
    NodeFact(("m",), {}, ("v2", "v1.tmp")),
    NodeFact(tuple("abcde" * 40), {}, ("..",)),
    NodeFact(("x" * 200,) * 5, {}, ()),
    KeysFact(("m:1",), {}, ()),
    ChildFact(("m",), ".nfs000123", True),
    ChildFact(("m ",), "v1", False),
    BlobFact(("m",), "run 10:30.csv", *CONTENT),
    BlobFact(("m",), "d/bad:dir/ok", *CONTENT),
    BlobFact(("m",), "metadata.json", *CONTENT),
    BlobFact(("m",), "\udcff.bin", *CONTENT),
    BlobFact(("m",), "d/" + "/".join(["x" * 200] * 5), *CONTENT),
    BlobFact(("m", ""), "x", *CONTENT),
    BlobGone(("m",), "d/"),
    BlobGone(("m", "."), "x"),
]


@pytest.mark.parametrize("fact", UNREADABLE, ids=lambda fact: f"{type(fact).__name__}-{fact!a:.40}")
def test_a_record_that_cannot_be_read_is_never_written(fact: Fact, codec: str) -> None:
    with pytest.raises(InvalidLocationError):
        encode(BARE, [NodeFact((), {}, ()), fact])


@pytest.mark.parametrize("key", ["", "children", "k" * 2000])
def test_nor_is_one_with_a_key_that_cannot_be_read(key: str, codec: str) -> None:
    for fact in (NodeFact(("m",), {key: 1}, ()), KeysFact(("m",), {key: 1}, ())):
        with pytest.raises(InvalidMetadataError):
            encode(BARE, [fact])
