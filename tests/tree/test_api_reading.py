"""The verbs that read: `find` and the cursor, `get`, `open`, `list`, `children`, `exists`, `walk`; and `<key>`."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metatree import (
    BlobExistsError,
    BlobNotFoundError,
    ClosedError,
    CorruptionError,
    InvalidLocationError,
    Metatree,
    Node,
    NodeNotFoundError,
)
from tests.tree.storages import repeats, some

LARGE = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(90_000))  # 2.9 MB: several chunks


@pytest.fixture
def filled(tree: Metatree) -> Metatree:
    """m (active=v2) with v1, v2, each with two blobs; other, empty of children."""
    with tree.transaction():
        for version in ("v1", "v2"):
            tree.put(f"m/{version}", f"weights of {version}".encode(), name="w.bin")
            tree.put(f"m/{version}", b"notes", name="notes.txt")
            tree.update(f"m/{version}", file="w.bin", number=int(version[1]))
        tree.update("m", active="v2", best=2, flag=True, ratio=0.5, missing=None, path="../../etc", nested={"a": "v1"})
        tree.put("other", LARGE, name="large.bin")
        tree.put("2", b"x", name="numbers may be names")
    return tree


def got(tree: Metatree, location: Any) -> bytes:
    return b"".join(tree.get(location))


# --- find and the cursor ----------------------------------------------------------------------------------------------


@pytest.mark.everywhere
def test_find_returns_the_node_and_moves_the_cursor(filled: Metatree) -> None:
    assert filled.location == filled.root
    node = filled.find("m/v1")
    assert isinstance(node, Node) and node.path == "m/v1"
    assert filled.location == node.location == f"{filled.root}/m/v1"
    assert dict(filled.metadata) == {"file": "w.bin", "number": 1}
    assert filled.list() == ["notes.txt", "w.bin"]
    filled.find("")
    assert filled.location == filled.root
    assert filled.children() == ["m", "other", "2"]


@pytest.mark.parametrize("location", ["nowhere", "m/v9", "nowhere/v1", ("m", "v9"), {"model": "nowhere"}])
def test_find_of_an_absent_node_is_an_error_and_leaves_the_cursor(location: Any, filled: Metatree) -> None:
    filled.find("m/v1")
    with pytest.raises(NodeNotFoundError) as caught:
        filled.find(location)
    assert isinstance(caught.value, KeyError)
    assert "there is no node" in str(caught.value) and filled.root in str(caught.value)
    assert filled.location == f"{filled.root}/m/v1"


def test_the_error_names_the_first_node_that_is_missing(filled: Metatree) -> None:
    with pytest.raises(NodeNotFoundError, match="'nowhere'"):
        filled.find("nowhere/v1")
    with pytest.raises(NodeNotFoundError, match="'m/v9'"):
        filled.find("m/v9")


def test_find_of_a_blob_is_no_node(filled: Metatree) -> None:
    filled.put("", b"x", name="top.bin")
    with pytest.raises(NodeNotFoundError):
        filled.find("top.bin")
    with pytest.raises((NodeNotFoundError, InvalidLocationError)):
        filled.find("m/v1/w.bin")


def test_each_thread_has_a_cursor_of_its_own(filled: Metatree) -> None:
    filled.find("m/v1")
    seen: list[str] = []

    def other() -> None:
        seen.append(filled.location)
        filled.find("m/v2")
        seen.append(filled.location)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [filled.root, f"{filled.root}/m/v2"]
    assert filled.location == f"{filled.root}/m/v1"


def test_each_task_has_a_cursor_of_its_own(filled: Metatree) -> None:
    async def stand(location: str) -> str:
        filled.find(location)
        await asyncio.sleep(0)
        return filled.location

    async def main() -> list[str]:
        return list(await asyncio.gather(stand("m/v1"), stand("m/v2"), stand("other")))

    assert asyncio.run(main()) == [f"{filled.root}/{path}" for path in ("m/v1", "m/v2", "other")]


def test_two_trees_do_not_share_a_cursor(filled: Metatree, make_tree: Callable[..., Metatree]) -> None:
    again = make_tree(keys=None)
    filled.find("m/v1")
    assert again.location == again.root


def test_a_cursor_whose_node_was_deleted_is_an_error_not_another_node(filled: Metatree) -> None:
    filled.find("m/v1")
    filled.delete("m/v1", recursive=True)
    assert filled.location == f"{filled.root}/m/v1"
    for call in (lambda: filled.metadata, filled.list, filled.children, lambda: filled.update(a=1)):
        with pytest.raises(NodeNotFoundError):
            call()


# --- get --------------------------------------------------------------------------------------------------------------


@pytest.mark.everywhere
def test_get_is_a_generator_of_bytes_that_opens_at_the_call(filled: Metatree) -> None:
    chunks = filled.get("other/large.bin")
    assert inspect.isgenerator(chunks)
    parts = list(chunks)
    assert len(parts) > 1 and all(type(part) is bytes for part in parts)
    assert b"".join(parts) == LARGE


def test_get_of_an_empty_blob_gives_no_bytes(filled: Metatree) -> None:
    filled.put("m", b"", name="empty")
    assert b"".join(filled.get("m/empty")) == b""


@pytest.mark.parametrize("when", ["unapplied or not", "checkpointed"])
@pytest.mark.everywhere
def test_what_get_began_to_give_is_not_changed_by_later_commits(when: str, filled: Metatree) -> None:
    if when == "checkpointed":
        filled.checkpoint()
    large, small = filled.get("other/large.bin"), filled.get("m/v1/w.bin")
    start = next(large)
    filled.put("other", b"new", name="large.bin", force=True)
    filled.delete("m", recursive=True)
    filled.checkpoint()
    assert start + b"".join(large) == LARGE
    assert b"".join(small) == b"weights of v1"


WRONG = [
    ("m/v1/none.bin", BlobNotFoundError),
    ("m/v9/w.bin", NodeNotFoundError),
    ("nowhere/v1/w.bin", NodeNotFoundError),
    ("none.bin", BlobNotFoundError),
    ("m", BlobNotFoundError),
    ("m/v1", BlobNotFoundError),
    ("", BlobNotFoundError),
    ("m/<nokey>", InvalidLocationError),
    ("m/<nokey>/w.bin", InvalidLocationError),
    ("m/<flag>/w.bin", InvalidLocationError),
    ("m/<ratio>/w.bin", InvalidLocationError),
    ("m/<missing>/w.bin", InvalidLocationError),
    ("m/<nested>/w.bin", InvalidLocationError),
    ("m/<path>", InvalidLocationError),
    ("m/<path>/w.bin", InvalidLocationError),
    ("m/../m/v1/w.bin", InvalidLocationError),
    ("m/v1/metadata.json", InvalidLocationError),
    (".metatree", InvalidLocationError),
    (".wal", InvalidLocationError),
]


def test_what_is_wrong_with_a_location_is_raised_by_the_call_itself(filled: Metatree, fast_path: Path) -> None:
    for location, error in WRONG:
        with pytest.raises(error):
            filled.get(location)
        with pytest.raises(error):
            filled.get(location, fast_path / "out")
        with pytest.raises(error):
            filled.open(location)
        assert not (fast_path / "out").exists()


def test_a_missing_blob_is_also_a_file_not_found_error(filled: Metatree) -> None:
    with pytest.raises(FileNotFoundError, match=r"m/v1/none\.bin"):
        filled.get("m/v1/none.bin")


# --- get with outfile -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("location", ["m/v1/w.bin", "other/large.bin"])
@pytest.mark.parametrize("as_text", [True, False])
def test_outfile_is_written_whole_before_the_call_returns(
    location: str, as_text: bool, filled: Metatree, fast_path: Path
) -> None:
    expected = got(filled, location)
    target = fast_path / "out.bin"
    chunks = filled.get(location, str(target) if as_text else target)
    assert target.read_bytes() == expected
    assert b"".join(chunks) == expected
    assert target.stat().st_nlink == 1
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask
    assert {p.name for p in fast_path.iterdir()} - {"tree"} == {"out.bin"}


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link"])
def test_an_existing_outfile_is_refused_and_kept(kind: str, filled: Metatree, fast_path: Path) -> None:
    target = fast_path / "out"
    make: dict[str, Callable[[], object]] = {
        "file": lambda: target.write_bytes(b"mine"),
        "folder": target.mkdir,
        "link": lambda: target.symlink_to("/etc/hostname"),
        "dangling link": lambda: target.symlink_to(fast_path / "nowhere"),
    }
    make[kind]()
    before = os.lstat(target)
    for recursive in (False, True):
        with pytest.raises(BlobExistsError, match="out"):
            filled.get("m/v1/w.bin", target, recursive=recursive)
    assert os.lstat(target).st_ino == before.st_ino
    assert not (fast_path / "nowhere").exists()
    assert {p.name for p in fast_path.iterdir()} - {"tree"} == {"out"}


@pytest.mark.local("it damages a file in place")
def test_a_download_of_a_damaged_blob_leaves_no_file(filled: Metatree, fast_path: Path) -> None:
    filled.checkpoint()
    file = Path(filled.root, "other/large.bin")
    data = bytearray(LARGE)
    data[len(data) // 2] ^= 1
    with file.open("r+b") as stream:  # in place, as rot would: the attribute stays
        stream.write(data)
    with pytest.raises(CorruptionError, match=r"other/large\.bin"):
        filled.get("other/large.bin", fast_path / "out")
    assert {p.name for p in fast_path.iterdir()} - {"tree"} == set()
    chunks = filled.get("other/large.bin")  # a stream cannot know before its end
    with pytest.raises(CorruptionError, match=r"other/large\.bin"):
        b"".join(chunks)
    filled.put("other", LARGE, name="large.bin", force=True)


def test_an_outfile_in_a_folder_that_is_not_there_is_the_systems_error(filled: Metatree, fast_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        filled.get("m/v1/w.bin", fast_path / "none" / "out")


def test_recursive_downloads_a_directory_blob_as_a_whole(filled: Metatree, fast_path: Path) -> None:
    top = fast_path / "bundle"
    (top / "a/b").mkdir(parents=True)
    files = {"one": b"1", "a/two": LARGE[:100_000], "a/b/three": b""}
    for name, data in files.items():
        (top / name).write_bytes(data)
    filled.put("m/v1", top, recursive=True)
    target = fast_path / "out"
    assert list(filled.get("m/v1/bundle", target, recursive=True)) == []
    assert {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()} == files
    with pytest.raises(BlobExistsError):
        filled.get("m/v1/bundle", target, recursive=True)
    with pytest.raises(BlobNotFoundError, match="recursive=True"):
        filled.get("m/v1/bundle")
    with pytest.raises(BlobNotFoundError, match="recursive=True"):
        filled.get("m/v1/bundle", fast_path / "file")
    filled.flush()
    with pytest.raises(BlobNotFoundError, match="recursive=True"):
        filled.get("m/v1/bundle")
    assert got(filled, "m/v1/bundle/a/two") == files["a/two"]
    assert list(filled.get("m/v1/bundle/a", fast_path / "inner", recursive=True)) == []
    assert (fast_path / "inner/b/three").read_bytes() == b""


@pytest.mark.parametrize("location", ["m/v1/w.bin", "m/v1", "m/v1/none", ""])
def test_recursive_needs_a_directory_blob_and_an_outfile(location: str, filled: Metatree, fast_path: Path) -> None:
    with pytest.raises(BlobNotFoundError):
        filled.get(location, fast_path / "out", recursive=True)
    with pytest.raises(InvalidLocationError, match="outfile"):
        filled.get(location, recursive=True)
    assert {p.name for p in fast_path.iterdir()} - {"tree"} == set()


# --- open -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["as committed", "in a transaction", "packed", "checkpointed"])
@pytest.mark.everywhere
def test_open_gives_a_seekable_binary_file(state: str, filled: Metatree) -> None:
    data = LARGE[:50_000]

    def look(stream: Any, expected: bytes) -> None:
        assert stream.readable() and stream.seekable() and not stream.writable()
        assert stream.read(10) == expected[:10]
        with pytest.raises((ValueError, OSError)):
            stream.seek(-1)
        assert stream.seek(-7, io.SEEK_END) == len(expected) - 7
        assert stream.tell() == len(expected) - 7
        assert stream.read() == expected[-7:]
        assert stream.read() == b""
        assert stream.seek(5) == 5 and stream.seek(3, io.SEEK_CUR) == 8
        assert stream.read(4) == expected[8:12]
        assert stream.seek(len(expected) + 10) == len(expected) + 10
        assert stream.read(1) == b""
        stream.seek(0)
        buffer = bytearray(6)
        assert stream.readinto(buffer) == 6 and bytes(buffer) == expected[:6]

    if state == "packed" or state == "in a transaction":
        with filled.transaction():
            for number in range(8):
                filled.put("m", data, name=f"p{number}")
            if state == "in a transaction":
                for number in range(8):
                    with filled.open(f"m/p{number}") as stream:
                        look(stream, data)
        expected = {f"m/p{number}": data for number in range(8)}
    else:
        expected = {"other/large.bin": LARGE, "m/v1/w.bin": b"weights of v1"}
    if state == "checkpointed":
        filled.checkpoint()
    for location, content in expected.items():
        with filled.open(location) as stream:
            look(stream, content)
        assert stream.closed


def test_open_is_only_for_reading_bytes(filled: Metatree) -> None:
    for mode in ("r", "w", "wb", "ab", "r+b", "rt", "", "xb"):
        with pytest.raises(ValueError, match="rb"):
            filled.open("m/v1/w.bin", mode)


def test_open_text_lines_through_a_wrapper(filled: Metatree) -> None:
    filled.put("m", b"one\ntwo\n", name="lines.txt")
    with io.TextIOWrapper(filled.open("m/lines.txt"), encoding="utf-8") as lines:
        assert list(lines) == ["one\n", "two\n"]


# --- list, children, exists, walk -------------------------------------------------------------------------------------


@pytest.mark.everywhere
def test_list_names_blobs_sorted_and_children_names_nodes_in_their_order(filled: Metatree) -> None:
    for name in ("z", "a", "k"):
        filled.put("m", b"x", name=name)
        filled.put(f"m/{name}1", b"x", name="b")
    assert filled.list("m") == ["a", "k", "z"]
    assert filled.children("m") == ["v1", "v2", "z1", "a1", "k1"]
    assert filled.list("other") == ["large.bin"] and filled.children("other") == []
    filled.flush()
    assert filled.list("m") == ["a", "k", "z"]


@pytest.mark.parametrize("verb", ["list", "children", "walk"])
def test_listing_verbs_want_a_node_that_exists(verb: str, filled: Metatree) -> None:
    for location in ("nowhere", "m/v9"):
        with pytest.raises(NodeNotFoundError):
            list(getattr(filled, verb)(location))
    with pytest.raises(InvalidLocationError):
        list(getattr(filled, verb)("m/v1/w.bin"))
    filled.find("m")
    assert list(getattr(filled, verb)()) == list(getattr(filled, verb)("m"))


def test_what_a_listing_returned_is_the_callers_own(filled: Metatree) -> None:
    filled.children("m").append("x")
    filled.list("m/v1").clear()
    filled.find("m").children.clear()
    assert filled.children("m") == ["v1", "v2"]
    assert filled.list("m/v1") == ["notes.txt", "w.bin"]


THERE = [
    ("", True),
    ("m", True),
    ("m/v1", True),
    ("m/v1/w.bin", True),
    ("m/<active>", True),
    ("m/<active>/<file>", True),
    ("m/<best>", False),
    ("<nokey>", False),
    ("m/<nokey>/w.bin", False),
    ("m/<path>", False),
    ("nowhere", False),
    ("nowhere/v1/w.bin", False),
    ("m/v9", False),
    ("m/v1/none", False),
    ("m/v1/w.bin/inside", False),
]


def test_exists_is_about_nodes_and_blobs(filled: Metatree) -> None:
    for _ in range(2):
        assert [(location, filled.exists(location)) for location, _ in THERE] == THERE
        filled.flush()


def test_exists_of_what_is_no_location_is_an_error_not_false(filled: Metatree) -> None:
    for location in ("..", "/m", "m/", "m//v1", "m/.wal", "a\0"):
        with pytest.raises(InvalidLocationError):
            filled.exists(location)


def test_exists_sees_a_directory_blob_and_its_files(filled: Metatree, fast_path: Path) -> None:
    (fast_path / "d/e").mkdir(parents=True)
    (fast_path / "d/e/f").write_bytes(b"x")
    filled.put("m/v1", fast_path / "d", recursive=True)
    for _ in range(2):
        assert filled.exists("m/v1/d") and filled.exists("m/v1/d/e/f")
        assert not filled.exists("m/v1/d/e/g")
        filled.flush()


def test_walk_gives_parents_first_and_children_in_their_order(filled: Metatree) -> None:
    assert [node.path for node in filled.walk()] == ["", "m", "m/v1", "m/v2", "other", "2"]
    assert [node.path for node in filled.walk("m")] == ["m", "m/v1", "m/v2"]
    assert all(isinstance(node, Node) for node in filled.walk())
    with filled.transaction():
        filled.put("m/v0", b"", name="b")
        assert [node.path for node in filled.walk("m")] == ["m", "m/v1", "m/v2", "m/v0"]


@pytest.mark.everywhere
def test_walk_passes_over_what_is_deleted_meanwhile_and_sees_what_is_added(filled: Metatree) -> None:
    seen = []
    for node in filled.walk():
        seen.append(node.path)
        if node.path == "m":
            filled.delete("m/v2", recursive=True)
            filled.delete("other", recursive=True)
    assert seen == ["", "m", "m/v1", "2"]


# --- forms of a location ----------------------------------------------------------------------------------------------


FORMS: list[tuple[Any, str]] = [
    ("m/v1", "m/v1"),
    (("m", "v1"), "m/v1"),
    (["m", "v1"], "m/v1"),
    ({"model": "m", "version": "v1"}, "m/v1"),
    ({"version": "v1", "model": "m"}, "m/v1"),
    ({"model": {"value": "m"}, "version": {"value": "v1"}}, "m/v1"),
    ({"model": "m", "version": {"metadata": "active"}}, "m/v2"),
    ({"model": "m", "version": "<active>"}, "m/v2"),
    ("m/<active>", "m/v2"),
    (("m", "<active>"), "m/v2"),
    ({"model": "m"}, "m"),
    ("m", "m"),
    (("m",), "m"),
    ("", ""),
    ((), ""),
    ({}, ""),
]


def test_strings_tuples_and_dicts_name_the_same_nodes(filled: Metatree) -> None:
    for number, (location, path) in enumerate(FORMS):
        assert filled.find(location).path == path
        assert filled.exists(location)
        assert filled.children(location) == filled.children(path)
        assert [node.path for node in filled.walk(location)] == [node.path for node in filled.walk(path)]
        # a dict as the only argument of update() is a location too
        filled.update(location, seen=number)
        assert filled.find(path).metadata["seen"] == number


NO_FORMS: list[Any] = [
    {"version": "v1"},
    {"model": "m", "nolevel": "x"},
    {"model": {"value": "m", "metadata": "active"}},
    {"model": {}},
    {"model": {"metadata": 3}},
    {"model": {"metadata": ""}},
    {"model": {"values": "m"}},
    {"model": None},
    {"model": 3},
    {"model": ["m"]},
    None,
    3,
    b"m",
    bytearray(b"m"),
    object(),
    {"m"},
    ("m", 3),
    ("m", None),
    ("m", ("v1",)),
    ("m", b"v1"),
    Path("m/v1"),
]


def test_other_forms_are_invalid_locations(filled: Metatree) -> None:
    for location in NO_FORMS:
        with pytest.raises(InvalidLocationError):
            filled.find(location)
        with pytest.raises(InvalidLocationError):
            filled.get(location)
        with pytest.raises(InvalidLocationError):
            filled.put(location, b"x", name="x")


def test_a_dict_location_is_not_changed(filled: Metatree) -> None:
    location = {"model": {"value": "m"}, "version": {"metadata": "active"}}
    filled.find(location)
    assert location == {"model": {"value": "m"}, "version": {"metadata": "active"}}


# --- <key> ------------------------------------------------------------------------------------------------------------


def test_a_reference_is_replaced_by_the_value_of_the_node_reached_so_far(filled: Metatree) -> None:
    filled.update("", current="m")
    assert filled.find("<current>/<active>").path == "m/v2"
    assert got(filled, "<current>/<active>/<file>") == b"weights of v2"
    assert filled.find("<current>").metadata["active"] == "v2"


def test_an_integer_can_be_a_name_too(filled: Metatree) -> None:
    filled.put("m/2", b"x", name="b")
    assert filled.find("m/<best>").path == "m/2"
    filled.update("", top=2)
    assert filled.find("<top>").path == "2"


NO_NAMES: list[Any] = [
    "..",
    ".",
    "",
    "../../etc/passwd",
    "/etc",
    "v1/../..",
    "v1/w.bin",
    "a\\b",
    "metadata.json",
    ".wal",
    ".tmp",
    "x.tmp",
    "nul",
    "v1 ",
    "*",
    "<file>",
    "a\0b",
    "x" * 201,
    "e\u0301",
    "s3://b",
    True,
    False,
    None,
    1.5,
    2.0,
    [],
    ["v1"],
    {},
    {"value": "v1"},
    -0.0,
]


def test_a_value_that_is_no_name_is_an_error_and_never_leads_out_of_the_root(filled: Metatree) -> None:
    calls: list[Callable[[], object]] = [
        lambda: filled.find("m/<bad>"),
        lambda: filled.get("m/<bad>"),
        lambda: filled.get("m/<bad>/w.bin"),
        lambda: filled.get("m/v1/<bad>"),
        lambda: filled.open("m/v1/<bad>"),
        lambda: filled.put("m/<bad>", b"x", name="x"),
        lambda: filled.update("m/<bad>", a=1),
        lambda: filled.unset("m/<bad>", "a"),
        lambda: filled.delete("m/<bad>", recursive=True),
        lambda: filled.delete("m/v1/<bad>"),
        lambda: filled.move("m/<bad>", "x"),
        lambda: filled.copy("m/v1", "m/<bad>"),
        lambda: filled.move("m/v1", "m/<bad>"),
        lambda: filled.compare_and_set("m/<bad>", "k", None, 1),
        lambda: filled.children("m/<bad>"),
        lambda: filled.list("m/<bad>"),
        lambda: list(filled.walk("m/<bad>")),
        lambda: filled.find({"model": "m", "version": {"metadata": "bad"}}),
    ]
    for value in some(filled, NO_NAMES):
        filled.update("m", {"bad": value})
        filled.update("m/v1", {"bad": value})
        before = filled.lsn
        for call in calls:
            with pytest.raises(InvalidLocationError, match="<bad>"):
                call()
        assert filled.lsn == before
        assert filled.exists("m/<bad>") is False


def test_a_reference_is_followed_once_and_its_value_is_a_plain_name(filled: Metatree) -> None:
    filled.update("m", a="<active>")
    with pytest.raises(InvalidLocationError):
        filled.find("m/<a>")


@pytest.mark.everywhere
def test_a_path_of_references_is_resolved_in_one_committed_state(
    filled: Metatree, make_tree: Callable[..., Metatree]
) -> None:
    """A writer moves `active` and the file name together; a reader that mixed two states would find no such blob."""
    with filled.transaction():
        filled.put("m/v1", b"v1", name="only-in-v1")
        filled.put("m/v2", b"v2", name="only-in-v2")
        filled.update("m/v1", only="only-in-v1")
        filled.update("m/v2", only="only-in-v2")
    reader = make_tree(keys=None, read_only=True)
    done = threading.Event()

    def flip() -> None:
        try:
            for number in range(repeats(filled, 150)):
                filled.update("m", active=f"v{number % 2 + 1}")
        finally:
            done.set()

    writer = threading.Thread(target=flip)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(got(reader, "m/<active>/<only>"))
        seen.add(got(filled, "m/<active>/<only>"))
    writer.join()
    assert seen <= {b"v1", b"v2"}


def test_angle_brackets_are_only_for_references(filled: Metatree) -> None:
    for text in ("<", ">", "<>", "<a", "a>", "<a>b", "a<b>", "<a><b>"):
        with pytest.raises(InvalidLocationError):
            filled.find(text)


# --- who may read -----------------------------------------------------------------------------------------------------


def test_a_closed_tree_answers_nothing(filled: Metatree) -> None:
    node = filled.find("m")
    filled.close()
    calls: list[Callable[[], object]] = [
        lambda: filled.find("m"),
        lambda: filled.get("m/v1/w.bin"),
        lambda: filled.open("m/v1/w.bin"),
        lambda: filled.list("m"),
        lambda: filled.children("m"),
        lambda: filled.exists("m"),
        lambda: list(filled.walk()),
        lambda: filled.metadata,
        lambda: filled.lsn,
        lambda: filled.unapplied,
        lambda: node.metadata,
        lambda: node / "v1",
        filled.check,
        filled.recover,
        filled.flush,
        filled.checkpoint,
        filled.transaction,
    ]
    for call in calls:
        with pytest.raises(ClosedError):
            call()
