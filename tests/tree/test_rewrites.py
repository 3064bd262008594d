"""Checkpoints that write a window again, and replays: nothing that is there may be missed, nothing foreign lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import wal
from metatree import ApplyPendingWarning, CorruptionError, Metatree, TransactionError
from tests.tree.conftest import LEVELS, assert_clean
from wal.testing import Boundary


class Watching(Boundary):
    """Calls `look` after each renaming."""

    look: Callable[[], None] | None = None

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        if self.look is not None:
            look, self.look = self.look, None
            look()
            self.look = look


def test_a_checkpoint_that_writes_again_takes_nothing_away_meanwhile(fast_path: Path, tmp_path: Path) -> None:
    """Every second handle's first checkpoint is one: files applied before it opened may not have reached the disk."""
    root = str(fast_path / "tree")
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "a").write_bytes(b"a")
    with Metatree(root, LEVELS) as tree:
        tree.put("m/v", b"1", name="b")
        tree.delete("m/v", recursive=True)
        tree.put("m/v", b"2", name="b")
        for _ in range(2):
            tree.put("m/w", folder, recursive=True, force=True)
        posix = Watching(wal.Posix())
        with Metatree(wal.LocalStorage(root, posix=posix)) as second:
            looks = []

            def look() -> None:
                assert b"".join(tree.get("m/v/b")) == b"2" == Path(root, "m", "v", "b").read_bytes()
                assert b"".join(tree.get("m/w/d/a")) == b"a"
                assert os.path.exists(os.path.join(root, "m", "v", "metadata.json"))
                looks.append(True)

            posix.look = look
            second.checkpoint()
            posix.look = None
            assert len(looks) > 3
    assert_clean(root)


def test_a_blob_that_was_replaced_by_hand_is_kept_when_a_checkpoint_writes_again(fast_path: Path) -> None:
    root = fast_path / "tree"
    with Metatree(str(root), LEVELS) as tree:
        tree.put("m/v", b"original", name="b")
        own = root / "own"
        own.write_bytes(b"by hand!")
        own.rename(root / "m" / "v" / "b")
        Metatree(str(root)).close()
    kept = [p.read_bytes() for p in (root / ".wal" / "quarantine" / "edited").rglob("*") if p.is_file()]
    assert kept == [b"by hand!"]
    assert (root / "m" / "v" / "b").read_bytes() == b"original"


@pytest.mark.parametrize(
    ("original", "edited"),
    [(bytes(2 << 20), bytes(2 << 20) + b"by hand!"), (b"original", b"by hand!")],
    ids=["a large one by its size", "a small one by its content"],
)
def test_a_blob_that_was_replaced_is_kept_though_it_has_the_engines_attribute(
    fast_path: Path, original: bytes, edited: bytes
) -> None:
    root = fast_path / "tree"
    with Metatree(str(root), LEVELS) as tree:
        tree.put("m/v", original, name="b")
        own = root / "own"
        shutil.copy2(root / "m" / "v" / "b", own)  # with the attribute
        own.write_bytes(edited)
        own.rename(root / "m" / "v" / "b")
        Metatree(str(root)).close()
    kept = [p.read_bytes() for p in (root / ".wal" / "quarantine" / "edited").rglob("*") if p.is_file()]
    assert kept == [edited]
    assert (root / "m" / "v" / "b").read_bytes() == original


