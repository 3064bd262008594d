"""A host sleeps before any call of its checkpoint, is overtaken, and wakes up while its successor is at work (I5, I6).

Hosts are handles on one storage, each with a clock of its own that only waiting moves. One sleeps before its k-th call;
the other takes over, and sleeps before its j-th; the first goes on to its end, then the second. Whatever k and j are,
nothing that was committed is lost, nobody is told of a failure, and both flush and close. Pairs of k and j are drawn;
in a night (`METATREE_TORTURE`) all are tried.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest import mock

import pytest

import wal
from metatree import Metatree
from metatree.discard import empty_trash
from metatree.window import fold_counted
from tests.figures import TORTURE
from tests.tree.model import State, dump
from tests.tree.storages import Elsewhere, Swift, TextBucket
from wal.storage.memory import MemoryPosix
from wal.testing.hosts import watched
from wal.testing.objects import Bucket, MemoryObjects

LEVELS = ("model", "version")
LARGE = 70_000  # bytes; is staged
SLOT, MARK = "publish .wal/0", "publish .wal/checkpoint.json"  # the first and the last step of a trim
AGAIN = ("publish_folder m/v1", "publish_folder n", "publish m/v1/weights", "publish m/v2/weights", "publish n/v1/b")
THEN = GOES_ON, OVERTAKEN, DIES = ("goes on", "is overtaken in turn", "dies")  # the successor, when the first is awake
PATIENCE = 60.0  # seconds for a thread to come to a stop or to its end
DRAWN = 10_000 if TORTURE else 20  # stops, or pairs of them, of some hundreds or thousands
Storages = Callable[[], wal.Storage]
T = TypeVar("T")


class Shared(MemoryPosix):
    """A disk in memory that seems to be a mount which hosts share."""

    def kernel_file(self, path: str) -> bytes:
        return Elsewhere().kernel_file(path) if path == "/proc/self/mountinfo" else super().kernel_file(path)


def mount() -> Storages:
    disk = Shared()
    disk.mkdir("/disk")
    return lambda: wal.LocalStorage("/disk", posix=disk)


def objects() -> Storages:
    bucket = Bucket()
    return lambda: MemoryObjects(bucket)


def texts() -> Storages:
    bucket = TextBucket()
    return lambda: MemoryObjects(bucket)


KINDS = {"mount": mount, "objects": objects, "objects, versions of content": texts}


class Patient(Swift):
    """Waits for another host only once it may, if it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.may_wait = threading.Event(), threading.Event()
        self.may_wait.set()

    def sleep(self, seconds: float) -> None:
        self.waits.set()
        assert self.may_wait.wait(PATIENCE)
        super().sleep(seconds)


