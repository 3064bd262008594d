"""The verbs that change: `update`, `unset`, `delete`, `move`, `copy`, `compare_and_set`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metatree import (
    BlobExistsError,
    BlobNotFoundError,
    ConflictError,
    InvalidLocationError,
    InvalidMetadataError,
    Metatree,
    MetatreeError,
    NodeExistsError,
    NodeNotFoundError,
    ReadOnlyError,
)
from tests.tree.storages import again, at, kind_of

LARGE = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(5_000))  # 160 kB: staged, not in the record


def got(tree: Metatree, location: str) -> bytes:
    return b"".join(tree.get(location))


def file_of(tree: Metatree, path: str) -> dict[str, Any]:
    """A node's metadata.json as anybody's JSON parser reads it."""
    tree.flush()
    value: dict[str, Any] = json.loads(at(tree, path, "metadata.json").read_text(encoding="utf-8"))
    return value


def picture(tree: Metatree, top: str = "") -> dict[str, Any]:
    """All of a tree as its API shows it: path -> (keys, children, {blob: content})."""

    def blobs(path: str) -> dict[str, bytes]:
        return {name: got(tree, f"{path}/{name}".lstrip("/")) for name in tree.list(path)}

    return {n.path: (dict(n.metadata), n.children, blobs(n.path)) for n in tree.walk(top)}


@pytest.fixture
def filled(tree: Metatree) -> Metatree:
    with tree.transaction():
        tree.put("m/v1", b"small", name="s")
        tree.put("m/v1", LARGE, name="l")
        tree.put("m/v2", b"2", name="s")
        tree.put("m", b"readme", name="readme")
        tree.update("m", active="v2", owner="ann")
        tree.update("m/v1", auc=0.93)
        tree.put("other/v1", b"o", name="s")
    return tree


# --- update -----------------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    0.93,
    1,
    1.0,
    0,
    -0.0,
    -1,
    2**63,
    2**64 - 1,
    -(2**63),
    1e300,
    5e-324,
    0.1 + 0.2,
    True,
    False,
    None,
    "",
    "text",
    "0.93",
    "ünï → 漢字 😀",
    'line\nbreak\ttab "quoted" \\',
    "\u2028",
    "\x7f",
    [],
    {},
    [1, "a", None, [True, {"x": []}]],
    {"a": {"b": [1, 2.5, {"c": None}]}, "": "an empty key inside is JSON"},
]


def same(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)


@pytest.mark.everywhere
def test_values_keep_their_type_in_the_api_in_the_file_and_after_a_checkpoint(tree: Metatree) -> None:
    tree.put("m", b"", name="b")
    for number, value in enumerate(VALUES):
        tree.update("m", {f"k{number}": value})
    expected = {f"k{number}": value for number, value in enumerate(VALUES)}
    assert same(dict(tree.find("m").metadata), expected)
    assert same(file_of(tree, "m"), expected)
    tree.checkpoint()
    with again(tree, read_only=True) as reader:
        assert same(dict(reader.find("m").metadata), expected)


def test_tuples_become_lists_as_in_json(tree: Metatree) -> None:
    tree.put("m", b"", name="b")
    tree.update("m", a=(1, (2, 3)))
    assert tree.find("m").metadata["a"] == [1, [2, 3]]


def test_keys_that_are_no_identifiers_come_in_a_dict(filled: Metatree) -> None:
    filled.update(
        "m", {"my-key": 1, "with space": 2, "ключ": 3, "location": 4, "values": 5, "self": 6, "<x>": 7}, more=8
    )
    expected = {"my-key": 1, "with space": 2, "ключ": 3, "location": 4, "values": 5, "self": 6, "<x>": 7, "more": 8}
    assert {k: v for k, v in filled.find("m").metadata.items() if k not in ("active", "owner")} == expected
    filled.update("m", location=9, values=10, self=11)
    assert [filled.find("m").metadata[k] for k in ("location", "values", "self")] == [9, 10, 11]


def test_a_keyword_wins_over_the_dict(filled: Metatree) -> None:
    filled.update("m", {"a": 1}, a=2)
    assert filled.find("m").metadata["a"] == 2


def test_update_without_a_location_is_about_the_cursor(filled: Metatree) -> None:
    filled.find("m/v1")
    filled.update(stage="candidate")
    filled.update(None, {"reviewed-by": "bob"})
    assert dict(filled.find("m/v1").metadata) == {"auc": 0.93, "stage": "candidate", "reviewed-by": "bob"}
    filled.find("")
    filled.update(title="all of it")
    assert dict(filled.find("").metadata) == {"title": "all of it"}
    assert file_of(filled, "") == {"children": ["m", "other"], "title": "all of it"}


def test_keys_keep_the_order_in_which_they_came(filled: Metatree) -> None:
    filled.update("m", z=1)
    filled.update("m", a=2)
    filled.update("m", owner="bea")
    assert list(filled.find("m").metadata) == ["active", "owner", "z", "a"]
    assert list(file_of(filled, "m")) == ["children", "active", "owner", "z", "a"]


@pytest.mark.parametrize("values", [{"children": ["x"]}, {"children": None}, {"a": 1, "children": []}])
def test_children_cannot_be_set(values: dict[str, Any], filled: Metatree) -> None:
    head = filled.lsn
    with pytest.raises(InvalidMetadataError, match="children"):
        filled.update("m", values)
    with pytest.raises(InvalidMetadataError, match="children"):
        filled.update("m", **values)
    with pytest.raises(InvalidMetadataError, match="children"):
        filled.compare_and_set("m", "children", None, ["x"])
    with pytest.raises(InvalidMetadataError, match="children"):
        filled.unset("m", "children")
    assert filled.lsn == head
    assert filled.children("m") == ["v1", "v2"] and "a" not in filled.find("m").metadata


def test_update_of_an_absent_node_creates_nothing(filled: Metatree) -> None:
    head = filled.lsn
    for location in ("nowhere", "m/v9", "m/v1/s"):
        with pytest.raises((NodeNotFoundError, InvalidLocationError)):
            filled.update(location, a=1)
        with pytest.raises((NodeNotFoundError, InvalidLocationError)):
            filled.update(location)
    assert filled.lsn == head


def test_an_update_that_changes_nothing_commits_nothing(filled: Metatree) -> None:
    head = filled.lsn
    filled.update("m", owner="ann")
    filled.update("m", {})
    filled.update("m")
    filled.unset("m", "nokey")
    filled.unset("m")
    assert filled.lsn == head
    filled.update("m/v1", auc=1)
    filled.update("m/v1", auc=1.0)  # another value in JSON, though Python says they are equal
    filled.update("m/v1", auc=True)
    assert filled.lsn == head + 3
    assert filled.find("m/v1").metadata["auc"] is True


@pytest.mark.parametrize("values", [3, "text", [("a", 1)], {"a"}, b"x"], ids=repr)
def test_values_that_are_no_mapping_are_refused(values: Any, filled: Metatree) -> None:
    with pytest.raises(InvalidMetadataError):
        filled.update("m", values)


# --- what is handed in and out ----------------------------------------------------------------------------------------


def test_what_the_caller_changes_after_the_call_does_not_reach_the_tree(filled: Metatree) -> None:
    values: dict[str, Any] = {"tags": ["a"], "deep": {"list": [{"x": 1}]}}
    filled.update("m", values)
    filled.compare_and_set("m", "cas", None, values["deep"])
    with filled.transaction():
        filled.update("m/v1", values)
        values["tags"].append("b")
        values["deep"]["list"][0]["x"] = 2
        assert dict(filled.find("m/v1").metadata) == {"auc": 0.93, "tags": ["a"], "deep": {"list": [{"x": 1}]}}
    values["new"] = 1
    expected = {"tags": ["a"], "deep": {"list": [{"x": 1}]}}
    assert dict(filled.find("m").metadata) == {"active": "v2", "owner": "ann", **expected, "cas": expected["deep"]}
    assert dict(filled.find("m/v1").metadata) == {"auc": 0.93, **expected}
    assert file_of(filled, "m/v1") == {"auc": 0.93, **expected}


def spoil(value: Any) -> None:
    """Change whatever can be changed in a value that the tree handed out."""
    if isinstance(value, list):
        for item in value:
            spoil(item)
        try:
            value.append("spoilt")
        except (AttributeError, TypeError):
            return
    elif hasattr(value, "keys"):
        for key in list(value):
            spoil(value[key])
        try:
            value["spoilt"] = True
        except TypeError:
            return


@pytest.mark.parametrize("state", ["committed", "checkpointed", "reopened", "in a transaction", "of a transaction"])
def test_what_the_tree_handed_out_can_be_changed_without_reaching_the_tree(
    state: str, filled: Metatree, make_tree: Callable[..., Metatree]
) -> None:
    values: dict[str, Any] = {"tags": ["a", ["b"]], "deep": {"list": [{"x": 1}]}}
    tree = filled
    if state == "in a transaction":
        filled.update("m", values)
        with filled.transaction():
            spoil(filled.find("m").metadata)
            spoil(dict(filled.find("m").metadata.items()))
            filled.update("m", touched=1)
    elif state == "of a transaction":
        with filled.transaction():
            filled.update("m", values)
            spoil(filled.find("m").metadata)
            spoil(list(filled.find("m").metadata.values()))
            filled.update("m", touched=1)
    else:
        filled.update("m", values)
        if state != "committed":
            filled.checkpoint()
        if state == "reopened":
            filled.close()
            tree = make_tree(keys=None)
        spoil(tree.find("m").metadata)
        spoil(tree.find("m").metadata.get("deep"))
        spoil(list(tree.find("m").metadata.values()))
        tree.update("m", touched=1)  # writes the node's file anew, from what the engine thinks it holds
    expected = {"active": "v2", "owner": "ann", **values, "touched": 1}
    assert dict(tree.find("m").metadata) == expected
    assert file_of(tree, "m") == {"children": ["v1", "v2"], **expected}


def test_a_metadata_mapping_is_read_only_and_stays_what_it_was(filled: Metatree) -> None:
    metadata = filled.find("m").metadata
    with pytest.raises(TypeError):
        metadata["active"] = "v1"  # type: ignore[index]
    with pytest.raises(TypeError):
        del metadata["active"]  # type: ignore[attr-defined]
    assert not hasattr(metadata, "update") and not hasattr(metadata, "pop") and not hasattr(metadata, "clear")
    filled.update("m", active="v1", new=1)
    filled.unset("m", "owner")
    assert dict(metadata) == {"active": "v2", "owner": "ann"}
    with filled.transaction():
        inside = filled.find("m").metadata
        with pytest.raises(TypeError):
            inside["active"] = "v1"  # type: ignore[index]


# --- unset ------------------------------------------------------------------------------------------------------------


@pytest.mark.everywhere
def test_unset_removes_keys_and_passes_over_those_that_are_not_there(filled: Metatree) -> None:
    filled.update("m", a=1, b=None, c=3)
    filled.unset("m", "a", "nokey", "b")
    assert dict(filled.find("m").metadata) == {"active": "v2", "owner": "ann", "c": 3}
    assert file_of(filled, "m") == {"children": ["v1", "v2"], "active": "v2", "owner": "ann", "c": 3}
    filled.find("m")
    filled.unset(None, "c")
    assert "c" not in filled.metadata
    filled.unset("m/<active>", "x")
    with pytest.raises(NodeNotFoundError):
        filled.unset("nowhere", "a")


def test_a_null_is_a_value_and_not_an_absent_key(filled: Metatree) -> None:
    filled.update("m", a=None)
    assert "a" in filled.find("m").metadata and file_of(filled, "m")["a"] is None


@pytest.mark.parametrize("key", [3, None, b"a", "", "children", "\ud800"], ids=repr)
def test_unset_of_what_can_be_no_key_is_refused(key: Any, filled: Metatree) -> None:
    with pytest.raises(InvalidMetadataError):
        filled.unset("m", key)


# --- compare_and_set --------------------------------------------------------------------------------------------------


@pytest.mark.everywhere
def test_compare_and_set_sets_only_what_is_as_expected(filled: Metatree) -> None:
    filled.compare_and_set("m", "active", "v2", "v1")
    assert filled.find("m").metadata["active"] == "v1"
    head = filled.lsn
    with pytest.raises(ConflictError, match=r"active.*'v1'.*'v2'"):
        filled.compare_and_set("m", "active", "v2", "v3")
    assert filled.lsn == head and filled.find("m").metadata["active"] == "v1"
    filled.compare_and_set("m", "lock", None, "mine")
    with pytest.raises(ConflictError):
        filled.compare_and_set("m", "lock", None, "theirs")
    filled.compare_and_set("m", "lock", "mine", None)
    filled.compare_and_set("m", "lock", None, {"a": [1]})
    filled.compare_and_set("m", "lock", {"a": [1]}, [1, 2])
    filled.compare_and_set("m", "lock", [1, 2], 0)
    assert filled.find("m").metadata["lock"] == 0


@pytest.mark.parametrize(
    ("value", "expect"),
    [
        (1, True),
        (True, 1),
        (0, False),
        (0, None),
        (1, 1.0),
        ("1", 1),
        ([], None),
        ({}, None),
        ("", None),
        ([1], [True]),
    ],
)
def test_compare_and_set_compares_as_json_does_types_included(value: Any, expect: Any, filled: Metatree) -> None:
    filled.update("m", k=value)
    with pytest.raises(ConflictError):
        filled.compare_and_set("m", "k", expect, "set")
    assert same(filled.find("m").metadata["k"], value)


def test_compare_and_set_refuses_what_update_refuses(filled: Metatree) -> None:
    head = filled.lsn
    with pytest.raises(NodeNotFoundError):
        filled.compare_and_set("nowhere", "k", None, 1)
    for value in (float("nan"), 2**64, b"x", {1: 2}, object()):
        with pytest.raises(InvalidMetadataError):
            filled.compare_and_set("m", "k", None, value)
    with pytest.raises(InvalidMetadataError):
        filled.compare_and_set("m", "", None, 1)
    assert filled.lsn == head


@pytest.mark.everywhere
def test_of_many_that_compare_and_set_one_wins_each_round(filled: Metatree) -> None:
    from concurrent.futures import ThreadPoolExecutor

    filled.update("m", n=0)

    def claim(me: int) -> bool:
        try:
            filled.compare_and_set("m", "n", 0, me)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(claim, range(1, 33)))
    assert sum(won) == 1
    assert filled.find("m").metadata["n"] == won.index(True) + 1


# --- delete -----------------------------------------------------------------------------------------------------------


@pytest.mark.everywhere
def test_delete_of_a_blob(filled: Metatree) -> None:
    filled.delete("m/v1/l")
    assert filled.list("m/v1") == ["s"]
    filled.delete("m/readme")
    assert filled.list("m") == []
    filled.flush()
    assert not at(filled, "m/v1/l").exists() and not at(filled, "m/readme").exists()
    with pytest.raises(BlobNotFoundError):
        filled.delete("m/readme")
    with pytest.raises(BlobNotFoundError):
        filled.get("m/readme")


@pytest.mark.everywhere
def test_delete_of_a_node_with_something_in_it_needs_recursive(filled: Metatree) -> None:
    head = filled.lsn
    for location in ("m", "m/v1", "other"):
        with pytest.raises(NodeExistsError, match="recursive=True"):
            filled.delete(location)
    assert filled.lsn == head
    filled.delete("m/v1", recursive=True)
    assert filled.children("m") == ["v2"] and not filled.exists("m/v1") and not filled.exists("m/v1/s")
    filled.delete("m", recursive=True)
    assert filled.children("") == ["other"]
    filled.flush()
    assert sorted(p.name for p in at(filled, "").iterdir()) == [
        ".lock",
        ".metatree",
        ".wal",
        "metadata.json",
        "other",
    ]


def test_delete_of_an_empty_node_needs_no_recursive(filled: Metatree) -> None:
    filled.delete("other/v1/s")
    filled.delete("other/v1")
    filled.delete("other")
    assert filled.children("") == ["m"]


def test_delete_of_what_is_not_there_is_an_error(filled: Metatree) -> None:
    head = filled.lsn
    for location in ("nowhere", "m/v9", "m/v1/none", "nowhere/v1/s", "m/v1/s/deeper"):
        for recursive in (False, True):
            with pytest.raises((NodeNotFoundError, BlobNotFoundError)):
                filled.delete(location, recursive=recursive)
    assert filled.lsn == head


def test_the_root_cannot_be_deleted(filled: Metatree) -> None:
    for location in ("", (), {}):
        with pytest.raises(InvalidLocationError, match="root"):
            filled.delete(location, recursive=True)  # type: ignore[arg-type]


@pytest.mark.everywhere
def test_delete_of_a_directory_blob_needs_recursive_and_of_a_file_in_it_does_not(
    filled: Metatree, fast_path: Path
) -> None:
    top = fast_path / "d"
    (top / "e").mkdir(parents=True)
    (top / "a").write_bytes(b"a")
    (top / "e/b").write_bytes(LARGE)
    (top / "e/c").write_bytes(b"c")
    filled.put("m/v1", top, recursive=True)
    with pytest.raises(BlobExistsError, match="recursive=True"):
        filled.delete("m/v1/d")
    filled.delete("m/v1/d/a")
    assert not filled.exists("m/v1/d/a") and filled.exists("m/v1/d/e/b")
    with pytest.raises(BlobExistsError, match="recursive=True"):
        filled.delete("m/v1/d/e")
    filled.delete("m/v1/d", recursive=True)
    assert filled.list("m/v1") == ["l", "s"]
    filled.checkpoint()
    assert not at(filled, "m/v1/d").exists()


@pytest.mark.everywhere
def test_what_was_deleted_can_be_put_again_and_begins_empty(filled: Metatree) -> None:
    filled.delete("m", recursive=True)
    filled.put("m/v1", b"new", name="n")
    assert picture(filled, "m") == {"m": ({}, ["v1"], {}), "m/v1": ({}, [], {"n": b"new"})}
    filled.checkpoint()
    assert picture(filled, "m") == {"m": ({}, ["v1"], {}), "m/v1": ({}, [], {"n": b"new"})}
    assert sorted(p.name for p in at(filled, "m/v1").iterdir()) == ["metadata.json", "n"]


@pytest.mark.everywhere
def test_a_child_that_comes_again_comes_last(filled: Metatree) -> None:
    filled.put("m/v3", b"", name="b")
    filled.delete("m/v1", recursive=True)
    filled.put("m/v1", b"", name="b")
    assert filled.children("m") == ["v2", "v3", "v1"]
    assert file_of(filled, "m")["children"] == ["v2", "v3", "v1"]


@pytest.mark.everywhere
def test_a_name_may_change_from_node_to_blob_and_back(filled: Metatree) -> None:
    for _ in range(2):
        filled.delete("m/v1", recursive=True)
        filled.put("m", LARGE, name="v1")
        assert got(filled, "m/v1") == LARGE and filled.children("m") == ["v2"]
        filled.flush()
        filled.delete("m/v1")
        filled.put("m/v1", b"node again", name="s")
        assert got(filled, "m/v1/s") == b"node again" and filled.list("m") == ["readme"]
        filled.flush()
    with filled.transaction():
        filled.delete("m/v1", recursive=True)
        filled.put("m", b"x", name="v1")
        filled.delete("m/v2", recursive=True)
        filled.put("m", b"y", name="v2")
    assert (filled.children("m"), filled.list("m")) == ([], ["readme", "v1", "v2"])


def test_delete_of_a_blob_named_by_a_reference(filled: Metatree) -> None:
    filled.update("m/v1", file="s")
    filled.delete("m/v1/<file>")
    assert filled.list("m/v1") == ["l"]
    filled.delete("m/<active>", recursive=True)
    assert filled.children("m") == ["v1"]


# --- move and copy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("verb", ["move", "copy"])
@pytest.mark.everywhere
def test_a_node_goes_with_its_keys_and_blobs(verb: str, applied: bool, filled: Metatree) -> None:
    if applied:
        filled.checkpoint()
    head, before = filled.lsn, picture(filled)
    getattr(filled, verb)("m/v1", "m/v7")
    assert filled.lsn == head + 1
    expected = dict(before)
    expected["m/v7"] = before["m/v1"]
    keys, _, blobs = before["m"]
    if verb == "move":
        del expected["m/v1"]
        expected["m"] = (keys, ["v2", "v7"], blobs)
    else:
        expected["m"] = (keys, ["v1", "v2", "v7"], blobs)
    assert picture(filled) == expected
    filled.checkpoint()
    assert picture(filled) == expected
    assert at(filled, "m/v1").exists() is (verb == "copy")


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("verb", ["move", "copy"])
def test_a_subtree_goes_with_everything_below_in_its_order(verb: str, applied: bool, filled: Metatree) -> None:
    filled.put("m/v0", b"late", name="s")
    if applied:
        filled.checkpoint()
    before = picture(filled, "m")
    assert before["m"][1] == ["v1", "v2", "v0"]
    getattr(filled, verb)("m", "n")
    after = picture(filled, "n")
    assert {path.replace("n", "m", 1): value for path, value in after.items()} == before
    assert filled.children("") == (["other", "n"] if verb == "move" else ["m", "other", "n"])
    assert filled.exists("m") is (verb == "copy")
    filled.checkpoint()
    assert picture(filled, "n") == after
    if verb == "copy":  # two trees now, not two names of one
        filled.update("n/v1", auc=0.1)
        filled.put("n/v1", b"other", name="l", force=True)
        assert picture(filled, "m") == before


@pytest.mark.parametrize("location", ["m/v1/s", "m/v1/l"])
@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("verb", ["move", "copy"])
def test_a_blob_goes_to_another_name_or_node(verb: str, applied: bool, location: str, filled: Metatree) -> None:
    if applied:
        filled.checkpoint()
    content, name = got(filled, location), location[-1]
    getattr(filled, verb)(location, "m/v2/renamed")
    assert got(filled, "m/v2/renamed") == content
    assert filled.exists(location) is (verb == "copy")
    getattr(filled, verb)("m/v2/renamed", "fresh/node/b")  # nodes that are missing are created, as put does
    assert got(filled, "fresh/node/b") == content
    filled.checkpoint()
    assert got(filled, "fresh/node/b") == content
    assert filled.list("m/v1") == (["l", "s"] if verb == "copy" else sorted({"l", "s"} - {name}))
    if verb == "copy" and kind_of(filled) in ("local", "mount"):
        inodes = {Path(filled.root, path).stat().st_ino for path in (location, "m/v2/renamed", "fresh/node/b")}
        assert len(inodes) == 3  # an edit in place of one must not show in another


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("verb", ["move", "copy"])
@pytest.mark.everywhere
def test_a_directory_blob_goes_as_a_whole(verb: str, applied: bool, filled: Metatree, fast_path: Path) -> None:
    files = {"a": b"a", "e/b": LARGE, "e/f/c": b""}
    for name, data in files.items():
        (fast_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (fast_path / "d" / name).write_bytes(data)
    filled.put("m/v1", fast_path / "d", recursive=True)
    if applied:
        filled.checkpoint()
    getattr(filled, verb)("m/v1/d", "m/v2/copy")
    for _ in range(2):
        assert {name: got(filled, f"m/v2/copy/{name}") for name in files} == files
        assert filled.list("m/v2") == ["copy", "s"]
        assert filled.exists("m/v1/d/a") is (verb == "copy")
        filled.checkpoint()
    getattr(filled, verb)("m/v2/copy/e/b", "m/v2/single")
    assert got(filled, "m/v2/single") == LARGE
    getattr(filled, verb)("m/v2", "m/v3")
    assert {name: got(filled, f"m/v3/copy/{name}") for name in ("a", "e/f/c")} == {"a": b"a", "e/f/c": b""}


@pytest.mark.parametrize("verb", ["move", "copy"])
def test_move_and_copy_go_wrong_without_changing_anything(verb: str, filled: Metatree) -> None:
    call, before, head = getattr(filled, verb), picture(filled), filled.lsn
    cases: list[tuple[Any, Any, type[Exception]]] = [
        ("nowhere", "x", MetatreeError),
        ("m/v9", "m/v8", MetatreeError),
        ("m/v1/none", "m/v1/x", BlobNotFoundError),
        ("m/v1", "m/v2", NodeExistsError),
        ("m", "other", NodeExistsError),
        ("m/v1", "m/v1", MetatreeError),
        ("m", "m", MetatreeError),
        ("m", "m/v9", InvalidLocationError),
        ("m", "m/v1", MetatreeError),
        ("m/v1", "m/v1/x", InvalidLocationError),
        ("m/v1/s", "m/v1/s", BlobExistsError),
        ("m/v1/s", "m/v1/l", BlobExistsError),
        ("m/v1/s", "m/v1", MetatreeError),
        ("m/v1/s", "m", MetatreeError),
        ("m/v1", "m/readme", BlobExistsError),
        ("m/v1", "m/V2", NodeExistsError),
        ("m/v1/s", "m/v1/L", BlobExistsError),
        ("m/v1", "m/README", MetatreeError),
        ("m/v1", "other/v1", NodeExistsError),
        ("m", "other/x", InvalidLocationError),  # its versions would stand below the last level
        ("", "x", InvalidLocationError),
        ("m", "", MetatreeError),
        ("m/v1", "..", InvalidLocationError),
        ("m/v1", "a/b/c", InvalidLocationError),
        ("m/v1/s", "a/b/c/d", InvalidLocationError),
        ("m/v1", "m/metadata.json", InvalidLocationError),
        ("m/v1/s", "m/v1/metadata.json", InvalidLocationError),
    ]
    for source, target, error in cases:
        with pytest.raises(error):
            call(source, target)
        assert filled.lsn == head, (source, target)
    assert picture(filled) == before
    filled.checkpoint()
    staged = at(filled, ".wal/staged")
    assert not staged.exists() or list(staged.iterdir()) == []


def test_a_moved_node_can_get_its_old_name_again(filled: Metatree) -> None:
    before = picture(filled, "m/v1")["m/v1"]
    filled.move("m/v1", "m/tmp-name")
    filled.put("m/v1", b"new", name="s")
    filled.move("m/v1", "m/v9")
    filled.move("m/tmp-name", "m/v1")
    assert picture(filled, "m/v1")["m/v1"] == before
    assert filled.children("m") == ["v2", "v9", "v1"]
    filled.checkpoint()
    assert picture(filled, "m/v1")["m/v1"] == before


@pytest.mark.everywhere
def test_two_nodes_swap_in_one_transaction(filled: Metatree) -> None:
    before = picture(filled, "m")
    with filled.transaction():
        filled.move("m/v1", "m/aside")
        filled.move("m/v2", "m/v1")
        filled.move("m/aside", "m/v2")
    assert picture(filled, "m")["m/v1"] == before["m/v2"] and picture(filled, "m")["m/v2"] == before["m/v1"]
    assert not filled.exists("m/aside")
    filled.checkpoint()
    assert picture(filled, "m")["m/v1"] == before["m/v2"] and picture(filled, "m")["m/v2"] == before["m/v1"]


def test_references_work_on_both_sides_of_a_move(filled: Metatree) -> None:
    filled.update("m", next="v3")
    filled.move("m/<active>", "m/<next>")
    assert filled.children("m") == ["v1", "v3"]
    filled.update("m/v3", file="s", better="t")
    filled.copy("m/<next>/<file>", "m/<next>/<better>")
    assert filled.list("m/v3") == ["s", "t"]


def test_a_case_only_rename_needs_a_detour(filled: Metatree) -> None:
    with pytest.raises(MetatreeError):
        filled.move("other", "Other")
    filled.move("other", "aside")
    filled.move("aside", "Other")
    assert filled.children("") == ["m", "Other"]


# --- who may change ---------------------------------------------------------------------------------------------------


def test_a_reader_changes_nothing(filled: Metatree, make_tree: Callable[..., Metatree]) -> None:
    reader = make_tree(keys=None, read_only=True)
    before = picture(filled)
    calls: list[Callable[[], object]] = [
        lambda: reader.update("m", a=1),
        lambda: reader.unset("m", "a"),
        lambda: reader.delete("m/v1/s"),
        lambda: reader.move("m", "n"),
        lambda: reader.copy("m", "n"),
        lambda: reader.compare_and_set("m", "a", None, 1),
        reader.transaction,
        lambda: reader.run(lambda txn: None),
        reader.flush,
        reader.checkpoint,
        reader.recover,
        lambda: reader.status("0-0000000000000000"),
    ]
    for call in calls:
        with pytest.raises(ReadOnlyError, match="read_only"):
            call()
    assert picture(filled) == before
