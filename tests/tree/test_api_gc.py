"""`gc`, on every storage: what was never committed is aborted, then taken away; what is committed is never touched."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from metatree import ConflictError, Metatree, ReadOnlyError, TransactionError
from metatree.facts import decode_header
from tests.tree.model import ROOT, Camera, MemoryPosix, clone, empty_disk, open_tree, plain
from tests.tree.storages import again, at, storage_of

Make = Callable[..., Metatree]

LARGE = b"x" * (65 << 10)
OTHER = b"y" * (65 << 10)
DAY = 86400
DEAD = "0-00112233445566aa"


def leave(tree: Metatree, txid: str = DEAD) -> None:
    """A staged blob, as a killed writer leaves it."""
    with tree._engine.storage.stage(f".wal/staged/{txid}/9") as file:
        file.write(LARGE)
        file.finish(b"")


def staged(tree: Metatree) -> list[str]:
    return sorted({name.split("/")[0] for name in at(tree, ".wal/staged").files()})


def aborts(tree: Metatree) -> list[str]:
    headers = [decode_header(record.header) for batch in tree._engine.log.read(0) for record in batch.records]
    return [txid for header in headers for txid in header.aborts]


@pytest.mark.everywhere
def test_a_slow_transaction_that_was_collected_conflicts_and_nothing_of_it_is_there(make_tree: Make) -> None:
    tree, other = make_tree(), make_tree(keys=None)
    with pytest.raises(ConflictError, match="was aborted"), tree.transaction() as txn:
        tree.put("m/v1", LARGE, name="b")
        done = other.gc(older_than=0)
        assert done.old == [f".wal/staged/{txn.txid}"] and not done.clean
    assert not tree.exists("m") and tree.status(txn.txid) is None
    assert staged(tree) == []
    tree.put("m/v1", LARGE, name="b")
    assert b"".join(again(tree, read_only=True).get("m/v1/b")) == LARGE


def test_a_slow_transaction_that_goes_on_staging_conflicts_as_well(make_tree: Make) -> None:
    tree, other = make_tree(), make_tree(keys=None)
    with pytest.raises(ConflictError, match="was aborted"), tree.transaction():
        tree.put("m/v1", LARGE, name="b")
        other.gc(older_than=0)
        tree.put("m/v1", OTHER, name="c")
    assert not tree.exists("m")
    assert staged(tree) == []


@pytest.mark.everywhere
def test_what_a_killed_writer_left_is_taken_away_and_a_second_run_finds_nothing(make_tree: Make) -> None:
    tree = make_tree()
    tree.put("m/v1", b"one", name="b")
    leave(tree)
    done = tree.gc(older_than=0)
    assert (done.old, done.bytes, done.done) == ([f".wal/staged/{DEAD}"], len(LARGE), True)
    if storage_of(tree).capabilities.folders:
        assert done.erased == [] and [at(tree, name, "9").read_bytes() for name in done.kept] == [LARGE]
    else:
        assert done.kept == [] and done.erased == done.old
    tree.flush()
    report = tree.check(deep=True)
    assert report.clean and report.notes == [], str(report)
    lsn = tree.lsn
    assert tree.gc(older_than=0).clean
    assert tree.lsn == lsn and aborts(tree) == [DEAD]


def test_staged_files_of_a_commit_are_never_touched(make_tree: Make) -> None:
    tree = make_tree(apply="background")
    with tree.transaction() as txn:
        tree.put("m/v1", LARGE, name="b")
    leave(tree, txn.txid)  # as if no checkpoint had cleared it away
    leave(tree)
    assert tree.gc(older_than=0).old == [f".wal/staged/{DEAD}"]
    assert txn.txid in staged(tree)
    assert aborts(tree) == [DEAD]
    assert b"".join(tree.get("m/v1/b")) == LARGE


def test_a_plan_changes_nothing_and_needs_only_a_reader(make_tree: Make) -> None:
    tree = make_tree()
    leave(tree)
    before = at(tree).files()
    reader = again(tree, read_only=True)
    plan = reader.gc(older_than=0, dry_run=True)
    assert plan.old == [f".wal/staged/{DEAD}"] and not plan.done and not plan.kept and not plan.erased
    keys = ["clean", "done", "old", "scratch", "young", "foreign", "bytes", "kept", "erased"]
    assert list(plan.as_dict()) == keys and json.loads(json.dumps(plan.as_dict())) == plan.as_dict()
    with pytest.raises(ReadOnlyError):
        reader.gc(older_than=0)
    assert at(tree).files() == before
    with tree.transaction(), pytest.raises(TransactionError, match="outside of the transaction"):
        tree.gc()
    with pytest.raises(ValueError, match="seconds"):
        tree.gc(older_than=-1)
    tree.gc(older_than=0)


@pytest.mark.everywhere
def test_what_is_young_stays_and_so_does_what_is_not_the_engines(make_tree: Make) -> None:
    tree = make_tree()
    leave(tree)
    leave(tree, "by-hand")
    leave(tree, "0-00112233445566AA")
    before = at(tree).files()
    done = tree.gc()
    assert done.clean and done.young == [f".wal/staged/{DEAD}"]
    assert done.foreign == [".wal/staged/0-00112233445566AA", ".wal/staged/by-hand"]
    report = tree.check()
    assert report.clean and {note.path: (note.kind, note.remedies) for note in report.notes} == {
        f".wal/staged/{DEAD}": ("staged", ("gc",)),
        ".wal/staged/0-00112233445566AA": ("staged-extra", ()),
        ".wal/staged/by-hand": ("staged-extra", ()),
    }
    assert tree.gc(older_than=0).old == [f".wal/staged/{DEAD}"]
    assert {name for name in before if "0-00112233445566AA" in name or "by-hand" in name} <= set(at(tree).files())
    assert aborts(tree) == [DEAD]


def age(path: Path, seconds: float) -> None:
    for each in (*path.rglob("*"), path):
        os.utime(each, (time.time() - seconds,) * 2)


def test_the_newest_file_tells_the_age(tmp_path: Path) -> None:
    with Metatree(tmp_path / "tree", ("model", "version")) as tree:
        folder = tmp_path / "tree/.wal/staged" / DEAD
        leave(tree)
        (folder / "pack").write_bytes(b"p")
        age(folder, 2 * DAY)
        assert tree.gc(dry_run=True).old and tree.gc(older_than=3 * DAY, dry_run=True).young
        os.utime(folder / "pack")
        assert tree.gc().young
        age(folder, 2 * DAY)
        assert tree.gc().old
        assert not folder.exists()


def test_unfinished_files_go_when_they_are_older_than_a_day_whatever_is_asked(tmp_path: Path) -> None:
    with Metatree(tmp_path / "tree", ("model", "version")) as tree:
        scratch = tmp_path / "tree/.wal/tmp"
        scratch.mkdir(exist_ok=True)
        (scratch / "unfinished").write_bytes(b"half")
        (scratch / "folder").mkdir()
        age(scratch / "folder", 9 * DAY)
        assert tree.gc(older_than=0).clean
        age(scratch / "unfinished", 2 * DAY)
        assert tree.gc().scratch == [".wal/tmp/unfinished"]
        assert sorted(path.name for path in scratch.iterdir()) == ["folder"]


def test_two_collections_at_once_take_each_thing_once(make_tree: Make) -> None:
    tree, other = make_tree(), make_tree(keys=None)
    leave(tree)
    abort = tree._engine.committing.abort

    def later(txids: list[str]) -> tuple[str, ...]:
        aborted = abort(txids)
        assert other.gc(older_than=0).old
        return aborted

    tree._engine.committing.abort = later  # type: ignore[method-assign, assignment]
    assert tree.gc(older_than=0).kept == []
    assert aborts(tree) == [DEAD] and staged(tree) == []


def left_by_the_dead() -> MemoryPosix:
    disk = empty_disk()
    tree = open_tree(disk)
    tree.put("m/v1", LARGE, name="b")
    tree.flush()
    return disk


def test_a_collection_that_dies_anywhere_leaves_a_tree_that_the_next_opener_cleans() -> None:
    camera = Camera(left_by_the_dead())
    tree = open_tree(camera)
    state = plain(camera._disk)
    leave(tree)
    camera.start()
    assert tree.gc(older_than=0).old
    images = camera.finish()
    tree.close()
    assert len(images) > 5
    for image in images:
        try:
            disk = clone(image.disk)
            with open_tree(disk) as after:
                after.gc(older_than=0)
                assert after.gc(older_than=0).clean
                report = after.check(deep=True)
                assert report.clean and report.notes == [], str(report)
            assert plain(disk) == state
            assert not disk.listdir(f"{ROOT}/.wal/staged")
        except Exception as error:
            error.add_note(image.moment)
            raise
