"""A tree inside another tree: not made, named where it is found, and never taken away with what is around it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from metatree import Metatree, MetatreeError

LEVELS = ("model", "version")
OLD = Path(__file__).parent / "data" / "metatreedb-0.2.3" / "tree"
Make = Callable[..., Metatree]


def tree_at(place: Path, made_at: Path) -> Path:
    """A tree with one blob, made where it may be made and moved to `place`."""
    with Metatree(made_at, ("a",)) as tree:
        tree.put("x", b"precious", name="b")
    return Path(shutil.move(made_at, place))


def quarantined(root: Path) -> dict[str, Path]:
    """Where in the quarantine something of this name is."""
    return {path.name: path for path in (root / ".wal/quarantine").rglob("*")}


@pytest.mark.parametrize("where", ["inner", "m/v1/deep/down", "m"])
def test_a_tree_is_not_created_inside_another_and_leaves_nothing(where: str, make_tree: Make) -> None:
    root = Path(make_tree().root)
    with pytest.raises(MetatreeError, match=r"inside the tree .*/tree,.*outside"):
        Metatree(root / where, ("a",))
    assert not (root / where.partition("/")[0]).exists()


def test_an_empty_folder_inside_a_tree_does_not_become_one(make_tree: Make) -> None:
    inner = Path(make_tree().root) / "inner"
    inner.mkdir()
    with pytest.raises(MetatreeError, match="inside the tree"):
        Metatree(inner, ("a",))
    assert os.listdir(inner) == []


def test_a_link_into_a_tree_does_not_hide_it(make_tree: Make, fast_path: Path) -> None:
    make_tree()
    (fast_path / "elsewhere").symlink_to(fast_path / "tree")
    with pytest.raises(MetatreeError, match="inside the tree"):
        Metatree(fast_path / "elsewhere/inner", ("a",))


def test_a_tree_of_0_2_3_inside_another_is_not_adopted(make_tree: Make) -> None:
    inner = Path(shutil.copytree(OLD, Path(make_tree().root) / "inner"))
    before = sorted(inner.rglob("*"))
    with pytest.raises(MetatreeError, match="inside the tree"):
        Metatree(inner)
    assert sorted(inner.rglob("*")) == before


def test_a_tree_beside_another_is_fine(make_tree: Make) -> None:
    make_tree("one")
    make_tree("two")
    make_tree("one.more")


def test_one_that_is_there_already_opens_and_check_of_the_outer_one_names_it(make_tree: Make, fast_path: Path) -> None:
    outer = make_tree()
    outer.put("m/v1", b"x", name="b")
    root = Path(outer.root)
    places = ["inner", "m/v1/inner", "stray/far/inner"]
    (root / "stray/far").mkdir(parents=True)
    for place in places:
        tree_at(root / place, fast_path / "made")
        with Metatree(root / place) as inner:
            assert b"".join(inner.get("x/b")) == b"precious"
    report = outer.check()
    assert report.ok
    named = {finding.path for finding in report.notes if "tree inside this one" in finding.reason}
    assert named == set(places)


def test_a_node_that_is_a_tree_as_well_is_a_problem(make_tree: Make) -> None:
    outer = make_tree()
    outer.put("m/v1", b"x", name="b")
    config = Path(outer.root) / "m/.metatree"
    config.write_bytes((Path(outer.root) / ".metatree").read_bytes())
    report = outer.check()
    assert [finding.path for finding in report.problems] == ["m"]
    config.unlink()


@pytest.mark.parametrize("spot", ["m/inner", "m/v1/inner", "m/stray/inner", "m/v1/dir/inner"])
@pytest.mark.parametrize("dropped", ["m", "m/v1"])
def test_a_deletion_around_it_sets_it_aside_whole(spot: str, dropped: str, make_tree: Make, fast_path: Path) -> None:
    outer = make_tree()
    source = fast_path / "dir"
    source.mkdir()
    (source / "file").write_bytes(b"f")
    outer.put("m/v1", source, recursive=True)
    outer.put("m/v1", b"x", name="b")
    root = Path(outer.root)
    (root / spot).parent.mkdir(exist_ok=True)
    tree_at(root / spot, fast_path / "made")
    outer.delete(dropped, recursive=True)
    outer.checkpoint()
    if spot.startswith(dropped):
        assert not (root / spot).exists()
        kept = quarantined(root)["inner"]
    else:
        kept = root / spot
    inner = Path(shutil.move(kept, fast_path / "moved out"))
    with Metatree(inner) as tree:
        assert b"".join(tree.get("x/b")) == b"precious"
        assert tree.check(deep=True).ok


def test_a_tree_that_was_put_as_a_blob_is_a_blob_and_goes_as_one(make_tree: Make, fast_path: Path) -> None:
    outer = make_tree()
    with Metatree(fast_path / "archive", ("a",)) as tree:
        tree.put("x", b"content", name="b")
    outer.put("m/v1", fast_path / "archive", recursive=True)
    outer.put("m", fast_path / "archive", recursive=True)
    report = outer.check(deep=True)
    assert report.ok and report.notes == []
    outer.delete("m", recursive=True)
    outer.checkpoint()
    assert quarantined(Path(outer.root)) == {}


def test_what_a_deletion_takes_is_gone_and_only_foreign_folders_are_kept(make_tree: Make, fast_path: Path) -> None:
    outer = make_tree()
    source = fast_path / "dir"
    (source / "sub").mkdir(parents=True)
    (source / "sub/metadata.json").write_bytes(b"free here")
    (source / "metadata.json").write_bytes(b"{}")
    outer.put("m", source, recursive=True)
    outer.put("m/v1", source, recursive=True)
    outer.put("m/v1", b"x" * 100_000, name="large")
    root = Path(outer.root)
    (root / "m/notes").mkdir()
    (root / "m/notes/todo.txt").write_bytes(b"mine")
    (root / "m/v1/late").mkdir()
    (root / "m/v1/late/file").write_bytes(b"reads as a blob")
    outer.delete("m", recursive=True)
    outer.checkpoint()
    files = [path for path in (root / ".wal/quarantine").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in files] == [b"mine"]
    assert files[0].as_posix().endswith("m/notes/todo.txt")
    outer.put("m/v1", source, recursive=True)
    outer.delete("m/v1/dir", recursive=True)
    outer.checkpoint()
    assert not list((root / ".wal/trash").iterdir())
    assert len([path for path in (root / ".wal/quarantine").rglob("*") if path.is_file()]) == 1
