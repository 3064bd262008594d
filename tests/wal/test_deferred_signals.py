"""Inside a block signals wait: for a safe point, or for the block's end."""

from __future__ import annotations

import dis
import gc
import linecache
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any

import pytest

import wal
from tests.wal.test_log_slots_fork import in_a_child
from wal import append_log, chain, interrupts, shelf
from wal.append_log import AppendLog
from wal.interrupts import SIGNALS, DeferredInterrupt, is_deferred, safe_point, tell, undisturbed
from wal.testing.boundary import Boundary
from wal.testing.log_tools import add, bodies

SEED = random.randrange(2**32)
Handler = Callable[[int, FrameType | None], object]


class Stop(Exception):
    """Raised by handlers."""


def stop(number: int, frame: FrameType | None) -> None:
    raise Stop(number)


@contextmanager
def installed(*handlers: tuple[int, Handler]) -> Iterator[None]:
    before = [(number, signal.signal(number, handler)) for number, handler in handlers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What a handler raises within others' callbacks of the collector is swallowed."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert interrupts._MainThread.depth == 0
    assert not interrupts._pending
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_signals_that_programs_raise_from_are_deferred() -> None:
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGHUP, signal.SIGQUIT} < set(SIGNALS)
    assert {signal.SIGUSR1, signal.SIGUSR2} < set(SIGNALS)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_programs_handler_of_each_is_called_when_the_outermost_block_ends(number: int) -> None:
    reached = []
    with installed((number, stop)):
        with pytest.raises(Stop), DeferredInterrupt():
            with DeferredInterrupt():
                signal.raise_signal(number)
                reached.append("within")
            reached.append("behind the inner one")
        assert signal.getsignal(number) is stop
    assert len(reached) == 2


def test_a_handler_that_returns_lets_the_work_go_on() -> None:
    called: list[int] = []
    with installed((signal.SIGTERM, lambda number, _: called.append(number))), DeferredInterrupt():
        signal.raise_signal(signal.SIGTERM)
        assert not called
        safe_point()
        assert called == [signal.SIGTERM]
        safe_point()
        assert called == [signal.SIGTERM]


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_what_is_no_handler_of_python_stays(handler: signal.Handlers) -> None:
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with DeferredInterrupt():
            assert signal.getsignal(signal.SIGUSR1) is handler
        assert signal.getsignal(signal.SIGUSR1) is handler
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_handler_that_is_installed_within_a_block_stays_and_gets_what_waits() -> None:
    called: list[int] = []

    def other(number: int, frame: FrameType | None) -> None:
        called.append(number)

    with installed((signal.SIGALRM, stop)):
        with DeferredInterrupt():
            signal.raise_signal(signal.SIGALRM)
            signal.signal(signal.SIGALRM, other)
        assert called == [signal.SIGALRM]
        assert signal.getsignal(signal.SIGALRM) is other


@pytest.mark.parametrize("none", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_signal_whose_handler_was_removed_meanwhile_is_dropped_as_python_drops_it(none: signal.Handlers) -> None:
    with installed((signal.SIGALRM, stop)):
        with DeferredInterrupt():
            signal.raise_signal(signal.SIGALRM)
            signal.signal(signal.SIGALRM, none)
        assert signal.getsignal(signal.SIGALRM) is none


def test_an_event_loop_hears_of_a_deferred_signal_once() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False), theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno())
    try:
        with installed((signal.SIGTERM, lambda *_: None)), DeferredInterrupt():
            signal.raise_signal(signal.SIGTERM)
            safe_point()
    finally:
        signal.set_wakeup_fd(before)
    assert ours.recv(100) == bytes([signal.SIGTERM])
    ours.close(), theirs.close()


def test_a_sub_interpreter_which_can_set_no_handlers_has_blocks_all_the_same() -> None:
    code = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
