"""What a committer and a checkpoint say and do when files cannot follow, marks lie, or others come in between."""

from __future__ import annotations

import errno
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest

import wal
from metatree import ApplyPendingWarning, CorruptionError, Metatree, UnavailableError, checkpoint, marks
from metatree.apply import apply
from metatree.clock import Clock
from metatree.engine import Engine
from metatree.facts import BlobFact, BlobGone, Inline, KeysFact, NodeFact, NodeGone
from metatree.fold import fold
from metatree.folders import Attribute, digest
from metatree.outcome import Outcome
from tests.tree.model import BIG, LEVELS, ROOT, clone, dump, open_tree, plain
from tests.tree.storages import TextBucket
from tests.tree.test_overtaken import Host, opened, prepared
from wal.head import HeadFile
from wal.storage.memory import MemoryPosix, MemoryStorage
from wal.testing import ALL_CALLS, Boundary, Call

T = TypeVar("T")
README = Path(__file__).parent.parent.parent / "README.md"


class Disk(Boundary):
    """Refuses the calls that `refuse` picks, and does `act` once before the call that `when` picks."""

    def __init__(self, inner: MemoryPosix | None = None) -> None:
        super().__init__(inner or MemoryPosix(), counted=ALL_CALLS)
        self.refuse: Callable[[Call], bool] = lambda call: False
        self.when: Callable[[Call], bool] = lambda call: False
        self.act: Callable[[], object] = lambda: None

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if self.refuse(call):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), call.path)
        if self.when(call):
            self.when = lambda call: False
            self.act()
        return run()


@pytest.fixture
def disk() -> Disk:
    disk = Disk()
    with open_tree(disk) as tree:
        tree.put("m/v1", b"one", name="b")
    return disk


def another(disk: Disk, **options: float) -> Engine:
    """Another process on the same disk, whose calls are not refused."""
    return Engine(MemoryStorage(disk.inner), LEVELS, read_only=False, apply="sync", **options)  # type: ignore[arg-type]


def soon(holds: Callable[[], object]) -> None:
    """Wait for the background thread."""
    for _ in range(3000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("the background thread did not come to it")


@contextmanager
def suppress_pending() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ApplyPendingWarning)
        yield


@pytest.fixture(autouse=True)
def sound(disk: Disk) -> Iterator[None]:
    """Whatever happened: who opens the disk afterwards finds a sound tree whose files show the log."""
    yield
    after = clone(disk.inner)
    with open_tree(after) as tree:
        assert tree.check(deep=True).ok
        assert plain(after) == dump(tree)


# --- the background thread ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["a full disk", "no locks"])
def test_what_keeps_the_background_thread_from_following_is_told_to_the_next_commit_and_by_flush(
    disk: Disk, why: str
) -> None:
    with open_tree(disk, apply="background") as tree:
        if why == "a full disk":
            disk.refuse = lambda call: call.method == "rename" and str(call.arguments[1]).endswith("/m/v2")
        else:
            disk.refuse = lambda call: call.method == "flock" and call.path.endswith("/apply")
        tree.put("m/v2", b"two", name="b")
        soon(lambda: tree._engine.committer.failure)
        with pytest.warns(ApplyPendingWarning, match="No space left"):
            tree.update("m", later=1)
        with pytest.raises(UnavailableError, match="No space left"):
            tree.flush()
        assert b"".join(tree.get("m/v2/b")) == b"two", "readers see it all the same"
        disk.refuse = lambda call: False
        tree.flush()
        assert tree.unapplied == 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree.update("m", later=2)


def test_the_warning_of_a_commit_whose_files_could_not_follow_is_about_the_line_that_made_it(disk: Disk) -> None:
    with open_tree(disk) as tree:
        disk.refuse = lambda call: call.method == "rename" and str(call.arguments[1]).endswith("/v1/metadata.json")
        with pytest.warns(ApplyPendingWarning) as told:
            tree.update("m/v1", n=1)
            tree.put("m/v1", b"two", name="c")
            tree.move("m/v1/c", "m/v1/d")
            with tree.transaction():
                tree.update("m/v1", n=2)
        disk.refuse = lambda call: False
        assert [warning.filename for warning in told] == [__file__] * 4


def test_the_background_thread_does_its_upkeep_though_nothing_is_to_be_applied(disk: Disk) -> None:
    with open_tree(disk, apply="background") as tree:
        tree.update("m", more=1)
        tree.flush()
        done = threading.Event()
        tree._engine.committer.upkeep = done.set
        assert done.wait(60)
        assert tree.unapplied == 0


