"""Files and folders that were put into a tree by hand, with names that no location may have, or like others.

Whatever is done to the nodes around them, the log holds no record that cannot be read, and what was committed is there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import wal
from metatree import InvalidLocationError, Metatree
from tests.tree.conftest import LEVELS
from tests.tree.storages import Elsewhere

ODD = ["run 10:30.csv", "x.tmp", ".nfs000123", "CON", "a\nb", "a.", os.fsdecode(b"\xff.bin")]
Open = Callable[[], Metatree]


def put_folder(tree: Metatree, node: str, name: str, inner: str, source: Path) -> None:
    """A directory blob with one file."""
    (source / inner).mkdir(parents=True)
    (source / inner / "x").write_bytes(b"x" * 100)
    tree.put(node, source, name=name, recursive=True)


@pytest.fixture(params=["local", "mount"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the tree, which is a path or a mount."""
    root = tmp_path / "tree"
    root.mkdir()
    posix = wal.Posix() if request.param == "local" else Elsewhere()

    def make() -> Metatree:
        return Metatree(wal.LocalStorage(root, posix), LEVELS)

    with make() as tree:
        for version in ("v1", "v2"):
            tree.put(f"m/{version}", b"weights", name="w")
        put_folder(tree, "m/v1", "d", "inner", tmp_path / "source")
        tree.checkpoint()
    return make


@pytest.fixture
def root(opened: Open, tmp_path: Path) -> Path:
    return tmp_path / "tree"


def assert_whole(opened: Open) -> None:
    """Another handle reads every record, and so does an opener."""
    with opened() as tree:
        assert tree.find("m/v2").metadata is not None
        assert [*tree.children("m")] and tree.check(deep=True).ok
        assert b"".join(tree.get("m/v1/w")) == b"weights"


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("verb", ["move", "copy"])
@pytest.mark.parametrize("folder", ["m/v1", "m/v1/d/inner"])
def test_what_holds_a_file_of_an_odd_name_is_not_moved_or_copied(
    opened: Open, root: Path, verb: str, folder: str, name: str
) -> None:
    (root / folder / name).write_bytes(b"by hand")
    with opened() as tree, opened() as other:
        for source, target in (("m/v1", "m/v3"), ("m", "n"), *([("m/v1/d", "m/v2/e")] if "d" in folder else [])):
            with pytest.raises(InvalidLocationError, match="cannot be copied or moved, rename it") as caught:
                getattr(tree, verb)(source, target)
            assert repr(f"{folder}/{name}") in str(caught.value)
        tree.update("m/v2", after=1)
        assert other.find("m/v2").metadata["after"] == 1
    assert (root / folder / name).read_bytes() == b"by hand"
    assert_whole(opened)


@pytest.mark.parametrize("name", ["v3.tmp", "a:b", "CON"])
def test_a_node_that_was_renamed_to_an_odd_name_is_not_adopted(opened: Open, root: Path, name: str) -> None:
    shutil.copytree(root / "m/v1", root / "m" / name)
    with opened() as tree:
        (step,) = [step for step in tree.repair(edits="adopt").steps if step.path == f"m/{name}"]
        assert step.action != "adopt"
        assert [*tree.children("m")] == ["v1", "v2"]
        tree.update("m", note=1)
    assert_whole(opened)


def test_a_file_below_a_folder_of_an_odd_name_is_not_adopted_and_one_of_a_reserved_name_is(
    opened: Open, root: Path
) -> None:
    for name in ("bad:dir/ok", "s/metadata.json"):
        file = root / "m/v1/d" / name
        file.parent.mkdir()
        file.write_bytes(b"by hand")
    with opened() as tree, opened() as other:
        done = tree.repair(edits="adopt")
        actions = {step.path: step.action for step in done.steps}
        assert actions == {"m/v1/d/bad:dir/ok": "cannot", "m/v1/d/s/metadata.json": "adopt"} and not done.failed
        assert b"".join(other.get("m/v1/d/s/metadata.json")) == b"by hand"
    assert_whole(opened)


@pytest.mark.parametrize("edit", ["the parent", "a sibling"])
def test_to_adopt_something_else_gives_no_damaged_child_up(opened: Open, root: Path, tmp_path: Path, edit: str) -> None:
    shutil.move(root / "m/v1", tmp_path / "elsewhere")
    if edit == "the parent":
        (root / "m/metadata.json").write_text('{"children": ["v1", "v2"], "note": 1}')
    else:
        shutil.copytree(root / "m/v2", root / "m/v3")
        with opened() as tree:
            tree.check()
    with opened() as tree:
        done = tree.repair(edits="adopt")
        assert not done.clean, done
        assert "v1" in tree.children("m")
    shutil.move(tmp_path / "elsewhere", root / "m/v1")
    assert_whole(opened)
