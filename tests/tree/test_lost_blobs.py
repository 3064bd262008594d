"""Blobs that were removed or replaced by hand, also after a checkpoint: the headers of the log, which stay for ever,
say what must be there. On every storage."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

import wal
from metatree import Metatree, MetatreeError, repair
from metatree.engine import Engine
from metatree.facts import Header, encode
from metatree.repair_plan import Step
from tests.tree.storages import again, at, kind_of, records, repeats, storage_of

Make = Callable[..., Metatree]

OLD = Path(__file__).parent / "data" / "metatreedb-0.2.3" / "tree"
LARGE = bytes(range(256)) * 400  # staged


@pytest.fixture
def tree(make_tree: Make, tmp_path: Path) -> Metatree:
    """Nothing in it is in a record since the last checkpoint."""
    for name in ("a", "b", "sub/c"):
        file = tmp_path / "folder" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    with make_tree() as tree:
        tree.put("m/v1", b"weights", name="w")
        tree.put("m/v1", LARGE, name="large")
        tree.put("m", tmp_path / "folder", name="dir", recursive=True)
        tree.put("", b"of the root", name="readme")
    return make_tree(keys=None)


def lose(tree: Metatree, *names: str) -> None:
    """As `rm -r` does."""
    storage = storage_of(tree)
    for name in names:
        storage.erase(name)
        assert not at(tree, name).exists()


def missing(tree: Metatree) -> list[str]:
    """What every kind of check says of it: quick and deep, by this handle and by a reader."""
    said = []
    for handle in (tree, again(tree, read_only=True)):
        for deep in (False, True):
            report = handle.check(deep=deep)
            assert {each.kind for each in report.problems} <= {"blob-missing"} and not report.notes, str(report)
            said.append(sorted(each.path for each in report.problems))
        if handle is not tree:
            handle.close()
    assert said == [said[0]] * len(said)
    return said[0]


def give_up(tree: Metatree, *paths: str) -> None:
    done = tree.repair(edits="adopt", paths=paths)
    assert done.clean, str(done.remains)


def test_a_blob_that_was_removed_after_a_checkpoint_is_missing(tree: Metatree) -> None:
    assert missing(tree) == []
    lose(tree, "m/v1/w", "m/v1/large", "m/dir/sub/c", "readme")
    tree.put("m/v1", b"other", name="other")
    tree.checkpoint()
    assert missing(tree) == ["m/dir/sub/c", "m/v1/large", "m/v1/w", "readme"]
    put = next(header for header in records(tree) if header.changes == {"": {"put": ["readme"]}})
    reason = next(each.reason for each in tree.check().problems if each.path == "readme")
    said = rf"is missing: commit \d+ put it \({re.escape(put.at)}\), and none has removed it since: removed by .*lost"
    assert re.fullmatch(said, reason)
    give_up(tree, "m", "readme")


def test_a_directory_blob_that_was_removed_is_missing_file_by_file(tree: Metatree) -> None:
    lose(tree, "m/dir")
    assert missing(tree) == ["m/dir/a", "m/dir/b", "m/dir/sub/c"]
    give_up(tree, "m/dir")
    assert missing(tree) == []


def test_a_blob_that_is_put_back_or_put_again_is_missing_no_more(tree: Metatree) -> None:
    lose(tree, "m/v1/w", "m/dir/a", "readme")
    tree.put("m/v1", b"again", name="w", force=True)
    tree.put("m", b"a file now", name="dir", force=True)
    at(tree, "readme").write_bytes(b"from a backup")
    report = tree.check()
    assert report.ok and {each.path for each in report.notes} <= {"readme"}, str(report)
    lose(tree, "m/v1/w")
    tree.checkpoint()
    assert [each.path for each in tree.check(deep=True).problems] == ["m/v1/w"]
    tree.put("m/v1", b"once more", name="w", force=True)


def test_what_a_commit_removed_is_not_missed(tree: Metatree, tmp_path: Path) -> None:
    tree.delete("m/v1/w")
    tree.delete("m/dir/a")
    tree.delete("m/dir/sub/c")
    tree.move("m/v1", "m/v2")
    tree.copy("m", "n")
    tree.delete("m", recursive=True)
    with tree.transaction():
        tree.put("o/v1", b"x", name="b")
        tree.delete("o/v1", recursive=True)
        tree.put("o", b"a blob in its place", name="v1")
        tree.delete("n/dir", recursive=True)
        tree.put("n/dir", b"a node in its place", name="b")
    assert missing(tree) == []
    tree.checkpoint()
    assert missing(tree) == []
    lose(tree, "n/v2/large", "o/v1", "n/dir/b")
    assert missing(tree) == ["n/dir/b", "n/v2/large", "o/v1"]
    tree.delete("n", recursive=True)
    assert missing(tree) == ["o/v1"]
    tree.delete("o", recursive=True)
    assert missing(tree) == []


def test_what_is_lost_with_its_node_is_told_with_the_node_and_again_without_it(tree: Metatree) -> None:
    lose(tree, "m/v1")
    assert [(each.path, each.kind) for each in tree.check().problems] == [("m/v1/metadata.json", "node-missing")]
    tree.delete("m/v1", recursive=True)
    assert missing(tree) == []


def test_a_removal_and_a_put_after_the_checkpoint_excuse_what_a_reader_on_its_own_expects(
    make_tree: Make, tmp_path: Path
) -> None:
    """Where it cannot know how far the files have followed, it begins at the checkpoint."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/inner").write_bytes(b"x")
    with make_tree() as tree:
        for name in ("kept", "gone", "folder", "node", "swapped"):
            tree.put("m/v1", b"x", name=name)
        tree.put("m", b"x", name="node")
        tree.put("m/v2", b"x", name="below")
    tree = make_tree(keys=None)
    tree.delete("m/v1/gone")
    tree.put("m/v1", tmp_path / "d", name="folder", force=True, recursive=True)
    tree.delete("m/node")
    tree.put("m/node", b"x", name="b")
    tree.move("m/v1/swapped", "m/v1/moved")
    tree.delete("m/v2", recursive=True)
    tree.put("m", b"x", name="v2")
    tree.flush()
    assert missing(tree) == []
    lose(tree, "m/v1/kept")
    assert missing(tree) == ["m/v1/kept"]
    give_up(tree, "m/v1/kept")


