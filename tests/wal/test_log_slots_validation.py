"""An answer of `prepare` counts only on the log's end on which it was given (E9c), whoever else moves that end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from tests.wal.queued import waiting
from wal import Deferred, Record, Storage, WriteAheadLog, open_log
from wal.group import Entry
from wal.log import Position
from wal.testing.hosts import ManualClock, watched
from wal.testing.log_tools import add, bodies, state
from wal.testing.objects import Bucket, MemoryObjects


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def log(bucket: Bucket) -> Iterator[WriteAheadLog]:
    log = open_log(MemoryObjects(bucket), create=True, clock=ManualClock(1))
    yield log
    log.close()


@pytest.fixture
def other(log: WriteAheadLog, bucket: Bucket) -> Iterator[WriteAheadLog]:
    other = open_log(MemoryObjects(bucket), clock=ManualClock(2))
    yield other
    other.close()


def in_a_thread(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def meanwhile(log: WriteAheadLog, other: WriteAheadLog) -> None:
    """Another host commits, and another thread of this process looks."""
    add(other, b"theirs")
    in_a_thread(log.head)


def test_a_record_decided_before_another_thread_looked_is_decided_again(
    log: WriteAheadLog, other: WriteAheadLog
) -> None:
    heads: list[int] = []

    def prepare(head: int, mates: Sequence[Record]) -> Record:
        heads.append(head)
        if len(heads) == 1:
            meanwhile(log, other)
        return Record(b"", b"decided at %d" % head)

    assert log.append(prepare) == Position(2, 0)
    assert heads == [0, 1]
    assert bodies(other) == [b"theirs", b"decided at 1"]


@pytest.mark.parametrize("looked", [True, False])
@pytest.mark.parametrize("refuse", [True, False])
def test_a_refusal_or_nothing_to_do_on_a_stale_head_is_asked_again(
    log: WriteAheadLog, other: WriteAheadLog, refuse: bool, looked: bool
) -> None:
    heads: list[int] = []

    def prepare(head: int, mates: Sequence[Record]) -> Record | None:
        heads.append(head)
        if head > 0:
            return Record(b"", b"now there is something to do")
        add(other, b"theirs")
        if looked:
            in_a_thread(log.head)
        if refuse:
            raise KeyError("nothing is there")
        return None

    assert log.append(prepare) == Position(2, 0)
    assert heads == [0, 1]


def test_inside_prepare_the_head_is_that_of_the_question_though_other_threads_look(
    log: WriteAheadLog, other: WriteAheadLog
) -> None:
    seen: list[tuple[int, int, int]] = []

    def prepare(head: int, mates: Sequence[Record]) -> Record:
        if not seen:
            meanwhile(log, other)
        seen.append((head, log.head(), log.known()))
        return Record(b"", b"x")

    log.append(prepare)
    assert seen == [(0, 0, 0), (1, 1, 1)]
    assert log.known() == 2


def test_an_append_queued_behind_a_settling_is_decided_behind_the_slot_it_took(
    log: WriteAheadLog, other: WriteAheadLog
) -> None:
    """The settling takes its slot inside `prepare`: what is asked after it in the same batch is on a stale head."""
    entered, queued = threading.Event(), threading.Event()
    results: list[tuple[int, Position | None]] = []

    def first(head: int, mates: Sequence[Record]) -> None:
        entered.set()
        assert queued.wait(30)

    def decided(head: int, mates: Sequence[Record]) -> Record:
        return Record(b"", b"%d" % head)

    threads = [threading.Thread(target=lambda: log.append(first))]
    threads[0].start()
    assert entered.wait(30)
    add(other, b"theirs")
    threads.append(threading.Thread(target=log.settle))
    threads.append(threading.Thread(target=lambda: results.append((0, log.append(decided)))))
    for count, thread in enumerate(threads[1:], 1):
        thread.start()
        while waiting(log) < count:
            thread.join(0.001)
    queued.set()
    for thread in threads:
        thread.join()
    position = results[0][1]
    assert position is not None
    assert state(other)[-1] == (position.lsn, (b"",), (b"%d" % (position.lsn - 1),))


def test_a_settling_queued_behind_an_append_takes_the_slot_behind_it(log: WriteAheadLog, bucket: Bucket) -> None:
    """Not the one that the append was decided for: that would have to be asked again."""
    entered, queued = threading.Event(), threading.Event()
    asked: list[int] = []

    def first(head: int, mates: Sequence[Record]) -> None:
        entered.set()
        assert queued.wait(30)

    def decided(head: int, mates: Sequence[Record]) -> Record:
        asked.append(head)
        return Record(b"", b"%d" % head)

    threads = [threading.Thread(target=lambda: log.append(first))]
    threads[0].start()
    assert entered.wait(30)
    threads.append(threading.Thread(target=lambda: log.append(decided)))
    threads.append(threading.Thread(target=log.settle))
    for count, thread in enumerate(threads[1:], 1):
        thread.start()
        while waiting(log) < count:
            thread.join(0.001)
    queued.set()
    for thread in threads:
        thread.join()
    assert asked == [0]
    with closing(open_log(MemoryObjects(bucket), read_only=True)) as reader:
        assert state(reader) == [(1, (b"",), (b"0",)), (2, (), ())]


def test_a_thread_that_meets_the_new_slot_before_its_writer_does_not_set_the_writer_back(bucket: Bucket) -> None:
    handles: list[WriteAheadLog] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        result = run()
        if method == "create" and len(handles) == 2:
            other = handles.pop()
            add(other, b"theirs")
            in_a_thread(handles[0].head)  # sees the slot just created, and theirs behind it
        return result

    storage: Storage = watched(MemoryObjects(bucket), around)
    handles.append(open_log(storage, create=True, clock=ManualClock(1)))
    handles.append(open_log(MemoryObjects(bucket), clock=ManualClock(2)))
    assert add(handles[0], b"ours").lsn == 1
    assert handles[0].known() == 2
    assert bodies(handles[0]) == [b"ours", b"theirs"]


def test_a_batch_that_lost_its_slot_is_made_again_from_the_queue_in_order(log: WriteAheadLog, bucket: Bucket) -> None:
    """Of two mates the second conflicts with the first: it waits for the next batch, and is never refused for a
    mate that then lost its slot to another host."""
    other = open_log(MemoryObjects(bucket), clock=ManualClock(3))
    entered, queued = threading.Event(), threading.Event()
    asked: list[tuple[str, int, int]] = []
    placed: dict[str, Position | Exception | None] = {}

    def opening(head: int, mates: Sequence[Record]) -> None:
        entered.set()
        assert queued.wait(30)

    def first(head: int, mates: Sequence[Record]) -> Record:
        asked.append(("first", head, len(mates)))
        if len([name for name, _, _ in asked if name == "first"]) == 1:
            add(other, b"theirs")  # so that this batch loses its slot
        return Record(b"first", b"first")

    def second(head: int, mates: Sequence[Record]) -> Record:
        asked.append(("second", head, len(mates)))
        if mates:
            raise Deferred
        if any(record.header == b"first" for batch in log.read(0, head) for record in batch.records):
            raise KeyError("first is committed")
        return Record(b"second", b"second")

    def run(name: str, prepare: Callable[[int, Sequence[Record]], Record]) -> None:
        try:
            placed[name] = log.append(prepare)
        except KeyError as error:
            placed[name] = error

    threads = [threading.Thread(target=lambda: log.append(opening))]
    threads[0].start()
    assert entered.wait(30)
    for count, (name, prepare) in enumerate([("first", first), ("second", second)], 1):
        threads.append(threading.Thread(target=run, args=(name, prepare)))
        threads[-1].start()
        while waiting(log) < count:
            threads[-1].join(0.001)
    queued.set()
    for thread in threads:
        thread.join()
    assert placed["first"] == Position(2, 0)
    assert isinstance(placed["second"], KeyError)
    assert [name for name, _, _ in asked[:4]] == ["first", "second", "first", "second"]
    assert bodies(other) == [b"theirs", b"first"]
    other.close()


def test_a_refusal_beside_a_record_that_lost_its_slot_does_not_count_either(
    log: WriteAheadLog, other: WriteAheadLog
) -> None:
    def accepted(head: int, mates: Sequence[Record]) -> Record:
        if head == 0:
            add(other, b"theirs")
        return Record(b"", b"decided at %d" % head)

    def refused(head: int, mates: Sequence[Record]) -> None:
        if head == 0:
            raise KeyError("what the other host has written by then")

    entries = [Entry(accepted), Entry(refused)]
    log._leader.flush(lambda: entries)  # type: ignore[attr-defined]
    assert [entry.done for entry in entries] == [False, False]
    log._leader.flush(lambda: entries)  # type: ignore[attr-defined]
    assert [(entry.done, entry.position, entry.error) for entry in entries] == [
        (True, Position(2, 0), None),
        (True, None, None),
    ]
    assert bodies(other) == [b"theirs", b"decided at 1"]


def test_all_of_a_batch_learn_that_its_outcome_is_unknown(bucket: Bucket) -> None:
    from wal import InDoubtError

    failing = False

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "create" and failing:
            raise OSError("lost")
        return run()

    log = open_log(watched(MemoryObjects(bucket), around), create=True, clock=ManualClock(1), lock_timeout=1)
    entered, queued = threading.Event(), threading.Event()
    outcomes: list[BaseException] = []

    def opening(head: int, mates: Sequence[Record]) -> None:
        entered.set()
        assert queued.wait(30)

    def run() -> None:
        try:
            add(log, b"x")
        except InDoubtError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=lambda: log.append(opening))]
    threads[0].start()
    assert entered.wait(30)
    for count in (1, 2, 3):
        threads.append(threading.Thread(target=run))
        threads[-1].start()
        while waiting(log) < count:
            threads[-1].join(0.001)
    failing = True
    queued.set()
    for thread in threads:
        thread.join()
    assert len(outcomes) == len(set(map(id, outcomes))) == 3
    failing = False
    assert add(log, b"y").lsn == 2
    assert bodies(log) == [b"y"]
    log.close()
