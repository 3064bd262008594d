"""The queue of group commit, when an exception comes between any two lines of the thread that leads or waits: nobody
else waits for ever, and every entry that was not abandoned gets its outcome."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from types import FrameType
from typing import Any, Literal

import pytest

from tests.wal.queued import in_one_batch
from wal import DeferredInterrupt, InDoubtError, MemoryStorage, Position, Record, group, leader, open_log
from wal.group import Entry, Group
from wal.testing.log_tools import add, bodies

PATIENCE = 20  # seconds


class Interrupted(BaseException):
    """What a program's own signal handler raises."""


class Interrupting:
    """Raises at one line of the module. Not at a `with`: to leave the block is one step, which no signal divides."""

    def __init__(self, at: int) -> None:
        self.left = at
        with open(group.__file__, encoding="utf-8") as file:
            self._lines = file.readlines()

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename == group.__file__ and event == "line":
            self.left -= not self._lines[frame.f_lineno - 1].strip().startswith("with ")
            if self.left == 0:
                self.left = -1
                raise Interrupted
        return self


class Work:
    """Writes batches; with each of the first ones under way another thread joins the queue."""

    def __init__(self, threads: int, interrupted: int, at: int, *, together: bool = False) -> None:
        self.group = Group(self)
        self.interrupting = Interrupting(at)
        self.written: list[bytes] = []
        self.outcomes: dict[int, object] = {}
        self._interrupted = interrupted
        self._together = together  # all others join the queue before the first batch is taken
        self._threads = [threading.Thread(target=self._append, args=(i,), daemon=True) for i in range(threads)]
        self._left = list(self._threads)

    def run(self) -> None:
        self._begin()
        deadline = time.monotonic() + PATIENCE
        while self._left or any(thread.is_alive() for thread in self._threads):
            assert time.monotonic() < deadline, f"waits for ever; outcomes: {self.outcomes}"
            if not any(thread.ident and thread.is_alive() for thread in self._threads):
                self._begin()  # the leader that was to bring it was interrupted
            time.sleep(0)

    def flush(self, take: Callable[[], list[Entry]]) -> None:
        while self._together and self._left:
            self._begin()
        entries = take()
        for entry in entries:
            record = entry.prepare(0, [])
            assert record is not None and record.body is not None
            self.written.append(record.body)
        leader.settle(entries, len(self.written))
        self._begin()

    def _begin(self) -> None:
        if self._left:
            thread = self._left.pop(0)
            length = max(2, len(self.group._queue) + 1)
            thread.start()
            while thread.is_alive() and len(self.group._queue) < length:  # it waits behind the leader's entry
                if self.group._leader is None or self.group._leader.thread == thread.ident:
                    return
                time.sleep(0)

    def _append(self, number: int) -> None:
        if number == self._interrupted:
            sys.settrace(self.interrupting)
        try:
            self.outcomes[number] = self.group.submit(lambda head, mates: Record(b"", b"%d" % number))
        except Interrupted as error:
            self.outcomes[number] = error
        finally:
            sys.settrace(None)


@pytest.mark.parametrize(
    ("interrupted", "together"),
    [(0, False), (1, False), (0, True)],
    ids=["leads at once", "waits first", "leads for all"],
)
def test_an_exception_at_any_line_leaves_nobody_waiting(interrupted: int, together: bool) -> None:
    at, more = 0, True
    while more:
        at += 1
        work = Work(3, interrupted, at, together=together)
        work.run()
        more = isinstance(work.outcomes[interrupted], Interrupted)
        for number in range(3):
            outcome = work.outcomes[number]
            assert isinstance(outcome, Interrupted if number == interrupted and more else Position), at
            assert work.written.count(b"%d" % number) == 1 or isinstance(outcome, Interrupted), at
        assert work.group._leader is None and not work.group._queue, at
        one: Callable[..., Record] = lambda head, mates: Record(b"", b"after")  # noqa: E731
        assert work.group.submit(one) == Position(len(work.written), 0) and work.written[-1] == b"after"
    assert at > 20


class Leaving:
    """Has all threads queue up, then settles the first entry only, again and again; `before` is called before each."""

    def __init__(self, before: Callable[[int], None] = lambda number: None) -> None:
        self.group = Group(self)
        self.leaders: list[int] = []
        self._before = before

    def flush(self, take: Callable[[], list[Entry]]) -> None:
        self._before(len(self.leaders))
        self.leaders.append(threading.get_ident())
        take()[0].settle(Position(len(self.leaders), 0))

    def joined(self, count: int) -> None:
        """Wait until so many are in the queue."""
        deadline = time.monotonic() + PATIENCE
        while len(self.group._queue) < count and time.monotonic() < deadline:
            time.sleep(0)
        assert len(self.group._queue) == count


