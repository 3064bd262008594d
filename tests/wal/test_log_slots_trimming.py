"""Slots stay (E9), and so do headers (E12): writers and readers that slept, trims that were cut short, stale marks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from wal import LogCorruptionError, MemoryPosix, MemoryStorage, Storage, WriteAheadLog, open_log
from wal.checkpoint import Checkpoint
from wal.names import Names
from wal.parallel import WORKERS
from wal.slot_chain import CACHE_BYTES
from wal.testing.hosts import ManualClock, watched
from wal.testing.log_tools import add, bodies, state
from wal.testing.objects import Bucket, MemoryObjects

CHECKPOINT = ".wal/checkpoint.json"
BATCHES = 24


class Host:
    """One storage of several hosts."""

    def __init__(self, kind: str) -> None:
        self._disk, self._bucket, self._kind = MemoryPosix(), Bucket(), kind
        self._count = 0

    def storage(self) -> Storage:
        return MemoryStorage(self._disk) if self._kind == "mount" else MemoryObjects(self._bucket)

    def lose(self, name: str) -> None:
        """As a disk, or somebody else, may."""
        if self._kind == "mount":
            self.storage().erase(name)
        else:
            del self._bucket.objects[name]

    def open(self, storage: Storage | None = None, **options: Any) -> WriteAheadLog:
        self._count += 1
        return open_log(storage or self.storage(), kind="slots", clock=ManualClock(self._count), **options)


@pytest.fixture(params=["mount", "objects"])
def host(request: pytest.FixtureRequest) -> Host:
    return Host(request.param)


@pytest.fixture
def log(host: Host) -> Iterator[WriteAheadLog]:
    log = host.open(create=True)
    for number in range(BATCHES):
        add(log, b"body %d" % number, b"header %d" % number)
    yield log
    log.close()


def expected(trimmed: int, count: int = BATCHES) -> list[Any]:
    return [(n + 1, (b"header %d" % n,), (b"body %d" % n if n >= trimmed else None,)) for n in range(count)]


def test_a_writer_that_slept_before_its_creation_finds_its_slot_taken_and_is_asked_again(host: Host) -> None:
    heads: list[int] = []
    sleeper = host.open(create=True)
    others = host.open()

    def prepare(head: int, mates: object) -> Any:
        from wal import Record

        heads.append(head)
        if len(heads) == 1:
            for number in range(12):
                add(others, b"%d" % number)
            others.trim(10)
        return Record(b"", b"late")

    position = sleeper.append(prepare)
    assert position is not None
    assert (position.lsn, heads) == (13, [0, 12])
    assert bodies(host.open(read_only=True), 10) == [b"10", b"11", b"late"]


def test_a_reader_that_slept_through_several_trims_jumps_on_and_reads_what_is_left(host: Host) -> None:
    log = host.open(create=True)
    reader, writer = host.open(read_only=True), host.open()
    for number in range(BATCHES):
        add(log, b"body %d" % number, b"header %d" % number)
        if number in (3, 9, 20):
            log.trim(number)
    assert reader.known() == writer.known() == 0
    for handle in (reader, writer):
        assert handle.head() == BATCHES
        assert handle.trimmed() == 20
        assert state(handle) == expected(20)
    assert add(writer, b"next").lsn == BATCHES + 1


def asking(host: Host) -> tuple[WriteAheadLog, list[str]]:
    """A reader, and what it reads from the storage."""
    asked: list[str] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "read":
            asked.append(arguments[0])
        return run()

    reader = host.open(watched(host.storage(), around), read_only=True)
    return reader, asked


def test_a_reader_that_jumps_does_not_ask_for_every_slot(host: Host, log: WriteAheadLog) -> None:
    reader, asked = asking(host)
    log.trim(BATCHES - 2)
    asked.clear()
    assert reader.head() == BATCHES
    assert len(asked) <= 5


def test_headers_of_one_trim_are_read_at_once(host: Host, log: WriteAheadLog) -> None:
    log.trim(BATCHES - 2)
    reader, asked = asking(host)
    asked.clear()
    assert state(reader) == expected(BATCHES - 2)
    names = Names(".wal")
    assert asked.count(names.history(BATCHES - 2)) == 1
    assert not {names.slot(lsn) for lsn in range(1, BATCHES - 1)} & set(asked)


def test_who_asks_for_a_trim_below_that_of_another_host_learns_of_it(host: Host, log: WriteAheadLog) -> None:
    other = host.open()
    assert other.head() == BATCHES
    log.trim(5)
    assert other.trimmed() == 0
    other.trim(2)
    assert other.trimmed() == 5 and state(other) == expected(5)


def test_history_that_ends_where_the_reading_begins_is_not_asked_for(host: Host, log: WriteAheadLog) -> None:
    log.trim(2)
    log.trim(BATCHES - 2)
    reader, asked = asking(host)
    asked.clear()
    assert state(reader, 2) == expected(BATCHES - 2)[2:]
    names = Names(".wal")
    assert names.history(BATCHES - 2) in asked and names.history(2) not in asked


def test_history_that_is_lost_is_read_from_its_slots(host: Host, log: WriteAheadLog) -> None:
    for upto in (1, 2, BATCHES - 2):
        log.trim(upto)
    names = Names(".wal")
    host.lose(names.history(1))
    reader, asked = asking(host)
    asked.clear()
    assert state(reader) == expected(BATCHES - 2)
    assert names.slot(1) in asked


def test_a_few_headers_are_read_from_their_slots(host: Host, log: WriteAheadLog) -> None:
    """Which history holds them would have to be found out first."""
    log.trim(BATCHES - 2)
    listed: list[str] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "list":
            listed.append(arguments[0])
        return run()

    reader = host.open(watched(host.storage(), around), read_only=True)
    after = BATCHES - 2 - WORKERS
    assert state(reader, after) == expected(BATCHES - 2)[after:] and not listed
    assert state(reader, after - 1) == expected(BATCHES - 2)[after - 1 :] and listed


def test_a_reader_that_meets_a_trimmed_slot_knows_of_the_trim(
    host: Host, log: WriteAheadLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else records beyond its redo mark would have no bodies."""
    monkeypatch.setattr("wal.slot_chain.CACHE_BYTES", 1)
    reader = host.open(read_only=True)
    assert state(reader) == expected(0)
    log.trim(5)
    assert state(reader) == expected(5)
    assert reader.trimmed() == 5


