"""A signal handler changes the tree in the middle of what its thread does with the same handle.

Python runs handlers between two instructions of the main thread. Here one runs right before a call of the system or of
the storage, at each of those that a verb makes (in turn at some). It is never waited for by the thread it interrupts:
its change is made, or refused at once and then not made; and the verb ends as if nothing had happened.
"""

from __future__ import annotations

import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from metatree import ApplyPendingWarning, ClosedError, LockTimeoutError, Metatree
from tests.tree.meanwhile import Before, Disk, Files, Mount, Objects, Short
from tests.tree.model import LEVELS, dump
from tests.tree.storages import Swift
from tests.tree.test_meanwhile import CARES, CHANGE, READS, Verb, ended, start

TRIED = 6  # calls of one verb
VERBS: dict[str, Verb] = {**READS, **CARES, **CHANGE}
LOOKS = {*READS, *CARES}


class NoWaiting(Swift):
    """The time does not pass: what waits for a lock would wait for ever."""

    def sleep(self, seconds: float) -> None:
        pytest.fail("it waits")


class Handled(Short):
    _tuning: ClassVar[dict[str, Any]] = {**Short._tuning, "clock": NoWaiting()}


class Handler:
    """Puts a node of its own."""

    def __init__(self) -> None:
        self.ran = self.done = self.closing = False
        self.tree: Metatree | None = None
        self.thread = threading.get_ident()

    def __call__(self) -> None:
        if self.tree is None or threading.get_ident() != self.thread:  # Python calls none in any other thread
            return
        self.ran = True
        try:
            self.act(self.tree)
            self.done = True
        except RuntimeError as error:
            assert "signal handler" in str(error)
        except LockTimeoutError as error:
            assert "this very thread" in str(error)
        except ClosedError:
            self.closing = True

    def act(self, tree: Metatree) -> None:
        tree.put("signal/v", b"by the handler", name="b")


class Looking(Handler):
    """Looks at all there is, for its signal."""

    def act(self, tree: Metatree) -> None:
        self.seen = dump(tree)


@pytest.fixture(scope="module")
def started() -> Iterator[dict[type[Disk], Disk]]:
    with tempfile.TemporaryDirectory(prefix="metatree-test-") as folder:
        disks: dict[type[Disk], Disk] = {kind: kind(Path(folder)) for kind in (Files, Mount, Objects)}
        for disk in disks.values():
            start(disk)
        yield disks


def run(
    disk: Disk, verb: Verb, handler: Handler, at: int, happen: Callable[[], None] | None = None
) -> tuple[object, int]:
    """(what the verb answers, how many calls it made)."""
    before = Before()
    with Handled(disk.storage(before), LEVELS) as tree:
        handler.tree, before.count, before.at, before.happen = tree, 0, at, happen or handler
        answer = ended(verb, tree)
        count, before.at = before.count, 0
    return answer, count


def states(disk: Disk, verb: Verb, folder: Path, *, handled: bool) -> Iterator[tuple[object, object]]:
    """What the verb may answer, and what the tree then holds: before the handler's change, and after it."""
    for first in (True, False):
        copy = disk.copy(folder / f"expected {handled} {first}")
        with Short(copy.storage(), LEVELS) as tree:
            if handled and not first:
                tree.put("signal/v", b"by the handler", name="b")
            answer = ended(verb, tree)
        with Short(copy.storage(), LEVELS) as tree:
            if handled and first:
                tree.put("signal/v", b"by the handler", name="b")
            yield answer, dump(tree)


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize("kind", [Files, Mount, Objects])
def test_a_change_by_a_signal_handler_is_made_or_refused_and_never_waited_for(
    kind: type[Disk], name: str, fast_path: Path, started: dict[type[Disk], Disk]
) -> None:
    verb, disk = VERBS[name], started[kind]
    may = {handled: list(states(disk, verb, fast_path, handled=handled)) for handled in (True, False)}
    _, calls = run(disk.copy(fast_path / "calls"), verb, Handler(), 0)
    warnings.simplefilter("ignore", ApplyPendingWarning)
    ran = 0
    for at in range(1, calls + 1, max(1, calls // TRIED)):
        copy, handler = disk.copy(fast_path / str(at)), Handler()
        answer, _ = run(copy, verb, handler, at)
        ran += handler.ran
        with Short(copy.storage(), LEVELS) as tree:
            report = tree.check(deep=True)
            assert report.clean, f"before call {at}: {report}"
            state = dump(tree)
        assert not handler.closing or name == "close"
        where = f"before call {at}, the handler's change was {'made' if handler.done else 'refused'}"
        fits = (answer, state) in may[handler.done]
        assert fits, f"{where}: {answer!r:.300}"
    assert ran or not calls


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("kind", [Files, Mount, Objects])
def test_what_a_signal_handler_reads_in_the_middle_of_a_read_is_right_or_refused(
    kind: type[Disk], name: str, fast_path: Path, started: dict[type[Disk], Disk]
) -> None:
    disk = started[kind].copy(fast_path / "tree")
    with Short(disk.storage(), LEVELS) as tree:
        state, may = dump(tree), ended(READS[name], tree)
    _, calls = run(disk, READS[name], Handler(), 0)
    for at in range(1, calls + 1):
        handler = Looking()
        before = signal.signal(signal.SIGUSR1, lambda *_, handler=handler: handler())  # type: ignore[misc]
        try:
            answer, _ = run(disk, READS[name], handler, at, by_signal)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert answer == may, at
        assert not handler.done or handler.seen == state, at


def by_signal() -> None:
    if threading.current_thread() is threading.main_thread():  # Python calls handlers only there
        signal.raise_signal(signal.SIGUSR1)
