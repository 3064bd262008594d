"""The committer: carries the log into the folders, one at a time, under the log's right.

Two marks in the head file say how far it came: APPLIED (everything) and APPLIED_SMALL (all but large metadata.json
files that were put off). A pass folds every record since its mark to one head and applies that. Lock order: the right
before the append right, never the other way.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import wal

from . import apply, layout, marks
from .clock import Clock
from .errors import ApplyPendingWarning, CorruptionError, MetatreeError, UnavailableError
from .fold import Effect, fold
from .outcome import Mode, Outcome
from .reader import Reader
from .window import fold_log

if TYPE_CHECKING:
    from .objects import Objects

T = TypeVar("T")

FOLLOW = 0.05  # seconds within which the background thread follows a commit ...
FOLLOW_SHARED = 1.0  # ... where hosts share the storage
_OVERTAKEN = 10  # times in one call; beside three busy hosts one in ten who came back to their own free claim were
LOOK = 1.0  # seconds after which it looks for commits that a dead process left un-applied


class Committer:
    """Applies commits of every process; owns the background thread of its tree."""

    def __init__(
        self,
        storage: wal.Storage,
        log: wal.WriteAheadLog,
        reader: Reader,
        clock: Clock,
        *,
        background: bool,
        lock_timeout: float,
        shared: bool = False,
    ) -> None:
        """`shared`: hosts share the log, and what is published is durable when it is acknowledged."""
        self._storage = storage
        self._log = log
        self._reader = reader
        self._clock = clock
        self.background = background
        self._lock_timeout = lock_timeout
        self.unsynced = not shared  # what is applied becomes durable by a checkpoint only
        self._delay = (FOLLOW_SHARED if shared else FOLLOW) / 2
        self._objects = None if storage.capabilities.folders else _make_objects(storage, log)
        self._thread: threading.Thread | None = None
        self._wake, self._stop, self._starting = threading.Event(), threading.Event(), threading.Lock()
        self._fault = 0  # a fault that is not in the head file yet
        self.upkeep: Callable[[], None] | None = None  # what the background thread does after it has followed
        self.failure: str | None = None  # why the last pass left something un-applied

    # --- after a commit -----------------------------------------------------------------------------------------------

    def committed(self, lsn: int) -> None:
        """To be called after each commit: applies it now, or sees to it that it follows. Raises OSError, WalError."""
        if self.background:
            self._follow()
            if self.failure is not None:  # of an earlier pass, by the thread: here is somebody to tell it to
                self.note(self.failure)
            return
        outcome = self.pass_(defer=True) if self.applied(small=True) < lsn else Outcome()
        if outcome.failed:
            self.note(self.failure or "")
        if outcome.complete < lsn and self.applied() < lsn:
            self._follow()

    def flush(self) -> None:
        """Wait until the files show every commit up to now. Raises UnavailableError with the reason if they cannot."""
        head = self._log.head(fresh=True)
        if self.applied() < head:
            self.pass_(defer=False)
        if self.applied() < head:
            raise UnavailableError(f"commits are durable in the log but not all files could follow: {self.failure}")

    def unapplied(self) -> int:
        """How many batches the files are behind the log."""
        return max(0, self._log.known() - self.applied())

    def applied(self, *, small: bool = False) -> int:
        """Up to where the files show the log; `small`: all but large metadata.json files."""
        return max(self._log.load_mark(marks.APPLIED_SMALL if small else marks.APPLIED), self._log.trimmed())

    def note(self, failure: str) -> None:
        """Keep, and warn of, what leaves a commit un-applied."""
        self.failure = failure
        warnings.warn(
            f"the commit is durable, but its files are not in place yet: {failure}. flush() tries again",
            ApplyPendingWarning,
            stacklevel=5,
        )

    # --- one pass -----------------------------------------------------------------------------------------------------

    @contextmanager
    def hold(self) -> Iterator[wal.Tenure]:
        """The right to apply, for a `with` block. Raises LockBusyError; RightLostError: of what was done under it, only
        that is left which no successor could mind, once the next pass of this handle has looked after it."""
        before: dict[int, int] = {}
        try:
            with self._log.right(self._lock_timeout) as tenure:
                if tenure.died:
                    self.fault()
                if not self.unsynced:  # else only a death takes the right away
                    before.update((mark, self._log.load_mark(mark)) for mark in (marks.APPLIED, marks.APPLIED_SMALL))
                yield tenure
        except BaseException as error:
            # After any error where versions are the fence: whether the right was still ours was perhaps not asked.
            if before and (self._objects is not None or isinstance(error, wal.RightLostError)):
                for mark, value in before.items():
                    self._log.store_mark(mark, value)
            if before and self._objects is not None:
                self._objects.lost()
            raise

    def holding(self, work: Callable[[wal.Tenure], T]) -> T:
        """What `work` returns under the right; done again if another host took over meanwhile. Raises LockBusyError."""
        for _ in range(_OVERTAKEN):
            try:
                with self.hold() as tenure:
                    try:
                        return work(tenure)
                    except OSError:  # what it misses its successor may have taken away
                        with suppress(OSError):
                            tenure.check(now=True)
                        raise
            except wal.RightLostError:
                continue
        raise UnavailableError("other hosts keep taking over the right to apply: is this one paused again and again?")

    def pass_(self, *, defer: bool) -> Outcome:
        """Apply everything un-applied. Raises LockBusyError, OSError; what could not be applied is in `failure`."""
        return self.holding(lambda tenure: self.pass_held(tenure, defer=defer))

    def pass_held(self, tenure: wal.Tenure, *, defer: bool = False) -> Outcome:
        """The same for one who holds the right."""
        applied = self.applied()
        head = self._known(applied)
        if self._objects is not None:
            if self._objects.unsure:
                applied = self._log.trimmed()
            elif applied >= head:
                return Outcome()
            outcome, head = self._objects.apply(lambda upto: self._effect(applied, upto), head, tenure)
            return self._advance(self._ours(tenure, outcome), head)
        small = max(self._log.load_mark(marks.APPLIED_SMALL), applied)
        if defer and small < head:
            effect = self._effect(small, head)
            if apply.may_defer(effect):
                outcome = self._apply(tenure, effect, small, head, defer=True)
                return self._advance(outcome, head, small_only=True)
            if small == applied:
                return self._advance(self._apply(tenure, effect, small, head), head)
        if applied >= head:
            return Outcome()
        return self._advance(self._apply(tenure, self._effect(applied, head), applied, head), head)

    def _known(self, applied: int) -> int:
        """The log's head. Raises CorruptionError if it ends before what was applied: the next records would take the
        numbers of lost ones, and count as applied before they are."""
        head = self._log.known()
        if applied > head and applied > (head := self._log.head(fresh=True)):
            raise CorruptionError(f"the log in {layout.LOG} ends at {head}, and the files show it up to {applied}")
        return head

    def _apply(self, tenure: wal.Tenure, effect: Effect, since: int, head: int, *, defer: bool = False) -> Outcome:
        outcome = apply.apply(tenure.storage, effect, since, head, defer=defer, check=tenure.check)
        return self._ours(tenure, outcome)

    def _ours(self, tenure: wal.Tenure, outcome: Outcome) -> Outcome:
        """Raises RightLostError if steps failed since another host took over: that is its trouble now, not ours."""
        if outcome.failed:
            with suppress(OSError):  # the storage does not answer: then this is no news
                tenure.check(now=True)
        return outcome

    def rewrite_held(
        self, tenure: wal.Tenure, redo: int, applied: int, choose: Callable[[Effect], Effect] | None = None
    ) -> Outcome:
        """Write again what the records (redo, applied] brought, since it may not have reached the disk (E8) or may have
        been damaged; nothing that was taken away comes back for a moment, so others may read meanwhile. `choose`: of
        their effect only a part."""

        def effect_to(upto: int) -> Effect:
            effect = self._effect(redo, upto)
            return effect if choose is None else choose(effect)

        if self._objects is not None:
            outcome, _ = self._objects.apply(effect_to, applied, tenure)
        else:
            effect = effect_to(applied)
            outcome = apply.apply(tenure.storage, effect, redo, applied, mode=Mode.REWRITE, check=tenure.check)
        if self._ours(tenure, outcome).failed:
            self._failed(outcome)
        return outcome

    def fault(self) -> None:
        """Note that writes may have been lost: the next checkpoint writes everything since the redo mark again."""
        if not self.unsynced:
            return
        self._fault = int.from_bytes(self._clock.token(7), "big") | 1
        with suppress(OSError, wal.LogClosedError):  # whatever is being reported matters more; a checkpoint stores it
            self.store_fault()

    def store_fault(self) -> None:
        """Store a fault that could not be stored when it was noted. Raises OSError."""
        if self._fault:
            self._log.store_mark(marks.FAULT, self._fault)
            self._fault = 0

    def _advance(self, outcome: Outcome, head: int, *, small_only: bool = False) -> Outcome:
        if outcome.failed:
            self._failed(outcome)
            return outcome
        self.failure = None
        self._log.store_mark(marks.APPLIED_SMALL, head)
        if not small_only:
            self._log.store_mark(marks.APPLIED, head)
            outcome.complete = head
        return outcome

    def _failed(self, outcome: Outcome) -> None:
        path, error = next(iter(outcome.failed.items()))
        self.fault()
        self.failure = f"{path or 'the root'}: {type(error).__name__}: {error}"

    def _effect(self, after: int, head: int) -> Effect:
        """The net effect of (after, head], from what the reader holds if it holds all of that."""
        with self._reader.lock:
            self._reader.follow(head)
            facts = self._reader.facts(after) if self._reader.head == head else None
            if facts is not None:
                return fold(facts)
        return fold_log(self._log, after, head)

    # --- the background thread ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start following in the background, if this committer is a background one."""
        if self.background:
            self._follow()

    def _follow(self) -> None:
        if not self._wake.is_set():  # else the thread has yet to look how far the log goes
            self._wake.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._stop.is_set():
                    self._thread = threading.Thread(target=self._run, name="metatree-committer", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            woken = self._wake.wait(LOOK)
            if self._stop.wait(self._delay if woken else 0):
                return
            self._wake.clear()
            try:
                if self.applied() < self._log.head():
                    self.pass_(defer=False)
                if self.upkeep is not None:
                    self.upkeep()
            except (OSError, wal.WalError, MetatreeError) as error:  # kept for flush(), and tried again in a second
                self.failure = f"{type(error).__name__}: {error}"

    def stop(self) -> None:
        """End the background thread; un-applied commits stay in the log."""
        self._stop.set()
        self._wake.set()
        thread = self._thread
        while thread is not None and thread is not threading.current_thread() and thread.is_alive():
            thread.join(LOOK)
            wal.safe_point()
        self._thread = None

    def reset_after_fork(self) -> None:
        """In a forked child: the thread did not come along."""
        self._thread = None
        self._wake, self._stop, self._starting = threading.Event(), threading.Event(), threading.Lock()


def _make_objects(storage: wal.Storage, log: wal.WriteAheadLog) -> Objects:
    from .objects import Objects  # late: files of this machine need nothing of it

    return Objects(storage, log)