def test_what_a_node_held_is_known_after_it_was_listed_again(tree: Metatree) -> None:
    at(tree, "m/metadata.json").write_bytes(b"{}")
    assert tree.repair(edits="adopt").clean
    assert tree.children("m") == ["v1"]
    lose(tree, "m/v1/w")
    assert missing(tree) == ["m/v1/w"]
    give_up(tree, "m/v1/w")


# --- replaced ---------------------------------------------------------------------------------------------------------


def replace(tree: Metatree, name: str, content: bytes) -> None:
    """As `mv` of another file over it does."""
    lose(tree, name)
    at(tree, name).write_bytes(content)


def edits(tree: Metatree, *, deep: bool) -> dict[str, tuple[str, str]]:
    """Path -> kind and reason, of a tree without damage."""
    report = tree.check(deep=deep)
    assert report.ok, str(report)
    assert len({each.path for each in report.notes}) == len(report.notes), f"one finding a file: {report}"
    return {each.path: (each.kind, each.reason) for each in report.notes}


@pytest.mark.parametrize("deep", [False, True])
def test_a_blob_that_was_replaced_is_no_stray_file_and_its_commit_is_named(tree: Metatree, deep: bool) -> None:
    replace(tree, "m/v1/w", b"by hand")
    replace(tree, "m/dir/sub/c", b"by hand")
    at(tree, "m/v1/extra").write_bytes(b"by hand")
    found = edits(tree, deep=deep)
    assert {path: kind for path, (kind, _) in found.items()} == {
        "m/v1/w": "blob-replaced",
        "m/dir/sub/c": "blob-replaced",
        "m/v1/extra": "blob-extra",
    }
    put = next(header for header in records(tree) if header.changes.get("m/v1", {}).get("put") == ["w"])
    said = rf"has no attribute of the engine: replaced by .*; commit \d+ put it \({re.escape(put.at)}\)"
    assert re.fullmatch(said, found["m/v1/w"][1])

    plan = {step.path: (step.action, step.detail) for step in tree.repair(edits="revert", dry_run=True).steps}
    assert plan["m/v1/w"][0] == "cannot" and plan["m/v1/w"][1].endswith("restore it from a backup, or adopt it")
    assert plan["m/v1/extra"][0] == "leave"
    give_up(tree)
    assert edits(tree, deep=deep) == {}
    assert b"".join(tree.get("m/v1/w")) == b"by hand"


