"""The two rights and their order (E14), and staged blobs that outlive other people's upkeep (E17)."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torture_place import Place

import wal
from metatree import Metatree, UnavailableError
from wal.testing.hosts import watched

LARGE = b"x" * 100_000  # staged, not inline


def test_a_commit_in_the_background_waits_for_nobody_who_applies(make_tree: Callable[..., Metatree]) -> None:
    tree, other = make_tree(apply="background"), make_tree(keys=None)
    tree.put("m/v1", b"1", name="b")
    tree.flush()
    with other._engine.log.right():  # somebody applies, or makes a checkpoint, for as long as this block lasts
        for number in range(20):
            tree.update("m", n=number)
        assert tree.find("m").metadata["n"] == 19
        assert other.find("m").metadata["n"] == 19, "readers need no right either"
        assert tree.unapplied > 0
    tree.flush()
    assert tree.unapplied == 0


def test_checkpoints_and_commits_of_many_threads_never_block_each_other_for_good(
    make_tree: Callable[..., Metatree],
) -> None:
    trees = [make_tree(), make_tree(keys=None)]
    trees[0].put("m/v1", b"1", name="b")
    failures: list[BaseException] = []

    def work(tree: Metatree, name: str) -> None:
        try:
            for number in range(15):
                tree.update("m", {name: number})
                tree.checkpoint()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(trees[i % 2], f"k{i}")) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert dict(trees[0].find("m").metadata) == {f"k{i}": 14 for i in range(4)}


def test_a_running_transactions_staged_blobs_outlive_other_openers_and_their_checkpoints(
    make_tree: Callable[..., Metatree],
) -> None:
    tree = make_tree()
    with tree.transaction():
        tree.put("m/v1", LARGE, name="b")
        other = make_tree(keys=None)
        other.put("m/v2", LARGE, name="b")
        other.recover()
        other.checkpoint()
        other.close()
    assert b"".join(tree.get("m/v1/b")) == LARGE
    assert b"".join(tree.get("m/v2/b")) == LARGE


def test_a_commit_whose_staged_blobs_are_gone_is_refused_and_nothing_of_it_is_there(
    make_tree: Callable[..., Metatree],
) -> None:
    tree = make_tree()
    lsn = tree.lsn
    with pytest.raises(UnavailableError, match="staged"), tree.transaction() as txn:
        tree.put("m/v1", LARGE, name="b")
        tree.update("m", a=1)
        shutil.rmtree(Path(tree.root, ".wal", "staged", txn.txid))
    assert tree.lsn == lsn
    assert not tree.exists("m")


def test_a_checkpoint_that_is_overtaken_while_it_empties_the_trash_is_made_again(fast_path: Path) -> None:
    place, overtaken = Place(str(fast_path / "tree"), mount=True), []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "read" and arguments[0].startswith(".wal/trash/") and not overtaken:
            overtaken.append(arguments[0])
            with Place(place.root, mount=True, ttl=0.05).open() as other:
                other.checkpoint()
        return run()

    with place.open_on(watched(place.storage(), around), ("model", "version")) as tree:
        tree.put("m/v1", b"1", name="b")
        tree.put("m/v2", b"2", name="b")
        tree.delete("m/v1", recursive=True)
        assert tree.checkpoint() == tree.lsn
        assert overtaken
        assert tree.check(deep=True).ok


class FullDisk(wal.Posix):
    """Refuses large writes while it is `full`."""

    full = False

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        if self.full and len(data) >= 32 << 10:
            raise OSError(errno.ENOSPC, "the disk is full")
        return super().pwrite(fd, data, offset)


def test_small_blobs_that_could_not_be_written_to_their_pack_at_first_stand_in_the_right_place(fast_path: Path) -> None:
    root, posix = str(fast_path / "tree"), FullDisk()
    Metatree(root, ["model", "version"]).close()
    blobs = {f"v{number}": bytes([number]) * (4000 + number) for number in range(200)}
    refused = []
    with Metatree(wal.LocalStorage(root, posix=posix)) as tree:
        with tree.transaction():
            for number, (name, data) in enumerate(blobs.items()):
                posix.full = 120 <= number < 150
                try:
                    tree.put(("m", name), data, name="b")
                except UnavailableError:
                    refused.append(name)
                posix.full = False
            with tree.open("m/v199/b") as stream:
                assert stream.read() == blobs["v199"], "what was gathered is there to be read"
        assert refused and not any(tree.exists(("m", name)) for name in refused)
        for name in blobs.keys() - set(refused):
            with tree.open(("m", name, "b")) as stream:
                assert stream.read() == blobs[name]