def test_a_reader_that_follows_asks_once_for_each_new_slot_and_for_the_one_after(
    host: Host, log: WriteAheadLog
) -> None:
    reader, asked = asking(host)
    assert reader.head() == BATCHES
    for number in range(3):
        add(log, b"%d" % number)
    log.trim(BATCHES + 1)
    asked.clear()
    assert reader.head() == BATCHES + 3
    assert asked == [Names(".wal").slot(lsn) for lsn in range(BATCHES + 1, BATCHES + 5)]


def test_a_slot_larger_than_what_is_kept_in_memory_is_kept_until_another_comes(host: Host) -> None:
    asked: list[str] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "read":
            asked.append(arguments[0])
        return run()

    with closing(host.open(watched(host.storage(), around), create=True)) as log:
        large = bytes(CACHE_BYTES + 1)
        add(log, large)
        asked.clear()
        assert [batch.records[0].body == large for batch in log.read(0, 1)] == [True]
        assert asked == []
        add(log, b"small")
        assert [batch.records[0].body == large for batch in log.read(0, 1)] == [True]
        assert asked == [Names(".wal").slot(1)]


def steps_of_a_trim(host: Host, upto: int, last: int) -> int:
    """Trim, and die before publishing step `last`; how many steps were made."""
    made = 0

    class Died(Exception):
        pass

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        nonlocal made
        if method in ("publish", "create"):
            if made >= last:
                raise Died
            made += 1
        return run()

    dying = host.open(watched(host.storage(), around))
    dying.head()
    with suppress(Died):
        dying.trim(upto)
    return made


@pytest.mark.parametrize("last", range(14))
def test_a_trim_that_was_cut_short_at_any_step_loses_nothing_and_is_finished_by_the_next(
    host: Host, log: WriteAheadLog, last: int
) -> None:
    sleeper = host.open(read_only=True)
    assert steps_of_a_trim(host, 11, last) == min(last, 13)  # eleven slots, the history, the mark
    for handle in (sleeper, host.open(read_only=True), host.open()):
        assert handle.head() == BATCHES
        assert handle.trimmed() in (0, 11)
        found = state(handle)
        assert [lsn for lsn, _, _ in found] == list(range(1, BATCHES + 1))
        assert found[11:] == expected(11)[11:]
        assert all(one[:2] == other[:2] for one, other in zip(found, expected(0), strict=True)), "a header is lost"
        assert all(body in (None, b"body %d" % (lsn - 1)) for lsn, _, (body,) in found)
    finisher = host.open()
    add(finisher, b"body %d" % BATCHES, b"header %d" % BATCHES)
    finisher.trim(11)
    finisher.trim(15)
    assert state(host.open(read_only=True)) == expected(15, BATCHES + 1)
    assert finisher.verify().problems == ()