@pytest.mark.parametrize("before", ["a node", "a blob", "a directory blob"])
@pytest.mark.parametrize("dies", [False, True], ids=["another handle's checkpoint", "recovery"])
def test_foreign_files_in_a_node_that_was_made_again_stay_where_they_are(
    fast_path: Path, tmp_path: Path, dies: bool, before: str
) -> None:
    root = fast_path / "tree"
    folder = tmp_path / "v"
    folder.mkdir()
    (folder / "old").write_bytes(b"old")
    (folder / "metadata.json").write_bytes(b"{}")
    program = f"""
import os
from metatree import Metatree
tree = Metatree({str(root)!r}, {LEVELS!r})
if {before!r} == "a node":
    tree.put("m/v", b"1", name="b")
elif {before!r} == "a blob":
    tree.put("m", b"1", name="v")
else:
    tree.put("m", {str(folder)!r}, recursive=True)
tree.delete("m/v", recursive=True)
tree.put("m/v", b"2", name="b")
open({str(root / "m" / "v" / "notes.txt")!r}, "w").write("mine")
os.makedirs({str(root / "m" / "v" / "theirs" / "below")!r})
open({str(root / "m" / "v" / "theirs" / "below" / "x")!r}, "w").write("theirs")
if {dies}:
    os._exit(0)
Metatree({str(root)!r}).close()
tree.close()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    with Metatree(str(root)) as tree:
        assert [name for name in tree.list("m/v") if name != "theirs"] == ["b", "notes.txt"]
        assert b"".join(tree.get("m/v/notes.txt")) == b"mine"
        assert b"".join(tree.get("m/v/b")) == b"2"
    assert (root / "m" / "v" / "theirs" / "below" / "x").read_bytes() == b"theirs"


def test_foreign_files_of_a_node_that_was_dropped_do_not_come_into_the_one_made_in_its_place(fast_path: Path) -> None:
    """Not even if the death came before anything of that was applied: a recovery ends where the commits had led."""
    root = fast_path / "tree"
    with Metatree(str(root), LEVELS) as tree:
        tree.put("m/v", b"1", name="b")
        (root / "m" / "v" / "notes.txt").write_text("went with the node")
    program = f"""
import os
from metatree import Metatree
tree = Metatree({str(root)!r}, apply="background")
with tree._engine.log.right():
    tree.delete("m/v", recursive=True)
    tree.put("m/v", b"2", name="b")
    assert tree.list("m/v") == ["b"]
    os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    with Metatree(str(root), read_only=True) as reader:
        assert reader.list("m/v") == ["b"]
    with Metatree(str(root)) as tree:
        assert tree.list("m/v") == ["b"]
    kept = [p.read_text() for p in (root / ".wal" / "quarantine").rglob("notes.txt")]
    assert kept == ["went with the node"]


class Refusing(Boundary):
    """Renames nothing onto what ends in `end`."""

    end = "nothing"

    def rename(self, source: str, target: str) -> None:
        if target.endswith(self.end):
            raise OSError(28, "no space", target)
        super().rename(source, target)


def test_foreign_files_in_a_node_that_took_a_blobs_name_outlive_a_second_pass(fast_path: Path) -> None:
    """The first pass made the node and failed elsewhere, so that the next one applies the same records again."""
    root = fast_path / "tree"
    posix = Refusing(wal.Posix())
    with Metatree(str(root), LEVELS) as made:
        made.put("m", b"1", name="v")
    with Metatree(wal.LocalStorage(str(root), posix=posix)) as tree:
        posix.end = "/other"
        with pytest.warns(ApplyPendingWarning), tree.transaction():
            tree.delete("m/v")
            tree.put("m/v", b"2", name="b")
            tree.put("other", b"3", name="c")
        (root / "m" / "v" / "notes.txt").write_text("mine")
        posix.end = "nothing"
        tree.flush()
        tree.checkpoint()
        assert (root / "m" / "v" / "notes.txt").read_text() == "mine"
        assert tree.list("m/v") == ["b", "notes.txt"]
    assert_clean(root)


