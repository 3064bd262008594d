"""`Node`: a light handle that shows the current committed state, or inside a transaction that transaction's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from metatree import BlobNotFoundError, InvalidLocationError, Metatree, NodeExistsError, NodeNotFoundError


@pytest.fixture
def filled(tree: Metatree) -> Metatree:
    for version in ("v1", "v2"):
        tree.put(f"m/{version}", version.encode(), name="w")
    tree.update("m", active="v2")
    return tree


def test_a_node_knows_its_place(filled: Metatree) -> None:
    node, top, root = filled.find("m/v1"), filled.find("m"), filled.find("")
    assert (node.path, node.name, node.location) == ("m/v1", "v1", f"{filled.root}/m/v1")
    assert (top.path, top.name, top.location) == ("m", "m", f"{filled.root}/m")
    assert (root.path, root.name, root.location, root.parent) == ("", "", filled.root, None)
    assert node.parent == top and top.parent == root
    assert {node, filled.find("m/v1")} == {node} and node != top and node != "m/v1"


def test_nodes_of_two_handles_on_one_tree_are_equal_and_of_two_trees_are_not(
    filled: Metatree, make_tree: Callable[..., Metatree]
) -> None:
    assert make_tree(keys=None).find("m") == filled.find("m")
    other = make_tree("other")
    other.put("m", b"", name="b")
    assert other.find("m") != filled.find("m")


def test_a_node_shows_what_is_committed_now_not_what_was(filled: Metatree, make_tree: Callable[..., Metatree]) -> None:
    node = filled.find("m")
    assert node.metadata["active"] == "v2" and node.children == ["v1", "v2"]
    node.update(active="v1")
    assert node.metadata["active"] == "v1"
    other = make_tree(keys=None)
    other.update("m", active="v3", more=[1])
    other.put("m/v3", b"", name="b")
    assert dict(node.metadata) == {"active": "v3", "more": [1]} and node.children == ["v1", "v2", "v3"]
    with filled.transaction():
        node.update(active="inside")
        assert node.metadata["active"] == "inside"
        assert other.find("m").metadata["active"] == "v3"
    other.delete("m", recursive=True)
    for ask in (lambda: node.metadata, lambda: node.children, node.list, lambda: node.update(a=1)):
        with pytest.raises(NodeNotFoundError):
            ask()
    assert node.path == "m"  # a path needs no state


@pytest.mark.everywhere
def test_the_verbs_of_a_node_are_those_of_the_tree_at_its_place(filled: Metatree, fast_path: Path) -> None:
    node = filled.find("m/v1")
    assert node.put(b"x", name="x") is True
    assert node.put(b"y", name="x", force=True) is True
    (fast_path / "d").mkdir()
    (fast_path / "d/inner").write_bytes(b"inner")
    node.put(fast_path / "d", recursive=True)
    assert node.list() == ["d", "w", "x"] == filled.list("m/v1")
    node.update({"my-key": 1}, file="x")
    assert dict(node.metadata) == {"my-key": 1, "file": "x"}
    assert b"".join(node.get("x")) == b"y" and b"".join(node.get("<file>")) == b"y"
    assert b"".join(node.get("d/inner")) == b"inner"
    with node.open("x") as stream:
        assert stream.read() == b"y"
    assert b"".join(node.get("x", fast_path / "out")) == b"y" == (fast_path / "out").read_bytes()
    list(node.get("d", str(fast_path / "out-d"), recursive=True))
    assert (fast_path / "out-d/inner").read_bytes() == b"inner"
    node.unset("my-key", "nokey")
    assert dict(node.metadata) == {"file": "x"}
    with pytest.raises(BlobNotFoundError):
        node.get("none")
    with pytest.raises(ValueError, match="rb"):
        node.open("x", "wb")
    with pytest.raises(NodeExistsError):
        node.delete()
    node.delete(recursive=True)
    assert not filled.exists("m/v1")


def test_a_slash_leads_to_a_child_that_exists(filled: Metatree) -> None:
    top = filled.find("m")
    assert (top / "v2").path == "m/v2" and (top / "<active>").path == "m/v2"
    assert (filled.find("") / "m" / "v1").path == "m/v1"
    with pytest.raises(NodeNotFoundError):
        top / "v9"
    for bad in ("..", "v1/w", "", "a/b", ".wal", "<nokey>"):
        with pytest.raises(InvalidLocationError):
            top / bad
    assert filled.location == filled.root  # the cursor moved to "" with the last find


def test_a_blob_name_given_to_a_node_cannot_lead_elsewhere(filled: Metatree) -> None:
    node = filled.find("m/v1")
    for bad in ("../v2/w", "..", "/etc/passwd", "", "w/", "metadata.json"):
        with pytest.raises(InvalidLocationError):
            node.get(bad)
        with pytest.raises(InvalidLocationError):
            node.open(bad)


def test_a_repr_is_one_line_and_reads_nothing(filled: Metatree) -> None:
    node = filled.find("m/v1")
    assert repr(node) == f"<metatree.Node 'm/v1' of {filled.root}>"
    assert "\n" not in repr(node) and "\n" not in repr(filled)
    assert filled.root in repr(filled) and "model, version" in repr(filled)
    filled.delete("m", recursive=True)
    assert "m/v1" in repr(node)


def test_the_html_of_a_node_shows_its_state_and_escapes_all_of_it(filled: Metatree) -> None:
    evil = "<script>alert('x')</script>&\""
    filled.update("m", {evil: evil, "n": 1})
    filled.put("m/a & b", b"", name="b")
    text = filled.find("m")._repr_html_()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "a &amp; b" in text and "v1" in text
    assert filled.find("")._repr_html_()
    for number in range(60):
        filled.put(f"m/x{number}", b"", name="b")
    assert len(filled.find("m")._repr_html_()) < 5_000


def test_a_nodes_properties_cannot_be_set(filled: Metatree) -> None:
    node = filled.find("m")
    for name in ("path", "name", "parent", "location", "metadata", "children", "anything"):
        with pytest.raises(AttributeError):
            setattr(node, name, 1)


def test_metadata_of_a_node_is_json_once_made_a_dict(filled: Metatree) -> None:
    filled.update("m", deep={"a": [1, {"b": None}]})
    assert json.loads(json.dumps(dict(filled.find("m").metadata), default=dict))["deep"] == {"a": [1, {"b": None}]}