def test_only_a_commit_whose_files_are_not_in_place_starts_the_thread_and_none_after_its_end(disk: Disk) -> None:
    with open_tree(disk) as tree:
        committer = tree._engine.committer
        tree.update("m", n=1)
        committer.committed(tree.lsn)  # by now another process has applied it
        assert committer._thread is None
        tree.update("m", text="x" * 20_000)
        assert committer._thread is not None and committer._thread.daemon, "a process may end without closing its tree"
        committer.stop()
        tree.update("m", n=2)
        assert committer._thread is None


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("mode", ["sync", "background"])
def test_where_no_thread_can_be_started_the_files_follow_with_the_commit(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    with monkeypatch.context() as starts, warnings.catch_warnings():
        warnings.simplefilter("error")
        starts.setattr(threading.Thread, "start", refuse)
        with open_tree(disk, apply=mode) as tree:
            done: list[int] = []
            tree._engine.committer.upkeep = lambda: done.append(tree.lsn)
            for change in ({"n": 1}, {"text": "x" * 20_000}, {"text": "y" * 20_000}):
                tree.update("m", **change)  # type: ignore[arg-type]
                assert tree.unapplied == 0
                assert plain(disk) == dump(tree)
            assert len(done) == (0 if mode == "sync" else 3), "what the thread would do besides is done as well"
            starts.undo()
            tree.update("m", text="z" * 20_000)
            assert tree._engine.committer._thread is not None, "the next commit tries again"
            soon(lambda: not tree.unapplied)


@pytest.mark.parametrize("mode", ["sync", "background"])
def test_where_no_thread_can_be_started_a_commit_says_why_its_files_cannot_follow(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with open_tree(disk, apply=mode) as tree:
        disk.refuse = lambda call: call.method == "rename" and str(call.arguments[1]).endswith("/m/metadata.json")
        with pytest.warns(ApplyPendingWarning, match="No space left") as told:
            tree.update("m", text="x" * 20_000)
        assert len(told) == 1
        with pytest.raises(UnavailableError, match="No space left"):
            tree.flush()
        disk.refuse = lambda call: False


def test_an_error_that_nobody_expects_does_not_end_the_background_thread(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_tree(disk, apply="background") as tree:
        committer = tree._engine.committer
        tree.flush()

        def short(*_: object, **__: object) -> Outcome:
            raise MemoryError("no memory")

        with monkeypatch.context() as passes:
            passes.setattr(committer, "pass_", short)
            tree.update("m", n=1)
            soon(lambda: committer.failure)
            with pytest.warns(ApplyPendingWarning, match="MemoryError: no memory"):
                tree.update("m", n=2)
            with pytest.raises(MemoryError):
                tree.flush()
        with suppress_pending():
            tree.update("m", n=3)
        soon(lambda: not tree.unapplied and committer.failure is None)


def test_a_background_thread_that_ended_is_started_again_by_the_next_commit(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda what: ended.append(what.exc_value))
    with open_tree(disk, apply="background") as tree:
        committer = tree._engine.committer
        first = committer._thread
        assert first is not None

        class Short(threading.Event):
            def clear(self) -> None:
                raise MemoryError

        wake, committer._wake = committer._wake, Short()
        wake.set()
        first.join(60)
        assert [type(error) for error in ended] == [MemoryError] and committer._thread is None
        committer._wake = threading.Event()
        tree.update("m", n=1)
        assert committer._thread not in (None, first)
        soon(lambda: not tree.unapplied)


def test_an_error_after_the_commit_says_that_the_commit_is_durable(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_tree(disk) as tree:

        def short(*_: object, **__: object) -> Outcome:
            raise MemoryError("no memory")

        with monkeypatch.context() as passes:
            passes.setattr(tree._engine.committer, "pass_", short)
            with pytest.raises(MemoryError) as raised:
                tree.update("m", n=1)
        assert raised.value.__notes__ == [f"the commit with LSN {tree.lsn} is durable; its files will follow"]
        tree.flush()
        assert tree.find("m").metadata["n"] == 1


# --- marks and the right --------------------------------------------------------------------------------------------


def test_marks_ahead_of_the_log_are_corruption_and_nothing_is_carried_out(disk: Disk) -> None:
    """The log has lost its end: what is committed next would take the numbers of what was lost."""
    with open_tree(disk) as tree:
        log = tree._engine.log
        log.store_mark(marks.APPLIED, log.head() + 2)
        before = plain(disk)
        with pytest.raises(CorruptionError, match="the files show it up to"):
            tree._engine.committer.pass_(defer=False)
        assert plain(disk) == before
        log.store_mark(marks.APPLIED, log.head())


def test_a_host_that_is_overtaken_again_and_again_gives_up_and_says_so() -> None:
    bucket = TextBucket()
    prepared(bucket)
    tries: list[wal.Tenure] = []

    def lost(tenure: wal.Tenure) -> None:
        tries.append(tenure)
        raise wal.RightLostError("another has it")

    with opened(Host(bucket)) as tree:
        with pytest.raises(UnavailableError, match="other hosts keep taking over"):
            tree._engine.committer.holding(lost)
        assert len(tries) == 10
        tree.update("m", after=1)
        assert tree.unapplied == 0


@pytest.mark.parametrize(
    ("error", "last"), [(wal.RightLostError("another has it"), 10), (OSError(errno.ETIMEDOUT, "no reply"), 1)]
)
def test_what_a_lost_tenure_had_marked_as_done_is_not_believed_by_its_own_handle(error: Exception, last: int) -> None:
    """After any other error it may have been lost as well."""
    bucket = TextBucket()
    prepared(bucket)
    tries: list[wal.Tenure] = []
    with opened(Host(bucket)) as tree:
        log = tree._engine.log
        before = log.load_mark(marks.APPLIED), log.load_mark(marks.APPLIED_SMALL)

        def lost(tenure: wal.Tenure) -> None:
            tries.append(tenure)
            if len(tries) == last:
                for mark, value in zip((marks.APPLIED, marks.APPLIED_SMALL), before, strict=True):
                    log.store_mark(mark, value + 1)
            raise error

        with pytest.raises((UnavailableError, OSError)):
            tree._engine.committer.holding(lost)
        assert len(tries) == last
        assert (log.load_mark(marks.APPLIED), log.load_mark(marks.APPLIED_SMALL)) == before
        objects = tree._engine.committer._objects
        assert objects is not None and objects.unsure, "what it wrote last may have come after its successor"
        tree._engine.abandon()


def test_a_lost_right_is_told_where_nothing_is_kept_of_objects(disk: Disk) -> None:
    with open_tree(disk) as tree:
        committer = tree._engine.committer
        committer.unsynced = False  # as where hosts share a storage with folders
        before = committer.applied()
        with pytest.raises(wal.RightLostError), committer.hold():
            tree._engine.log.store_mark(marks.APPLIED, before + 1)
            raise wal.RightLostError("another has it")
        assert committer.applied() == before
        committer.unsynced = True


def test_steps_that_fail_because_another_host_took_over_are_done_again_and_are_no_failure() -> None:
    bucket = TextBucket()
    prepared(bucket)

    class Overtaken:
        """Of a tenure that was lost: its holder learns it when it asks."""

        def check(self, *, now: bool = False) -> None:
            if now:
                raise wal.RightLostError("another has it")

    with opened(Host(bucket)) as tree:
        outcome = Outcome()
        outcome.failed["m"] = FileNotFoundError(errno.ENOENT, "its successor has moved it away")
        with pytest.raises(wal.RightLostError):
            tree._engine.committer._ours(Overtaken(), outcome)  # type: ignore[arg-type]
        assert tree._engine.committer._ours(Overtaken(), Outcome()) is not None  # type: ignore[arg-type]
        assert tree._engine.committer.failure is None


def test_a_step_that_failed_because_another_host_took_over_is_tried_again_under_a_new_right() -> None:
    bucket = TextBucket()
    prepared(bucket)
    tries: list[wal.Tenure] = []

    def lost(*, now: bool = False) -> None:
        if now:
            raise wal.RightLostError("another has it")

    def step(tenure: wal.Tenure) -> int:
        tries.append(tenure)
        if len(tries) == 1:
            tenure.check = lost  # type: ignore[method-assign]
            raise FileNotFoundError(errno.ENOENT, "its successor has moved it away")
        if len(tries) == 3:
            raise FileNotFoundError(errno.ENOENT, "missing")
        return len(tries)

    with opened(Host(bucket)) as tree:
        assert tree._engine.committer.holding(step) == 2
        with pytest.raises(FileNotFoundError, match="missing"):
            tree._engine.committer.holding(step)


def test_a_write_that_failed_makes_the_next_checkpoint_write_everything_again(disk: Disk) -> None:
    with open_tree(disk) as tree:
        log = tree._engine.log
        disk.refuse = lambda call: call.method == "rename" and str(call.arguments[1]).endswith("/v1/metadata.json")
        with pytest.warns(ApplyPendingWarning, match="m/v1: "):
            tree.update("m/v1", n=1)
        disk.refuse = lambda call: False
        assert log.load_mark(marks.REWRITES) == 0
        assert tree.checkpoint() == tree.lsn
        assert log.load_mark(marks.REWRITES) != 0
        assert log.load_mark(marks.FAULT) == log.load_mark(marks.FAULT_SEEN) != 0


def test_a_sync_that_failed_is_told_to_every_process_and_an_old_fault_hides_no_new_one(disk: Disk) -> None:
    """Whoever makes the next checkpoint writes the window again: its own sync may not say what another's did."""
    other = another(disk)
    with open_tree(disk) as tree:
        log = other.log
        tree.update("m", a=1)
        before = log.load_mark(marks.FAULT)
        disk.refuse = lambda call: call.method == "syncfs"
        with pytest.raises(UnavailableError):
            tree.checkpoint()
        disk.refuse = lambda call: False
        first = log.load_mark(marks.FAULT)
        assert first not in (before, log.load_mark(marks.FAULT_SEEN))
        tree.checkpoint()
        assert log.load_mark(marks.FAULT_SEEN) == first
        tree.update("m", a=2)
        other.committer.fault()
        second = log.load_mark(marks.FAULT)
        rewritten = log.load_mark(marks.REWRITES)
        tree.checkpoint()
        assert second != first and log.load_mark(marks.FAULT) == log.load_mark(marks.FAULT_SEEN) == second
        assert log.load_mark(marks.REWRITES) != rewritten
    other.close()


@pytest.mark.parametrize("large", [False, True])
def test_a_commit_that_is_read_while_a_pass_begins_is_neither_lost_nor_done_twice(disk: Disk, large: bool) -> None:
    """This handle's reader is ahead of its pass then, which takes its records from the log."""
    met: list[int] = []
    for number in range(1, 60):
        other = another(disk, lock_timeout=0.0)
        with open_tree(disk) as tree:
            left = [number]

            def pick(call: Call, left: list[int] = left) -> bool:
                left[0] -= call.method == "pread"
                return left[0] == 0

            def act(other: Engine = other, number: int = number, tree: Metatree = tree) -> None:
                with suppress(wal.LockBusyError), warnings.catch_warnings():
                    warnings.simplefilter("ignore", ApplyPendingWarning)  # this handle has the right to apply
                    other.change(lambda draft: draft.update(("m",), {"other": number}))
                    tree.find("m")
                    met.append(number)

            disk.act = act
            disk.when = pick
            tree.update("m", mine=number, text="x" * 20_000 if large else "")
            disk.when = lambda call: False
            tree.flush()
            assert tree.find("m").metadata["mine"] == number
            assert tree.find("m").metadata.get("other") == (met[-1] if met else None)
            assert plain(disk) == dump(tree)
        other.close()
        if left[0] > 0:
            break
    assert len(met) > 3


def test_a_pass_takes_no_more_from_memory_than_it_marks_as_done(disk: Disk) -> None:
    """Another thread may have read later records meanwhile."""
    with open_tree(disk, apply="background") as tree:
        committer, before = tree._engine.committer, tree.lsn
        committer.stop()
        for number in (1, 2):
            tree.update("m", n=number)
        tree.find("m")
        for number in (1, 2):
            effect, _ = committer._effect(before, before + number).find(("m",))
            assert effect is not None and effect.keys["n"] == number


def test_a_large_file_that_is_put_off_leaves_only_the_mark_of_everything_behind(disk: Disk) -> None:
    with open_tree(disk) as tree:
        committer = tree._engine.committer
        committer.stop()  # nobody follows
        tree.update("m", text="x" * 20_000)
        assert committer.applied(small=True) == tree.lsn > committer.applied()
        assert "text" not in plain(disk)["m"][0]
        tree.flush()
        assert committer.applied() == tree.lsn


def test_what_goes_below_a_file_that_was_put_off_takes_it_along(disk: Disk) -> None:
    """E7: a removal below a large parent does not wait, so nothing that the parent is behind with may either."""
    with open_tree(disk) as tree:
        committer = tree._engine.committer
        committer.stop()  # nobody follows
        tree.update("m", text="x" * 20_000)
        assert committer.applied(small=True) > committer.applied()
        tree.delete("m/v1", recursive=True)
        assert committer.applied(small=True) == committer.applied() == tree.lsn
        assert plain(disk) == dump(tree)


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_due_when_the_readme_says(disk: Disk) -> None:
    said = f"{checkpoint.LOG_BYTES >> 20} MiB or {checkpoint.BATCHES:,} commits (S3, HDFS, mounts: {checkpoint.SLOTS})"
    assert said in " ".join(README.read_text().split())
    with open_tree(disk) as tree:
        due, redo = tree._engine.checkpointer.is_due, tree._engine.log.trimmed()
        assert (due(redo + checkpoint.BATCHES - 1), due(redo + checkpoint.BATCHES)) == (False, True)


class Counting(Clock):
    """Draws the highest numbers; time passes when somebody looks."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        self.time += 0.01
        return self.time

    def token(self, size: int) -> bytes:
        return b"\xff" * size


def test_a_staged_blob_is_linked_and_only_after_a_failed_write_copied(disk: Disk) -> None:
    """A link to the file that is there already would bring nothing to the disk."""
    with open_tree(disk) as tree:
        tree.put("m/v1", BIG, name="large")
        (txid,) = disk.inner.listdir(f"{ROOT}/.wal/staged")
        staged = disk.inner.lstat(f"{ROOT}/.wal/staged/{txid}/1").st_ino
        assert disk.inner.lstat(f"{ROOT}/m/v1/large").st_ino == staged
        tree._engine.committer.fault()
        tree.checkpoint()
        assert disk.inner.lstat(f"{ROOT}/m/v1/large").st_ino != staged


def test_whatever_is_drawn_for_a_fault_and_for_a_rewrite_is_a_mark(disk: Disk) -> None:
    engine = Engine(MemoryStorage(disk), LEVELS, read_only=False, clock=Counting())
    engine.change(lambda draft: draft.update(("m",), {"n": 1}))
    engine.committer.fault()
    assert engine.checkpointer.run() == engine.log.head()
    assert engine.log.load_mark(marks.REWRITES) and engine.log.load_mark(marks.FAULT_SEEN)
    engine.close()


def test_a_checkpoint_that_a_commit_asks_for_does_not_wait_for_a_running_one(disk: Disk) -> None:
    clock = Counting()
    engine = Engine(MemoryStorage(disk), LEVELS, read_only=False, clock=clock)
    begun, over = threading.Event(), threading.Event()
    engine.change(lambda draft: draft.update(("m",), {"n": 1}))
    running = threading.Thread(target=lambda: (engine.checkpointer.run(), begun.set()))
    disk.when = lambda call: call.method == "syncfs" and threading.current_thread() is running
    disk.act = lambda: (begun.set(), over.wait())
    running.start()
    begun.wait()
    try:
        now = clock.time
        assert engine.checkpointer.run(unless_running=True) < engine.log.head()
        assert clock.time - now < 0.1
    finally:
        over.set()
        running.join()
    engine.close()


def test_a_checkpoint_gives_up_when_every_sync_is_spoilt_by_others_and_the_log_keeps_all(disk: Disk) -> None:
    other = another(disk)
    with open_tree(disk) as tree:
        tree.update("m", n=1)
        redo = tree._engine.log.trimmed()
        syncs = 0

        class Spoilt(type(disk)):  # type: ignore[misc]
            def syncfs(self, fd: int) -> None:
                nonlocal syncs
                syncs += 1
                other.committer.fault()

        disk.__class__ = Spoilt
        with pytest.raises(UnavailableError, match="kept failing meanwhile"):
            tree.checkpoint()
        disk.__class__ = Disk
        assert syncs == 100
        assert tree._engine.log.trimmed() == redo
        assert tree.checkpoint() == tree.lsn
    other.close()


def test_a_checkpoint_of_one_who_wrote_everything_writes_nothing_again_and_syncs_nothing_twice() -> None:
    disk, syncs = Disk(), list[Call]()
    disk.refuse = lambda call: call.method == "syncfs" and syncs.append(call) is not None
    with open_tree(disk) as tree:
        log = tree._engine.log
        tree.put("m/v1", BIG, name="large")
        assert tree.checkpoint() == tree.lsn
        assert disk.inner.listdir(f"{ROOT}/.wal/staged") == []
        tree.update("m", n=1)
        assert tree.checkpoint() == tree.lsn
        assert (log.load_mark(marks.REWRITES), log.load_mark(marks.FAULT), len(syncs)) == (0, 0, 2)
        tree.checkpoint()
        tree._engine.committer.fault()
        tree.checkpoint()
        assert (log.load_mark(marks.REWRITES), len(syncs)) == (0, 2), "nothing was written since"


FAULT_WORD = 32 + 16 * (3 + marks.FAULT)  # where it stands in the head file, see docs/log_format.md


@pytest.mark.parametrize("spoilt", ["the sync fails", "a committer dies", "a committer dies and that cannot be noted"])
def test_a_checkpoint_whose_sync_says_nothing_sure_writes_its_window_again(disk: Disk, spoilt: str) -> None:
    """After a failed flush the system may have dropped the pages, and report success next time (E8)."""
    written: list[str] = []
    unnoted: list[Call] = []

    def look(call: Call) -> bool:
        if call.method == "rename":
            written.append(str(call.arguments[1]))
        fault = call.method == "pwrite" and call.path.endswith("/head") and call.arguments[2] == FAULT_WORD
        if not (fault and spoilt.endswith("noted") and not unnoted):
            return False
        unnoted.append(call)
        return True

    def spoil() -> None:
        if spoilt == "the sync fails":
            raise OSError(errno.EIO, "not written")
        dead = HeadFile(MemoryStorage(disk.inner).open_file(".wal/head", writable=True))
        dead.take()
        dead.close()

    with open_tree(disk) as tree:
        tree.update("m/v1", n=1)
        redo = tree._engine.log.trimmed()
        disk.refuse, disk.act = look, spoil
        disk.when = lambda call: call.method == "syncfs"
        if spoilt == "the sync fails":
            with pytest.raises(OSError, match="not written"):
                tree.checkpoint()
            assert tree._engine.log.trimmed() == redo
            assert f"{ROOT}/m/v1/metadata.json" not in written
        assert tree.checkpoint() == tree.lsn == tree._engine.log.trimmed()
        assert f"{ROOT}/m/v1/metadata.json" in written
        assert len(unnoted) == spoilt.endswith("noted")


def test_what_a_checkpoint_that_was_killed_had_left_staged_is_removed_and_is_no_evidence(disk: Disk) -> None:
    with open_tree(disk) as tree:
        tree.put("m/v1", BIG, name="large")
        left: list[MemoryPosix] = []
        disk.when = lambda call: call.method in ("rename", "unlink") and "/.wal/staged/" in call.path
        disk.act = lambda: left.append(clone(disk.inner))
        assert tree.checkpoint() == tree.lsn
        assert disk.inner.listdir(f"{ROOT}/.wal/staged") == []
    (killed,) = left
    assert killed.listdir(f"{ROOT}/.wal/staged") != []
    with open_tree(killed) as tree:
        assert killed.listdir(f"{ROOT}/.wal/staged") == []
        assert tree.recover().staged == []
        assert b"".join(tree.get("m/v1/large")) == BIG


def refuse_a_node(host: Host) -> None:
    """From now on the bucket refuses one node's file."""

    def refuse(method: str, arguments: tuple[object, ...], run: Callable[[], object]) -> object:
        if method == "publish" and arguments[0] == "m/metadata.json":
            raise OSError(errno.EIO, "refused")
        return host._around(method, arguments, run)

    host.storage._around = refuse  # type: ignore[attr-defined]


def test_a_checkpoint_in_a_bucket_that_could_not_write_all_files_keeps_the_log() -> None:
    bucket = TextBucket()
    prepared(bucket)
    host = Host(bucket)
    with opened(host) as tree:
        redo = tree._engine.log.trimmed()
        refuse_a_node(host)
        with pytest.warns(ApplyPendingWarning, match="refused"):
            tree.update("m", n=1)
        with pytest.raises(UnavailableError, match="no checkpoint: some files could not be written"):
            tree.checkpoint()
        assert tree._engine.log.trimmed() == redo
        host.storage._around = host._around  # type: ignore[attr-defined]
        assert tree.checkpoint() == tree.lsn


def test_a_checkpoint_that_cannot_write_the_window_again_keeps_the_log(disk: Disk) -> None:
    writer = another(disk)
    writer.change(lambda draft: draft.update(("m", "v1"), {"n": 1}))
    with open_tree(disk) as tree:  # it opened later, so its sync cannot vouch for that
        redo = tree._engine.log.trimmed()
        disk.refuse = lambda call: call.method == "rename" and str(call.arguments[1]).endswith("/m/v1/metadata.json")
        with pytest.raises(UnavailableError, match="some files could not be written: m/v1"):
            tree.checkpoint()
        assert tree._engine.log.trimmed() == redo
        disk.refuse = lambda call: False
        assert tree.checkpoint() == tree.lsn
    writer.close()


class NoSyncfs(MemoryPosix):
    """A disk that is synced file by file; notes which."""

    def __init__(self) -> None:
        super().__init__()
        self.synced: set[int] = set()

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        self.synced.add(self.fstat(fd).st_ino)

    fdatasync = fsync

    def syncfs(self, fd: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def test_where_one_sync_cannot_do_a_checkpoint_flushes_every_file_and_folder_of_its_window() -> None:
    disk = NoSyncfs()
    with open_tree(disk) as tree:
        tree.put("m/v1", BIG, name="large")
        tree.put("m/v1", b"small", name="small")
        tree.put("m/v2", b"gone", name="b")
        tree.delete("m/v2", recursive=True)
        disk.synced.clear()
        assert tree.checkpoint() == tree.lsn
        names = ["", "/metadata.json", "/m", "/m/metadata.json", "/m/v1", "/m/v1/metadata.json"]
        for name in (*names, "/m/v1/large", "/m/v1/small"):
            assert disk.stat(ROOT + name).st_ino in disk.synced, name


# --- recovery, upkeep and forks -------------------------------------------------------------------------------------


def test_a_recovery_in_a_bucket_writes_the_window_again_and_says_what_it_could_not() -> None:
    bucket = TextBucket()
    prepared(bucket)
    host = Host(bucket)
    with opened(host) as tree:
        tree.checkpoint()
        assert tree.recover().clean
        for name in ("b", "c"):
            tree.put("m/v3", b"three", name=name)
        del bucket.objects["m/v3/b"]
        around = host._around

        def refuse(method: str, arguments: tuple[object, ...], run: Callable[[], object]) -> object:
            if method == "publish" and arguments[0] == "m/v3/b":
                raise OSError(errno.EIO, "refused")
            return around(method, arguments, run)

        host.storage._around = refuse  # type: ignore[attr-defined]
        before = dict(bucket.objects)
        plan = tree.recover(dry_run=True)
        assert (plan.records, plan.nodes, plan.blobs, plan.staged, plan.scratch) == (2, 2, 2, [], [])
        assert bucket.objects == before
        assert "refused" in tree.recover().failed["m/v3"]
        host.storage._around = host._around  # type: ignore[attr-defined]
        recovered = tree.recover()
        assert (recovered.records, recovered.failed, recovered.blobs > 0) == (2, {}, True)
        del bucket.objects["m/v3/b"]
        with opened(Host(bucket)) as other:  # which has put neither of the blobs itself
            recovered = other.recover()
        assert (recovered.nodes, recovered.blobs, recovered.removed) == (2, 1, 0)  # one blob was as it should be
        assert bucket.objects["m/v3/b"].data == b"three"


def test_a_recovery_in_a_bucket_stops_where_the_files_cannot_even_follow() -> None:
    bucket = TextBucket()
    prepared(bucket)
    host = Host(bucket)
    with opened(host) as tree:
        refuse_a_node(host)
        with pytest.warns(ApplyPendingWarning, match="refused"):
            tree.update("m", n=1)
        assert list(tree.recover().failed) == ["m"]
        host.storage._around = host._around  # type: ignore[attr-defined]
        assert tree.recover().failed == {}
        assert tree.unapplied == 0


def test_a_node_that_could_not_be_made_is_not_listed_and_one_that_could_not_follow_holds_nothing_up(disk: Disk) -> None:
    """For whoever reads the files without this library."""
    with open_tree(disk) as tree:
        disk.refuse = lambda call: call.method == "rename" and str(call.arguments[1]).endswith("/m/v2")
        with pytest.warns(ApplyPendingWarning, match="m/v2: "):
            tree.put("m/v2", b"two", name="b")
        assert plain(disk)["m"][1] == ("v1",)
        disk.refuse = lambda call: call.method == "rename" and str(call.arguments[1]).endswith("/v1/metadata.json")
        with pytest.warns(ApplyPendingWarning, match="m/v1: "), tree.transaction():
            tree.update("m", n=1)
            tree.update("m/v1", n=1)
        disk.refuse = lambda call: False
        found = plain(disk)
        assert (found["m"][:2], found["m/v1"][0]) == (({"n": 1}, ("v1", "v2")), {})


def test_nothing_is_applied_once_the_right_is_lost(disk: Disk) -> None:
    effect = fold([NodeFact((), {"n": 1}, ("m",)), NodeFact(("m",), {"n": 1}, ("v1",)), KeysFact(("m", "v1"), {}, ())])
    for held in range(3):  # nodes
        asked = iter(range(held))

        def check(asked: Iterator[int] = asked) -> None:
            if next(asked, None) is None:
                raise wal.RightLostError("another has it")

        image = clone(disk.inner)
        with pytest.raises(wal.RightLostError):
            apply(MemoryStorage(image), effect, 1, 2, check=check)
        assert plain(image) == plain(disk)


def test_a_new_node_appears_complete_though_a_node_below_it_went_in_the_same_window(disk: Disk) -> None:
    made = [NodeFact(("new",), {}, ("a",)), NodeFact(("new", "a"), {}, ()), NodeGone(("new", "a"))]
    effect = fold(
        [*made, NodeFact(("new",), {}, ("b",)), NodeFact(("new", "b"), {}, ()), NodeFact((), {}, ("m", "new"))]
    )
    seen: set[tuple[str, ...]] = set()

    def look(call: Call) -> bool:
        if "new" in disk.inner.listdir(ROOT):
            seen.add(tuple(sorted(disk.inner.listdir(f"{ROOT}/new"))))
        return False

    disk.refuse = look
    assert apply(MemoryStorage(disk), effect, 1, 2).failed == {}
    disk.refuse = lambda call: False
    assert seen == {("b", "metadata.json")}


@pytest.mark.parametrize("attribute", [b"", Attribute(1, "0" * 64).encode()], ids=["none", "of another content"])
def test_a_file_that_shows_the_log_already_has_its_attribute_afterwards(disk: Disk, attribute: bytes) -> None:
    storage, name = MemoryStorage(disk.inner), "m/metadata.json"
    data = storage.read(name).data
    storage.publish(name, data, attribute, durable=True)
    apply(storage, fold([NodeFact(("m",), {}, ("v1",))]), 1, 2)
    assert storage.read(name).data == data
    assert storage.attribute(name) == Attribute(2, digest(data)).encode()


def test_a_new_node_counts_with_every_node_and_blob_below_it(disk: Disk) -> None:
    tree = [NodeFact(("new",), {}, ("a", "b")), NodeFact(("new", "a"), {}, ()), NodeFact(("new", "b"), {}, ())]
    effect = fold([*tree, BlobFact(("new", "b"), "x", 1, "0" * 64, Inline(b"x")), NodeFact((), {}, ("m", "new"))])
    outcome = apply(MemoryStorage(clone(disk.inner)), effect, 1, 2)
    assert (outcome.nodes, outcome.blobs, outcome.removed, outcome.failed) == (4, 1, 0, {})


def test_only_what_was_there_counts_as_removed(disk: Disk) -> None:
    gone = [BlobGone(("m", "v1"), "b"), BlobGone(("m", "v1"), "missing"), NodeGone(("m", "missing"))]
    outcome = apply(MemoryStorage(clone(disk.inner)), fold(gone), 1, 2)
    assert (outcome.removed, outcome.nodes, outcome.blobs, outcome.failed) == (1, 0, 0, {})


def test_a_recovery_in_a_bucket_counts_what_its_pass_removed() -> None:
    bucket = TextBucket()
    prepared(bucket)
    host = Host(bucket)
    with opened(host) as tree:
        tree.checkpoint()
        refuse_a_node(host)
        with pytest.warns(ApplyPendingWarning, match="refused"):
            tree.delete("m/v1", recursive=True)
        host.storage._around = host._around  # type: ignore[attr-defined]
        done = tree.recover()
        assert done.removed > 0 and done.adopted == 0
        tree.checkpoint()
        assert tree.recover().clean
        assert not any(name.startswith("m/v1/") for name in bucket.objects)


def test_a_background_writer_in_a_bucket_makes_its_checkpoint_while_nobody_asks() -> None:
    bucket = TextBucket()
    prepared(bucket)
    with opened(Host(bucket), apply="background") as tree:
        before = tree._engine.log.trimmed()
        for number in range(80):
            tree.update("m", n=number)
        soon(lambda: tree._engine.log.trimmed() > before)


def test_a_forked_child_has_a_committer_of_its_own(disk: Disk) -> None:
    with open_tree(disk) as tree:
        tree.update("m", parent=1)
        pid = os.fork()
        if pid == 0:
            try:
                tree.update("m", child=1)  # on its own copy of the disk
                done = plain(disk)["m"][0] == {"parent": 1, "child": 1}
            except BaseException:  # noqa: BLE001  told by the status
                done = False
            os._exit(0 if done else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        tree.update("m", parent=2)
        assert plain(disk)["m"][0] == {"parent": 2}


# --- one descriptor, several who sync ---------------------------------------------------------------------------------


class TellsOne(Disk):
    """The kernel tells of a failed write once for each open file; whoever was told is then held up on the way back."""

    pending = False
    told = threading.Event()
    go_on = threading.Event()

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.method == "syncfs" and self.pending:
            self.pending = False
            self.told.set()
            self.go_on.wait(60)
            raise OSError(errno.EIO, os.strerror(errno.EIO), call.path)
        return super().around(call, run, tear)


def test_a_checkpoint_of_another_thread_waits_for_one_whose_sync_fails_and_writes_again(disk: Disk) -> None:
    """Its own sync would succeed: only the first was told that files did not reach the disk."""
    kernel = TellsOne(disk.inner)  # type: ignore[arg-type]
    with open_tree(kernel) as tree:
        tree.update("m", a=1)
        log = tree._engine.log
        before, rewritten = log.trimmed(), log.load_mark(marks.REWRITES)
        errors: list[Exception] = []

        def make() -> None:
            try:
                tree.checkpoint()
            except UnavailableError as error:
                errors.append(error)

        kernel.pending = True
        first = threading.Thread(target=make)
        first.start()
        assert kernel.told.wait(60)
        quiet = threading.Thread(target=tree._engine.checkpoint_quietly)  # after a commit: nobody waits for that
        quiet.start()
        quiet.join(60)
        assert not quiet.is_alive() and tree._engine.committer.failure is None
        second = threading.Thread(target=make)
        second.start()
        second.join(0.5)
        assert log.trimmed(fresh=True) == before, "trimmed by one who was not told"
        kernel.go_on.set()
        first.join(60)
        second.join(60)
        assert len(errors) == 1 and "Input/output" in str(errors[0])
        assert log.trimmed(fresh=True) > before and log.load_mark(marks.REWRITES) != rewritten


def test_a_forked_child_syncs_through_an_open_file_of_its_own_and_first_writes_the_window_again(disk: Disk) -> None:
    with open_tree(disk) as tree:
        tree.update("m", parent=1)
        pid = os.fork()
        if pid == 0:
            try:
                done = _checkpoint_in_a_child(disk, tree)
            except BaseException:  # noqa: BLE001  told by the status
                done = False
            os._exit(0 if done else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _checkpoint_in_a_child(disk: Disk, tree: Metatree) -> bool:
    engine = tree._engine
    before = engine.storage._rooted.fd  # type: ignore[attr-defined]
    disk.refuse = lambda call: call.method == "open_read" and call.path == ROOT
    with suppress(UnavailableError):
        tree.checkpoint()
        return False
    disk.refuse = lambda call: False
    rewritten = engine.log.load_mark(marks.REWRITES)
    tree.checkpoint()
    own = engine.storage._rooted.fd  # type: ignore[attr-defined]
    again = engine.log.load_mark(marks.REWRITES)
    engine.storage.close()
    engine.storage.reset_after_fork()  # does nothing: it is closed
    return own != before and again != rewritten