def test_an_opener_that_waited_for_one_that_died_recovers_by_itself(fast_path: Path) -> None:
    root = str(fast_path / "tree")
    program = f"""
import os
from metatree import Metatree
tree = Metatree({root!r}, {LEVELS!r})
for n in range(3):
    tree.update("", n=n)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    Path(root, "metadata.json").write_bytes(b"{}\n")  # a power cut: the file had not reached the disk ...
    os.removexattr(os.path.join(root, "metadata.json"), "user.metatree")
    storage = wal.LocalStorage(root)  # ... and the first to open died before it had recovered anything
    opening, alive = storage.lock(".wal/opening"), storage.lock(".wal/alive")
    assert opening.acquire(timeout=0) and alive.acquire(timeout=0)
    seen: list[object] = []

    def wait() -> None:
        with Metatree(root) as tree:
            tree.update("", m=1)
            seen.append(dict(tree.find("").metadata))

    thread = threading.Thread(target=wait)
    thread.start()
    storage.close()
    thread.join()
    assert seen == [{"n": 2, "m": 1}]


def test_a_child_forked_inside_a_transaction_neither_commits_it_nor_takes_its_blobs_away(fast_path: Path) -> None:
    large = b"x" * 100_000
    for ending in ("raise SystemExit", "pass"):
        root = str(fast_path / ending.replace(" ", "-"))
        with Metatree(root, LEVELS, apply="background") as tree:
            read, write = os.pipe()
            try:
                with tree.transaction() as txn:
                    tree.put("m/v", large, name="b")
                    pid = os.fork()
                    if pid == 0:
                        os.close(write)
                        os.read(read, 1)  # until the parent has committed
                        exec(ending)  # noqa: S102
            except (SystemExit, TransactionError):
                os._exit(7)
            os.close(write)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
            os.close(read)
            assert tree.lsn == txn.lsn == 1
            assert b"".join(tree.get("m/v/b")) == large
        assert_clean(root)


def test_a_transaction_keeps_its_tree_alive(fast_path: Path) -> None:
    with Metatree(str(fast_path / "tree"), LEVELS).transaction() as txn:
        txn._engine.change(lambda draft: draft.ensure(("m",)))
    assert txn.lsn == 1


def test_a_handle_that_never_trims_lets_go_of_the_segments_that_others_trimmed(fast_path: Path) -> None:
    from metatree.engine import Engine

    root = str(fast_path / "tree")
    with Metatree(root, LEVELS):
        pass
    engine = Engine(wal.LocalStorage(root), None, read_only=False, apply="sync", segment_size=4096)
    with Metatree(root) as idle, Metatree(root, read_only=True) as reader:
        staging = engine.staging()
        for number in range(60):
            engine.change(lambda draft, n=number: draft.update((), {"n": "x" * 2000 + str(n)}), staging)
            staging = engine.staging()
            engine.checkpointer.run()
            assert str(idle.find("").metadata["n"]).endswith(str(number))
            assert str(reader.find("").metadata["n"]).endswith(str(number))
        gone = [t for t in map(_target, os.listdir("/proc/self/fd")) if t.startswith(root) and "(deleted)" in t]
        assert len(gone) <= 6, gone
    engine.close()


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def test_an_edit_that_was_put_back_is_forgotten_by_the_handle_that_saw_it(fast_path: Path) -> None:
    with Metatree(str(fast_path / "tree"), LEVELS) as tree:
        tree.put("m/v", b"", name="b")
        tree.update("m/v", auc=1)
        file = Path(tree.root, "m", "v", "metadata.json")
        original = file.read_bytes()
        with Metatree(tree.root) as second:
            file.write_bytes(b'{"auc": 0.5}')
            assert second.find("m/v").metadata["auc"] == 0.5
            with pytest.raises(CorruptionError, match="by hand"):
                second.update("m/v", x=1)
            file.write_bytes(original)
            second.update("m/v", x=1)
            assert dict(second.find("m/v").metadata) == {"auc": 1, "x": 1}


# --- edits among what the log writes again ----------------------------------------------------------------------------


def killed(root: Path, act: Callable[[Metatree], object]) -> None:
    """A program acts, and dies without closing the tree."""
    pid = os.fork()
    if pid == 0:
        act(Metatree(str(root), LEVELS))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def edit_by_hand(file: Path, content: bytes) -> None:
    """As a program does that keeps attributes. (Written in place, the staged file would be changed with it.)"""
    new = file.with_name("new")
    shutil.copy2(file, new)
    new.write_bytes(content)
    new.rename(file)


def set_aside(root: Path, content: bytes) -> list[str]:
    """The files of the quarantine with that content, by their names there."""
    quarantine = root / ".wal" / "quarantine"
    return [str(p.relative_to(quarantine)) for p in quarantine.rglob("*") if p.is_file() and p.read_bytes() == content]


@pytest.mark.parametrize("size", [10, 2 << 20], ids=["small", "large"])
def test_a_revert_keeps_another_blob_that_was_moved_over_the_one_it_writes_again(fast_path: Path, size: int) -> None:
    root, other, mine = fast_path / "tree", b"a" * size, b"b" * (size + 1)
    with Metatree(str(root), LEVELS) as tree:
        tree.put("m/v1", other, name="w")
        tree.checkpoint()
        tree.put("m/v2", mine, name="w")
        (root / "m/v1/w").rename(root / "m/v2/w")
        done = tree.repair(edits="revert", paths=["m/v2"], deep=True)
        assert (root / "m/v2/w").read_bytes() == mine
    assert set_aside(root, other) == ["edited/2/m/v2/w"]
    assert done.kept == [".wal/quarantine/edited/2/m/v2/w"]


@pytest.mark.parametrize("size", [10, 2 << 20], ids=["small", "large"])
def test_another_blob_of_the_same_size_is_kept_when_a_checkpoint_writes_over_it(fast_path: Path, size: int) -> None:
    root, other, mine = fast_path / "tree", b"a" * size, b"b" * size
    with Metatree(str(root), LEVELS) as tree:
        tree.put("m/v1", other, name="w")
        tree.checkpoint()
        tree.put("m/v2", mine, name="w")
        (root / "m/v1/w").rename(root / "m/v2/w")
        Metatree(str(root)).close()
        assert (root / "m/v2/w").read_bytes() == mine
    assert set_aside(root, other) == ["edited/2/m/v2/w"]


class Bare(wal.Posix):
    """A filesystem without attributes."""

    def getxattr(self, target: int | str, attribute: str) -> bytes:
        raise OSError(errno.ENOTSUP, "none")

    def setxattr(self, target: int | str, attribute: str, value: bytes) -> None:
        raise OSError(errno.ENOTSUP, "none")


def test_an_edit_is_kept_when_a_checkpoint_writes_over_it_where_files_have_no_attributes(fast_path: Path) -> None:
    root = fast_path / "tree"
    root.mkdir()

    def opened() -> Metatree:
        return Metatree(wal.LocalStorage(str(root), posix=Bare()), LEVELS)

    with opened() as tree:
        for name in ("edited", "same size", "as it was"):
            tree.put("m/v", b"1", name=name)
        (root / "m/v/edited").write_bytes(b"by hand")
        (root / "m/v/same size").write_bytes(b"2")
        opened().close()
        assert {name: (root / "m/v" / name).read_bytes() for name in ("edited", "same size")} == {
            "edited": b"1",
            "same size": b"1",
        }
    assert set_aside(root, b"by hand") and set_aside(root, b"2") and not set_aside(root, b"1")


def test_a_rebuild_keeps_a_folder_that_was_moved_over_the_blob_it_writes_again(fast_path: Path) -> None:
    root = fast_path / "tree"
    with Metatree(str(root), LEVELS) as tree:
        tree.put("m/v1", b"mine", name="w")
        tree.checkpoint()
        tree.put("m/v2", b"2", name="w")
        (root / "m/v2/w").unlink()
        (root / "m/v1").rename(root / "m/v2/w")
        done = tree.repair(edits="revert")
        assert (root / "m/v2/w").read_bytes() == b"2"
    assert set_aside(root, b"mine") == ["replaced/2/m/v2/w/w"]
    assert done.kept == [".wal/quarantine/replaced/2/m/v2/w"]


@pytest.mark.parametrize("size", [10, 2 << 20], ids=["small", "large"])
@pytest.mark.parametrize("what", ["a node", "a directory blob", "one put by force", "a node's new blob"])
def test_an_edit_in_what_was_put_again_is_kept_by_a_recovery_and_can_be_adopted(
    fast_path: Path, tmp_path: Path, what: str, size: int
) -> None:
    root, edit = fast_path / "tree", b"by hand" + bytes(size)
    source = tmp_path / "d"
    source.mkdir()
    (source / "a").write_bytes(b"a" * size)

    def act(tree: Metatree) -> None:
        if what == "a node":
            tree.put("m/v", b"1", name="a")
            tree.delete("m/v", recursive=True)
            tree.put("m/v", b"2" * size, name="a")
        else:
            tree.put("m/v", source, recursive=True)
            if what == "a directory blob":
                tree.delete("m/v/d", recursive=True)
            elif what == "a node's new blob":
                tree.delete("m/v", recursive=True)
            tree.put("m/v", source, recursive=True, force=what == "one put by force")

    killed(root, act)
    path = "m/v/a" if what == "a node" else "m/v/d/a"
    edit_by_hand(root / path, edit)
    with Metatree(str(root)) as tree:
        lsn = tree.lsn
        assert tree.recover().edited == [f".wal/quarantine/edited/{lsn}/{path}"]
        assert len(b"".join(tree.get(path))) == size
        tree.repair(edits="adopt", paths=[path])
        assert b"".join(tree.get(path)) == edit
    assert set_aside(root, edit) == [f"edited/{lsn}/{path}"]


def test_an_edit_of_a_blob_before_its_last_put_was_applied_is_kept_by_a_recovery(fast_path: Path) -> None:
    root = fast_path / "tree"

    def act(tree: Metatree) -> None:
        tree.put("m/v", b"1", name="w")
        tree._engine.committer.committed = lambda lsn: None  # type: ignore[method-assign]  it dies before
        tree.put("m/v", b"2", name="w", force=True)

    killed(root, act)
    (root / "m/v/w").write_bytes(b"by hand")
    with Metatree(str(root)) as tree:
        assert tree.recover().edited == [".wal/quarantine/edited/2/m/v/w"]
        assert b"".join(tree.get("m/v/w")) == b"2"
    assert set_aside(root, b"by hand")


def test_what_a_killed_program_left_unedited_is_not_kept_by_a_recovery(fast_path: Path, tmp_path: Path) -> None:
    """Neither what the window put twice nor what it replaced or dropped before it was applied."""
    root, source = fast_path / "tree", tmp_path / "d"
    source.mkdir()
    (source / "a").write_bytes(b"A")

    def act(tree: Metatree) -> None:
        for _ in range(2):
            tree.put("m/v", source, recursive=True, force=True)
            tree.put("m/v", b"x" * (2 << 20), name="w", force=True)
            tree.put("m/u", b"1", name="w", force=True)
        tree._engine.committer.committed = lambda lsn: None  # type: ignore[method-assign]  it dies before
        tree.delete("m/u", recursive=True)
        tree.put("m/v", b"2", name="w", force=True)
        tree.delete("m/v", recursive=True)
        tree.put("m/v", b"3", name="w")

    killed(root, act)
    with Metatree(str(root)) as tree:
        assert tree.recover().edited == []
        assert b"".join(tree.get("m/v/w")) == b"3"
    assert_clean(root)
    assert not [p for p in (root / ".wal" / "quarantine").rglob("*") if p.is_file()]


@pytest.mark.parametrize("dies", [False, True], ids=["lives on", "dies"])
def test_edits_that_a_repair_beside_another_program_did_not_choose_stay(fast_path: Path, dies: bool) -> None:
    """Its handle cannot know what of the window reached the disk. To write it again is left to who has to do it."""
    root = fast_path / "tree"
    first = Metatree(str(root), LEVELS)
    for version in ("v1", "v2", "v3"):
        first.put(f"m/{version}", b"1", name="w")
    (root / "m/v1/w").write_bytes(b"2")
    (root / "m/v2/metadata.json").write_bytes(b'{"by": "hand"}')
    (root / "m/v3/w").unlink()
    with Metatree(str(root)) as second:
        done = second.repair(paths=["m/v3"], deep=True)
        assert done.remains is not None
        remains = [finding.path for finding in (*done.remains.problems, *done.remains.notes)]
        if dies:
            first._engine.abandon()
    assert remains == ["m/v1/w", "m/v2/metadata.json"]
    assert (root / "m/v1/w").read_bytes() == b"2" and (root / "m/v3/w").read_bytes() == b"1"
    assert (root / "m/v2/metadata.json").read_bytes() == b'{"by": "hand"}'
    assert done.kept == [] and not set_aside(root, b"2")
    if dies:
        with Metatree(str(root)) as third:
            assert len(third.recover().edited) == 2
    else:
        assert first.checkpoint() == 3
        assert (root / "m/v1/w").read_bytes() == b"2"
        first.close()