class Host:
    """One handle. Sleeps in `begin`, before its k-th call or the first of this kind, until `end` wakes it."""

    def __init__(self, storage: wal.Storage, **options: Any) -> None:
        self.calls: list[str] = []  # since `begin`
        self._stop_at: int | str = 0
        self._counting = False
        self._mutex = threading.Lock()
        self.stopped, self._go_on = threading.Event(), threading.Event()
        self.dead = False
        self._errors: list[BaseException] = []
        self._clock = Patient()
        kind = type("Hosted", (Metatree,), {"_tuning": {"clock": self._clock}})
        self.tree: Metatree = kind(watched(storage, self._around), LEVELS, **options)
        self._thread = threading.Thread()

    def _around(self, method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        with self._mutex:
            stop = False
            if self._counting and not self.stopped.is_set():
                self.calls.append(f"{method} {arguments[0] if arguments else ''}")
                at = self._stop_at
                stop = at == len(self.calls) if isinstance(at, int) else self.calls[-1].startswith(at)
                if stop:
                    self.stopped.set()
        if stop:
            assert self._go_on.wait(PATIENCE)
        if self.dead:
            raise ConnectionAbortedError
        return run()

    def begin(self, work: Callable[[Metatree], object], stop_at: int | str) -> bool:
        """Do it in a thread of its own until it falls asleep (True), or is done."""
        self._stop_at, self._counting = stop_at, True

        def run() -> None:
            try:
                work(self.tree)
            except BaseException as error:  # noqa: BLE001  told by `end`
                self._errors.append(error)
            finally:
                self._counting = False
                self.stopped.set()

        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert self.stopped.wait(PATIENCE)
        return self._counting

    def wake(self) -> None:
        """Let it go on until it is done, or waits for another host."""
        self._clock.may_wait.clear()
        self._clock.waits.clear()
        self._go_on.set()
        while self._thread.is_alive() and not self._clock.waits.wait(0.001):
            pass

    def end(self) -> None:
        """Wake it up, and let it finish."""
        self._clock.may_wait.set()
        self._go_on.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self._errors and not self.dead:
            raise self._errors[0]

    def kill(self) -> None:
        """It never wakes up."""
        self.dead = True
        self.end()


def first(tree: Metatree) -> None:
    tree.put("other", b"1", name="b")
    for node in ("m/v1", "m/v2", "n/v1"):
        tree.put(node, b"x" * LARGE, name="weights")
        tree.put(node, b"small", name="b")
    tree.checkpoint()


def window(tree: Metatree) -> None:
    """What is committed, and not applied before the checkpoint."""
    with tree.transaction():  # a node made again, with content that is staged
        tree.delete("m/v1", recursive=True)
        tree.put("m/v1", b"y" * LARGE, name="weights")
        tree.update("m/v1", again=1)
    with tree.transaction():  # with content in the record
        tree.delete("n", recursive=True)
        tree.put("n/v1", b"tiny", name="b")
    tree.put("m/v2", b"z" * LARGE, name="weights", force=True)
    tree.put("m/v3", b"w" * LARGE, name="weights")
    tree.delete("m/v2/b")


def update(tree: Metatree) -> None:
    tree.update("other", x=1)
    tree.flush()


def make_checkpoint(tree: Metatree) -> None:
    tree.update("other", y=1)
    tree.checkpoint()


def checkpoint(tree: Metatree) -> None:
    tree.checkpoint()


def expected() -> State:
    tree = Host(objects()()).tree
    for step in (first, window, update, make_checkpoint):
        step(tree)
    state = dump(tree)
    tree.close()
    return state


@contextmanager
def two_hosts(kind: str) -> Iterator[tuple[Host, Host, Storages]]:
    """One has committed the window, and not applied it. Both are closed afterwards, and the tree is looked at."""
    storages = KINDS[kind]()
    one = Host(storages(), apply="background")
    one.tree._engine.committer.stop()  # it applies when it is asked to
    first(one.tree)
    two = Host(storages())
    window(one.tree)
    two.tree.children("m")  # it holds the window's records, whatever is trimmed
    yield one, two, storages
    living = [host for host in (two, one) if not host.dead]
    for host in (*living, two if two in living else one):
        host.tree.flush()
    for host in living:
        host.tree.close()


def assert_all_there(storages: Storages, state: State, what: str) -> None:
    with Host(storages()).tree as tree:
        report = tree.check(deep=True)
        assert report.ok, f"{what}: {report}"
        assert dump(tree) == state, what


def drawn(among: Sequence[T], number: int = DRAWN) -> list[T]:
    return random.sample(among, min(number, len(among)))


def life(
    kind: str, work: Callable[[Metatree], object], k: int | str, j: int | str, state: State, then: str = ""
) -> tuple[int, int]:
    """One sleeps before call k of its checkpoint, its successor before call j of `work` (0: never). One wakes, `then`
    its successor. Returns how many calls each made, up to that."""
    then = then or random.choice(THEN)
    what = f"{kind}: asleep before call {k}, the successor before call {j}, which {then}"
    with two_hosts(kind) as (one, two, storages):
        slept = one.begin(checkpoint, k)
        two.begin(work, j)
        where = f"{what}: {one.calls[-1] if slept else 'never'}, {two.calls[-1:]}"
        try:
            if then == OVERTAKEN:
                one.end()
            else:
                one.wake()
            two.kill() if then == DIES else two.end()
            one.end()
            update(one.tree)  # once more, if the successor did not die before its commit
            make_checkpoint(one.tree)
        except BaseException as error:
            error.add_note(where)
            raise
    assert_all_there(storages, state, where)
    return len(one.calls), len(two.calls)


@pytest.mark.parametrize("work", [update, make_checkpoint])
@pytest.mark.parametrize("kind", KINDS)
def test_one_that_sleeps_at_any_call_of_its_checkpoint_takes_nothing_from_its_successor(
    kind: str, work: Callable[[Metatree], object]
) -> None:
    state = expected()
    calls, others = life(kind, work, 0, 0, state, GOES_ON)
    pairs = [(k, j) for k in range(1, calls + 1) for j in range(others + 1)]  # 0: the other is done when it wakes
    for k, j in drawn(pairs):
        life(kind, work, k, j, state)
    print(f"{kind}: {calls} calls of a checkpoint, {others} of its successor: {len(pairs)} pairs")
    assert calls > 15 and others > 5


@pytest.mark.parametrize("then", THEN)
@pytest.mark.parametrize("asleep", [SLOT, MARK], ids=["it trims", "it clears away"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_that_sleeps_before_it_removes_anything_removes_nothing_that_its_successor_needs(
    kind: str, asleep: str, then: str
) -> None:
    """A successor that applied the window again would have nodes in the trash, or need what was staged."""
    state = expected()
    others = life(kind, update, asleep, 0, state, GOES_ON)[1]
    stops: list[int | str] = [*AGAIN, *drawn(range(1, others + 1), DRAWN // 2)]
    for j in stops:
        life(kind, update, asleep, j, state, then)
    assert others > 5


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_sleeps_before_it_takes_the_right_learns_what_was_trimmed_meanwhile(kind: str) -> None:
    """Nobody is overtaken: the holder before takes its own right again, and makes a checkpoint."""
    state = expected()
    calls = life(kind, update, 0, 0, state, GOES_ON)[1]
    claim = "publish_folder .wal/epoch/" if kind == "mount" else "publish .wal/apply"
    stops: list[int | str] = [claim, *drawn(range(1, calls + 1))]
    for at in stops:
        with two_hosts(kind) as (one, two, storages):
            assert two.begin(update, at)
            one.tree.checkpoint()
            two.end()
            make_checkpoint(one.tree)
        assert_all_there(storages, state, f"{kind}: asleep before call {at}: {two.calls[-1]}")


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_puts_an_old_mark_back_misses_nothing_that_was_staged_after_it(kind: str) -> None:
    """It has read the record that names it, and does not learn that this was trimmed."""
    with two_hosts(kind) as (one, two, storages):
        assert one.begin(checkpoint, MARK)
        two.tree.put("m/v4", b"v" * LARGE, name="weights")
        assert "v4" in one.tree.children("m")
        assert two.tree.checkpoint() == two.tree.lsn
        one.end()
    with Host(storages()).tree as tree:
        assert tree.check(deep=True).ok and b"".join(tree.get("m/v4/weights")) == b"v" * LARGE


def test_what_was_read_before_a_trimmed_record_was_met_is_left_out() -> None:
    """A window is read some records at a time, and may be trimmed meanwhile."""
    storages = objects()
    with Host(storages()).tree as tree:
        tree.put("m/v1", b"1", name="b")
        tree.delete("m", recursive=True)
        log = tree._engine.log
        there = [batch for batch in log.read(0) if batch.records]
        gone = there[1]._replace(records=tuple(record._replace(body=None) for record in there[1].records))
        read = mock.Mock(read=lambda after: iter([there[0], gone]))
        effect, count = fold_counted(read, 0, tree.lsn)
        assert count == 2 and len(list(effect.walk())) == 1 and not effect.whole and not effect.children


def test_a_checkpoint_leaves_what_was_dropped_for_records_after_it() -> None:
    """It may be that of a host that was overtaken; its successor has dropped that, and is not done."""
    storage = mount()()
    for lsn in (7, 12, 100):
        storage.publish(f".wal/trash/{lsn}/m/b", b"", b"", durable=True)
    storage.publish(".wal/trash/of somebody else", b"", b"", durable=True)
    assert empty_trash(storage, 12) == []
    assert [entry.name for entry in storage.list(".wal/trash")] == ["100"]
