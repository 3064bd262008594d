"""Hosts that append as fast as they can take turns: none of them is kept from the log by the others.

Time is simulated: each call of the storage takes 50 ms, and hosts go on in the order of their clocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from greenlet import getcurrent, greenlet

from wal import Clock, MemoryPosix, MemoryStorage, Storage, open_log
from wal.testing.hosts import ManualClock, watched
from wal.testing.log_tools import add, state
from wal.testing.objects import Bucket, MemoryObjects

LATENCY = 0.05  # seconds, of each call
TIME = 5000 * LATENCY


class Simulated(ManualClock):
    """The clock of one host; whoever waits lets the hosts go on that are not as far."""

    def __init__(self, seed: int, hub: greenlet) -> None:
        super().__init__(seed, lambda _: self.turn())
        self._hub = hub

    def turn(self) -> None:
        if getcurrent() is not self._hub:
            self._hub.switch()

    def around(self, _method: str, _arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if getcurrent() is not self._hub:
            self.now += LATENCY
            self.turn()
        return run()


def storages(kind: str) -> Callable[[], Storage]:
    if kind == "objects":
        bucket = Bucket()
        return lambda: MemoryObjects(bucket)
    disk = MemoryPosix()
    return lambda: MemoryStorage(disk)


def race(kind: str, hosts: int, seconds: float) -> list[int]:
    """How many records each host has appended when the time is over."""
    make, hub = storages(kind), getcurrent()
    done = [0] * hosts
    clocks = [Simulated(number, hub) for number in range(hosts)]
    logs = [
        open_log(watched(make(), clock.around), kind="slots", create=True, clock=clock, lock_timeout=10 * seconds)
        for clock in clocks
    ]

    def append(number: int) -> None:
        while clocks[number].now < seconds:
            add(logs[number], b"%d" % number)
            done[number] += 1

    running = {number: greenlet(lambda number=number: append(number)) for number in range(hosts)}
    while running:
        number = min(running, key=lambda number: (clocks[number].now, number))
        running[number].switch()
        if running[number].dead:
            del running[number]
    assert sum(done) == len(state(logs[0]))
    for log in logs:
        log.close()
    return done


@pytest.mark.parametrize("hosts", [2, 3, 5])
@pytest.mark.parametrize("kind", ["objects", "mount"])
def test_no_host_is_kept_from_the_log_by_others_that_append_all_the_time(kind: str, hosts: int) -> None:
    done = race(kind, hosts, TIME)
    assert min(done) > sum(done) / hosts / 3, done


@pytest.mark.parametrize("kind", ["objects", "mount"])
def test_a_host_that_is_alone_hardly_rests(kind: str) -> None:
    (done,) = race(kind, 1, TIME)
    calls: list[str] = []
    log = open_log(watched(storages(kind)(), lambda m, _, run: (calls.append(m), run())[1]), kind="slots", create=True)
    add(log, b"first")
    calls.clear()
    add(log, b"second")
    log.close()
    assert done > 0.9 * TIME / (LATENCY * len(calls))


def test_a_host_that_is_alone_rests_once_in_some_sixty_slots() -> None:
    rests: list[float] = []
    clock = ManualClock(1, rests.append)

    def around(method: str, _: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        clock.now += LATENCY if method == "create" else 0
        return run()

    log = open_log(watched(MemoryObjects(), around), create=True, clock=clock)
    for _ in range(200):
        add(log, b"x")
    assert 2 <= len(rests) <= 4
    log.close()


def test_who_sleeps_by_the_systems_clock_does_so() -> None:
    clock = Clock()
    begun = clock.monotonic()
    clock.sleep(0.01)
    assert clock.monotonic() - begun >= 0.01