def test_a_blob_that_was_replaced_since_the_checkpoint_is_one_finding_and_can_be_reverted(tree: Metatree) -> None:
    tree.put("m/v1", b"of the log", name="w", force=True)
    tree.flush()
    replace(tree, "m/v1/w", b"by hand, and longer")
    for deep in (False, True):
        assert [kind for kind, _ in edits(tree, deep=deep).values()] == ["blob-replaced"]
    done = tree.repair(edits="revert")
    assert done.clean and [step.action for step in done.steps] == ["revert"]
    assert b"".join(tree.get("m/v1/w")) == b"of the log"
    assert [at(tree, name).read_bytes() for name in done.kept] == [b"by hand, and longer"]


@pytest.mark.parametrize("old, reason", [(b"old", "has 3 bytes, not the 5"), (b"older", "is not the version that was")])
def test_an_old_version_that_was_put_back_with_its_attribute_is_found_without_reading_it(
    old: bytes, reason: str, fast_path: Path
) -> None:
    with Metatree(fast_path / "own", ("model", "version")) as tree:
        tree.put("m/v1", old, name="w")
        tree.checkpoint()
        shutil.copy2(fast_path / "own/m/v1/w", fast_path / "backup")
        tree.put("m/v1", b"newer", name="w", force=True)
        (fast_path / "backup").rename(fast_path / "own/m/v1/w")
        for deep in (False, True):
            (found,) = tree.check(deep=deep).problems
            assert (found.path, found.kind) == ("m/v1/w", "blob-changed") and found.reason.startswith(reason)
        assert [step.action for step in tree.repair(edits="adopt").steps] == ["cannot"], "rot is adopted only by name"
        assert [step.action for step in tree.repair(edits="revert").steps] == ["revert"]
        assert b"".join(tree.get("m/v1/w")) == b"newer" and tree.check(deep=True).clean


# --- repair -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edits", [None, "adopt", "revert"])
def test_a_repair_says_that_it_cannot_bring_it_back_and_gives_nothing_up_unasked(
    edits: str | None, tree: Metatree
) -> None:
    lose(tree, "m/v1/w")
    before = tree.lsn
    done = tree.repair(edits=edits)
    assert [(step.path, step.kind, step.action) for step in done.steps] == [("m/v1/w", "blob-missing", "cannot")]
    assert done.steps[0].detail == (
        "the log holds no content of it since the last checkpoint: restore it from a backup, or give it up: --adopt "
        "with --path"
    )
    assert not done.clean and tree.lsn == before
    assert [each.remedies for each in tree.check().problems] == [("adopt",)]
    give_up(tree, "m/v1/w")


def test_it_is_given_up_by_name_in_one_commit_and_for_good(tree: Metatree) -> None:
    lose(tree, "m/v1/w", "m/dir/sub/c", "readme")
    before = tree.lsn
    done = tree.repair(edits="adopt", paths=["m"])
    assert {step.path: step.action for step in done.steps} == {"m/v1/w": "adopt", "m/dir/sub/c": "adopt"}
    assert (tree.lsn, done.lsn, done.clean) == (before + 1, before + 1, False)
    assert records(tree)[-1].changes == {"m": {"del": ["dir/sub/c"]}, "m/v1": {"del": ["w"]}}
    assert missing(tree) == ["readme"]
    give_up(tree, "readme")
    tree.checkpoint()
    assert missing(tree) == []
    assert tree.list("m") == ["dir"] and tree.list("m/v1") == ["large"]
    tree.put("m/v1", b"new", name="w")
    tree.checkpoint()
    lose(tree, "m/v1/w")
    assert missing(tree) == ["m/v1/w"]
    give_up(tree, "m/v1/w")


