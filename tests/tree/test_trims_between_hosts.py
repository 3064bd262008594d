"""What a host that trims, or that follows a log that is trimmed meanwhile, may rely on (I5). All orders of the calls of
two of them: `test_tree_schedules`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

import wal
from metatree.discard import empty_trash
from metatree.window import fold_counted
from tests.tree.dictionary import CONTENT
from tests.tree.lines import Line, Sleeping
from tests.tree.model import BIG, ROOT, dump
from tests.tree.shared import KINDS, Host, HostClock, Mount, SharedDisk, as_shown, behind, shown
from tests.wal.schedules import one_thread
from wal.storage.memory import MemoryPosix
from wal.testing.hosts import watched

AGAIN = ("publish_folder a/v", "publish_folder b", "publish a/v/x", "publish b/w/x", "publish b/v/y")


@pytest.fixture(autouse=True)
def inline() -> Iterator[None]:
    with one_thread():
        yield


@pytest.mark.parametrize("call", AGAIN)
@pytest.mark.parametrize("kind", KINDS)
def test_one_that_sleeps_before_it_trims_takes_nothing_from_a_successor_in_the_midst_of_its_work(
    kind: str, call: str
) -> None:
    """A successor that applied the window again would have nodes in the trash, or need what was staged."""
    place, lines = behind(kind), (Line(), Line())
    one, two = (Host(place.storage(), line.around, clock=HostClock(n)) for n, line in enumerate(lines))
    assert one.tree.children("b") == two.tree.children("b") == ["v", "w"]  # both hold the records of the window
    lines[0].sleep(1, before="publish .wal/0")
    checkpoint = Sleeping(lines[0], one.tree.checkpoint)
    assert not checkpoint.done
    lines[1].sleep(1, before=call)
    update = Sleeping(lines[1], lambda: two.tree.update("a/v", k=2))
    for sleeping in (checkpoint, update):
        if not sleeping.done:
            sleeping.go_on()
        assert sleeping.done and sleeping.error is None
    for host in (one, two):
        host.tree.flush()
        host.tree.close()
    with Host(place.storage()).tree as tree:
        report = tree.check(deep=True)
        assert report.ok, str(report)
        assert shown(place) == as_shown(dump(tree)) and tree.find("a/v").metadata["k"] == 2
        assert b"".join(tree.get("a/v/x")) == CONTENT["also staged"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_puts_an_old_mark_back_misses_nothing_that_was_staged_after_it(kind: str) -> None:
    """It has read the record that names it, and does not learn that this was trimmed."""
    place, line = behind(kind), Line()
    one, two = Host(place.storage(), line.around), Host(place.storage(), clock=HostClock(1))
    line.sleep(1, before="publish .wal/checkpoint.json")
    checkpoint = Sleeping(line, one.tree.checkpoint)
    assert not checkpoint.done
    two.tree.put("a/u", BIG, name="x")
    assert "u" in one.tree.children("a")
    assert two.tree.checkpoint() == two.tree.lsn
    checkpoint.go_on()
    assert checkpoint.done and checkpoint.error is None
    one.tree.close()
    two.tree.close()
    with Host(place.storage()).tree as tree:
        assert tree.check(deep=True).ok and b"".join(tree.get("a/u/x")) == BIG


def test_what_was_read_before_a_trimmed_record_was_met_is_left_out() -> None:
    """A window is read some records at a time, and may be trimmed meanwhile."""
    with Host(KINDS["objects"]().storage()).tree as tree:
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
    storage = KINDS["mount"]().storage()
    for lsn in (7, 12, 100):
        storage.publish(f".wal/trash/{lsn}/m/b", b"", b"", durable=True)
    storage.publish(".wal/trash/of somebody else", b"", b"", durable=True)
    empty_trash(storage, 12)
    assert [entry.name for entry in storage.list(".wal/trash")] == ["100"]


@pytest.mark.parametrize("kind", ["mount", "local"])
def test_trash_that_cannot_be_erased_is_an_error_and_waits_for_the_next_checkpoint(kind: str) -> None:
    disk = MemoryPosix() if kind == "local" else SharedDisk()
    disk.mkdir(ROOT)
    failing = [True]

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "erase" and failing[0]:
            raise OSError(errno.EIO, "it does not answer")
        return run()

    storage = watched(wal.LocalStorage(ROOT, posix=disk), around)
    storage.publish(".wal/trash/7/m/b", b"", b"", durable=True)
    with pytest.raises(OSError, match="does not answer"):
        empty_trash(storage, 12)
    failing[0] = False
    empty_trash(storage, 12)
    assert not list(storage.list(".wal/trash"))


def test_what_an_overtaken_recovery_created_is_removed_though_it_went_on_to_write_the_window_again() -> None:
    """It applies twice in one tenure: what the first pass has created is to be checked if the tenure was lost."""
    place, line = behind("objects"), Line()
    one, two = Host(place.storage(), line.around), Host(place.storage(), clock=HostClock(1))
    line.sleep(1, before="publish a/metadata.json")
    recovery = Sleeping(line, one.tree.recover)
    assert not recovery.done
    two.tree.delete("a", recursive=True)
    two.tree.checkpoint()
    recovery.go_on()
    assert recovery.done and recovery.error is None
    one.tree.update("b", k=2)
    for host in (one, two):
        host.tree.close()
    assert not [name for name in shown(place) if name.startswith("a/")]


@pytest.mark.parametrize("call", range(40, 67))
def test_a_trim_that_was_cut_short_is_finished_before_what_was_staged_is_removed(call: int) -> None:
    """Else who holds such a record, and is told by no mark that it is applied, calls the tree damaged."""
    place, line = behind("mount"), Line()
    with Host(place.storage(), clock=HostClock(1), apply="background").tree as reader:
        assert b"".join(reader.get("a/v/x")) == CONTENT["also staged"]
        dying = Host(place.storage(), line.around, clock=HostClock(2))
        line.die(call, late=False)
        Sleeping(line, dying.tree.checkpoint)
        dying.tree._engine._closed = True
        with Host(place.storage(), clock=HostClock(3)).tree as tree:
            tree.checkpoint()
        assert b"".join(reader.get("a/v/x")) == CONTENT["also staged"]


@pytest.mark.parametrize("consistency", ["strong", 60.0])
@pytest.mark.parametrize("verb", ["checkpoint", "recover", "flush"])
@pytest.mark.parametrize("kind", KINDS)
def test_upkeep_covers_what_another_host_has_committed_that_this_one_has_not_read(
    kind: str, verb: str, consistency: str | float
) -> None:
    place = behind(kind)
    other = Host(place.storage(), clock=HostClock(1), apply="background")
    with Host(place.storage(), consistency=consistency).tree as one, other.tree as two:
        one.update("b", k=2)  # it had the right last, so it does not follow the log when it takes it again
        two.put("a/u", b"new", name="x")
        getattr(one, verb)()
        assert shown(place)["a/u/x"] == b"new"
        assert one.unapplied == 0


@pytest.fixture
def dropped() -> tuple[Mount, int]:
    """A node was dropped, and folders that the engine did not make with it; the LSN of that."""
    place = behind("mount")
    assert isinstance(place, Mount)
    with Host(place.storage()).tree as tree:
        tree.flush()
        for folder in "pqr":
            place.files().write(f"a/{folder}/by hand", folder.encode())
        tree.delete("a", recursive=True)
        lsn = tree.lsn
        tree._engine.abandon()
    return place, lsn


def kept(place: Mount) -> list[str]:
    return sorted(name[-9] for name in place.files().names() if name.endswith("/by hand") and "/quarantine/" in name)


@pytest.mark.parametrize("call", range(1, 20))
def test_two_that_empty_the_trash_at_once_keep_what_is_to_be_kept_and_do_not_fail(
    dropped: tuple[Mount, int], call: int
) -> None:
    """One of them was overtaken, and goes on."""
    place, lsn = dropped
    lines = (Line(), Line())
    storages = [watched(place.storage(), line.around) for line in lines]
    lines[0].sleep(call)
    first = Sleeping(lines[0], lambda: empty_trash(storages[0], lsn))
    lines[1].sleep(2, before="set_aside")
    second = Sleeping(lines[1], lambda: empty_trash(storages[1], lsn))
    for sleeping in (first, second):
        if not sleeping.done:
            sleeping.go_on()
    empty_trash(place.storage(), lsn)  # the next checkpoint
    assert kept(place) == ["p", "q", "r"]
    assert not [name for name in place.files().names() if name.startswith(".wal/trash/")]


class Late(SharedDisk):
    """A host that was overtaken makes a folder in the trash, in vain, right before that is removed."""

    came = 0

    def rmdir(self, path: str) -> None:
        if path.rpartition("/")[0].endswith("/.wal/trash") and not self.came:
            self.came += 1
            self.mkdir(f"{path}/late")
        super().rmdir(path)


def test_a_checkpoint_does_not_fail_of_a_folder_that_an_overtaken_host_makes_in_the_trash(
    dropped: tuple[Mount, int],
) -> None:
    disk = Late()
    place = dropped[0].copy(disk)
    with Host(place.storage()).tree as tree:
        assert tree.checkpoint() == tree.lsn and disk.came
        assert kept(place) == ["p", "q", "r"]
        tree.update("b", k=3)
        tree.checkpoint()
        assert not tree._engine.storage.list(".wal/trash")
        assert tree.check(deep=True).ok
