"""Names that change their kind, copies that meet other commits, directory blobs: what a hostile reader broke once."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

import wal
from metatree import (
    BlobExistsError,
    BlobNotFoundError,
    ConflictError,
    CorruptionError,
    InvalidLocationError,
    Metatree,
    NodeExistsError,
)
from metatree.location import MAX_SEGMENT
from tests.tree.conftest import LEVELS, assert_clean
from tests.tree.model import ROOT, clone, dump, empty_disk, open_tree, plain
from wal.testing import Boundary


def content(tree: Metatree, location: str) -> bytes:
    return b"".join(tree.get(location))


@pytest.fixture
def warm(tree: Metatree) -> Metatree:
    """A tree whose reader knows the names of m."""
    tree.put("m/x", b"1", name="f")
    tree.put("m", b"1", name="other")
    return tree


# --- a name that changes its kind stays taken -------------------------------------------------------------------------


def test_a_blob_that_took_a_dropped_nodes_name_keeps_it(warm: Metatree) -> None:
    with warm.transaction():
        warm.delete("m/x", recursive=True)
        warm.put("m", b"precious", name="x")
    with pytest.raises(BlobExistsError):
        warm.put("m/x", b"2", name="g")
    with pytest.raises(BlobExistsError, match="case"):
        warm.put("m", b"2", name="X")
    assert content(warm, "m/x") == b"precious"


def test_a_node_that_took_a_dropped_blobs_name_keeps_it(warm: Metatree) -> None:
    with warm.transaction():
        warm.delete("m/other")
        warm.put("m/other", b"precious", name="f")
    for name in ("other", "Other"):
        with pytest.raises((NodeExistsError, BlobExistsError)):
            warm.put("m", b"2", name=name)
    assert content(warm, "m/other/f") == b"precious"


def test_a_name_that_changes_its_kind_twice_in_one_transaction_is_what_it_became_last(warm: Metatree) -> None:
    with warm.transaction():
        warm.delete("m/x", recursive=True)
        warm.put("m", b"a", name="x")
        warm.delete("m/x")
        warm.put("m/x", b"b", name="f")
        with pytest.raises(NodeExistsError):
            warm.put("m", b"c", name="x")
    assert warm.children("m") == ["x"] and warm.list("m") == ["other"]


def test_a_directory_blob_that_took_a_dropped_nodes_name_is_no_damaged_node_to_a_replay(folder: Path) -> None:
    disk = empty_disk()
    with open_tree(disk) as tree:
        tree.put("m/x", b"", name="blob")
    tree = open_tree(disk)
    with tree.transaction():
        tree.delete("m/x", recursive=True)
        tree.put("m", folder, name="x", recursive=True)
    state, left = dump(tree), clone(disk)  # killed now
    tree.close()
    with open_tree(left) as tree:
        assert dump(tree) == state and plain(left) == state
        assert "quarantine" not in left.listdir(f"{ROOT}/.wal"), "nothing there was anybody else's, or damaged"


@pytest.mark.parametrize("children", [1, 2_000], ids=["small parent", "large parent"])
def test_a_name_that_changed_its_kind_is_taken_for_batch_mates_too(tree: Metatree, children: int) -> None:
    with tree.transaction():
        for number in range(children):
            tree.put(f"m/child-{number:04}-of-many", b"", name="f")
    tree.put("m/x", b"1", name="f")
    tree.list("m")
    with tree.transaction():
        tree.delete("m/x", recursive=True)
        tree.put("m", b"precious", name="x")
    with pytest.raises(BlobExistsError):
        tree.put("m/x", b"2", name="g")
    assert "x" not in tree.children("m") and content(tree, "m/x") == b"precious"


@pytest.mark.parametrize("becomes", ["blob", "node"])
@pytest.mark.parametrize("children", [1, 2_000], ids=["small parent", "large parent"])
def test_a_name_that_went_to_its_twin_in_another_case_is_the_twins(tree: Metatree, becomes: str, children: int) -> None:
    with tree.transaction():
        for number in range(children):
            tree.put(f"m/child-{number:04}-of-many", b"", name="f")
    tree.put("m/X", b"1", name="f")
    tree.put("m", b"1", name="other")
    for _ in range(2):
        with tree.transaction():
            tree.delete("m/X", recursive=True)
            if becomes == "blob":
                tree.put("m", b"precious", name="x")
            else:
                tree.put("m/x", b"precious", name="f")
            with pytest.raises((BlobExistsError, NodeExistsError)):
                tree.put("m", b"2", name="X")
        for location, name in (("m/X", "g"), ("m", "X")):
            with pytest.raises((BlobExistsError, NodeExistsError)):
                tree.put(location, b"2", name=name)
        assert content(tree, "m/x" if becomes == "blob" else "m/x/f") == b"precious"
        tree.delete("m/x", recursive=True)
        tree.put("m/X", b"1", name="f")


# --- copies and moves -------------------------------------------------------------------------------------------------


@pytest.fixture
def other(tree: Metatree, make_tree: Callable[..., Metatree]) -> Metatree:
    return make_tree(keys=None)


def test_a_copy_whose_target_another_commit_creates_meanwhile_conflicts(tree: Metatree, other: Metatree) -> None:
    tree.put("a", b"a", name="blob")
    tree.put("b", b"b", name="blob")
    with pytest.raises(ConflictError), tree.transaction():
        tree.copy("a", "n")
        other.copy("b", "n")
    assert content(tree, "n/blob") == b"b"


def test_a_move_whose_target_another_commit_creates_meanwhile_conflicts(tree: Metatree, other: Metatree) -> None:
    tree.put("a", b"a", name="blob")
    with pytest.raises(ConflictError), tree.transaction():
        tree.move("a", "n")
        other.put("n", b"precious", name="blob")
    assert content(tree, "n/blob") == b"precious" and content(tree, "a/blob") == b"a"


@pytest.mark.parametrize("verb", ["move", "copy"])
@pytest.mark.parametrize("size", [100, 100_000], ids=["small", "staged"])
def test_damage_is_not_laundered_by_a_move_or_copy(
    make_tree: Callable[..., Metatree], request: pytest.FixtureRequest, verb: str, size: int
) -> None:
    tree = make_tree()
    tree.put("m/v", b"x" * size, name="b")
    tree.checkpoint()
    file = Path(tree.root, "m", "v", "b")
    with file.open("r+b") as stream:
        stream.write(b"y")
    with pytest.raises(CorruptionError, match="m/v/b"):
        getattr(tree, verb)("m/v", "m/w")
    assert not tree.exists("m/w")
    assert not tree.check(deep=True).ok
    with file.open("r+b") as stream:  # mended, for the check at the end
        stream.write(b"x")


# --- directory blobs --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "d"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_bytes(b"a")
    (source / "sub" / "b").write_bytes(b"b")
    return source


def test_a_directory_blob_is_its_files(tree: Metatree, folder: Path) -> None:
    tree.put("m/v", folder, recursive=True)
    tree.delete("m/v/d/sub/b")
    assert tree.exists("m/v/d/a") and not tree.exists("m/v/d/sub")
    tree.delete("m/v/d/a")
    assert tree.list("m/v") == [] and not tree.exists("m/v/d")
    tree.put("m/v", b"now a file", name="d")
    tree.flush()
    assert content(tree, "m/v/d") == b"now a file"


def test_a_file_put_over_a_directory_blob_is_a_file_at_once(tree: Metatree, folder: Path) -> None:
    tree.put("m/v", folder, recursive=True)
    tree.flush()
    with tree.transaction():
        tree.put("m/v", b"file", name="d", force=True)
        tree.copy("m/v/d", "m/v/e")
        tree.delete("m/v/d")
    assert tree.list("m/v") == ["e"] and content(tree, "m/v/e") == b"file"


def test_a_directory_blob_of_more_files_than_may_be_open_is_downloaded(
    make_tree: Callable[..., Metatree], tmp_path: Path
) -> None:
    tree = make_tree()
    source = tmp_path / "many"
    source.mkdir()
    for number in range(300):
        (source / f"f{number:03}").write_bytes(b"%d" % number)
    tree.put("m/v", source, recursive=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = max(int(descriptor) for descriptor in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 50, hard))
    try:
        tree.get("m/v/many", tmp_path / "out", recursive=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()} == {
        f.name: f.read_bytes() for f in source.iterdir()
    }


def test_a_directory_blob_that_changes_while_it_is_downloaded_comes_out_whole(
    make_tree: Callable[..., Metatree], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, writer = make_tree(), make_tree(keys=None)
    for version in ("1", "2"):
        (tmp_path / version / "d").mkdir(parents=True)
        for name in "ab":
            (tmp_path / version / "d" / name).write_text(version)
    tree.put("m/v", tmp_path / "1" / "d", recursive=True)
    from metatree import downloads
    from metatree.content import OpenBlob

    download = downloads.download

    def between(blob: OpenBlob, target: str) -> None:
        monkeypatch.setattr(downloads, "download", download)
        download(blob, target)
        writer.put("m/v", tmp_path / "2" / "d", recursive=True, force=True)

    monkeypatch.setattr(downloads, "download", between)
    tree.get("m/v/d", tmp_path / "out", recursive=True)
    assert [(tmp_path / "out" / name).read_text() for name in "ab"] == ["2", "2"]


# --- a node where a blob was, before the files follow -----------------------------------------------------------------


@pytest.mark.parametrize("where", ["un-applied", "in one transaction"])
@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_node_that_takes_a_blobs_name_starts_empty(
    make_tree: Callable[..., Metatree], folder: Path, kind: str, where: str
) -> None:
    tree = make_tree(apply="background")
    if kind == "directory":
        tree.put("m", folder, recursive=True)
    else:
        tree.put("m", b"old", name="d")
    tree.checkpoint()

    def look() -> None:
        tree.delete("m/d", recursive=True)
        tree.put("m/d", b"new", name="n")
        assert tree.list("m/d") == ["n"]
        assert not tree.exists("m/d/a") and not tree.exists("m/d/sub")
        tree.put("m/d", b"a", name="a")
        assert content(tree, "m/d/a") == b"a"

    with tree._engine.log.right():  # nobody applies meanwhile
        if where == "un-applied":
            look()
        else:
            with tree.transaction():
                look()
    tree.move("m/d", "m/e")
    tree.flush()
    assert tree.list("m/e") == ["a", "n"] and tree.children("m") == ["e"]


def test_a_foreign_file_where_a_node_is_created_is_not_replaced(make_tree: Callable[..., Metatree]) -> None:
    tree = make_tree()
    tree.put("m/v", b"1", name="b")
    own = Path(tree.root, "m", "w")
    own.mkdir()
    (own / "b").write_bytes(b"mine")
    with pytest.raises(BlobExistsError):
        tree.put("m/w", b"2", name="b")
    assert (own / "b").read_bytes() == b"mine"


@pytest.mark.parametrize("beside", ["in the folder of a new node", "nowhere"])
def test_a_transaction_finds_the_foreign_files_below_a_node_that_it_creates(
    beside: str, make_tree: Callable[..., Metatree]
) -> None:
    tree = make_tree()
    own = Path(tree.root, "m", "w")
    if beside != "nowhere":
        own.mkdir(parents=True)
        (own / "b").write_bytes(b"mine")
    with tree.transaction():
        tree.put("m/v", b"1", name="b")  # creates both nodes
        tree.put("m/v", b"1", name="c")
        if beside != "nowhere":
            with pytest.raises(BlobExistsError):
                tree.put("m/w", b"2", name="b")
        else:
            tree.put("m/w", b"2", name="b")
        with pytest.raises(BlobExistsError):
            tree.put("m/v", b"2", name="b")
        tree.delete("m", recursive=True)
        tree.put("m/v", b"3", name="b")
        tree.put("m/x", b"4", name="b")
    tree.flush()
    assert (own / "b").is_file() == (beside != "nowhere") and tree.children("m") == ["v", "x"]
    assert Path(tree.root, "m", "v", "b").read_bytes() == b"3" and Path(tree.root, "m", "x", "b").read_bytes() == b"4"


# --- listings beside somebody who applies -----------------------------------------------------------------------------


class Vanishing(Boundary):
    """Lets somebody else apply between a listing and the next call on what was listed."""

    after: str = ""
    act: Callable[[], object] | None = None

    def listdir(self, path: str) -> list[str]:
        names = super().listdir(path)
        if self.act is not None and path.endswith(self.after):
            act, self.act = self.act, None
            act()
        return names


def test_a_folder_that_goes_while_a_node_is_listed_does_not_take_the_list_with_it(fast_path: Path) -> None:
    root = str(fast_path / "tree")
    posix = Vanishing(wal.Posix())
    with Metatree(root, LEVELS) as other, Metatree(wal.LocalStorage(root, posix=posix), apply="background") as tree:
        other.put("m/gone", b"1", name="b")
        other.put("m", b"precious", name="keep")
        with tree._engine.log.right():
            tree.delete("m/gone", recursive=True)
            tree.exists("m")
        posix.after, posix.act = "/m", other.flush
        assert tree.list("m") == ["keep"]
        with pytest.raises(BlobExistsError):
            tree.put("m/keep", b"2", name="b")
    assert_clean(root)


def test_a_subfolder_that_goes_while_it_is_walked_does_not_take_the_directory_blob_with_it(
    fast_path: Path, folder: Path
) -> None:
    root = str(fast_path / "tree")
    (folder / "keep").write_bytes(b"keep")
    posix = Vanishing(wal.Posix())
    with Metatree(root, LEVELS) as other, Metatree(wal.LocalStorage(root, posix=posix), apply="background") as tree:
        other.put("m", folder, recursive=True)
        other.checkpoint()
        with tree._engine.log.right():
            tree.delete("m/d/sub", recursive=True)
            tree.exists("m")
        posix.after, posix.act = "/m/d", other.flush
        tree.delete("m/d/a")
        assert content(tree, "m/d/keep") == b"keep"
    assert_clean(root)


def test_a_refusal_that_a_transaction_caught_is_in_its_read_set(tree: Metatree, other: Metatree) -> None:
    tree.put("m", b"1", name="b")
    with pytest.raises(ConflictError), tree.transaction():
        with pytest.raises(BlobExistsError):
            tree.put("m/b", b"2", name="f")
        tree.update("m", fallback=True)
        other.delete("m/b")


# --- what another program put there -----------------------------------------------------------------------------------

FOREIGN = ["run 10:30.csv", "x.tmp", ".nfs000123", "CON", "a\nb", os.fsdecode(b"\xff.bin"), "e\u0301"]


@pytest.mark.parametrize("verb", ["move", "copy"])
@pytest.mark.parametrize("name", FOREIGN, ids=ascii)
def test_a_foreign_file_whose_name_is_no_blobs_is_neither_copied_nor_moved(
    name: str, verb: str, tree: Metatree, folder: Path
) -> None:
    tree.put("m/v1", folder, name="d", recursive=True)
    tree.put("m/v1", b"1", name="f")
    tree.checkpoint()
    head = tree.lsn
    for inner in (name, f"d/{name}", f"d/{name}/x"):
        foreign = Path(tree.root, "m/v1", inner)
        foreign.parent.mkdir(exist_ok=True)
        foreign.write_bytes(b"theirs")
        for source, target in (("m/v1", "m/v2"), ("m", "n"), ("m/v1/d", "m/v1/e")):
            if "d/" in inner or not source.endswith("/d"):
                with pytest.raises(InvalidLocationError, match="rename it") as caught:
                    getattr(tree, verb)(source, target)
                assert repr(f"m/v1/{inner}") in str(caught.value)
        assert tree.lsn == head
        foreign.unlink()
        if inner.endswith("/x"):
            foreign.parent.rmdir()
    tree.put("m/v3", b"important", name="f")
    with Metatree(tree.root, read_only=True) as reader:
        assert content(reader, "m/v3/f") == b"important"
    getattr(tree, verb)("m/v1", "m/v2")
    assert content(tree, "m/v2/f") == b"1"


@pytest.mark.parametrize("verb", ["move", "copy"])
def test_a_file_of_a_directory_blob_may_have_the_name_of_an_engines_file(verb: str, tree: Metatree) -> None:
    tree.put("m/v1", b"1", name="f")
    tree.flush()
    for name in ("d/metadata.json", "d/.lock"):
        Path(tree.root, "m/v1", name).parent.mkdir(exist_ok=True)
        Path(tree.root, "m/v1", name).write_bytes(b"theirs")
    getattr(tree, verb)("m/v1", "m/v2")
    assert content(tree, "m/v2/d/metadata.json") == content(tree, "m/v2/d/.lock") == b"theirs"


@pytest.mark.parametrize("verb", ["move", "copy"])
@pytest.mark.parametrize("applied", [True, False])
def test_a_folder_without_files_stops_no_copy_and_no_move(
    verb: str, applied: bool, tree: Metatree, folder: Path
) -> None:
    tree.put("m/v1", b"1", name="f")
    tree.put("m/v1", folder, name="emptied", recursive=True)
    if applied:
        tree.checkpoint()
    tree.flush()
    Path(tree.root, "m/v1/__pycache__/deep").mkdir(parents=True)
    getattr(tree, verb)("m/v1", "m/v2")
    assert tree.list("m/v2") == ["emptied", "f"] and tree.exists("m/v1") is (verb == "copy")
    tree.checkpoint()
    for file in [path for path in Path(tree.root, "m/v2/emptied").rglob("*") if path.is_file()]:
        file.unlink()
    with pytest.raises(BlobNotFoundError, match="holds no file: there is nothing to copy or move"):
        getattr(tree, verb)("m/v2/emptied", "m/v2/other")
    getattr(tree, verb)("m/v2", "m/v3")
    assert tree.list("m/v3") == ["f"]
    tree.checkpoint()
    assert verb == "copy" or not Path(tree.root, "m/v1").exists()
    assert verb == "move" or tree.repair(edits="adopt", paths=["m/v2/emptied"]).clean  # its files are given up


@pytest.mark.parametrize("verb", ["move", "copy"])
def test_no_file_gets_a_longer_location_by_a_copy_or_move_than_by_a_put(
    verb: str, tree: Metatree, tmp_path: Path
) -> None:
    inner = "/".join(letter * MAX_SEGMENT for letter in "xyz")
    (tmp_path / "d" / inner).parent.mkdir(parents=True)
    (tmp_path / "d" / inner).write_bytes(b"deep")
    tree.put("m/v1", tmp_path / "d", recursive=True)
    head = tree.lsn
    long = f"{'a' * MAX_SEGMENT}/{'b' * MAX_SEGMENT}"
    for source, target in (("m/v1", long), ("m/v1/d", f"{long}/c")):
        with pytest.raises(InvalidLocationError, match=r"choose a shorter target: the location is 10\d\d bytes"):
            getattr(tree, verb)(source, target)
    assert tree.lsn == head
    getattr(tree, verb)("m/v1", f"a/{'b' * MAX_SEGMENT}")
    assert content(tree, f"a/{'b' * MAX_SEGMENT}/d/{inner}") == b"deep"


@pytest.mark.parametrize("verb", ["move", "copy"])
@pytest.mark.parametrize("twin", ["v1/A.TXT", "v1/d/A.TXT", "v1/D/other", "V1"])
def test_names_that_differ_only_in_case_are_not_copied_beside_each_other(
    twin: str, verb: str, tree: Metatree, tmp_path: Path
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.txt").write_bytes(b"inner")
    tree.put("m/v1", tmp_path / "d", recursive=True)
    tree.put("m/v1", b"1", name="a.txt")
    tree.checkpoint()
    head = tree.lsn
    foreign = Path(tree.root, "m", twin)
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_bytes(b"theirs")
    for source, target in (("m", "n"), ("m/v1", "m/v2"), ("m/v1/d", "m/v1/e")):
        if f"m/{twin}".startswith(f"{source}/"):
            with pytest.raises(InvalidLocationError, match="differ only in case or form; rename one of them"):
                getattr(tree, verb)(source, target)
    assert tree.lsn == head