def nothing(head: int, mates: Sequence[Record]) -> None:
    pass


def test_who_is_first_in_the_queue_leads_next_and_followers_sleep_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    polls: list[int] = []
    monkeypatch.setattr(group, "safe_point", lambda: polls.append(1))

    def before(number: int) -> None:
        for index in range(1, len(threads) * (number == 0)):
            threads[index].start()
            work.joined(index + 1)

    work = Leaving(before)
    threads = [threading.Thread(target=work.group.submit, args=(nothing,)) for _ in range(3)]
    threads[0].start()
    for thread in threads:
        while thread.ident is None:
            time.sleep(0)
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert work.leaders == [thread.ident for thread in threads]
    assert not polls


def test_who_is_interrupted_between_two_batches_withdraws_at_once() -> None:
    """Its entry was left out of the first one, as if it was deferred, and the second has not been taken yet."""
    withdrawn, in_time = threading.Event(), list[bool]()

    def before(number: int) -> None:
        if number == 0:
            work.joined(3)
        elif number == 1:
            os.kill(os.getpid(), signal.SIGINT)
            in_time.append(withdrawn.wait(5))

    work = Leaving(before)
    work.group._queue.append(first := Entry(nothing))  # of nobody: so that the leader's own is in the second batch
    first.thread = 0
    leader = threading.Thread(target=work.group.submit, args=(nothing,))
    leader.start()
    work.joined(2)
    with pytest.raises(KeyboardInterrupt), DeferredInterrupt():  # as `append` does
        try:
            work.group.submit(nothing)
        finally:
            withdrawn.set()
    leader.join()
    assert first.done and in_time == [True]


def test_an_entry_that_is_not_being_written_is_out_of_the_queue_when_it_was_asked_for() -> None:
    work = Leaving()
    work.group._queue.append(entry := Entry(nothing))
    entry.taken = True
    assert work.group._is_written(entry) and work.group._queue == [entry]
    entry.taken = False
    assert not work.group._is_written(entry) and work.group._queue == []


@pytest.mark.parametrize("kind", ["append", "slots"])
@pytest.mark.parametrize("error", [MemoryError, Interrupted])
@pytest.mark.parametrize("index", range(3))
def test_an_exception_behind_a_committed_batch_makes_nobody_write_it_again(
    kind: Literal["append", "slots"], error: type[BaseException], index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    armed = [True]

    def position(lsn: int, at: int) -> Position:
        if at == index and armed:
            armed.clear()
            raise error
        return Position(lsn, at)

    with closing(open_log(MemoryStorage(), kind=kind, create=True)) as log:
        monkeypatch.setattr(leader, "Position", position)
        records = [Record(b"", b"%d" % number) for number in range(3)]
        found = in_one_batch(log, [lambda head, mates, record=record: record for record in records])  # type: ignore[misc]
        assert not armed
        told = [outcome for outcome in found if not isinstance(outcome, Position)]
        assert [type(outcome) for outcome in told] == [error] * (error is Interrupted)
        assert all(one.__notes__ == ["the record was committed at LSN 1 before the interrupt"] for one in told)
        assert set(found) - set(told) < {Position(1, number) for number in range(4)}
        assert bodies(log) == [b"0", b"1", b"2"]


def test_a_slot_that_was_created_and_cannot_be_kept_in_memory_is_in_doubt_and_not_created_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with closing(open_log(MemoryStorage(), kind="slots", create=True)) as log:
        with monkeypatch.context() as patch:
            patch.setattr(log.chain, "take", lambda slot: {}[slot])  # type: ignore[attr-defined]
            with pytest.raises(InDoubtError):
                add(log, b"one")
        add(log, b"two")
        assert bodies(log) == [b"one", b"two"]


def test_a_thread_that_waits_for_its_outcome_cannot_append_again_and_one_that_has_it_can() -> None:
    """As a signal handler would that has interrupted the wait."""
    work = Leaving()
    work.group._queue.append(entry := Entry(nothing))
    with pytest.raises(RuntimeError, match="in the middle of an append by this very thread"):
        work.group.submit(nothing)
    entry.settle(Position(1, 0))
    assert work.group.submit(nothing) is not None
    assert work.group._queue == []
