"""The committer's right where hosts share the storage (E22, E23): leases, epochs, marks, and who was overtaken."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wal import (
    ChangedError,
    Fence,
    LockBusyError,
    LogClosedError,
    MemoryPosix,
    MemoryStorage,
    Publication,
    RightLostError,
    Storage,
    WriteAheadLog,
    open_log,
    whoami,
)
from wal.claim import MARKS, Claim
from wal.names import Names
from wal.testing import Boundary, Call
from wal.testing.hosts import ManualClock, watched
from wal.testing.log_tools import add, files_of, state
from wal.testing.objects import Bucket, MemoryObjects

TTL = 10.0
LEASE = ".wal/apply"
NAMES = Names(".wal")


class World:
    """One log, many hosts, one time."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.disk, self.bucket = MemoryPosix(), Bucket()
        self.clock = ManualClock(1)
        self.around: Callable[[str, tuple[Any, ...], Callable[[], Any]], Any] = lambda method, arguments, run: run()

    def storage(self) -> Storage:
        inner: Storage = MemoryStorage(self.disk) if self.kind == "epochs" else MemoryObjects(self.bucket)
        return watched(inner, lambda *call: self.around(*call))

    def host(self, **options: Any) -> WriteAheadLog:
        options = {"clock": self.clock, "ttl": TTL, "lock_timeout": 0.0, "create": True, **options}
        return open_log(self.storage(), kind="slots", **options)


