"""How soon the files follow the log in the background, and that nobody waits who has nothing to apply."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import wal
from metatree import Metatree, committer
from metatree.apply import apply
from metatree.facts import NodeFact
from metatree.fold import fold
from tests.tree.model import clone, open_tree, plain
from tests.tree.test_committer import Disk, another, soon
from wal.storage.memory import MemoryStorage
from wal.testing import Call

NEVER = 1000.0  # seconds: longer than any test


@pytest.fixture
def disk() -> Disk:
    disk = Disk()
    with open_tree(disk) as tree:
        tree.put("m/v1", b"one", name="b")
    return disk


def hurried(disk: Disk, **options: str) -> Metatree:
    """It does not wait for the right to apply."""
    tree = open_tree(disk, **options)
    tree._engine.committer.lock_timeout = 0.0
    return tree


# --- the thread -----------------------------------------------------------------------------------------------------


@pytest.fixture
def looks_never(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread does not look by itself for what others have left: it must be woken."""
    monkeypatch.setattr(committer, "LOOK", NEVER)


def test_a_commit_wakes_the_thread_and_so_does_closing(disk: Disk, looks_never: None) -> None:
    with open_tree(disk, apply="background") as tree:
        for number in range(3):
            tree.update("m", n=number, text="x" * 20_000)
            soon(lambda: tree.unapplied == 0)
            assert plain(disk)["m"][0]["n"] == number
        thread = tree._engine.committer._thread
        assert thread is not None
    assert not thread.is_alive()


def test_the_files_follow_as_soon_as_the_documentation_says(disk: Disk) -> None:
    assert "within 50 ms" in (Path(__file__).parents[2] / "docs/architecture.md").read_text()
    with open_tree(disk, apply="background") as tree:
        for number in range(50):  # the machine may be busy, but not each time
            tree.update("m", n=number)
            since = time.monotonic()
            while tree.unapplied:
                time.sleep(0.001)
            if time.monotonic() - since < 0.05:
                return
    raise AssertionError("it always took longer")


def test_the_thread_of_an_opener_applies_what_others_have_left(disk: Disk) -> None:
    other = another(disk)
    other.committer.committed = lambda lsn: None  # type: ignore[method-assign]  # as if it died here
    with open_tree(disk, apply="background") as tree:
        other.change(lambda draft: draft.update(("m",), {"n": 1}))
        soon(lambda: plain(disk)["m"][0] == {"n": 1})
        assert tree.unapplied == 0
        other.change(lambda draft: draft.update(("m",), {"n": 2}))
        soon(lambda: plain(disk)["m"][0] == {"n": 2})
    other.close()


def test_an_idle_thread_looks_now_and_then_and_leaves_the_right_to_others(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "LOOK", 0.2)
    other = another(disk)
    with hurried(disk, apply="background") as tree:
        tree.update("m", n=1)
        soon(lambda: tree.unapplied == 0)
        looks: list[float] = []
        with other.log.right():
            tree._engine.committer.upkeep = lambda: looks.append(time.monotonic())
            soon(lambda: len(looks) > 3)
            assert tree._engine.committer.failure is None
    assert looks[3] - looks[1] > committer.LOOK
    other.close()


def test_who_closes_may_interrupt_the_wait_for_a_thread_that_is_held_up(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "LOOK", 0.01)
    reached, released = threading.Event(), threading.Event()
    disk.when = lambda call: call.method == "rename" and str(call.arguments[1]).endswith("/m/metadata.json")
    disk.act = lambda: (reached.set(), released.wait(5))
    tree = open_tree(disk, apply="background")
    tree.update("m", n=1)
    reached.wait()
    waited = False
    with pytest.raises(KeyboardInterrupt), wal.DeferredInterrupt():
        signal.raise_signal(signal.SIGINT)
        tree._engine.committer.stop()
        waited = True
    assert not waited
    released.set()
    tree.close()


# --- who has nothing to apply ---------------------------------------------------------------------------------------

AGAIN: dict[str, Callable[[committer.Committer, int], object]] = {
    "a flush": lambda following, lsn: following.flush(),
    "a commit that others have applied": lambda following, lsn: following.committed(lsn),
}


@pytest.mark.parametrize("what", AGAIN)
def test_what_finds_the_files_in_place_waits_for_nobody(disk: Disk, what: str) -> None:
    other = another(disk)
    with hurried(disk) as tree:
        tree.update("m", n=1)
        with other.log.right():
            AGAIN[what](tree._engine.committer, tree.lsn)
    other.close()


def test_a_commit_does_not_wait_for_a_large_file_that_was_put_off(disk: Disk) -> None:
    other = another(disk)
    with hurried(disk) as tree:
        tree._engine.committer.stop()  # nobody follows
        tree.update("m", text="x" * 20_000)
        with other.log.right():
            tree._engine.committer.committed(tree.lsn)
        assert tree.unapplied
    other.close()


def test_never_are_fewer_than_no_commits_unapplied(disk: Disk) -> None:
    """Others commit and apply between the two looks that are compared."""
    other = another(disk)
    left, looks = 0, 0

    def counted(call: Call) -> bool:
        nonlocal left
        left -= 1
        return left == 0

    with open_tree(disk) as tree:
        disk.act = lambda: other.change(lambda draft: draft.update(("m",), {"n": looks}))
        while left <= 0:
            looks += 1
            left, disk.when = looks, counted
            assert tree.unapplied == 0
        disk.when = lambda call: False
    assert looks > 2
    other.close()


# --- interrupts -----------------------------------------------------------------------------------------------------


def test_an_interrupt_ends_an_application_before_the_next_node(disk: Disk) -> None:
    image = clone(disk.inner)
    effect = fold([NodeFact((), {"n": 1}, ("m",)), NodeFact(("m",), {"n": 1}, ("v1",))])
    with pytest.raises(KeyboardInterrupt), wal.DeferredInterrupt():
        signal.raise_signal(signal.SIGINT)
        apply(MemoryStorage(image), effect, 1, 2, check=lambda: None)
    assert plain(image) == plain(disk)
