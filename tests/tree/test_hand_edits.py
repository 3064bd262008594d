"""Edits by hand that replace a file, as `sed -i` and editors do, or write into it: never lost, never made official."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metatree import (
    BlobExistsError,
    CorruptionError,
    InvalidLocationError,
    Metatree,
)

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


def test_in_an_adopted_tree_an_unmarked_folder_is_found_by_its_name_and_kept_when_it_is_deleted(
    fast_path: Path,
) -> None:
    root = Path(shutil.copytree(OLD, fast_path / "old"))
    (root / "churn/plots").mkdir()
    (root / "churn/plots/roc.png").write_bytes(b"drawn")
    with Metatree(root) as tree:
        assert tree.exists("churn/plots") and b"".join(tree.get("churn/plots/roc.png")) == b"drawn"
        tree.delete("churn/plots", recursive=True)
        tree.checkpoint()
        assert not tree.exists("churn/plots") and kept(tree) == [b"drawn"]


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


@pytest.fixture
def altered(fast_path: Path) -> Iterator[Metatree]:
    """As `tree`, but in the end it may deviate from its log."""
    with Metatree(fast_path / "altered", ("model", "version")) as tree:
        tree.put("m/v1", b"weights", name="w")
        tree.update("m/v1", auc=0.9)
        tree.put("m/v2", b"weights", name="w")
        tree.checkpoint()
    with Metatree(fast_path / "altered") as tree:
        yield tree


def as_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unlist(root: Path, node: str) -> None:
    """Cut a node out of its parent's `children`, as somebody with an editor does."""
    file = (root / node).parent / "metadata.json"
    value = json.loads(file.read_bytes())
    value["children"].remove(node.rpartition("/")[2])
    write_into(file, json.dumps(value).encode())


@pytest.mark.parametrize("what", ["foreign", "unlisted"])
def test_a_folder_that_list_does_not_name_is_kept_when_it_is_deleted(what: str, altered: Metatree) -> None:
    root = Path(altered.root)
    folder = root / ("m/v1" if what == "unlisted" else "m/notes")
    folder.mkdir(exist_ok=True)
    if what == "unlisted":
        unlist(root, "m/v1")
    else:
        (folder / "w").write_bytes(b"precious")
    before = as_files(folder)
    assert folder.name not in (*altered.list("m"), *altered.find("m").children)
    altered.delete(f"m/{folder.name}", recursive=True)
    altered.checkpoint()
    assert not folder.exists() and not altered.exists(f"m/{folder.name}")
    aside = [path for path in (root / ".wal/quarantine").rglob(folder.name) if path.is_dir()]
    assert [as_files(path) for path in aside] == [before]


@pytest.mark.parametrize("source", ["file", "folder"])
@pytest.mark.parametrize("what", ["foreign", "unlisted"])
def test_a_blob_takes_the_place_of_such_a_folder_only_by_force_and_the_folder_is_kept(
    what: str, source: str, altered: Metatree, tmp_path: Path
) -> None:
    root = Path(altered.root)
    unlist(root, "m/v1")
    if what == "foreign":
        shutil.rmtree(root / "m/v1")
        (root / "m/v1").mkdir()
        (root / "m/v1/precious").write_bytes(b"mine")
    before = as_files(root / "m/v1")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/f").write_bytes(b"new")
    new = tmp_path / ("in" if source == "folder" else "in/f")
    with pytest.raises(BlobExistsError, match="force=True"):
        altered.put("m", new, name="v1", recursive=True)
    altered.put("m", new, name="v1", recursive=True, force=True)
    altered.checkpoint()
    assert b"".join(altered.get("m/v1/f" if source == "folder" else "m/v1")) == b"new"
    aside = [path for path in (root / ".wal/quarantine/replaced").rglob("v1") if path.is_dir()]
    assert [as_files(folder) for folder in aside] == [before]


@pytest.fixture
def linked(altered: Metatree, tmp_path: Path) -> list[str]:
    """The paths of links and a FIFO that somebody made in a node and in its directory blob."""
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/sub/f").write_bytes(b"f")
    (tmp_path / "in/g").write_bytes(b"g")
    altered.put("m/v1", tmp_path / "in", name="d", recursive=True)
    altered.put("m", tmp_path / "in", name="d", recursive=True)
    altered.checkpoint()
    root = Path(altered.root)
    os.symlink("/data/weights.bin", root / "m/v1/weights.bin")
    os.symlink("/data", root / "m/v1/d/data")
    os.symlink("/data/weights.bin", root / "m/d/sub/weights.bin")
    os.mkfifo(root / "m/v1/d/sub/pipe")
    return ["m/d/sub/weights.bin", "m/v1/d/data", "m/v1/d/sub/pipe", "m/v1/weights.bin"]


def test_check_names_each_link_and_special_file_also_in_a_directory_blob(altered: Metatree, linked: list[str]) -> None:
    report = altered.check(deep=True)
    assert sorted((finding.path, finding.kind) for finding in report.problems) == [(path, "link") for path in linked]
    assert report.notes == []


def test_a_directory_blob_with_a_link_is_not_downloaded_copied_or_moved_without_it(
    altered: Metatree, linked: list[str], tmp_path: Path
) -> None:
    for attempt in (
        lambda: altered.get("m/v1/d", tmp_path / "out", recursive=True),
        lambda: altered.copy("m/v1/d", "m/v2/d"),
        lambda: altered.move("m/v1/d", "m/v2/d"),
        lambda: altered.copy("m/v1", "m/v3"),
        lambda: altered.move("m", "n"),
    ):
        with pytest.raises(
            InvalidLocationError, match=r"link or special file .*out of the tree.*m/(v1/)?d/(data|sub/)"
        ):
            attempt()
    assert altered.find("m").children == ["v1", "v2"] and not altered.exists("m/v2/d")
    assert not (tmp_path / "out").exists()
    assert b"".join(altered.get("m/v1/d/g")) == b"g"


def links(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_symlink() or path.is_fifo())


@pytest.mark.parametrize("verb", ["delete a node", "delete a directory blob", "replace it", "move a node"])
def test_a_link_is_kept_when_what_is_around_it_goes(verb: str, altered: Metatree, linked: list[str]) -> None:
    root = Path(altered.root)
    kept = ["data", "pipe"]
    if verb == "delete a node":
        altered.delete("m", recursive=True)
        kept = sorted(path.rpartition("/")[2] for path in linked)
    elif verb == "delete a directory blob":
        altered.delete("m/v1/d", recursive=True)
    elif verb == "replace it":
        altered.put("m/v1", b"a file now", name="d", force=True)
    else:
        (root / "m/v1/d/data").unlink()
        (root / "m/v1/d/sub/pipe").unlink()
        altered.move("m/v1", "m/v9")
        kept = ["weights.bin"]
    altered.checkpoint()
    assert links(root / ".wal/quarantine") == kept
    assert not list((root / ".wal").glob("trash/*"))


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