@pytest.fixture(params=["epochs", "lease"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def test_a_check_makes_a_request_only_if_the_last_renewal_is_old_or_it_must_know_now(world: World) -> None:
    host = world.host()
    asked: list[str] = []
    with host.right() as tenure:
        world.around = lambda method, arguments, run: (asked.append(method), run())[1]
        tenure.check()
        world.clock.now += TTL / 2
        tenure.check()
        assert not asked
        world.clock.now += 0.1
        tenure.check()
        renewal = list(asked)
        assert renewal
        tenure.check()
        assert asked == renewal
        tenure.check(now=True)
        assert asked == renewal * 2
    host.close()


def test_a_mark_is_between_0_and_the_largest_signed_number_of_64_bits(world: World) -> None:
    host = world.host()
    with host.right():
        for value in (0, 2**63 - 1):
            host.store_mark(0, value)
            assert host.load_mark(0) == value
        for value in (-1, 2**63):
            with pytest.raises(ValueError, match="a mark is 0 to"):
                host.store_mark(0, value)
    host.close()


def test_a_program_that_ends_with_the_right_in_its_hands_does_end(tmp_path: Path) -> None:
    """The thread that renews the claim does not keep it alive."""
    code = (
        "import sys, wal\n"
        "log = wal.open_log(wal.LocalStorage(sys.argv[1]), kind='slots', create=True)\n"
        "right = log.right()\nright.__enter__()\nprint('ends', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, "ends\n")


def test_what_the_last_committer_published_can_be_asked_for_without_the_right(world: World) -> None:
    host, other = world.host(), world.host()
    assert other.applying() is None
    with host.right() as tenure:
        tenure.check()
        seen = other.applying()
        assert seen is not None and (seen.held, seen.ttl) == (True, TTL)
    after = other.applying()
    assert after is not None and not after.held and after.sign != seen.sign
    host.close()
    other.close()


@pytest.fixture
def leased() -> World:
    return World("lease")


@pytest.fixture
def epochs() -> World:
    return World("epochs")


# --- who is overtaken, and who is not --------------------------------------------------------------------------------


def test_a_silent_holder_is_overtaken_after_the_time_that_the_observer_measured_itself(world: World) -> None:
    holder, other = world.host(), world.host()
    right = holder.right()
    tenure = right.__enter__()
    for _ in range(4):  # whoever polls measures over all its calls, though each gives up at once
        with pytest.raises(LockBusyError, match="sign of life"), other.right(timeout=0):
            pytest.fail("two holders")
        world.clock.now += TTL / 4
    with other.right(timeout=0) as taken:
        assert taken.died is True
        with pytest.raises(RightLostError):
            tenure.check()
    with pytest.raises(RightLostError):
        right.__exit__(None, None, None)


def test_the_first_look_begins_the_time_whatever_the_holder_did_before(world: World) -> None:
    holder = world.host()
    with holder.right() as tenure:
        world.clock.now += 100 * TTL
        other = world.host()
        with pytest.raises(LockBusyError), other.right(timeout=0):
            pytest.fail("overtaken without having been watched")
        tenure.check()


def test_a_holder_that_is_slow_but_renews_is_never_overtaken(world: World) -> None:
    holder, other = world.host(), world.host()
    with holder.right() as tenure:
        for _ in range(20):
            with pytest.raises(LockBusyError), other.right(timeout=0):
                pytest.fail("two holders")
            world.clock.now += TTL * 0.6
            tenure.check()


def test_a_waiting_host_takes_over_when_the_time_is_up(world: World) -> None:
    holder, other = world.host(), world.host(lock_timeout=3 * TTL)
    right = holder.right()
    right.__enter__()
    before = world.clock.now
    with other.right() as taken:
        assert taken.died is True
        assert TTL <= world.clock.now - before <= TTL + 0.001
    with pytest.raises(RightLostError):
        right.__exit__(None, None, None)


def test_who_waits_gives_up_when_its_own_time_is_up(world: World) -> None:
    holder, other = world.host(), world.host()
    with holder.right():
        world.clock.now += 1
        before = world.clock.now
        with pytest.raises(LockBusyError), other.right(timeout=0.4):
            pytest.fail("two holders")
        assert 0.399 < world.clock.now - before < 0.402


def test_ctrl_c_ends_the_wait_for_the_right(world: World) -> None:
    holder = world.host()
    waiting = world.host(clock=ManualClock(2, lambda _: signal.raise_signal(signal.SIGINT)))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    try:
        with holder.right():
            with pytest.raises(KeyboardInterrupt), waiting.right(timeout=5):
                pytest.fail("two holders")
            assert waiting.settings.clock.now < 1  # type: ignore[attr-defined]
    finally:
        signal.signal(signal.SIGINT, before)


def test_who_waits_long_gets_the_right_though_another_wants_it_most_of_the_time(world: World) -> None:
    """It is free for a quarter of each second. Who looked once a second could miss that for ever."""
    busy = world.host()
    held: list[Any] = []

    def turn(_: float) -> None:
        if clock.now % 1.0 >= 0.75:
            if held:
                held.pop().__exit__(None, None, None)
        elif not held:
            held.append(busy.right())
            held[0].__enter__()

    clock = ManualClock(2, turn)
    waiting = world.host(clock=clock, lock_timeout=60.0, ttl=1000.0)
    turn(0.0)
    with waiting.right():
        assert not held


def test_who_waits_does_not_ask_more_often_than_five_times_a_second(world: World) -> None:
    holder, other = world.host(), world.host(ttl=1000.0)
    asked: list[str] = []
    with holder.right():
        world.around = lambda method, arguments, run: (asked.append(method), run())[1]
        with pytest.raises(LockBusyError), other.right(timeout=60.0):
            pytest.fail("two holders")
        world.around = lambda method, arguments, run: run()
    assert 60 <= asked.count("read") <= 310


def test_a_slow_reply_does_not_make_a_living_holder_look_dead(world: World) -> None:
    """The server answered at once, the reply came late: that is no silence of the holder."""
    holder, other = world.host(), world.host()
    with holder.right():
        with pytest.raises(LockBusyError), other.right(timeout=0):
            pytest.fail("two holders")

        def slow(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
            result = run()
            if method == "read":
                world.clock.now += 2 * TTL
            return result

        world.around = slow
        with pytest.raises(LockBusyError), other.right(timeout=0):
            pytest.fail("overtaken for a slow reply")
        world.around = lambda method, arguments, run: run()


def test_the_heartbeat_renews_until_the_block_ends_and_survives_a_storage_that_does_not_answer(world: World) -> None:
    class Beating(ManualClock):
        """Lets the heartbeat go one step at a time."""

        def __init__(self) -> None:
            super().__init__(7)
            self.go, self.done, self.first = threading.Semaphore(0), threading.Semaphore(0), True

        def wait(self, event: threading.Event, seconds: float) -> bool:
            assert seconds == TTL / 3
            if not self.first:
                self.done.release()
            self.first = False
            self.go.acquire()
            return event.is_set()

        def beat(self) -> None:
            self.go.release()
            self.done.acquire()

    clock = Beating()
    holder = world.host(clock=clock)
    other = world.host()
    with holder.right():
        for failing in (False, True, False):
            with pytest.raises(LockBusyError), other.right(timeout=0):
                pytest.fail("two holders")
            if failing:
                world.around = lambda method, arguments, run: (_ for _ in ()).throw(OSError("down"))
            clock.beat()
            world.around = lambda method, arguments, run: run()
            world.clock.now += TTL * 0.9 if not failing else 0
            with pytest.raises(LockBusyError), other.right(timeout=0):
                pytest.fail("overtaken although its heart beats")
    clock.go.release()


def test_where_no_thread_can_be_started_the_claim_is_renewed_by_the_holders_own_checks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    holder, other = world.host(), world.host()
    with holder.right() as tenure:
        for _ in range(3):
            with pytest.raises(LockBusyError), other.right(timeout=0):
                pytest.fail("overtaken although it renews")
            world.clock.now += TTL * 0.6
            tenure.check()
    with other.right(timeout=0) as taken:
        assert not taken.died, "it was released"


class Waking(ManualClock):
    """Lets the heartbeat go as often as it wants to, which is not often."""

    def __init__(self) -> None:
        super().__init__(7)
        self.waits = 0

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if threading.current_thread() is threading.main_thread():
            self.waits += 1
            assert self.waits < 3, "it goes on"
            return event.is_set()
        return True


def test_a_holder_that_was_overtaken_gives_no_sign_of_life_any_more(world: World) -> None:
    """Its heartbeat ends by itself: the claim is the successor's now."""
    clock = Waking()
    holder, other = world.host(clock=clock), world.host()
    right = holder.right()
    tenure = right.__enter__()
    with pytest.raises(LockBusyError), other.right(timeout=0):
        pytest.fail("two holders")
    world.clock.now += TTL + 1
    with other.right(timeout=0):
        with pytest.raises(RightLostError):
            tenure.check(now=True)
        calls: list[str] = []
        world.around = lambda method, arguments, run: (calls.append(method), run())[1]
        tenure.beat()  # type: ignore[attr-defined]
        assert (clock.waits, calls) == (1, [])
        world.around = lambda method, arguments, run: run()
    with pytest.raises(RightLostError):
        right.__exit__(None, None, None)


def test_who_gave_the_right_back_gives_no_sign_of_life_any_more(world: World) -> None:
    """Its heartbeat would take the right back, and nobody would ever give it back again."""
    clock = Waking()
    holder, other = world.host(clock=clock), world.host()
    with holder.right() as tenure:
        pass
    calls: list[str] = []
    world.around = lambda method, arguments, run: (calls.append(method), run())[1]
    tenure.beat()  # type: ignore[attr-defined]
    assert (clock.waits, calls) == (1, [])
    with other.right(timeout=0) as taken:
        assert not taken.died


def test_a_heartbeat_that_is_late_by_the_whole_block_renews_nothing(world: World) -> None:
    class Late(Waking):
        """The block ends just when it is time to renew."""

        def wait(self, event: threading.Event, seconds: float) -> bool:
            super().wait(event, seconds)
            if threading.current_thread() is threading.main_thread() and self.waits == 1:
                right.__exit__(None, None, None)
                calls.clear()
                return False
            return True

    holder, calls = world.host(clock=(clock := Late())), list[str]()
    right = holder.right()
    tenure = right.__enter__()
    world.around = lambda method, arguments, run: (calls.append(method), run())[1]
    tenure.beat()  # type: ignore[attr-defined]
    assert (clock.waits, calls) == (1, [])


def test_a_right_that_was_asked_for_before_the_log_was_closed_is_not_given_after(world: World) -> None:
    log = world.host()
    right = log.right()
    log.close()
    calls: list[str] = []
    world.around = lambda method, arguments, run: (calls.append(method), run())[1]
    with pytest.raises(LogClosedError):
        right.__enter__()
    assert calls == []


def test_of_two_contenders_for_a_dead_holders_right_one_gets_it(world: World) -> None:
    dead = world.host().right()
    dead.__enter__()
    contenders = [world.host(), world.host()]
    for contender in contenders:
        with pytest.raises(LockBusyError), contender.right(timeout=0):
            pytest.fail("too early")
    world.clock.now += TTL + 1
    second: list[str] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == ("publish" if world.kind == "lease" else "publish_folder") and not second:
            second.append("tries")
            inner = contenders[1].right(timeout=0)
            assert inner.__enter__().died is True
            holding.callback(inner.__exit__, None, None, None)
        return run()

    with ExitStack() as holding:
        world.around = around
        with pytest.raises(LockBusyError), contenders[0].right(timeout=0):
            pytest.fail("two holders")
    with contenders[0].right(timeout=0) as tenure:
        assert not tenure.died, "who was first has been told, and has given it back"
    with pytest.raises(RightLostError):
        dead.__exit__(None, None, None)


def test_one_handles_threads_take_turns_and_time_out_by_name(world: World) -> None:
    log = world.host()
    failed: list[BaseException] = []

    def second() -> None:
        try:
            with log.right(timeout=0):
                pytest.fail("two holders")
        except LockBusyError as error:
            failed.append(error)

    with log.right():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "a thread of this process has it" in str(failed[0])


def test_closing_while_the_right_is_held_lets_the_holder_finish_and_nobody_after_it(world: World) -> None:
    log, other = world.host(), world.host()
    with log.right(), pytest.raises(LockBusyError), other.right(timeout=0):
        pytest.fail("two holders")
    with log.right():
        thread = threading.Thread(target=log.close)
        thread.start()
        thread.join()
    with pytest.raises(LogClosedError), log.right():
        pytest.fail("closed")
    with other.right(timeout=0) as tenure:
        assert tenure.died is False


def test_after_a_fork_the_child_is_another_host_and_the_parents_right_stays(world: World) -> None:
    parent = world.host()
    child = world.host()  # stands for the inherited handle: its state is made anew as in the child
    with child.right():
        child.store_mark(0, 4)
    with parent.right() as tenure:
        child._renewal.pid = -1  # type: ignore[attr-defined]
        child.reset_after_fork()
        assert child.load_mark(0) == 4
        with pytest.raises(LockBusyError), child.right(timeout=0):
            pytest.fail("two holders")
        assert add(child, b"x").lsn == child.known()
        tenure.check()


def test_an_error_in_the_block_gives_the_right_back_and_a_lost_reply_to_that_hides_nothing(world: World) -> None:
    log, other = world.host(), world.host()
    with pytest.raises(KeyError), log.right():
        raise KeyError
    with other.right(timeout=0) as tenure:
        assert tenure.died is False

    def down(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        raise OSError(errno.ETIMEDOUT, "down")

    with pytest.raises(KeyError), log.right():
        world.around = down
        raise KeyError
    world.around = lambda method, arguments, run: run()
    with pytest.raises(OSError, match="down"), log.right():  # its own, not given back: it takes it again
        world.around = down
    world.around = lambda method, arguments, run: run()
    with log.right(timeout=0):
        assert True


# --- marks -----------------------------------------------------------------------------------------------------------


def test_marks_travel_and_never_fall_on_the_way(world: World) -> None:
    one, two, three = world.host(), world.host(), world.host()
    with one.right():
        one.store_mark(0, 5)
        one.store_mark(1, 9)
    two.store_mark(0, 7)
    with two.right():
        assert (two.load_mark(0), two.load_mark(1)) == (7, 9)
    with three.right():
        assert (three.load_mark(0), three.load_mark(1)) == (7, 9)


def test_a_mark_that_was_set_without_the_right_reaches_nobody(world: World) -> None:
    one, two = world.host(), world.host()
    with one.right():
        one.store_mark(0, 5)
    one.store_mark(0, 50)
    with two.right():
        assert two.load_mark(0) == 5


def test_what_an_overtaken_holder_says_of_its_marks_reaches_nobody(world: World) -> None:
    holder, other, third = world.host(), world.host(), world.host()
    right = holder.right()
    tenure = right.__enter__()
    holder.store_mark(0, 3)
    tenure.check()
    with pytest.raises(LockBusyError), other.right(timeout=0):
        pytest.fail("two holders")
    world.clock.now += TTL + 1
    with other.right(timeout=0):
        holder.store_mark(0, 99)
        with pytest.raises(RightLostError):
            right.__exit__(None, None, None)
    with third.right(timeout=0):
        assert third.load_mark(0) <= 3


def test_a_mark_that_a_holder_published_reaches_its_successor_though_the_holder_wrote_nothing_after(
    world: World,
) -> None:
    """What may be removed once a mark is published, nobody needs who comes after (I5)."""
    holder, other = world.host(), world.host()
    right = holder.right()
    tenure = right.__enter__()
    holder.store_mark(0, 3)
    tenure.check(now=True)
    with pytest.raises(LockBusyError), other.right(timeout=0):
        pytest.fail("two holders")
    world.clock.now += TTL + 1
    with other.right(timeout=0):
        assert other.load_mark(0) == 3
        with pytest.raises(RightLostError):
            right.__exit__(None, None, None)


@pytest.mark.parametrize("between", [True, False], ids=["another died between", "next"])
def test_marks_that_were_published_after_another_had_looked_reach_it(epochs: World, between: bool) -> None:
    """It found the right free, and slept; the holder took its own epoch again, and published a mark."""
    holder, dying, other = epochs.host(), epochs.host(), epochs.host()
    with holder.right():
        holder.store_mark(0, 1)
    again: list[Any] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "publish_folder" and not again:
            again.append(holder.right(timeout=0))
            tenure = again[0].__enter__()
            holder.store_mark(0, 3)
            tenure.check(now=True)
        elif method == "retire" and between and len(again) == 1:
            again.append("died")
            raise OSError("died here")
        return run()

    epochs.around = around
    if between:
        with pytest.raises(OSError, match="died here"), dying.right(timeout=0):
            pytest.fail("it died")
        with pytest.raises(LockBusyError), other.right(timeout=0):
            pytest.fail("two holders")
        epochs.clock.now += TTL + 1
    with other.right(timeout=0):
        assert other.load_mark(0) == 3
    with pytest.raises(RightLostError):
        again[0].__exit__(None, None, None)
    with holder.right(timeout=0):
        assert holder.load_mark(0) == 3


def test_who_takes_the_right_learns_how_far_the_log_is_trimmed_though_the_claim_before_is_lost(world: World) -> None:
    holder, other = world.host(), world.host()
    for number in range(3):
        add(holder, b"%d" % number)
    assert other.head() == 3
    with holder.right():
        holder.trim(2)
    world.storage().erase(LEASE if world.kind == "lease" else f"{NAMES.epoch(1)}/owner")
    assert other.trimmed() == 0
    with other.right(timeout=0):
        assert other.trimmed() == 2


# --- E22: epochs -----------------------------------------------------------------------------------------------------

STEPS: dict[str, Callable[[Storage], object]] = {
    "publish a new file": lambda s: s.publish("m/v9/x", b"zombie", b"", durable=True),
    "replace a file": lambda s: s.publish("m/v1/x", b"zombie", b"", durable=True),
    "publish at the root": lambda s: s.publish("zombie", b"zombie", b"", durable=True),
    "publish a folder": lambda s: s.publish_folder("m/v8", [Publication("m/v8/x", b"zombie", b"")]),
    "publish a folder below a missing one": lambda s: s.publish_folder("n/v8", [Publication("n/v8/x", b"", b"")]),
    "set a file aside": lambda s: s.set_aside("m/v1/x", ".wal/trash/1/x"),
    "set a folder aside": lambda s: s.set_aside("m/v1", ".wal/trash/1/v1"),
    "make a folder": lambda s: s.make_folder("m/v7"),
    "mark a folder": lambda s: s.make_folder("m/v1", b"zombie"),
    "erase a file": lambda s: s.erase("m/v1/x"),
    "erase a folder": lambda s: s.erase("m/v1"),
}


def tree(storage: Storage, folder: str = "") -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for entry in storage.list(folder):
        name = f"{folder}/{entry.name}".lstrip("/")
        if name == ".wal":
            continue
        if entry.kind.value == "folder":
            found[f"{name}/"] = storage.attribute(name)
            found |= tree(storage, name)
        else:
            found[name] = storage.read(name).data
    return found


@pytest.mark.parametrize("step", STEPS)
def test_an_overtaken_holder_of_an_epoch_changes_nothing(epochs: World, step: str) -> None:
    holder, other = epochs.host(), epochs.host()
    plain = epochs.storage()
    plain.publish("m/v1/x", b"x", b"", durable=True)
    right = holder.right()
    tenure = right.__enter__()
    with pytest.raises(LockBusyError), other.right(timeout=0):
        pytest.fail("two holders")
    epochs.clock.now += TTL + 1
    with other.right(timeout=0) as taken:
        before = tree(plain)
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            STEPS[step](tenure.storage)
        assert tree(plain) == before
        STEPS[step](taken.storage)  # the successor's works
    assert tree(plain) != before
    with pytest.raises(RightLostError):
        right.__exit__(None, None, None)


def test_a_holder_that_took_its_free_epoch_again_while_another_took_over_counts_as_cut_off(epochs: World) -> None:
    """The successor saw a free epoch; until its folder is moved away, its holder may come back and begin."""
    holder, other = epochs.host(), epochs.host()
    with holder.right():
        pass
    inner: list[Any] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "publish_folder" and not inner:
            inner.append(holder.right(timeout=0))
            inner[0].__enter__()
        return run()

    epochs.around = around
    with other.right(timeout=0) as tenure:
        assert tenure.died is True
        with pytest.raises(RightLostError):
            inner[0].__exit__(None, None, None)


def test_a_successor_that_died_before_it_had_cleared_away_is_made_good_by_the_next(epochs: World) -> None:
    hosts = [epochs.host() for _ in range(4)]
    zombies = []
    for number, host in enumerate(hosts[:3]):
        if number:
            with pytest.raises(LockBusyError), host.right(timeout=0):
                pytest.fail("two holders")
            epochs.clock.now += TTL + 1

            def dying(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
                if method == "retire":
                    raise OSError("died here")
                return run()

            epochs.around = dying
            with pytest.raises(OSError, match="died here"), host.right(timeout=0):
                pytest.fail("it died")
            epochs.around = lambda method, arguments, run: run()
        else:
            right = host.right()
            zombies.append((right, right.__enter__()))
    with pytest.raises(LockBusyError), hosts[3].right(timeout=0):
        pytest.fail("two holders")
    epochs.clock.now += TTL + 1
    with hosts[3].right(timeout=0) as tenure:
        assert tenure.died is True
        with pytest.raises(FileNotFoundError):
            zombies[0][1].storage.publish("x", b"zombie", b"", durable=True)
        names = {entry.name for entry in epochs.storage().list(".wal/epoch")}
        assert len(names) == 4, "an epoch's name stays"
    with pytest.raises(RightLostError):
        zombies[0][0].__exit__(None, None, None)


def test_a_holders_folder_is_gone_for_good_before_its_successor_says_that_no_earlier_one_is_left(epochs: World) -> None:
    """Else a power loss could bring it back, and its holder could go on; later successors look only as far as here."""
    with epochs.host().right():
        pass
    other = epochs.host()
    calls: list[tuple[str, str]] = []
    epochs.around = lambda method, arguments, run: (calls.append((method, arguments[0])), run())[1]
    with other.right():
        pass
    moved = calls.index(("retire", f"{NAMES.epoch(1)}/work"))
    assert ("sync_folder", NAMES.epoch(2)) in calls[:moved], "nor may another claim the same epoch after a power loss"
    assert ("sync_folder", NAMES.epoch(1)) in calls[moved : calls.index(("publish", f"{NAMES.epoch(2)}/owner"))]
    calls.clear()
    with epochs.host().right():
        pass
    assert [name for method, name in calls if method == "retire"] == [f"{NAMES.epoch(2)}/work"]


def test_what_a_holder_says_of_itself_is_durable_before_it_replaces_what_was_there(epochs: World) -> None:
    """Else a power loss could leave an empty claim, whose marks nobody knows."""
    synced: list[str] = []
    said: list[bool] = []

    class Disk(Boundary):
        def around(self, call: Call, run: Callable[[], Any], tear: Callable[[], Any] | None) -> Any:
            if call.method in ("fsync", "fdatasync"):
                synced.append(call.path)
            elif call.method == "rename" and str(call.arguments[1]).endswith("/owner"):
                said.append(call.arguments[0] in synced)
            return run()

    log = open_log(MemoryStorage(Disk(epochs.disk)), kind="slots", create=True, clock=epochs.clock, ttl=TTL)
    with log.right() as tenure:
        tenure.check(now=True)
    assert said == [True] * 3, "that it has cleared away, its renewal, and that it gave back"
    log.close()


@pytest.mark.parametrize("lost", ["/work", ""])
def test_a_handle_whose_folder_was_removed_by_hand_claims_an_epoch_anew(epochs: World, lost: str) -> None:
    log = epochs.host()
    with log.right():
        pass
    epochs.storage().erase(f"{NAMES.epoch(1)}{lost}")
    with log.right() as tenure:
        tenure.storage.publish("x", b"1", b"", durable=True)
    assert epochs.storage().read("x").data == b"1"


def test_a_claimant_that_failed_to_clear_away_does_so_when_it_tries_again(epochs: World) -> None:
    holder, other = epochs.host(), epochs.host()
    right = holder.right()
    tenure = right.__enter__()
    with pytest.raises(LockBusyError), other.right(timeout=0):
        pytest.fail("two holders")
    epochs.clock.now += TTL + 1
    failed: list[str] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "retire" and not failed:
            failed.append(method)
            raise OSError(errno.ETIMEDOUT, "down")
        return run()

    epochs.around = around
    with pytest.raises(OSError, match="down"), other.right(timeout=0):
        pytest.fail("it is not cleared away")
    with other.right(timeout=0), pytest.raises(FileNotFoundError):
        tenure.storage.publish("x", b"zombie", b"", durable=True)
    with pytest.raises(RightLostError):
        right.__exit__(None, None, None)


def test_who_failed_to_take_over_from_a_dead_holder_knows_of_it_when_it_tries_again(world: World) -> None:
    """Its own claim is there by then. It must follow the log all the same, and tell that the holder died, once."""
    dead, other = world.host(), world.host()
    right = dead.right()
    right.__enter__()
    with pytest.raises(LockBusyError), other.right(timeout=0):
        pytest.fail("two holders")
    world.clock.now += TTL + 1
    failed: list[str] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if not failed and (method == "publish_folder" or (method == "publish" and arguments[0] == LEASE)):
            failed.append(method)
            run()
            raise OSError(errno.ETIMEDOUT, "the reply was lost")
        return run()

    world.around = around
    with pytest.raises(OSError, match="reply"), other.right(timeout=0):
        pytest.fail("whether it was taken is not known")
    last = add(dead, b"later").lsn
    with other.right(timeout=0) as tenure:
        assert tenure.died
        assert other.known() >= last
    with other.right(timeout=0) as tenure:
        assert not tenure.died
    with pytest.raises(RightLostError):
        right.__exit__(None, None, None)


def test_a_claimant_that_died_when_it_had_cleared_away_is_made_good_by_the_next(epochs: World) -> None:
    """The folders that it moved away are gone by then; that it did so it could not say any more."""
    holder, dying, other = epochs.host(), epochs.host(), epochs.host()
    right = holder.right()
    tenure = right.__enter__()
    for host in (dying, other):
        with pytest.raises(LockBusyError), host.right(timeout=0):
            pytest.fail("two holders")
    epochs.clock.now += TTL + 1

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "publish":
            raise OSError("died here")
        return run()

    epochs.around = around
    with pytest.raises(OSError, match="died here"), dying.right(timeout=0):
        pytest.fail("it died")
    epochs.around = lambda method, arguments, run: run()
    with pytest.raises(LockBusyError), other.right(timeout=0):
        pytest.fail("the claim of the one who died is new")
    epochs.clock.now += TTL + 1
    with other.right(timeout=0) as taken:
        assert taken.died is True
        with pytest.raises(FileNotFoundError):
            tenure.storage.publish("x", b"zombie", b"", durable=True)
        taken.storage.publish("x", b"1", b"", durable=True)
    assert epochs.storage().read("x").data == b"1"
    assert epochs.storage().list(NAMES.quarantine_folder) == []
    with pytest.raises(RightLostError):
        right.__exit__(None, None, None)


def test_a_claimant_that_is_overtaken_while_it_clears_away_does_not_get_the_right(epochs: World) -> None:
    """It slept after it had moved the folder away; its successor has moved and removed that again."""
    holder, slow, other, taken = epochs.host(), epochs.host(), epochs.host(), ExitStack()
    right = holder.right()
    right.__enter__()
    with pytest.raises(LockBusyError), slow.right(timeout=0):
        pytest.fail("two holders")
    epochs.clock.now += TTL + 1
    asleep: list[str] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if (method, *arguments) == ("list", NAMES.moved_away(1)) and not asleep:
            asleep.append("here")
            with pytest.raises(LockBusyError), other.right(timeout=0):
                pytest.fail("two holders")
            epochs.clock.now += TTL + 1
            assert taken.enter_context(other.right(timeout=0)).died is True
        return run()

    epochs.around = around
    with taken:
        with pytest.raises(LockBusyError), slow.right(timeout=0):
            pytest.fail("two holders")
        assert asleep
    assert epochs.storage().list(NAMES.quarantine_folder) == []
    with pytest.raises(RightLostError):
        right.__exit__(None, None, None)


class Interposed(MemoryPosix):
    """A disk on which something happens just before a file gets its name."""

    def __init__(self, server: MemoryPosix, name: str, happen: Callable[[], object]) -> None:
        super().__init__()
        self.__dict__.update(server.__dict__)
        self._name, self._happen = name, happen

    def rename(self, source: str, target: str) -> None:
        if target.endswith(self._name):
            self._happen()
        super().rename(source, target)


def test_what_a_holder_was_about_to_publish_when_it_was_overtaken_is_kept_and_not_seen(epochs: World) -> None:
    """E22: it had written the file and slept; the last step, to give it its name, fails."""
    other, taken = epochs.host(), ExitStack()

    def overtake() -> None:
        with pytest.raises(LockBusyError), other.right(timeout=0):
            pytest.fail("two holders")
        epochs.clock.now += TTL + 1
        assert taken.enter_context(other.right(timeout=0)).died is True

    epochs.storage().publish("m/v1/y", b"y", b"", durable=True)
    client = MemoryStorage(Interposed(epochs.disk, "m/v1/x", overtake))
    holder = open_log(client, kind="slots", create=True, clock=epochs.clock, ttl=TTL, lock_timeout=0.0)
    with taken:
        with pytest.raises(RightLostError), holder.right() as tenure:
            with pytest.raises((FileNotFoundError, NotADirectoryError)):
                tenure.storage.publish("m/v1/x", b"late", b"", durable=True)
            tenure.check(now=True)
        storage = epochs.storage()
        assert storage.entry("m/v1/x") is None
        kept = files_of(storage, NAMES.moved_away(1))
        assert b"late" in kept.values(), "evidence is kept"


def test_an_own_epoch_that_another_took_over_between_look_and_take_is_not_taken_again(epochs: World) -> None:
    holder, other = epochs.host(), epochs.host()
    with holder.right():
        pass
    taken: list[Any] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "publish" and not taken:
            taken.append(other.right(timeout=0))
            taken[0].__enter__()
        return run()

    epochs.around = around
    with pytest.raises(LockBusyError), holder.right(timeout=0):
        pytest.fail("two holders")
    taken[0].__exit__(None, None, None)
    with holder.right(timeout=0) as tenure:
        tenure.storage.publish("x", b"1", b"", durable=True)
    assert epochs.storage().read("x").data == b"1"


@pytest.mark.parametrize("how", ["vanished", "empty", "cut", "no object"])
def test_a_lost_or_damaged_owner_of_an_epoch_is_overtaken_and_counts_as_cut_off(epochs: World, how: str) -> None:
    holder, other = epochs.host(), epochs.host()
    right = holder.right()
    tenure = right.__enter__()
    owner, plain = f"{NAMES.epoch(1)}/owner", epochs.storage()
    data = plain.read(owner).data
    if how == "vanished":
        plain.erase(owner)
    else:
        plain.publish(owner, {"empty": b"", "cut": data[:-9], "no object": b"[1]"}[how], b"", durable=True)
    with other.right(timeout=0) as taken:
        assert taken.died is True, "nobody knows what became of the holder before"
        with pytest.raises(FileNotFoundError):
            tenure.storage.publish("x", b"zombie", b"", durable=True)
        with pytest.raises(RightLostError):
            tenure.check(now=True)
    with pytest.raises(RightLostError):
        right.__exit__(None, None, None)


class Remembering(MemoryPosix):
    """A client of a network filesystem: what a folder's name meant once, it means on, until the folder is removed."""

    def __init__(self, server: MemoryPosix) -> None:
        super().__init__()
        self.__dict__.update(server.__dict__)
        self._meant: dict[str, Any] = {}

    def _find(self, path: str) -> Any:
        known = self._meant.get(path)
        if known is not None and known.links:
            return known
        above, _, name = path.rstrip("/").rpartition("/")
        if not name:
            return super()._find(path)
        inode = self._find(above)
        if not inode.folder or name not in inode.entries:
            return super()._find(path)
        found = inode.entries[name]
        if found.folder:
            self._meant[path] = found
        return found


@pytest.mark.parametrize("step", STEPS)
def test_a_holder_whose_system_remembers_where_its_folder_was_changes_nothing_either(epochs: World, step: str) -> None:
    """E22: NFS leads by handles, not by names."""
    epochs.storage().publish("m/v1/x", b"x", b"", durable=True)
    client = MemoryStorage(Remembering(epochs.disk))
    holder = open_log(client, kind="slots", create=True, clock=epochs.clock, ttl=TTL, lock_timeout=0.0)
    other = epochs.host()
    right = holder.right()
    tenure = right.__enter__()
    tenure.storage.publish("m/v1/y", b"y", b"", durable=True)
    with pytest.raises(LockBusyError), other.right(timeout=0):
        pytest.fail("two holders")
    epochs.clock.now += TTL + 1
    with other.right(timeout=0):
        before = tree(epochs.storage())
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            STEPS[step](tenure.storage)
        assert tree(epochs.storage()) == before
    with pytest.raises(RightLostError):
        right.__exit__(None, None, None)


def test_what_was_on_its_way_through_a_fence_is_kept_and_a_retiring_that_was_cut_short_is_finished(
    epochs: World,
) -> None:
    storage = epochs.storage()
    for number in range(3):
        storage.publish(f"e/work/{number}", b"%d" % number, b"", durable=True)
    storage.publish("q/e.leaving/3", b"3", b"", durable=True)
    storage.erase("e/work")
    storage.publish("q/e/3", b"another", b"", durable=True)
    for _ in range(2):
        storage.retire("e/work", "q/e")
        assert {entry.name for entry in storage.list("q/e")} == {"3", "3.1"}
        assert storage.entry("q/e.leaving") is None
    for number in range(3):
        storage.publish(f"e/work/{number}", b"%d" % number, b"", durable=True)
    storage.retire("e/work", "q/e")
    assert {entry.name for entry in storage.list("q/e")} == {"0", "1", "2", "3", "3.1"}
    assert storage.entry("e/work") is None


# --- E23: leases -----------------------------------------------------------------------------------------------------


def damaged(world: World, how: str) -> None:
    objects = world.bucket.objects
    claim = Claim.decode(objects[LEASE].data)
    assert claim is not None
    if how == "vanished":
        del objects[LEASE]
    elif how == "of another log":
        world.bucket.put(LEASE, replace(claim, log="00" * 16).encode(), b"")
    elif how == "an older epoch":
        world.bucket.put(LEASE, replace(claim, epoch=0, counter=0, held=False, marks=(0,) * 8).encode(), b"")
    else:
        wrong = {"empty": b"", "cut": objects[LEASE].data[:-9], "no object": b"[1]", "deep": b"[" * 100_000}[how]
        world.bucket.put(LEASE, wrong, b"")


@pytest.mark.parametrize("how", ["vanished", "of another log", "empty", "cut", "no object", "deep"])
def test_a_lost_or_damaged_lease_is_made_anew_with_a_later_epoch_and_its_holder_is_lost(
    leased: World, how: str
) -> None:
    holder, other = leased.host(), leased.host()
    add(holder, b"x")
    right = holder.right()
    tenure = right.__enter__()
    old = Claim.decode(leased.bucket.objects[LEASE].data)
    version = tenure.storage.publish("x", b"1", b"", durable=True, expect="")
    damaged(leased, how)
    with other.right(timeout=0) as taken:
        new = Claim.decode(leased.bucket.objects[LEASE].data)
        assert old is not None and new is not None and new.epoch > old.epoch
        assert taken.died is True, "nobody knows what became of the holder before"
        taken.storage.publish("x", b"2", b"", durable=True, expect=version)
        with pytest.raises(ChangedError):
            tenure.storage.publish("x", b"zombie", b"", durable=True, expect=version)
        leased.clock.now += TTL
        with pytest.raises(RightLostError):
            tenure.check()
    with pytest.raises(RightLostError):
        right.__exit__(None, None, None)
    assert [lsn for lsn, _, _ in state(holder)] == list(range(1, new.epoch + 1))


def test_epochs_come_never_again_however_often_the_lease_is_removed(leased: World) -> None:
    seen = []
    for number in range(5):
        with leased.host().right():
            claim = Claim.decode(leased.bucket.objects[LEASE].data)
            assert claim is not None
            seen.append(claim.epoch)
        if number % 2:
            del leased.bucket.objects[LEASE]
    assert seen == sorted(seen)
    assert seen[2] > seen[1] and seen[4] > seen[3]


def test_a_lease_that_is_removed_while_it_is_being_taken_is_looked_for_again(leased: World) -> None:
    first, second = leased.host(), leased.host(lock_timeout=5.0)
    with first.right():
        pass
    removed: list[str] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "publish" and not removed:
            removed.append(LEASE)
            del leased.bucket.objects[LEASE]
        return run()

    leased.around = around
    with second.right() as tenure:
        tenure.check()


@pytest.mark.parametrize("when", ["take", "renew", "give back"])
@pytest.mark.parametrize("landed", [True, False])
def test_a_lost_reply_on_the_lease_is_ones_own_success_or_tried_again(leased: World, when: str, landed: bool) -> None:
    log, other = leased.host(), leased.host()
    with log.right():
        pass
    lost: list[str] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "publish" and not lost:
            lost.append(method)
            if landed:
                run()
            raise OSError(errno.ETIMEDOUT, "reply lost")
        return run()

    if when == "take":
        leased.around = around
        with pytest.raises(OSError, match="reply lost"), log.right():
            pytest.fail("it is not known whether it is ours")
    elif when == "renew":
        with log.right() as tenure:
            leased.clock.now += TTL * 0.6
            leased.around = around
            with pytest.raises(OSError, match="reply lost"):
                tenure.check()
            tenure.check()
    else:
        with pytest.raises(OSError, match="reply lost"), log.right():
            leased.around = around
    assert lost
    with log.right(timeout=0) as tenure:
        assert tenure.died is False
    with other.right(timeout=0) as tenure:
        assert tenure.died is False


def test_an_epoch_whose_slot_stays_unknown_is_an_error_of_the_storage_and_no_commit_in_doubt(leased: World) -> None:
    log = leased.host()

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "create":
            raise OSError(errno.ETIMEDOUT, "on its way")
        return run()

    leased.around = around
    with pytest.raises(OSError, match="epoch"), log.right():
        pytest.fail("without an epoch")
    leased.around = lambda method, arguments, run: run()
    with log.right() as tenure:
        tenure.check()


def test_who_could_not_take_a_slot_for_the_first_epoch_has_overtaken_nobody(leased: World) -> None:
    log = leased.host()

    def full(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "create":
            raise OSError(errno.ENOSPC, "No space")
        return run()

    leased.around = full
    with pytest.raises(OSError, match="No space"), log.right():
        pytest.fail("without an epoch")
    leased.around = lambda method, arguments, run: run()
    with log.right() as tenure:
        assert not tenure.died


def test_a_holder_whose_replies_are_all_lost_still_shows_signs_of_life(leased: World) -> None:
    holder, other = leased.host(), leased.host()

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        result = run()
        if method == "publish":
            raise OSError(errno.ETIMEDOUT, "reply lost")
        return result

    with holder.right() as tenure:
        for _ in range(6):
            with pytest.raises(LockBusyError), other.right(timeout=0):
                pytest.fail("overtaken although it renews")
            leased.clock.now += TTL * 0.6
            leased.around = around
            with pytest.raises(OSError, match="reply lost"):
                tenure.check()
            leased.around = lambda method, arguments, run: run()


def test_a_renewal_that_lands_after_another_took_over_is_refused(leased: World) -> None:
    holder, other = leased.host(), leased.host()
    late: list[Callable[[], Any]] = []
    right = holder.right()
    tenure = right.__enter__()
    leased.clock.now += TTL * 0.6

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "publish":
            late.append(run)
            raise OSError("on its way")
        return run()

    leased.around = around
    with pytest.raises(OSError, match="on its way"):
        tenure.check()
    leased.around = lambda method, arguments, run: run()
    with pytest.raises(LockBusyError), other.right(timeout=0):
        pytest.fail("two holders")
    leased.clock.now += TTL + 1
    with other.right(timeout=0):
        with pytest.raises(ChangedError):
            late[0]()
        with pytest.raises(RightLostError):
            tenure.check()
    with pytest.raises(RightLostError):
        right.__exit__(None, None, None)


@pytest.mark.parametrize("field", ["log", "token", "holder", "counter", "held", "epoch", "clean", "marks"])
@pytest.mark.parametrize("value", [None, -1, "x", True, [], [0] * 9, {}, 1.5])
def test_a_claim_with_impossible_fields_is_none(field: str, value: object) -> None:
    claim = Claim("00" * 16, "11", "me", 1, True, 2, False, (0,) * 8)
    fields = json.loads(claim.encode())
    assert Claim.decode(json.dumps(fields).encode()) == claim
    assert type(fields[field]) is type(value) or Claim.decode(json.dumps({**fields, field: value}).encode()) is None
    del fields[field]
    assert Claim.decode(json.dumps(fields).encode()) is None


@pytest.mark.parametrize("field", [{"counter": -1}, {"epoch": -1}, {"marks": (0,) * (MARKS - 1) + (-1,)}])
def test_a_claim_with_a_number_below_0_is_none(field: dict[str, Any]) -> None:
    claim = Claim("00" * 16, "11", "me", 0, True, 0, False, (0,) * MARKS)
    assert Claim.decode(claim.encode()) == claim
    assert Claim.decode(replace(claim, **field).encode()) is None


def test_the_first_holder_claims_epoch_1_and_renews_its_claim_when_it_gives_back(world: World) -> None:
    log, storage = world.host(), world.storage()
    name = LEASE if world.kind == "lease" else f"{NAMES.epoch(1)}/owner"
    expected = Claim(log.id, "", whoami(), counter=1, held=True, epoch=1, clean=True, marks=(0,) * MARKS)
    calls: list[str] = []
    world.around = lambda method, arguments, run: (calls.append(arguments[0]), run())[1]
    with log.right() as tenure:
        assert not any(call.startswith(NAMES.epoch(0)) for call in calls), "there is no epoch 0"
        calls.clear()
        tenure.check()
        assert calls == [], "who has shown a sign of life just now asks nobody"
        claim = Claim.decode(storage.read(name).data)
        assert claim is not None and len(claim.token) == 32
        assert replace(claim, token="") == expected
    assert Claim.decode(storage.read(name).data) == replace(claim, counter=2, held=False)


def test_who_takes_the_right_again_that_nobody_had_since_does_not_look_at_the_log(world: World) -> None:
    log, other = world.host(), world.host()
    for holder, looks in ((log, True), (log, False), (other, True), (log, True)):
        calls: list[str] = []
        world.around = lambda method, arguments, run: (calls.append(arguments[0]), run())[1]  # noqa: B023
        with holder.right():
            pass
        assert (NAMES.slot(holder.known() + 1) in calls) is looks


def test_who_takes_an_epoch_again_asks_only_whether_there_is_a_next_one(epochs: World) -> None:
    log = epochs.host()
    for last in (1, 2):
        with log.right():
            pass
        calls: list[tuple[str, str]] = []
        epochs.around = lambda method, arguments, run: (calls.append((method, arguments[0])), run())[1]  # noqa: B023
        with log.right():
            pass
        owner = ("publish", f"{NAMES.epoch(last)}/owner")
        assert calls == [("entry", NAMES.epoch(last + 1)), owner, owner]
        epochs.around = lambda method, arguments, run: run()
        epochs.storage().erase(f"{NAMES.epoch(last)}/work")  # so that it claims another one


def test_objects_have_no_epoch_folders_and_mounts_no_lease(world: World) -> None:
    log = world.host()
    with log.right():
        pass
    storage = world.storage()
    assert (storage.entry(LEASE) is not None) is (storage.capabilities.fence is Fence.VERSION)
    assert (storage.entry(".wal/epoch") is not None) is (world.kind == "epochs")
