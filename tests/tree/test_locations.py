"""Bad locations: each class of them is one error, raised before any input or output, and leaves the tree as it was."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import wal
from metatree import InvalidLocationError, Metatree, MetatreeError
from metatree.location import _MAX_GOOD, MAX_PATH, MAX_SEGMENT, _good, check_name, check_names, fold_name, parse
from tests.tree.storages import at, records, repeats
from wal.testing import ALL_CALLS, Boundary

LEVELS = ("model", "version")

BAD_SEGMENTS: dict[str, list[str]] = {
    "leads elsewhere": ["..", "."],
    "empty": [""],
    "separator of another system": ["a\\b", "\\", "..\\.."],
    "NUL": ["\0", "a\0b", "a\0"],
    "control": ["a\nb", "\t", "\x01", "a\x1b[31m", "\x7f", "a\r", "\x85", "\x9f"],
    "line separators": ["a\u2028b", "a\u2029b"],
    "bidirectional": [*(f"a{c}b" for c in "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c")],
    "byte order mark": ["\ufeffa", "a\ufeff"],
    "drive and stream": ["a:b", "c:", "a::b", "::"],
    "pattern": ["*", "a*", "a?", "[a]", "a[", "]"],
    "shell and markup": ["a<b", "a>b", 'a"b', "a|b", "<", ">", "<>"],
    "url": ["s3:", "file:", "s3::a"],
    "lone surrogate": ["\ud800", "a\udfffb", "\udcff"],
    "not composed": ["e\u0301", "A\u030a", "\u1112\u1161\u11ab", "\u212b"],
    "unassigned": ["\u0378", "\uffff", "\U0010ffff"],
    "metadata.json": ["metadata.json", "METADATA.JSON", "Metadata.Json"],
    "the engine's": [".wal", ".WAL", ".lock", ".Lock", ".metatree", ".METATREE", "lost+found", "Lost+Found"],
    "temporary": ["a.tmp", ".tmp", "A.TMP", ".nfs000", ".NFS1", ".nfs"],
    "device": [
        "con",
        "CON",
        "nul",
        "aux",
        "prn",
        "com1",
        "COM9",
        "lpt1",
        "Lpt9",
        "nul.txt",
        "con.tar.gz",
        "com¹",
        "aux .x",
    ],
    "trailing dot or space": ["a.", "a ", "...", " ", "a. ", "a .", "a.\u0020"],
    "leading space": [" a"],
    "too long": ["x" * (MAX_SEGMENT + 1), "ü" * (MAX_SEGMENT // 2 + 1), "😀" * 51, "x" * 5000],
}
ALL_BAD = [pytest.param(name, id=f"{kind}-{name[:12]!a}") for kind, names in BAD_SEGMENTS.items() for name in names]

GOOD_SEGMENTS = [
    "m", "model-1", "Model_2.0", "v1.2.3+build", "a b", "ünï", "漢字", "😀", "a'b", "(a)", "a,b;c=d&e@f#g%h~i!$^`{}",
    ".hidden", "..a", "a..b", "x" * MAX_SEGMENT, "é" * (MAX_SEGMENT // 2), "-rf", "~", "null", "console", "com",
    "com10", "tmp", "a.tmp.x", "nfs", "metadata", "metadata.json.bak", "wal", "lock", "0", "١٢٣", "a\u200db", "\u00adx",
]  # fmt: skip


class Watching(Boundary):
    """Counts every call that passes, reading and looking included."""

    def __init__(self) -> None:
        super().__init__(counted=ALL_CALLS)


@pytest.fixture
def watched(fast_path: Path) -> Iterator[tuple[Metatree, Watching]]:
    """A small tree and the boundary that every byte and look passes."""
    watching = Watching()
    root = fast_path / "tree"
    root.mkdir()
    tree = Metatree(wal.LocalStorage(str(root), posix=watching), LEVELS)
    tree.put("m/v1", b"x", name="b")
    tree.find("m/v1")
    yield tree, watching
    assert tree.children("") == ["m"] and tree.lsn == 1
    report = tree.check(deep=True)
    assert report.ok and not report.notes, str(report)
    tree.close()


def verbs(tree: Metatree, location: Any) -> list[Callable[[], object]]:
    """Every call that takes a location."""
    return [
        lambda: tree.find(location),
        lambda: tree.put(location, b"x", name="b"),
        lambda: tree.get(location),
        lambda: tree.open(location),
        lambda: tree.update(location, {"a": 1}),
        lambda: tree.unset(location, "a"),
        lambda: tree.delete(location, recursive=True),
        lambda: tree.move(location, "x"),
        lambda: tree.move("m", location),
        lambda: tree.copy(location, "x"),
        lambda: tree.copy("m", location),
        lambda: tree.compare_and_set(location, "a", None, 1),
        lambda: tree.list(location),
        lambda: tree.children(location),
        lambda: tree.exists(location),
        lambda: list(tree.walk(location)),
    ]


def test_every_verb_refuses_every_bad_segment_before_any_input_or_output(watched: tuple[Metatree, Watching]) -> None:
    tree, watching = watched
    before = watching.count
    for names in BAD_SEGMENTS.values():
        for name in names:
            if name == "":
                continue  # "" as a whole is the root
            locations: list[Any] = [
                name,
                f"m/{name}",
                (name,),
                ("m", name),
                {"model": name},
                {"model": {"value": name}},
            ]
            for location in locations:
                for call in verbs(tree, location):
                    with pytest.raises(InvalidLocationError):
                        call()
    assert watching.count == before


@pytest.mark.parametrize("name", ALL_BAD)
def test_a_bad_segment_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(InvalidLocationError, match="cannot be a segment") as caught:
        check_name(name)
    assert isinstance(caught.value, ValueError)
    str(caught.value).encode()  # the message itself can be printed, whatever the name held
    for location in ((name,), ("m", name, "b"), {"model": name}, {"model": "m", "version": {"value": name}}):
        with pytest.raises(InvalidLocationError):
            parse(location, LEVELS)


BAD_STRINGS = [
    "/",
    "//",
    "/m",
    "m/",
    "m//v1",
    "/m/v1",
    "m/v1/",
    "../x",
    "m/../v1",
    "m/./v1",
    "./m",
    "s3://bucket/m",
    "file:///etc/passwd",
    "m/v1::x",
    "m\\v1",
    "m/\0",
    "~/../x",
    "m/v1/../../../etc/passwd",
    " m",
    "m /v1",
    "m/ v1",
]


def test_a_string_that_is_no_plain_path_is_refused(watched: tuple[Metatree, Watching]) -> None:
    tree, watching = watched
    before = watching.count
    for location in BAD_STRINGS:
        for call in verbs(tree, location):
            with pytest.raises(InvalidLocationError):
                call()
    assert watching.count == before


@pytest.mark.everywhere
def test_good_names_work_as_node_and_blob_and_stand_on_the_storage_as_they_are(
    make_tree: Callable[..., Metatree],
) -> None:
    tree = make_tree()
    with tree.transaction():
        for name in GOOD_SEGMENTS:
            tree.put((name, "v1"), b"content", name=name)
    for name in GOOD_SEGMENTS:
        assert b"".join(tree.get((name, "v1", name))) == b"content"
        if "/" not in name:
            assert tree.find((name,)).name == name
    assert tree.children("") == GOOD_SEGMENTS
    tree.flush()
    for name in GOOD_SEGMENTS:
        assert at(tree, name, "v1", name).read_bytes() == b"content"


def test_more_segments_than_levels_are_refused(watched: tuple[Metatree, Watching]) -> None:
    tree, _ = watched
    for location in ("m/v1/x/y", ("m", "v1", "x", "y")):
        for call in (
            lambda location=location: tree.put(location, b"x", name="b"),
            lambda location=location: tree.find(location),
            lambda location=location: tree.update(location, a=1),
            lambda location=location: tree.children(location),
        ):
            with pytest.raises(InvalidLocationError, match="2 levels: model, version"):
                call()


def test_the_whole_location_is_bounded(make_tree: Callable[..., Metatree]) -> None:
    deep = tuple(f"k{number}" for number in range(12))
    tree = make_tree(keys=deep)
    long = "x" * 199
    tree.put((long,) * 4, b"x", name="b" * 90)
    with pytest.raises(InvalidLocationError, match=str(MAX_PATH)):
        tree.put((long,) * 5, b"x", name="b")
    with pytest.raises(InvalidLocationError, match=str(MAX_PATH)):
        tree.put((long,) * 4, b"x", name="b" * 150)  # the node is short enough, with the blob it is not
    with pytest.raises(InvalidLocationError, match=str(MAX_PATH)):
        tree.put(("ü" * 99,) * 5, b"x", name="b")
    with pytest.raises(InvalidLocationError):
        tree.move((long,), (long,) * 2)
    with pytest.raises(InvalidLocationError):
        tree.copy((long,), ("y" * 200, "z" * 200))  # its children would lie too deep
    assert len(records(tree)) == 1


def test_the_bound_counts_the_bytes_of_a_blob_inside_a_directory(
    make_tree: Callable[..., Metatree], fast_path: Path
) -> None:
    tree = make_tree()
    folder = fast_path / "d"
    inner = folder.joinpath(*["y" * 150] * 5)
    inner.mkdir(parents=True)
    (inner / "f").write_bytes(b"x")
    with pytest.raises(InvalidLocationError, match=str(MAX_PATH)):
        tree.put(("x" * 190,), folder, recursive=True)
    assert records(tree) == []


@pytest.mark.parametrize(
    "keys",
    [(), "model", ("model", "model"), ("..",), ("",), ("a/b",), ("a", 3), (b"a",), 5, ("metadata.json",), {"a"}],
    ids=repr,
)
def test_bad_level_names_create_nothing(keys: Any, fast_path: Path) -> None:
    with pytest.raises(InvalidLocationError):
        Metatree(str(fast_path / "tree"), keys)
    assert not (fast_path / "tree").exists() or list((fast_path / "tree").iterdir()) == []


TEXT = st.text(
    st.one_of(st.characters(), st.sampled_from("./\\<>:*?[]|\"' \0\t\u202e\u0301\u0308aAßİé\ud800")), max_size=12
)


@settings(max_examples=300, deadline=None)
@given(TEXT)
@example("<a>")
@example("İ")
@example("ǅ")
def test_any_text_is_either_a_name_that_works_everywhere_or_refused(text: str) -> None:
    try:
        name = check_name(text)
    except InvalidLocationError:
        return
    assert name == text and unicodedata.normalize("NFC", name) == name
    assert not set(name) & set('/\\\0<>:*?|"[]') and name not in (".", "..")
    assert len(name.encode()) <= MAX_SEGMENT
    assert fold_name(fold_name(name)) == fold_name(name)
    assert parse(name, LEVELS) == (name,) and parse((name,), LEVELS) == (name,)


def test_random_names_that_are_accepted_are_kept_exactly_and_others_change_nothing(
    make_tree: Callable[..., Metatree],
) -> None:
    tree = make_tree()
    kept: dict[str, str] = {}

    @settings(max_examples=repeats(tree, 150), deadline=None)
    @given(st.lists(TEXT, min_size=1, max_size=3), TEXT)
    def run(segments: list[str], blob: str) -> None:
        head = tree.lsn
        location = "/".join(segments)
        try:
            tree.put(location, location.encode("utf-8", "surrogatepass"), name=blob, force=True)
        except MetatreeError:
            assert tree.lsn == head
            return
        if "<" not in location:
            kept[f"{location}/{blob}".lstrip("/")] = location

    run()
    tree.checkpoint()
    for path, content in kept.items():
        assert b"".join(tree.get(path)) == content.encode()
        assert at(tree, path).read_bytes() == content.encode()


def test_a_root_that_is_no_path_is_refused(fast_path: Path) -> None:
    for root in ("", "\0", f"{fast_path}/a\0b"):
        with pytest.raises(InvalidLocationError):
            Metatree(root, LEVELS)
    with pytest.raises(MetatreeError):
        Metatree("file://elsewhere/tmp/x", LEVELS)
    with pytest.raises(MetatreeError):
        Metatree("gopher://host/x", LEVELS)


def test_many_names_are_checked_at_once_as_each_alone_and_few_of_them_are_remembered() -> None:
    assert check_names(["a", "b", "a"]) == {"a", "b"}
    for bad in ("..", "a/b", "con", "x.tmp", "\u202e"):
        for _ in range(2):  # a refusal is not remembered as anything else
            with pytest.raises(InvalidLocationError):
                check_names(["a", bad])
    with pytest.raises(InvalidLocationError):
        check_names(["a", 1])  # type: ignore[list-item]
    for start in range(0, 200_000, 10_000):
        check_names([f"n{number}" for number in range(start, start + 10_000)])
        assert len(_good) <= _MAX_GOOD + 10_000
