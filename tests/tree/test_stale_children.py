"""A node that its parent lists, but whose folder or metadata.json is gone, as after `rm -r`, or cannot be read: named,
and given up."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from metatree import CorruptionError, Metatree

Make = Callable[..., Metatree]
NAMED = r"m/v2/metadata\.json (is missing|cannot be read) .*restore it.*delete\('m/v2', recursive=True\)"

GARBAGE = {
    "cut short": b'{"auc": 0.',
    "no object": b"[1]",
    "not UTF-8": b'{"auc": "\xff"}',
    "children of another kind": b'{"children": [1]}',
}


@pytest.fixture(params=["folder", "file", "cut short", "no object", "not UTF-8", "children of another kind"])
def tree(request: pytest.FixtureRequest, make_tree: Make) -> Metatree:
    """m/v2 is gone or cannot be read, and not in memory."""
    with make_tree() as tree:
        for version in ("v1", "v2", "v3"):
            tree.put(f"m/{version}", b"weights", name="w")
    gone = Path(tree.root) / "m/v2"
    if request.param == "folder":
        shutil.rmtree(gone)
    elif request.param == "file":
        (gone / "metadata.json").unlink()
    else:
        (gone / "metadata.json").write_bytes(GARBAGE[request.param])
    return make_tree(keys=None)


def left(tree: Metatree) -> list[bytes]:
    """What is left of m/v2."""
    return sorted(file.read_bytes() for file in (Path(tree.root) / "m/v2").glob("*"))


def kept(tree: Metatree) -> list[bytes]:
    tree.checkpoint()
    return sorted(p.read_bytes() for p in (Path(tree.root) / ".wal/quarantine").rglob("*") if p.is_file())


def give_up(tree: Metatree) -> None:
    tree.delete("m/v2", recursive=True)
    assert tree.children("m") == ["v1", "v3"]


def test_changes_of_it_name_the_file_and_the_way_out(tree: Metatree) -> None:
    calls: list[Callable[[], object]] = [
        lambda: tree.put("m/v2", b"again", name="w"),
        lambda: tree.update("m/v2", x=1),
        lambda: tree.find("m/v2"),
        lambda: tree.list("m/v2"),
        lambda: tree.get("m/v2/w"),
        lambda: tree.move("m/v2", "m/v9"),
        lambda: tree.copy("m", "n"),
        lambda: tree.delete("m/v2"),
    ]
    head = tree.lsn
    for call in calls:
        with pytest.raises(CorruptionError, match=NAMED):
            call()
    assert tree.lsn == head
    give_up(tree)


def test_all_others_stay_within_reach_and_walk_stops_only_where_it_is(tree: Metatree) -> None:
    assert tree.children("m") == ["v1", "v2", "v3"]
    assert b"".join(tree.get("m/v3/w")) == b"weights"
    tree.update("m/v3", x=1)
    tree.put("m/v4", b"new", name="w")
    seen = []
    with pytest.raises(CorruptionError, match=NAMED):
        for node in tree.walk(""):
            seen.append(node.path)
    assert seen == ["", "m", "m/v1"]
    tree.delete("m/v2", recursive=True)
    assert [node.path for node in tree.walk("")] == ["", "m", "m/v1", "m/v3", "m/v4"]


def test_it_can_be_given_up_and_made_again(tree: Metatree) -> None:
    give_up(tree)
    assert tree.check(deep=True).ok
    tree.put("m/v2", b"again", name="w")
    tree.checkpoint()
    assert b"".join(tree.get("m/v2/w")) == b"again"
    assert tree.children("m") == ["v1", "v3", "v2"]


def test_it_can_be_given_up_in_a_transaction_and_with_its_parent(tree: Metatree) -> None:
    with tree.transaction():
        tree.delete("m/v2", recursive=True)
        tree.put("m/v2", b"again", name="w")
    assert tree.children("m") == ["v1", "v3", "v2"]
    tree.delete("m", recursive=True)
    assert tree.children("") == []


def test_what_is_left_of_it_is_kept(tree: Metatree) -> None:
    there = left(tree)
    give_up(tree)
    assert kept(tree) == there


def test_what_is_left_of_it_is_kept_if_it_is_made_again_at_once(tree: Metatree) -> None:
    there = left(tree)
    with tree.transaction():
        tree.delete("m/v2", recursive=True)
        tree.put("m/v2", b"again", name="x")
    assert kept(tree) == there
    assert tree.list("m/v2") == ["x"]


def test_one_that_is_known_already_is_named_when_its_folder_is_looked_at(make_tree: Make) -> None:
    tree = make_tree()
    tree.put("m/v2", b"weights", name="w")
    tree.checkpoint()
    tree = make_tree(keys=None)
    tree.find("m/v2")
    shutil.rmtree(Path(tree.root) / "m/v2")
    with pytest.raises(CorruptionError, match=NAMED):
        tree.list("m/v2")
    tree.delete("m/v2", recursive=True)