inner = interpreters.create()
found = interpreters.run_string(inner, f"import sys; sys.path[:] = {sys.path!r}\\nfrom wal.interrupts import "
    "DeferredInterrupt\\nwith DeferredInterrupt():\\n    print('in it', flush=True)")
assert found is None, found
"""
    alone = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }  # fails in such a one
    done = subprocess.run([sys.executable, "-c", code], env=alone, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "in it\n", "")


def test_a_python_without_sub_interpreters_is_the_main_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr(interrupts.importlib, "import_module", absent)
    assert interrupts._is_main_interpreter()


def test_a_handler_that_another_installs_at_a_safe_point_is_deferred_too_and_stays() -> None:
    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGALRM, stop)

    reached = []
    with installed((signal.SIGTERM, first), (signal.SIGALRM, signal.default_int_handler)):
        with pytest.raises(Stop), DeferredInterrupt():
            signal.raise_signal(signal.SIGTERM)
            safe_point()
            signal.raise_signal(signal.SIGALRM)
            reached.append("behind it")
        assert signal.getsignal(signal.SIGALRM) is stop
    assert reached


def test_all_that_wait_are_called_once_each_in_order_although_some_raise() -> None:
    called: list[int] = []

    def noted(number: int, frame: FrameType | None) -> None:
        called.append(number)
        if number != signal.SIGUSR1:
            raise Stop(number)

    handlers = [(number, noted) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)]
    with installed(*handlers):
        with pytest.raises(Stop) as caught, DeferredInterrupt():
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM, signal.SIGALRM):
                signal.raise_signal(number)
        assert called == [signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM]
        assert caught.value.args == (signal.SIGALRM,)
        assert isinstance(caught.value.__context__, Stop), "the first is not forgotten"


def test_what_another_handler_has_called_meanwhile_is_not_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    asked = interrupts._raw.getsignal

    def noted(number: int, frame: FrameType | None) -> None:
        called.append(number)

    def with_a_block(number: int, frame: FrameType | None) -> None:
        called.append(number)
        with DeferredInterrupt():
            pass

    def at_the_last_moment(number: int) -> object:
        if interrupts._pending and not called and asked(number) is noted:
            signal.raise_signal(signal.SIGALRM)
        return asked(number)

    monkeypatch.setattr(interrupts, "_raw", SimpleNamespace(getsignal=at_the_last_moment, signal=signal.signal))
    with installed((signal.SIGTERM, noted), (signal.SIGALRM, with_a_block)), DeferredInterrupt():
        signal.raise_signal(signal.SIGTERM)
    assert called == [signal.SIGALRM, signal.SIGTERM]


def test_what_is_done_is_a_note_of_what_a_handler_raises_later() -> None:
    with installed((signal.SIGTERM, stop)), pytest.raises(Stop) as caught, DeferredInterrupt():
        tell("it is done")
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.__notes__ == ["it is done"]
    with installed((signal.SIGTERM, stop)), pytest.raises(Stop) as caught, DeferredInterrupt():
        signal.raise_signal(signal.SIGTERM)
    assert not hasattr(caught.value, "__notes__")


def test_a_time_out_of_a_handler_is_not_taken_for_an_error_of_the_storage_on_its_way() -> None:
    def out(number: int, frame: FrameType | None) -> None:
        raise raised

    raised = TimeoutError("of the program")
    raised.__context__ = before = ValueError()
    with installed((signal.SIGALRM, out)), pytest.raises(TimeoutError) as caught, DeferredInterrupt():
        signal.raise_signal(signal.SIGALRM)
        try:
            with suppress(OSError), DeferredInterrupt():
                safe_point()
        except BaseException as error:
            error.add_note("and a note")
            raise
    assert caught.value is raised
    assert raised.__context__ is before
    assert raised.__notes__ == ["and a note"]


def test_a_handler_at_the_end_of_the_outermost_block_can_do_everything() -> None:
    done: list[str] = []

    def handler(number: int, frame: FrameType | None) -> None:
        with DeferredInterrupt():
            done.append("a block")

    with installed((signal.SIGTERM, handler)):
        with DeferredInterrupt():
            signal.raise_signal(signal.SIGTERM)
        assert done


def test_a_handler_at_a_safe_point_can_open_a_file() -> None:
    @undisturbed
    def opened() -> None:
        done.append("opened")

    done: list[str] = []
    with installed((signal.SIGTERM, lambda *_: opened())), DeferredInterrupt():
        signal.raise_signal(signal.SIGTERM)
        safe_point()
        assert done


def test_a_handler_at_a_safe_point_has_blocks_of_its_own() -> None:
    reached: list[str] = []

    def first(number: int, frame: FrameType | None) -> None:
        with DeferredInterrupt():
            signal.raise_signal(signal.SIGALRM)
            reached.append("deferred")

    second = lambda *_: reached.append("called")  # noqa: E731
    with installed((signal.SIGTERM, first), (signal.SIGALRM, second)), DeferredInterrupt():
        signal.raise_signal(signal.SIGTERM)
        safe_point()
        assert reached == ["deferred", "called"]


def test_what_was_left_in_the_place_of_a_handler_gives_way_when_its_signal_comes() -> None:
    """As behind a block whose end was interrupted by another handler."""
    with installed((signal.SIGTERM, interrupts._Deferred(stop))):
        with pytest.raises(Stop):
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is stop


def test_blocks_of_other_threads_change_nothing() -> None:
    seen: list[object] = []

    def run() -> None:
        with DeferredInterrupt():
            seen.extend((is_deferred(), signal.getsignal(signal.SIGTERM)))
            safe_point()

    with installed((signal.SIGTERM, stop)):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert seen == [False, stop]


def test_a_forked_child_goes_on_with_its_block_and_forgets_what_waits_for_its_parent() -> None:
    reached: list[str] = []

    def child() -> None:
        safe_point()
        signal.raise_signal(signal.SIGTERM)
        reached.append("deferred")
        with pytest.raises(Stop):
            interrupts._MainThread.depth = 1
            block.__exit__()
        assert reached
        assert signal.getsignal(signal.SIGTERM) is stop

    with installed((signal.SIGTERM, stop)):
        block = DeferredInterrupt()
        with pytest.raises(Stop), block:
            signal.raise_signal(signal.SIGTERM)
            in_a_child(child)
            reached.append("the child was right")
    assert reached, "what the parent's own signal raises would hide the child's error"


# --- a handler that reads the log -------------------------------------------------------------------------------------


class Within:
    """A signal arrives at the `at`-th moment in some modules at which Python looks for one: behind a call, and where a
    function or a loop begins anew. Counts these if `at` is 0."""

    def __init__(self, at: int, number: int, *modules: ModuleType) -> None:
        self.at = at
        self.files = [module.__file__ for module in modules]
        self.number = number
        self.moments = 0
        self.where = ""
        self._last = ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in self.files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            last, self._last = self._last, dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if last.startswith(("CALL", "RESUME", "JUMP_BACKWARD")):
                self.moments += 1
                if self.moments == self.at:
                    self.where = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
                    signal.raise_signal(self.number)
        return self


class Unsynced(Boundary):
    """Waits for no disk."""

    def fsync(self, fd: int) -> None:
        pass

    fdatasync = fsync


def test_a_handler_can_read_the_log_at_any_moment_of_a_read(tmp_path: Path) -> None:
    writer = wal.open_log(wal.LocalStorage(tmp_path, posix=Unsynced()), create=True, segment_size=4096)
    log = wal.open_log(wal.LocalStorage(tmp_path))
    assert isinstance(log, AppendLog)
    found: list[list[bytes | None]] = []

    def read(at: int) -> int:
        first, new = log.head(), [b"%d" % number * 200 for number in range(12)]
        for body in new:
            add(writer, body)
        log.shelf.retire_before(1 << 60)  # opened again in the middle of it
        tracer = Within(at, signal.SIGTERM, append_log, chain, shelf)
        with installed((signal.SIGTERM, lambda *_: found.append(bodies(log, first)))):
            sys.settrace(tracer)
            try:
                read = bodies(log, first)
            finally:
                sys.settrace(None)
        assert read == new, tracer.where
        assert all(each in ([], new) for each in found), tracer.where
        assert bodies(log, first) == new, f"nor later, {tracer.where}"
        assert descriptors() == sorted(log.shelf._open), tracer.where
        return tracer.moments

    def descriptors() -> list[int]:
        """The segments that the reader has open, once for each descriptor."""
        links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
        files = [Path(os.readlink(link)) for link in links if os.path.lexists(link)]
        opened = sorted(int(file.stem) for file in files if file.suffix == ".log" and file.is_relative_to(tmp_path))
        for number in writer.shelf._open:  # type: ignore[attr-defined]
            opened.remove(number)
        return opened

    for at in range(read(0), 0, -1):
        read(at)
    assert found
    log.close()
    writer.close()


# --- interrupted itself -----------------------------------------------------------------------------------------------


def a_block() -> None:
    with DeferredInterrupt():
        pass


def one_in_which_a_signal_waits() -> None:
    with DeferredInterrupt():
        signal.raise_signal(signal.SIGUSR1)


def one_with_a_safe_point() -> None:
    with DeferredInterrupt():
        signal.raise_signal(signal.SIGUSR1)
        safe_point()


@pytest.mark.parametrize("use", [a_block, one_in_which_a_signal_waits, one_with_a_safe_point])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM, signal.SIGUSR2], ids=lambda number: number.name)
def test_a_block_that_is_interrupted_in_itself_leaves_every_handler_in_place(
    use: Callable[[], None], number: int
) -> None:
    called: list[int] = []

    def raising(number: int, frame: FrameType | None) -> None:
        called.append(number)
        raise Stop(number)

    names = (signal.SIGINT, signal.SIGALRM, signal.SIGUSR2)
    with installed(*((each, raising) for each in names), (signal.SIGUSR1, lambda number, _: called.append(number))):

        def traced(at: int) -> Within:
            tracer = Within(at, number, interrupts)
            sys.settrace(tracer)
            try:
                use()
            except Stop:
                pass
            finally:
                sys.settrace(None)
            return tracer

        moments = traced(0).moments
        assert moments > 20
        for at in range(1, moments + 1):
            called.clear()
            where = traced(at).where
            assert interrupts._MainThread.depth == 0, where
            assert not interrupts._pending, where
            assert number in called, where
            assert all(signal.getsignal(each) is raising for each in names), where


@pytest.mark.usefixtures("no_collector")
def test_real_signals_at_any_moment_leave_every_handler_in_place_and_none_is_lost() -> None:
    print(f"seed {SEED}")
    chooser = random.Random(SEED)
    called: list[object] = []
    # `insert` is no code of Python, so it is not interrupted itself
    with installed((signal.SIGALRM, stop), (signal.SIGUSR1, called.insert)):
        raised = 0
        for _ in range(3000):
            called.clear()
            entered = False
            try:
                signal.setitimer(signal.ITIMER_REAL, chooser.uniform(1e-6, 6e-5))
                for _ in range(20):
                    with DeferredInterrupt():
                        entered = True
                        signal.raise_signal(signal.SIGUSR1)
                        safe_point()
                        signal.raise_signal(signal.SIGUSR1)
            except Stop:
                raised += 1
            finally:
                with suppress(Stop):
                    signal.setitimer(signal.ITIMER_REAL, 0)
            assert interrupts._MainThread.depth == 0
            assert not interrupts._pending
            assert signal.getsignal(signal.SIGALRM) is stop
            assert called or not entered
        assert raised > 1000