def test_two_that_trim_at_once_need_no_right_and_do_no_harm(host: Host, log: WriteAheadLog) -> None:
    """One is paused at every step in turn, while the other trims further and to its end."""
    for pause in range(9):
        other = Host(host._kind)
        first = other.open(create=True)
        for number in range(BATCHES):
            add(first, b"body %d" % number, b"header %d" % number)
        second = other.open()
        second.head()
        made: list[str] = []

        def around(
            method: str,
            arguments: tuple[Any, ...],
            run: Callable[[], Any],
            made: list[str] = made,
            pause: int = pause,
            second: WriteAheadLog = second,
        ) -> Any:
            if method in ("publish", "create"):
                made.append(arguments[0])
                if len(made) == pause + 1:
                    second.trim(15)
            return run()

        paused = other.open(watched(other.storage(), around))
        paused.head()
        paused.trim(7)
        for handle in (other.open(read_only=True), other.open(), second):
            assert handle.head() == BATCHES
            assert state(handle) == expected(15), pause
        assert add(other.open(), b"next").lsn == BATCHES + 1


@pytest.mark.parametrize("redo", [0, 1, 5, 19])
def test_a_stale_mark_that_a_zombie_puts_back_sends_nobody_astray(host: Host, log: WriteAheadLog, redo: int) -> None:
    log.trim(19)
    data = Checkpoint(log.id, redo).encode()
    host.storage().publish(CHECKPOINT, data, b"", durable=True)
    opener = host.open()
    assert opener.known() == redo
    assert add(opener, b"next", b"next").lsn == BATCHES + 1
    assert state(host.open(read_only=True), 19)[:-1] == expected(19)[19:]
    assert opener.trimmed() == 19
    opener.trim(19)
    assert host.open().known() == 19, "the mark was not put right"


def test_without_any_mark_the_log_is_followed_from_its_birth(host: Host, log: WriteAheadLog) -> None:
    log.trim(19)
    host.storage().erase(CHECKPOINT)
    assert state(host.open(read_only=True)) == expected(19)


def test_headers_stay_for_ever_also_without_the_objects_that_keep_them_together(host: Host, log: WriteAheadLog) -> None:
    log.trim(9)
    log.trim(21)
    host.storage().erase(".wal/history")
    assert state(host.open(read_only=True)) == expected(21)


@pytest.mark.parametrize("missing", [0, 7, 19, 20])
def test_a_missing_slot_is_damage_and_never_an_empty_log(host: Host, log: WriteAheadLog, missing: int) -> None:
    log.trim(19)
    storage = host.storage()
    storage.erase(f".wal/{missing:020d}.rec")
    if missing == 0:
        storage.erase(CHECKPOINT)
        for create in (False, True):
            with pytest.raises(LogCorruptionError, match="first slot"):
                host.open(create=create)
        return
    if missing == 19:
        with pytest.raises(LogCorruptionError, match="missing"):
            host.open()
        return
    reader = host.open(read_only=True)
    if missing == 7:
        assert any("slot is missing" in problem for problem in reader.verify().problems)
        return
    assert reader.head() == 19
    assert any("beyond the log's end" in problem for problem in reader.verify().problems)
    with pytest.raises(LogCorruptionError):
        add(host.open(), b"takes the missing slot's place")
        host.open().head()


def test_slots_are_not_begun_beside_segments() -> None:
    from wal import UnsupportedError

    disk = MemoryPosix()
    open_log(MemoryStorage(disk), create=True).close()
    with pytest.raises(UnsupportedError, match="segments"):
        open_log(MemoryStorage(disk), create=True, kind="slots")


def test_a_log_that_lost_slots_which_were_carried_out_takes_no_more_records(host: Host) -> None:
    with closing(host.open(create=True, done=0)) as log:
        for number in range(3):
            add(log, b"body %d" % number)
        with log.right():
            log.store_mark(0, 3)
    host.lose(".wal/00000000000000000003.rec")
    with pytest.raises(LogCorruptionError, match="ends before slot 3, which was already applied") as caught:
        host.open(done=0)
    assert caught.value.file == ".wal/00000000000000000003.rec"
    with closing(host.open(done=0, read_only=True)) as reader:  # what is there can be read, and checked
        assert reader.head() == 2
        problem = reader.verify().problems[0]
        assert "ends before slot 3" in problem and ".wal/00000000000000000003.rec" in problem
