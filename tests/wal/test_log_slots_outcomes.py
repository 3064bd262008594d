"""What became of a slot's creation (E9b): lost replies, late arrivals, refusals; and what the caller is told."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wal import InDoubtError, MemoryPosix, MemoryStorage, PoisonedError, Storage, WriteAheadLog, open_log
from wal.testing.hosts import ManualClock, watched
from wal.testing.log_tools import add, bodies, state
from wal.testing.objects import Bucket, MemoryObjects


class Network:
    """What happens to the creations of slots: a list of faults, one for each, and none after that."""

    def __init__(self, inner: Storage) -> None:
        self.storage = watched(inner, self._around)
        self.faults: list[str] = []
        self.late: list[Callable[[], Any]] = []  # requests that are still on their way
        self.created: list[bytes] = []  # what was sent
        self.unreadable = False
        self.unsyncable = 0  # folder flushes that fail

    def _around(self, method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "sync_folder" and self.unsyncable:
            self.unsyncable -= 1
            raise OSError(errno.EIO, "flush")
        if method == "read" and self.unreadable and arguments[0].endswith(".rec"):
            raise OSError(errno.ETIMEDOUT, "read")
        if method != "create":
            return run()
        self.created.append(arguments[1])
        fault, *self.faults = self.faults or ["none"]
        if fault == "after":
            run()
        elif fault == "late":
            self.late.append(run)
        elif fault == "false":
            return False
        elif fault.startswith("refused"):
            if fault.endswith("after"):
                run()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        elif fault == "interrupt":
            raise KeyboardInterrupt
        if fault == "none":
            return run()
        raise OSError(errno.ETIMEDOUT, f"create: {fault}")


def disk() -> Callable[[], Storage]:
    shared = MemoryPosix()
    return lambda: MemoryStorage(shared)


def objects() -> Callable[[], Storage]:
    shared = Bucket()
    return lambda: MemoryObjects(shared)


@pytest.fixture(params=[disk, objects], ids=["mount", "objects"])
def host(request: pytest.FixtureRequest) -> Callable[[], Storage]:
    make: Callable[[], Storage] = request.param()
    return make


@pytest.fixture
def network(host: Callable[[], Storage]) -> Network:
    return Network(host())


@pytest.fixture
def log(network: Network) -> Iterator[WriteAheadLog]:
    log = open_log(network.storage, create=True, kind="slots", clock=ManualClock(1), lock_timeout=3)
    network.created.clear()
    yield log
    log.close()


def opened(host: Callable[[], Storage], seed: int = 2) -> WriteAheadLog:
    return open_log(host(), kind="slots", clock=ManualClock(seed), lock_timeout=3)


@pytest.mark.parametrize("fault", ["before", "after", "refused after"])
def test_one_lost_reply_is_decided_by_reading_the_slot_back(log: WriteAheadLog, network: Network, fault: str) -> None:
    network.faults = [fault]
    assert add(log, b"x").lsn == 1
    assert state(log) == [(1, (b"",), (b"x",))]


def test_a_slot_whose_outcome_is_unknown_is_tried_again_with_the_same_bytes(
    log: WriteAheadLog, network: Network
) -> None:
    network.faults = ["before", "late", "before"]
    assert add(log, b"x").lsn == 1
    assert len(network.created) == 4
    assert len(set(network.created)) == 1
    assert [late() for late in network.late] == [False]
    assert bodies(log) == [b"x"]


def test_a_late_request_that_lands_between_two_tries_is_ones_own_success(log: WriteAheadLog, network: Network) -> None:
    network.faults = ["late"]
    first = network.storage.create

    def landing(name: str, data: bytes) -> bool:
        for late in network.late:
            late()
        return first(name, data)

    network.storage.create = landing  # type: ignore[method-assign]
    assert add(log, b"x").lsn == 1
    assert bodies(log) == [b"x"]


def test_a_refusal_that_wrote_nothing_is_said_and_appends_nothing(log: WriteAheadLog, network: Network) -> None:
    network.faults = ["refused"]
    with pytest.raises(OSError, match="No space") as caught:
        add(log, b"x")
    assert caught.value.errno == errno.ENOSPC
    assert add(log, b"y").lsn == 1
    assert bodies(log) == [b"y"]


def test_a_refusal_after_which_the_slot_cannot_be_read_is_no_proof_that_nothing_was_written(
    log: WriteAheadLog, network: Network, host: Callable[[], Storage]
) -> None:
    network.faults = ["refused after"] * 100
    network.unreadable = True
    with pytest.raises(InDoubtError):
        add(log, b"x")
    assert bodies(opened(host)) == [b"x"]


def test_a_slot_that_is_taken_and_cannot_be_found_ends_in_doubt_and_not_in_an_endless_loop(
    log: WriteAheadLog, network: Network
) -> None:
    network.faults = ["false"] * 10_000
    with pytest.raises(InDoubtError):
        add(log, b"x")
    assert 5 < len(network.created) < 50, "in three seconds, with longer and longer pauses"
    network.faults = []
    assert add(log, b"y").lsn == 2
    assert bodies(log) == [b"y"]


def test_another_writer_that_wins_meanwhile_is_followed_and_the_record_comes_after_it(
    log: WriteAheadLog, network: Network, host: Callable[[], Storage]
) -> None:
    other = opened(host)
    network.faults = ["before"]
    seen: list[int] = []

    def prepare(head: int, mates: object) -> Any:
        from wal import Record

        if not seen:
            add(other, b"theirs")
        seen.append(head)
        return Record(b"", b"ours")

    position = log.append(prepare)
    assert position is not None
    assert (position.lsn, seen) == (2, [0, 1])
    assert bodies(log) == bodies(other) == [b"theirs", b"ours"]


def test_who_gives_up_says_in_doubt_and_the_next_append_settles_first(
    log: WriteAheadLog, network: Network, host: Callable[[], Storage]
) -> None:
    network.faults = ["late"] * 10_000
    with pytest.raises(InDoubtError, match="slot 1") as caught:
        add(log, b"x")
    assert "create: late" in str(caught.value.__cause__)
    network.faults = []
    assert add(log, b"y").lsn == 2
    assert [late() for late in network.late] == [False] * len(network.late)
    assert state(opened(host)) == [(1, (), ()), (2, (b"",), (b"y",))]


def test_what_lands_after_giving_up_is_committed_and_the_next_append_comes_after_it(
    log: WriteAheadLog, network: Network
) -> None:
    network.faults = ["late"] * 10_000
    with pytest.raises(InDoubtError):
        add(log, b"x")
    network.faults = []
    assert network.late[0]() is True
    assert add(log, b"y").lsn == 2
    assert bodies(log) == [b"x", b"y"]


def test_settling_from_another_handle_makes_a_late_arrival_impossible(
    log: WriteAheadLog, network: Network, host: Callable[[], Storage]
) -> None:
    network.faults = ["late"] * 10_000
    with pytest.raises(InDoubtError):
        add(log, b"x")
    other = opened(host)
    other.settle()
    assert [late() for late in network.late] == [False] * len(network.late)
    network.faults = []
    assert add(log, b"y").lsn == 2
    assert bodies(other) == bodies(log) == [b"y"]


def test_while_the_storage_does_not_answer_nothing_more_is_appended(log: WriteAheadLog, network: Network) -> None:
    network.faults = ["late"] * 10_000
    network.unreadable = True
    with pytest.raises(InDoubtError):
        add(log, b"x")
    for _ in range(3):
        with pytest.raises(PoisonedError):
            add(log, b"y")
    network.unreadable, network.faults = False, []
    assert add(log, b"z").lsn == 2
    assert bodies(log) == [b"z"]


def test_a_settling_that_the_storage_refuses_leaves_the_slot_in_doubt(log: WriteAheadLog, network: Network) -> None:
    network.faults = ["late"] * 10_000
    with pytest.raises(InDoubtError):
        add(log, b"x")
    network.faults = ["refused"]
    with pytest.raises(PoisonedError, match="slot 1"):
        add(log, b"y")
    network.created.clear()
    assert add(log, b"z").lsn == 2
    assert len(network.created) == 2, "the slot in doubt was not occupied before anything else"


def test_an_interrupt_while_the_outcome_is_unknown_says_so(
    log: WriteAheadLog, network: Network, host: Callable[[], Storage]
) -> None:
    network.faults = ["interrupt"]
    with pytest.raises(KeyboardInterrupt) as caught:
        add(log, b"x")
    assert any("it is unknown whether slot 1 " in note for note in caught.value.__notes__)
    assert add(log, b"y").lsn == 2
    assert state(opened(host)) == [(1, (), ()), (2, (b"",), (b"y",))]


def test_a_slot_that_is_there_though_its_folder_could_not_be_flushed_is_flushed_before_it_is_acknowledged() -> None:
    network = Network(MemoryStorage(MemoryPosix()))
    log = open_log(network.storage, create=True, kind="slots", clock=ManualClock(1), lock_timeout=3)
    network.faults, network.unsyncable = ["after"], 1
    assert add(log, b"x").lsn == 1
    assert network.unsyncable == 0
    network.faults, network.unsyncable = ["after"], 10_000
    with pytest.raises(InDoubtError):
        add(log, b"y")
    with pytest.raises(PoisonedError):
        add(log, b"z")
    network.unsyncable = 0
    assert add(log, b"z").lsn == 3
    assert bodies(log) == [b"x", b"y", b"z"]
    log.close()


def test_the_folder_of_a_log_whose_maker_died_is_flushed_before_anything_is_acknowledged() -> None:
    shared = MemoryPosix()
    open_log(MemoryStorage(shared), create=True, kind="slots").close()
    synced: list[tuple[Any, ...]] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method in ("sync_folder", "create"):
            synced.append((method, arguments[0]))
        return run()

    log = open_log(watched(MemoryStorage(shared), around), kind="slots")
    add(log, b"x")
    assert synced[0] == ("sync_folder", ".wal")
    log.close()


def test_ctrl_c_while_a_try_is_waited_for_ends_the_wait_and_says_what_is_in_doubt(host: Callable[[], Storage]) -> None:
    network = Network(host())
    pressed: list[float] = []

    def press(seconds: float) -> None:
        if not pressed:
            pressed.append(seconds)
            signal.raise_signal(signal.SIGINT)

    clock = ManualClock(1)
    log = open_log(network.storage, create=True, kind="slots", clock=clock, lock_timeout=1000)
    clock._on_sleep = press
    network.faults = ["late"] * 10
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            add(log, b"x")
    finally:
        signal.signal(signal.SIGINT, before)
    assert any("slot 1" in note for note in caught.value.__notes__)
    network.faults = []
    assert network.late[0]() is True
    assert add(log, b"y").lsn == 2
    assert bodies(log) == [b"x", b"y"]
    log.close()
