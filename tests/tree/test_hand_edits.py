"""Edits by hand that replace a file, as `sed -i` and editors do, or write into it: never lost, never made official."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from metatree import CorruptionError, Metatree

OLD = Path(__file__).parent / "data" / "metatreedb-0.2.3" / "tree"
EDIT = b'{"auc": 0.5, "by hand": true}'
Make = Callable[..., Metatree]


@pytest.fixture
def tree(make_tree: Make) -> Metatree:
    """A tree whose nodes are in no record since the last checkpoint."""
    with make_tree() as tree:
        tree.put("m/v1", b"weights", name="w")
        tree.update("m/v1", auc=0.9)
        tree.put("m/v2", b"weights", name="w")
    return make_tree(keys=None)


def replace(file: Path, data: bytes) -> None:
    """As `sed -i` does: a new file, without the mark, takes the name."""
    fresh = file.with_name("sedXyZ")
    fresh.write_bytes(data)
    os.replace(fresh, file)


def write_into(file: Path, data: bytes) -> None:
    with open(file, "r+b") as stream:
        stream.truncate(0)
        stream.write(data)


def kept(tree: Metatree) -> list[bytes]:
    """Everything in the quarantine."""
    return [path.read_bytes() for path in (Path(tree.root) / ".wal/quarantine").rglob("*") if path.is_file()]


def notes(tree: Metatree) -> list[str]:
    report = tree.check(deep=True)
    assert report.ok, str(report)
    return [finding.path for finding in report.notes if "has no attribute of the engine" in finding.reason]


@pytest.mark.parametrize("known", [True, False])
def test_a_replaced_file_is_kept_before_a_commit_replaces_it(known: bool, tree: Metatree) -> None:
    if known:
        tree.find("m/v1").metadata  # noqa: B018  (so that the commit does not look at the file)
    replace(Path(tree.root) / "m/v1/metadata.json", EDIT)
    tree.update("m/v1", x=1)
    tree.flush()
    assert kept(tree) == [EDIT]
    now = {"auc": 0.9, "x": 1} if known else {"auc": 0.5, "by hand": True, "x": 1}
    assert json.loads((Path(tree.root) / "m/v1/metadata.json").read_text()) == dict(tree.find("m/v1").metadata) == now
    tree.update("m/v1", x=2)
    tree.flush()
    assert kept(tree) == [EDIT]  # the file that the commit wrote is marked again
    assert notes(tree) == []


def test_an_edit_in_place_stops_a_commit_or_is_kept_if_the_node_was_known(tree: Metatree, make_tree: Make) -> None:
    tree.find("m/v1").metadata  # noqa: B018
    file = Path(tree.root) / "m/v1/metadata.json"
    write_into(file, EDIT)
    with make_tree(keys=None) as other:
        with pytest.raises(CorruptionError, match=r"edited by hand.*Put the file back as it was, then .* update"):
            other.update("m/v1", y=1)
        assert other.find("m/v1").metadata["by hand"] is True
    tree.update("m/v1", x=1)
    tree.flush()
    assert json.loads(file.read_bytes()) == {"auc": 0.9, "x": 1}
    assert EDIT in kept(tree)
    assert notes(tree) == []


def test_a_folder_in_the_place_of_a_nodes_file_is_kept_before_a_commit_replaces_it(tree: Metatree) -> None:
    tree.find("m/v1").metadata  # noqa: B018  (so that the commit does not look at the file)
    file = Path(tree.root) / "m/v1/metadata.json"
    file.unlink()
    file.mkdir()
    (file / "notes").write_bytes(b"by hand")
    tree.update("m/v1", x=1)
    tree.checkpoint()
    assert json.loads(file.read_bytes()) == {"auc": 0.9, "x": 1}
    assert kept(tree) == [b"by hand"]


def test_a_commit_that_says_what_an_edit_in_place_says_makes_it_official(tree: Metatree) -> None:
    tree.find("m/v1").metadata  # noqa: B018  (so that the commit does not look at the file)
    file = Path(tree.root) / "m/v1/metadata.json"
    write_into(file, file.read_bytes().replace(b"0.9", b"0.5"))
    tree.update("m/v1", auc=0.5)
    tree.flush()
    assert tree.check(deep=True).clean


def test_check_notes_each_file_without_a_mark_until_a_commit_writes_it(tree: Metatree) -> None:
    assert notes(tree) == []
    root = Path(tree.root)
    replace(root / "m/v1/metadata.json", EDIT)
    replace(root / "m/metadata.json", (root / "m/metadata.json").read_bytes())
    assert notes(tree) == ["m/metadata.json", "m/v1/metadata.json"]
    tree.update("m", x=1)
    tree.update("m/v1", x=1)
    tree.flush()
    assert notes(tree) == []


def test_a_new_tree_and_one_written_by_the_engine_alone_have_nothing_to_note(make_tree: Make) -> None:
    tree = make_tree("new")
    assert notes(tree) == []
    tree.update("", owner="ann")
    tree.put("m/v1", b"x", name="b")
    tree.flush()
    assert notes(tree) == [] and kept(tree) == []


def test_an_adopted_tree_is_free_of_noise(fast_path: Path) -> None:
    root = Path(shutil.copytree(OLD, fast_path / "old"))
    with Metatree(root) as tree:
        assert json.loads((root / ".metatree").read_text())["adopted"] is True
        assert notes(tree) == []
        tree.update("fraud/v1", auc=0.94)
        tree.put("fraud/v9", b"x", name="b")
        tree.delete("churn", recursive=True)
        tree.checkpoint()
        assert notes(tree) == [] and kept(tree) == []


def test_a_dropped_node_whose_file_was_edited_is_kept(tree: Metatree) -> None:
    write_into(Path(tree.root) / "m/v1/metadata.json", EDIT)
    replace(Path(tree.root) / "m/v2/metadata.json", b'{"replaced": 1}')
    tree.delete("m", recursive=True)
    tree.checkpoint()
    assert sorted(kept(tree)) == [EDIT, b'{"replaced": 1}']
    assert tree.check(deep=True).ok


def test_a_dropped_node_whose_file_cannot_be_read_is_kept_with_all_below(tree: Metatree) -> None:
    tree.find("m/v1")
    write_into(Path(tree.root) / "m/metadata.json", b'{"cut')
    tree.delete("m", recursive=True)
    tree.checkpoint()
    assert b'{"cut' in kept(tree) and kept(tree).count(b"weights") == 2


def test_a_dropped_node_as_the_engine_left_it_is_gone(tree: Metatree) -> None:
    tree.delete("m", recursive=True)
    tree.checkpoint()
    assert kept(tree) == [] and not list((Path(tree.root) / ".wal/trash").iterdir())


@pytest.mark.parametrize("verb", ["copy", "move"])
@pytest.mark.parametrize("what", ["m", "m/v1"])
def test_an_edited_node_is_neither_copied_nor_moved(verb: str, what: str, tree: Metatree) -> None:
    file = Path(tree.root) / "m/v1/metadata.json"
    good = file.read_bytes()
    write_into(file, EDIT)
    head = tree.lsn
    target = "n" if what == "m" else "m/v9"
    with pytest.raises(CorruptionError, match=r"m/v1/metadata\.json was edited by hand; nothing was changed"):
        getattr(tree, verb)(what, target)
    with pytest.raises(CorruptionError, match=r"m/v1/metadata\.json"), tree.transaction():
        getattr(tree, verb)(what, target)
    assert tree.lsn == head and not tree.exists(target)
    write_into(file, good)
    getattr(tree, verb)(what, target)


def test_a_foreign_file_in_the_place_of_a_new_node_makes_room_and_nothing_is_left_to_do(make_tree: Make) -> None:
    tree = make_tree(apply="background")
    with tree._engine.log.right():  # its thread waits
        tree.put("m/v1", b"weights", name="w")
        (Path(tree.root) / "m").write_bytes(b"foreign")
    tree.flush()
    assert kept(tree) == [b"foreign"]
    assert (Path(tree.root) / "m/v1/w").read_bytes() == b"weights"
