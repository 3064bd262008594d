"""The process dies at every call of a repair: no edit is lost, and the next run ends where the first would have."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from metatree import ConflictError, Metatree, repair
from metatree.repair_plan import Step
from tests.tree.model import ROOT, Camera, MemoryPosix, State, clone, dump, empty_disk, open_tree, plain, read, write
from wal.testing import Boundary, Call

T = TypeVar("T")

EDIT = b'{"by": "hand"}'
BIG = bytes(range(256)) * 300  # staged


def replace(disk: MemoryPosix, name: str, data: bytes) -> None:
    """As `sed -i` does: a new file, without the mark, takes the name."""
    disk.unlink(f"{ROOT}/{name}")
    write(disk, f"{ROOT}/{name}", data)


def edited_disk(*, log_holds: bool) -> MemoryPosix:
    """A tree with an edited node, an extra and a replaced blob, and, where the log still holds it, a lost one."""
    disk = empty_disk()
    tree = open_tree(disk)
    tree.put("m/v1", b"one", name="b")
    tree.put("m/v1", BIG, name="big")
    tree.update("m/v1", auc=0.9)
    tree.put("m/v2", b"two", name="b")
    if not log_holds:
        tree.close()
    disk = clone(disk)
    replace(disk, "m/v1/metadata.json", EDIT)
    replace(disk, "m/v2/b", b"by hand")
    write(disk, f"{ROOT}/m/v1/notes.txt", b"mine")
    if log_holds:
        disk.unlink(f"{ROOT}/m/v1/big")
    return disk


def everything(disk: MemoryPosix, folder: str = ROOT) -> list[bytes]:
    """The content of every file, the engine's included."""
    found = []
    for name in disk.listdir(folder):
        path = f"{folder}/{name}"
        is_folder = disk.lstat(path).st_mode & 0o170000 == 0o040000
        found += everything(disk, path) if is_folder else [read(disk, path)]
    return found


def paths_of(edits: str) -> list[str]:
    """All; and what a revert would leave alone, by its name."""
    return ["", "m/v1/notes.txt"] if edits == "revert" else []


def repaired(disk: MemoryPosix, edits: str) -> State:
    """What a repair ends in, through the library and in the folders alike."""
    with open_tree(disk) as tree:
        assert tree.repair(edits=edits, paths=paths_of(edits), deep=True).clean
        assert tree.repair(edits=edits, deep=True).steps == []
        state = dump(tree)
    assert plain(disk) == state
    return state


def assert_no_edit_is_lost(disk: MemoryPosix) -> None:
    """Each is in its place, or in the quarantine."""
    found = everything(disk)
    assert all(any(edit in data for data in found) for edit in (b"by hand", b"mine"))
    assert any(b'"by":"hand"' in data.translate(None, b" \n") for data in found)


def put_back_by_recovery() -> State:
    """What is adopted of a tree whose edits a recovery has set aside, and whose adoption died then."""
    disk = edited_disk(log_holds=True)
    open_tree(disk).close()
    return repaired(disk, "adopt")


@pytest.mark.parametrize(
    ("edits", "log_holds"), [("adopt", True), ("adopt", False), ("revert", True)], ids=["killed", "adopt", "revert"]
)
def test_a_repair_that_dies_anywhere_is_finished_by_the_next(edits: str, log_holds: bool) -> None:
    camera = Camera(edited_disk(log_holds=log_holds))
    tree: Metatree = open_tree(camera)
    camera.start()
    assert tree.repair(edits=edits, paths=paths_of(edits)).clean
    images = camera.finish()
    tree.close()
    assert len(images) > 10
    ends = [repaired(camera._disk, edits)]
    if edits == "adopt" and log_holds:
        ends.append(put_back_by_recovery())  # the edits are in the quarantine then
    for image in images:
        try:
            assert_no_edit_is_lost(image.disk)
            assert repaired(image.disk, edits) in ends
            assert_no_edit_is_lost(image.disk)
        except Exception as error:
            error.add_note(image.moment)
            raise


def test_what_a_repair_adopts_after_a_kill_is_the_edit_that_the_recovery_set_aside() -> None:
    disk = edited_disk(log_holds=True)
    with open_tree(disk) as tree:  # the first to open it: the replay writes what the log holds
        assert json.loads(read(disk, f"{ROOT}/m/v1/metadata.json")) == {"auc": 0.9}
        assert tree.repair(edits="adopt", deep=True).clean
        assert dict(tree.find("m/v1").metadata) == {"by": "hand"}
        assert b"".join(tree.get("m/v2/b")) == b"by hand"


