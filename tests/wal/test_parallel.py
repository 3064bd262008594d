"""`spread`: many requests at once, in an order that does not matter, with results in one that does."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wal.parallel import WORKERS, spread

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("count", "threads"), [(0, 0), (1, 0), (2, 1), (WORKERS, WORKERS - 1), (50, WORKERS - 1)])
def test_results_come_in_the_order_of_the_items_and_no_thread_is_started_for_nothing(
    monkeypatch: pytest.MonkeyPatch, count: int, threads: int
) -> None:
    start, started = threading.Thread.start, list[threading.Thread]()
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (started.append(thread), start(thread))[1])
    assert spread(lambda n: n * n, range(count)) == [n * n for n in range(count)]
    assert len(started) == threads
    assert all(thread.daemon for thread in started), "a request that never ends does not keep the program from ending"


def test_as_many_run_at_once_as_there_may_be() -> None:
    meeting = threading.Barrier(WORKERS)
    assert sorted(spread(lambda _: meeting.wait(30), range(WORKERS))) == list(range(WORKERS))


def test_the_first_error_is_raised_and_ends_it() -> None:
    begun: list[int] = []

    def step(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise KeyboardInterrupt("three")

    with pytest.raises(KeyboardInterrupt, match="three"):
        spread(step, range(10_000))
    assert len(begun) < 10_000


def test_where_no_thread_can_be_started_any_more_the_caller_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[threading.Thread] = []

    def refuse(thread: threading.Thread) -> None:
        refused.append(thread)
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert spread(abs, [-1, -2, -3]) == [1, 2, 3]
    assert len(refused) == 1


def test_an_interrupt_between_two_starts_ends_it_and_waits_for_those_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    start, join, started, begun, waited_for = threading.Thread.start, threading.Thread.join, [], [], threading.Event()

    def step(number: int) -> None:
        begun.append(number)
        assert waited_for.wait(30)

    def second(thread: threading.Thread) -> None:
        if started:
            raise KeyboardInterrupt
        started.append(thread)
        start(thread)

    def wait(thread: threading.Thread) -> None:
        waited_for.set()
        join(thread)

    monkeypatch.setattr(threading.Thread, "start", second)
    monkeypatch.setattr(threading.Thread, "join", wait)
    with pytest.raises(KeyboardInterrupt):
        spread(step, range(1000))
    assert not started[0].is_alive()
    assert begun == [0], "what was under way, and no more"


def test_it_works_while_the_interpreter_ends() -> None:
    code = "import atexit; from wal.parallel import spread; atexit.register(lambda: print(spread(abs, [-1, -2, -3])))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.stdout, done.stderr, done.returncode) == ("[1, 2, 3]\n", "", 0)
