"""The queue of group commit, when an exception comes between any two lines of the thread that leads or waits: nobody
else waits for ever, and every entry that was not abandoned gets its outcome."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from types import FrameType
from typing import Any, Literal

import pytest

from tests.wal.queued import in_one_batch
from wal import InDoubtError, MemoryStorage, Position, Record, group, leader, open_log
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

    def __init__(self, threads: int, interrupted: int, at: int) -> None:
        self.group = Group(self)
        self.interrupting = Interrupting(at)
        self.written: list[bytes] = []
        self.outcomes: dict[int, object] = {}
        self._interrupted = interrupted
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
        for entry in take():
            record = entry.prepare(0, [])
            assert record is not None and record.body is not None
            self.written.append(record.body)
            entry.settle(Position(len(self.written), 0))
        self._begin()

    def _begin(self) -> None:
        if self._left:
            thread = self._left.pop(0)
            thread.start()
            while thread.is_alive() and len(self.group._queue) < 2:  # it waits behind the leader's entry
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


@pytest.mark.parametrize("interrupted", [0, 1], ids=["leads at once", "waits first"])
def test_an_exception_at_any_line_leaves_nobody_waiting(interrupted: int) -> None:
    at, more = 0, True
    while more:
        at += 1
        work = Work(3, interrupted, at)
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