def test_what_the_log_holds_is_rebuilt_even_if_it_might_be_given_up(tree: Metatree) -> None:
    tree.put("m/v1", b"new", name="w", force=True)
    tree.flush()
    lose(tree, "m/v1/w")
    assert missing(tree) == ["m/v1/w"]
    done = tree.repair(edits="adopt", paths=["m/v1/w"])
    assert done.clean and [step.action for step in done.steps] == ["rebuild"]
    assert b"".join(tree.get("m/v1/w")) == b"new"


def test_something_in_its_place_is_named_and_never_removed(tree: Metatree) -> None:
    lose(tree, "m/v1/w")
    at(tree, "m/v1/w/inner").write_bytes(b"by hand")
    lost = [each for each in tree.check().problems if each.path == "m/v1/w"]
    assert [each.kind for each in lost] == ["blob-missing"] and " a folder is in its place" in lost[0].reason
    done = tree.repair(edits="adopt", paths=["m/v1/w"], dry_run=True)
    assert {step.path: step.action for step in done.steps if step.kind == "blob-missing"} == {"m/v1/w": "cannot"}
    lose(tree, "m/v1/w")
    give_up(tree, "m/v1/w")


def problems(tree: Metatree) -> set[str]:
    return {each.path for each in tree.check().problems}


def test_what_stands_in_the_place_of_a_lost_blob_is_not_adopted_as_if_nothing_were_lost(tree: Metatree) -> None:
    lose(tree, "m/v1/w", "m/dir/sub/c")
    at(tree, "m/v1/w/inner").write_bytes(b"by hand")
    at(tree, "m/v1/w2").write_bytes(b"by hand")
    at(tree, "m/dir/sub/d").write_bytes(b"by hand")
    for paths in ([], ["m/v1"], ["m/v1/w/inner", "m/v1/w2", "m/dir"]):
        plan = {step.path: step for step in tree.repair(edits="adopt", paths=paths, dry_run=True).steps}
        assert plan["m/v1/w/inner"].action == "cannot", plan
        assert "m/v1/w is lost" in plan["m/v1/w/inner"].detail and "move it away" in plan["m/v1/w/inner"].detail
        assert plan["m/v1/w2"].action == "adopt"
    assert plan["m/dir/sub/d"].action == "adopt"  # beside a lost one
    tree.repair(edits="adopt")
    assert problems(tree) == {"m/v1/w", "m/dir/sub/c"}
    plan = {step.path: step for step in tree.repair(edits=None, dry_run=True).steps}
    assert plan["m/v1/w/inner"].action == "choose" and "m/v1/w is lost" in plan["m/v1/w/inner"].detail
    lose(tree, "m/v1/w")
    give_up(tree, "m/v1/w", "m/dir/sub/c")


@pytest.mark.parametrize("where", ["m/dir", "m/dir/sub"])
def test_a_file_in_the_place_of_a_lost_directory_blob_is_adopted_if_the_lost_ones_are_given_up(
    where: str, tree: Metatree
) -> None:
    if kind_of(tree) == "seaweedfs":
        pytest.skip("SeaweedFS refuses, for a minute, to replace an object whose name was a folder's")
    inside = [name for name in ("m/dir/a", "m/dir/b", "m/dir/sub/c") if name.startswith(f"{where}/")]
    lost = [name for name in inside if at(tree, name).exists()]
    lose(tree, *lost)
    storage = storage_of(tree)
    if storage.capabilities.folders:
        storage.erase(where)
    at(tree, where).write_bytes(b"by hand")
    assert problems(tree) == set(lost)
    plan = {step.path: step for step in tree.repair(edits="adopt", dry_run=True).steps}
    assert plan[where].action == "cannot" and f"{lost[0]} is lost" in plan[where].detail
    tree.repair(edits="adopt")
    assert problems(tree) == set(lost)
    done = tree.repair(edits="adopt", paths=[where])
    assert done.clean, str(done.remains)
    assert b"".join(tree.get(where)) == b"by hand"
    assert tree.check(deep=True).clean and again(tree, read_only=True).check(deep=True).clean