def test_an_edit_that_a_recovery_set_aside_is_not_adopted_over_a_later_commit() -> None:
    disk = edited_disk(log_holds=True)
    with open_tree(disk) as tree:
        tree.update("m/v1", auc=1.0)
        tree.repair(edits="adopt")
        assert dict(tree.find("m/v1").metadata) == {"auc": 1.0}
        assert any(data == EDIT for data in everything(disk))


def test_nor_over_one_that_follows_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = edited_disk(log_holds=True)
    run = repair._Repair.run

    def commit_and_run(self: repair._Repair, steps: Sequence[Step]) -> None:
        tree.update("m/v1", auc=1.0)
        run(self, steps)

    with open_tree(disk) as tree:
        monkeypatch.setattr(repair._Repair, "run", commit_and_run)
        done = tree.repair(edits="adopt")
        why = "others have committed since the recovery that kept the edit as .wal/quarantine/edited/"
        assert set(done.failed) == {"m/v1/metadata.json", "m/v2/b"}
        assert all(each.startswith(why) for each in done.failed.values())
        assert dict(tree.find("m/v1").metadata) == {"auc": 1.0}
        assert b"".join(tree.get("m/v2/b")) == b"two"


class Meanwhile(Boundary):
    """Lets somebody else act once, right before a call on a path that ends so."""

    def __init__(self, disk: MemoryPosix, path: str, act: Callable[[], object]) -> None:
        super().__init__(disk)
        self._path = path
        self._act = act
        self.acted = False

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if self._path in call.path and not self.acted:
            self.acted = True
            self._act()
        return run()


def test_what_another_commit_changed_meanwhile_is_not_adopted_over_it() -> None:
    disk = edited_disk(log_holds=False)
    other = open_tree(disk, apply="background")
    other._engine.committer.stop()  # the repair has the right to apply
    meanwhile = Meanwhile(disk, ".wal/staged/", lambda: other.put("m/v2", b"newer", name="b", force=True))
    with open_tree(meanwhile) as tree:
        with pytest.raises(ConflictError):
            tree.repair(edits="adopt")
        assert meanwhile.acted
        assert tree.repair(edits="adopt").clean
        assert b"".join(tree.get("m/v2/b")) == b"newer"
        assert b"".join(tree.get("m/v1/notes.txt")) == b"mine"
    other.close()
    assert_no_edit_is_lost(disk)


class BeforeTheMending(Boundary):
    """Lets somebody else act right before the right to apply is taken for the second time: the check is the first."""

    def __init__(self, disk: MemoryPosix) -> None:
        super().__init__(disk)
        self.act: Callable[[], object] = lambda: None
        self.taken: list[Call] | None = None

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.method == "flock" and call.path.endswith("/apply") and self.taken is not None:
            self.taken.append(call)
            if len(self.taken) == 2:
                self.act()
        return run()


def test_an_edit_stays_in_its_place_if_a_checkpoint_overtakes_its_revert() -> None:
    disk = empty_disk()
    other = open_tree(disk)
    other.put("m/v1", b"one", name="b")
    before = BeforeTheMending(disk)
    with open_tree(before) as tree:
        other.update("m/v1", auc=0.9)
        other.flush()
        replace(disk, "m/v1/metadata.json", EDIT)
        before.act, before.taken = other.checkpoint, []
        done = tree.repair(edits="revert")
        assert [step.action for step in done.steps] == ["revert"]
        assert list(done.failed) == ["m/v1/metadata.json"] and not done.clean
        assert read(disk, f"{ROOT}/m/v1/metadata.json") == EDIT
        assert tree.repair(edits="adopt").clean
    other.close()


def test_a_reader_that_checks_while_others_write_finds_nothing_that_is_not_there() -> None:
    disk = empty_disk()
    with open_tree(disk) as writer:
        writer.put("m/v1", b"one", name="b")
        writer.put("m/v2", b"two", name="b")
        writer.checkpoint()
        meanwhile = Meanwhile(disk, "m/v2/metadata.json", lambda: writer.delete("m/v2", recursive=True))
        with open_tree(meanwhile, read_only=True) as reader:
            report = reader.check(deep=True)
        assert meanwhile.acted
        assert report.clean, str(report)
