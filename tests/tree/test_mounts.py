"""Mounts that make a name durable only when its folder is flushed: no mark is ahead of the flushes."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from metatree import ApplyPendingWarning, Metatree, UnavailableError, marks
from metatree.clock import Clock
from metatree.content import take_in
from metatree.engine import Engine
from metatree.flushing import Flushing
from tests.tree.model import BIG, LEVELS, ROOT, dump, plain
from wal.storage.memory import MemoryPosix, MemoryStorage
from wal.testing import ALL_CALLS, Boundary, Call
from wal.testing.objects import Bucket, MemoryObjects

T = TypeVar("T")


class Mount(Boundary):
    """A disk of another host; notes in which folders names changed, wherever these folders lay then."""

    def __init__(self) -> None:
        super().__init__(MemoryPosix(), counted=ALL_CALLS)
        self.unflushed: set[str] = set()  # folders in which names changed since they were flushed
        self.brought: list[str] = []  # files that took their name in the tree
        self.sound = True  # no flush fails
        self.fail: Callable[[Call], BaseException | None] = lambda call: None

    def kernel_file(self, path: str) -> bytes:
        table = path == "/proc/self/mountinfo"
        return b"1 0 0:1 / / rw - fuse.example none rw\n" if table else super().kernel_file(path)

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        error = self.fail(call)
        if error is not None:
            raise error
        done = run()
        if call.method == "fsync":
            self.unflushed.discard(call.path)
        elif call.method in ("unlink", "mkdir") or (call.method == "open" and int(call.arguments[1]) & os.O_CREAT):
            self.unflushed.add(call.path.rpartition("/")[0])
        elif call.method in ("rename", "link"):
            self._takes(call.method, str(call.arguments[0]), str(call.arguments[1]))
        return done

    def _takes(self, method: str, source: str, target: str) -> None:
        if method == "rename":
            inside = {path for path in self.unflushed if f"{path}/".startswith(f"{source}/")}
            self.unflushed = (self.unflushed - inside) | {target + path.removeprefix(source) for path in inside}
            self.unflushed.add(source.rpartition("/")[0])
            self.brought += [target] if "/.wal/" not in target else []
        self.unflushed.add(target.rpartition("/")[0])
        if target.endswith("/owner") and self.sound:
            assert not self.unsure, "a claim says what is applied, and the names in these folders may be lost"

    @property
    def unsure(self) -> set[str]:
        """Folders of the tree in which names may be lost."""
        return {path for path in self.unflushed if "/.wal" not in path}

    def tree(self) -> Metatree:
        return Metatree(MemoryStorage(self), LEVELS)

    def flush_fails(self, folder: str, error: BaseException) -> None:
        self.sound = False
        self.fail = lambda call: error if call.method == "fsync" and call.path == f"{ROOT}{folder}" else None


@pytest.fixture
def mount() -> Mount:
    mount = Mount()
    mount.sound = False
    with mount.tree() as tree:
        tree.put("m/v1", b"one", name="b")
    mount.unflushed.clear()
    mount.sound = True
    return mount


@pytest.fixture(autouse=True)
def sound(mount: Mount) -> Iterator[None]:
    yield
    mount.sound, mount.fail = False, lambda call: None
    with mount.tree() as tree:
        assert tree.check(deep=True).ok
        assert plain(mount) == dump(tree)


def test_before_a_claim_says_what_is_applied_every_folder_with_a_new_or_removed_name_is_flushed(
    mount: Mount, tmp_path: Path
) -> None:
    (tmp_path / "folder" / "of").mkdir(parents=True)
    (tmp_path / "folder" / "of" / "blobs").write_bytes(BIG)
    with mount.tree() as tree:
        tree.put("m/v2", b"two", name="b")
        tree.put("m/v1", tmp_path / "folder", recursive=True)
        tree.update("m/v1", x=1)
        tree.move("m/v2", "other/v2")
        tree.update("m", text="t" * 20_000)
        tree.update("m", n=2)
        tree.flush()
        tree.delete("m/v1/folder", recursive=True)
        tree.delete("other", recursive=True)
        tree.checkpoint()
    assert not mount.unsure and len(mount.brought) > 8


def test_where_no_thread_can_be_started_commits_and_closing_do_without(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with mount.tree() as tree:
        tree.put("m/v2", b"two", name="b")
        tree.update("m", text="x" * 20_000)
        assert tree.unapplied == 0
        tree.flush()
        tree.checkpoint()
        tree.update("m", n=1)
    monkeypatch.undo()
    with mount.tree() as tree:
        assert tree.find("m").metadata["n"] == 1 and tree._engine.log.trimmed() == tree.lsn


def io_error() -> OSError:
    return OSError(errno.EIO, os.strerror(errno.EIO))


def test_after_a_flush_that_failed_the_window_is_written_anew_before_a_flush_is_believed(mount: Mount) -> None:
    with mount.tree() as tree:
        engine = tree._engine
        tree.update("m/v1", before=1)
        mount.flush_fails("/m", io_error())
        with pytest.warns(ApplyPendingWarning, match="Input/output"):
            tree.put("m/v2", b"two", name="b")
        with pytest.raises(UnavailableError, match=r"the root: OSError.*Input/output"):
            tree.flush()
        redo = engine.log.trimmed()
        with pytest.raises(UnavailableError, match="no checkpoint"):
            tree.checkpoint()
        assert engine.log.trimmed(fresh=True) == redo and tree.unapplied == 1
        mount.flush_fails("/none", io_error())
        mount.brought.clear()
        tree.flush()
        anew = {f"{ROOT}/{file}" for file in ("m/v2/b", "m/v2/metadata.json", "m/metadata.json")}
        assert anew <= set(mount.brought) and tree.unapplied == 0
        assert f"{ROOT}/m/v1/metadata.json" not in mount.brought, "it was flushed before"
        mount.brought.clear()
        tree.update("m/v1", after=1)
        assert mount.brought == [f"{ROOT}/m/v1/metadata.json"], "once"


def test_a_large_blob_that_is_written_anew_is_another_file_than_the_staged_one(mount: Mount) -> None:
    """Renamed over itself, a file leaves its folder as it was."""
    with mount.tree() as tree:
        mount.flush_fails("/m/v1", io_error())
        with pytest.warns(ApplyPendingWarning, match="Input/output"):
            tree.put("m/v1", BIG, name="big")
        before = mount.inner.lstat(f"{ROOT}/m/v1/big").st_ino
        mount.fail = lambda call: None
        tree.flush()
        assert mount.inner.lstat(f"{ROOT}/m/v1/big").st_ino != before
        assert b"".join(tree.get("m/v1/big")) == BIG


def test_a_failed_flush_is_told_to_the_next_committer(mount: Mount) -> None:
    one, two = mount.tree(), mount.tree()
    mount.flush_fails("/m/v1", io_error())
    with pytest.warns(ApplyPendingWarning, match="Input/output"):
        one.update("m/v1", x=1)
    mount.fail = lambda call: None
    mount.brought.clear()
    two.checkpoint()
    assert f"{ROOT}/m/v1/metadata.json" in mount.brought, "though it shows the commit already"
    two.close()
    one.close()


def test_a_flush_that_was_interrupted_counts_as_one_that_failed(mount: Mount) -> None:
    with mount.tree() as tree:
        mount.flush_fails("/m", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            tree.put("m/v2", b"two", name="b")
        mount.fail = lambda call: None
        mount.brought.clear()
        tree.flush()
        assert f"{ROOT}/m/v2/b" in mount.brought


def test_while_the_window_cannot_be_written_it_stays_in_doubt(mount: Mount) -> None:
    with mount.tree() as tree:
        flushing = tree._engine.committer._flushing
        tree.update("m/v1", x=1)
        flushing.doubt()
        mount.sound = False
        for n, refused in enumerate(("/other/b0", "/other/b1")):  # in what is written anew, and in what is applied
            path = f"{ROOT}{refused}"
            mount.fail = lambda c, p=path: io_error() if c.method == "rename" and c.arguments[1] == p else None  # type: ignore[misc]
            with pytest.warns(ApplyPendingWarning):
                tree.put("other", bytes([n]), name=f"b{n}")
            assert flushing.in_doubt() and tree.unapplied
        mount.fail = lambda call: None
        tree.flush()
        assert not flushing.in_doubt() and not tree.unapplied


def test_who_takes_over_from_a_committer_that_died_writes_the_window_anew(mount: Mount) -> None:
    """It may have died of what it was told about a flush."""
    dead = Engine(MemoryStorage(mount), LEVELS, read_only=False)
    dead.committing.single(lambda draft: draft.update(("m", "v1"), {"x": 1}), dead.staging())
    dead.committer._flushing.doubt = lambda: None  # type: ignore[method-assign]  it died before it could tell
    mount.flush_fails("/m/v1", io_error())
    with pytest.raises(UnavailableError, match="Input/output"):
        dead.committer.flush()
    mount.fail = lambda call: None
    fencing = dead.log._right._fencing  # type: ignore[attr-defined]
    assert fencing.take(fencing.look())
    mount.brought.clear()
    with MemoryTree(MemoryStorage(mount), LEVELS) as tree:
        tree.flush()
        tree.put("other", b"1", name="b")
        assert f"{ROOT}/m/v1/metadata.json" in mount.brought, "though it shows the commit already"
    dead.abandon()


def stage_and_damage(mount: Mount, tree: Metatree, content: bytes, damage: Callable[[bytearray], object]) -> None:
    """Commit a blob whose staged content is damaged before it is applied."""
    engine = tree._engine
    staging = engine.staging()
    if len(content) < 1 << 16:
        staging._inline_limit = 0  # into a pack
    blobs = take_in(content, "b", staging, recursive=False)
    engine.committing.single(lambda draft: draft.put(("m", "v2"), blobs, force=False), staging)
    inode = mount.inner._find(f"{ROOT}/.wal/staged/{staging.txid}")  # type: ignore[attr-defined]
    (file,) = inode.entries.values()
    kept = bytes(file.data)
    damage(file.data)
    with pytest.raises(UnavailableError) as raised:
        tree.flush()
    assert f"CorruptionError: .wal/staged/{staging.txid}/" in str(raised.value)
    assert tree.unapplied == 1
    file.data[:] = kept
    tree.flush()
    assert b"".join(tree.get("m/v2/b")) == content


def test_a_staged_file_that_a_server_cut_does_not_become_the_blob(mount: Mount) -> None:
    with mount.tree() as tree:
        stage_and_damage(mount, tree, BIG, lambda data: data.__delitem__(slice(100, None)))


@pytest.mark.parametrize("cut", [True, False])
def test_a_pack_that_was_damaged_does_not_become_the_blob(mount: Mount, cut: bool) -> None:
    def damage(data: bytearray) -> None:
        if cut:
            del data[10:]
        else:
            data[10] ^= 1

    with mount.tree() as tree:
        stage_and_damage(mount, tree, b"small " * 100, damage)


class MemoryTree(Metatree):
    _tuning = {"ttl": 0.05}  # noqa: RUF012


def test_where_names_are_durable_by_themselves_nothing_is_in_doubt() -> None:
    with Metatree(MemoryObjects(Bucket()), LEVELS) as tree:
        log = tree._engine.log
        flushing = Flushing(tree._engine.storage, log, Clock(), shared=True)
        flushing.doubt()
        assert not flushing.in_doubt() and log.load_mark(marks.FAULT) == 0