def test_a_file_that_comes_back_between_plan_and_commit_is_not_given_up(
    tree: Metatree, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(tree, "m/v1/w")
    run = repair._Repair.run

    def restore_and_run(self: repair._Repair, steps: Sequence[Step]) -> None:
        at(tree, "m/v1/w").write_bytes(b"from a backup")
        run(self, steps)

    monkeypatch.setattr(repair._Repair, "run", restore_and_run)
    done = tree.repair(edits="adopt", paths=["m/v1/w"])
    assert "is there again" in done.failed["m/v1/w"]
    assert at(tree, "m/v1/w").read_bytes() == b"from a backup"
    assert all("del" not in change for header in records(tree) for change in header.changes.values())


# --- whatever was done ------------------------------------------------------------------------------------------------

MODELS, VERSIONS, BLOBS = ("a", "b"), ("a", "v"), ("a", "f", "g")


class Work:
    """Drawn calls; those that do not suit the tree are refused by it."""

    def __init__(self, tree: Metatree, folder: Path, seed: int) -> None:
        self.tree, self._folder, self._random = tree, folder, random.Random(seed)

    def _node(self) -> str:
        depth = self._random.choice((0, 1, 2, 2))
        return "/".join([self._random.choice(MODELS), self._random.choice(VERSIONS)][:depth])

    def _blob(self) -> str:
        return f"{self._node()}/{self._random.choice(BLOBS)}".lstrip("/")

    def _directory(self) -> Path:
        folder = self._folder / str(self._random.randrange(1 << 30))
        for name in self._random.sample(("a", "b", "f", "s/a", "s/t/b", "metadata.json"), 3):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(name.encode())
        return folder

    def _one(self) -> None:
        tree, draw = self.tree, self._random
        match draw.randrange(9):
            case 0 | 1 | 2:
                content = draw.choice((b"small", LARGE))
                tree.put(self._node(), content, name=draw.choice(BLOBS), force=draw.random() < 0.5)
            case 3 | 4:
                tree.put(self._node(), self._directory(), name=draw.choice(BLOBS), force=True, recursive=True)
            case 5:
                tree.delete(draw.choice((self._blob, self._node))(), recursive=True)
            case 6:
                inner = draw.choice(("a", "b", "s", "s/a", "s/t"))
                tree.delete(f"{self._blob()}/{inner}", recursive=draw.random() < 0.5)
            case 7:
                tree.move(draw.choice((self._blob, self._node))(), draw.choice((self._blob, self._node))())
            case 8:
                tree.copy(draw.choice((self._blob, self._node))(), draw.choice((self._blob, self._node))())

    def some(self, number: int) -> None:
        for _ in range(number):
            if self._random.random() < 0.1:
                self.tree.checkpoint()
            with suppress(MetatreeError), self.tree.transaction():
                for _ in range(self._random.choice((1, 1, 3))):
                    with suppress(MetatreeError):
                        self._one()


@pytest.mark.parametrize("seed", range(4))
def test_exactly_what_was_removed_by_hand_is_missing_whatever_was_done_before(
    seed: int, make_tree: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Engine.__init__.__kwdefaults__, "segment_size", 4096)  # so that the log has history files
    tree = make_tree()
    draw = random.Random(seed)
    work = Work(tree, tmp_path, seed)
    for _ in range(repeats(tree, 5)):
        work.some(25)
        assert missing(tree) == []
        tree.checkpoint()
        assert missing(tree) == []
        files = [name for name in at(tree).files() if not name.startswith(".") and "metadata.json" not in name]
        lost = sorted(draw.sample(files, min(len(files), 3)))
        lose(tree, *lost)
        assert missing(tree) == lost
        work.some(3)  # with what is missing: some of it goes with a node, or is put again
        left = missing(tree)
        assert set(left) <= set(lost)
        if left:
            give_up(tree, *left)
        assert missing(tree) == []
    assert kind_of(tree) != "local" or len(list((Path(tree.root) / ".wal/history").iterdir())) > 1


# --- where the log says less, or cannot be read -----------------------------------------------------------------------


@pytest.fixture
def settled(fast_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree whose log begins with several history files; `m/v1/first` is put by its first commit."""
    monkeypatch.setitem(Engine.__init__.__kwdefaults__, "segment_size", 1024)
    with Metatree(fast_path / "own", ("model", "version")) as tree:
        tree.put("m/v1", b"x", name="first")
        for number in range(30):
            tree.update("m/v1", n=number)
        tree.put("m/v1", b"x", name="last")
    assert len(list((fast_path / "own/.wal/history").iterdir())) > 3
    return fast_path / "own"


def found(root: Path) -> dict[str, str]:
    with Metatree(root, read_only=True) as tree:
        report = tree.check()
    return {each.path: each.kind for each in (*report.problems, *report.notes)}


def test_history_that_was_thrown_away_takes_its_knowledge_along_and_brings_no_false_alarm(settled: Path) -> None:
    for file in sorted((settled / ".wal/history").iterdir())[:2]:
        file.unlink()
    assert found(settled) == {}
    (settled / "m/v1/first").unlink()
    (settled / "m/v1/last").unlink()
    assert found(settled) == {"m/v1/last": "blob-missing"}


def test_damaged_history_is_a_finding_and_the_folders_are_checked_all_the_same(settled: Path) -> None:
    file = sorted((settled / ".wal/history").iterdir())[1]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    (settled / "m/v1/last").unlink()  # whether a later commit removed it cannot be known
    (settled / "m/v1/extra").write_bytes(b"by hand")
    assert found(settled) == {".wal": "log", "m/v1/extra": "blob-extra"}


def test_a_header_that_names_what_no_blob_can_be_called_is_damage_and_leads_nowhere(settled: Path) -> None:
    log = wal.open_log(wal.LocalStorage(str(settled)))
    record = encode(Header("1-00", "now", "stranger", {"m/v1": {"put": ["../../../canary"]}}), [])
    log.append(lambda head, mates: record)
    log.close()
    Metatree(settled).close()
    assert found(settled) == {".wal": "log"}


def test_of_a_tree_of_an_earlier_version_only_what_was_put_since_is_known(fast_path: Path) -> None:
    root = Path(shutil.copytree(OLD, fast_path / "old"))
    with Metatree(root) as tree:
        tree.put("fraud/v1", b"x", name="since")
        before = [each.path for each in tree.check().notes]
    lost = root / before[0]
    lost.unlink()
    with Metatree(root) as tree:
        assert tree.check().ok
        lost.write_bytes(b"x")
        assert tree.repair(edits="adopt").clean
    (root / "fraud/v1/since").unlink()
    lost.unlink()
    assert found(root) == {before[0]: "blob-missing", "fraud/v1/since": "blob-missing"}


@pytest.mark.parametrize("marked", [True, False])
def test_a_copy_of_a_tree_lacks_what_it_lacks_and_nothing_else(marked: bool, settled: Path, fast_path: Path) -> None:
    copy = fast_path / "copy"
    shutil.copytree(settled, copy, copy_function=shutil.copy2 if marked else shutil.copyfile)
    with Metatree(copy, read_only=True) as tree:
        assert tree.check().ok
    (copy / "m/v1/first").unlink()
    with Metatree(copy, read_only=True) as tree:
        assert [(each.path, each.kind) for each in tree.check().problems] == [("m/v1/first", "blob-missing")]
