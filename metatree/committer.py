"""The committer: applies the log to the folders, one committer at a time, under the right to apply.

Two marks of the log say how far it has got: APPLIED (everything) and, where that is behind, APPLIED_SMALL (all except
large metadata.json files that were deferred). A pass folds every record from its mark to one head and applies that.
Lock order: the right to apply before the append right, never the reverse.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import wal

from . import apply, layout, marks
from .clock import Clock
from .errors import CorruptionError, UnavailableError, reason, warn_pending
from .flushing import Flushing
from .fold import Effect, fold
from .outcome import Mode, Outcome
from .reader import Reader
from .window import fold_log

if TYPE_CHECKING:
    from .objects import Objects

T = TypeVar("T")

FOLLOW = 0.05  # seconds within which the background thread applies a commit ...
FOLLOW_SHARED = 1.0  # ... where hosts share the storage
_OVERTAKEN = 10  # attempts of one call; of three busy hosts, one in ten lost the right on resuming its own free claim
LOOK = 1.0  # seconds after which the thread looks for commits that a dead process has not applied


class Committer:
    """Applies the commits of every process; owns the background thread of its tree."""

    def __init__(
        self,
        storage: wal.Storage,
        log: wal.WriteAheadLog,
        reader: Reader,
        clock: Clock,
        *,
        background: bool,
        lock_timeout: float,
        shared: bool,
    ) -> None:
        """`shared`: hosts share the log, and what is applied is durable before a mark says that it is."""
        self._storage = storage
        self._log = log
        self._reader = reader
        self.background = background
        self.lock_timeout = lock_timeout
        self.unsynced = not shared  # only a checkpoint makes applied files durable
        self._delay = (FOLLOW_SHARED if shared else FOLLOW) / 2
        self._flushing = Flushing(storage, log, clock, shared=shared)
        self._objects: Objects | None = None
        if not storage.capabilities.folders:
            from .objects import Objects  # imported here: local trees do not need it

            self._objects = Objects(storage, log)
        self.reset_after_fork()
        self.upkeep: Callable[[], object] = lambda: None  # called by the background thread after it has applied
        self.failure: str | None = None  # why the last pass did not apply everything

    def reset_after_fork(self) -> None:
        """At first, and in a forked child: there is no background thread."""
        self._thread: threading.Thread | None = None
        self._wake, self._stop, self._starting = threading.Event(), threading.Event(), threading.Lock()

    # --- after a commit -----------------------------------------------------------------------------------------------

    def committed(self, lsn: int) -> None:
        """After each commit: applies it, or the background thread will. Raises OSError, WalError, MetatreeError."""
        if self.background:
            if not self.follow():
                self._catch_up()
            if self.failure is not None:  # of an earlier pass of the thread, which could not warn
                self.note(self.failure)
            return
        outcome = self.pass_(defer=True) if self.applied(small=True) < lsn else Outcome()
        if self.applied() < lsn and not self.follow():
            outcome = self.pass_(defer=False)
        if outcome.failed:
            self.note(self.failure or "")

    def flush(self) -> None:
        """Apply every commit up to now. Raises UnavailableError with the reason if that fails."""
        head = self._log.head(fresh=True)
        outcome = self.pass_(defer=False) if self.applied() < head else Outcome()
        if self.applied() < head:
            why = f"commits are durable in the log but not all files could follow: {self.failure}"
            raise UnavailableError(why) from next(iter(outcome.failed.values()), None)

    def unapplied(self) -> int:
        """How many batches the files are behind the log."""
        return max(0, self._log.known() - self.applied())

    def applied(self, *, small: bool = False) -> int:
        """The LSN up to which the files show the log; `small`: except large metadata.json files."""
        said = (marks.APPLIED, marks.APPLIED_SMALL) if small else (marks.APPLIED,)
        return max(self._log.trimmed(), *map(self._log.load_mark, said))

    def note(self, failure: str) -> None:
        """Record the reason why a commit is not applied, and warn."""
        self.failure = failure
        warn_pending(failure)

    # --- one pass -----------------------------------------------------------------------------------------------------

    @contextmanager
    def hold(self) -> Iterator[wal.Tenure]:
        """The right to apply, for a `with` block. Raises LockBusyError; RightLostError if another host took over: the
        next pass of this handle then repairs what the block may have left in the way of its successor."""
        before: dict[int, int] = {}
        try:
            with self._log.right(self.lock_timeout) as tenure:
                if tenure.died:
                    self._flushing.doubt()
                if not self.unsynced:  # otherwise only the death of this process ends the right
                    before.update((mark, self._log.load_mark(mark)) for mark in (marks.APPLIED, marks.APPLIED_SMALL))
                yield tenure
            if self._objects is not None:
                self._objects.released()
        except BaseException as error:
            # With versions as the fence, after any error: the right may have been lost without a check.
            if self._objects is not None or isinstance(error, wal.RightLostError):
                for mark, value in before.items():
                    self._log.store_mark(mark, value)
            if before and self._objects is not None:
                self._objects.lost()
            raise

    def holding(self, work: Callable[[wal.Tenure], T]) -> T:
        """Run `work` under the right and return its result; again if another host took over. Raises LockBusyError,
        UnavailableError."""
        for _ in range(_OVERTAKEN):
            try:
                with self.hold() as tenure:
                    try:
                        return work(tenure)
                    except OSError:  # perhaps because a successor has moved or replaced something
                        with suppress(OSError):
                            tenure.check(now=True)
                        raise
            except wal.RightLostError:
                continue
        raise UnavailableError("other hosts keep taking over the right to apply: is this one paused again and again?")

    def pass_(self, *, defer: bool) -> Outcome:
        """Apply what is not applied yet. Raises LockBusyError, OSError; `failure` says what could not be applied."""
        return self.holding(lambda tenure: self.pass_held(tenure, defer=defer))

    def pass_held(self, tenure: wal.Tenure, *, defer: bool = False) -> Outcome:
        """The same, for a holder of the right."""
        applied = self.applied()
        head = self._known(applied)
        if self._objects is not None:
            if self._objects.unsure:
                applied = self._log.trimmed()
            outcome, head = self._objects.apply(lambda upto: self._effect(applied, upto), head, tenure)
            return self._advance(self._ours(tenure, outcome), head)
        if self._flushing.in_doubt():
            return self._write_anew(tenure, applied, head)
        if applied >= head:
            return Outcome()
        since = max(self._log.load_mark(marks.APPLIED_SMALL), applied) if defer else applied
        effect = self._effect(since, head)
        if defer and apply.may_defer(effect):
            outcome = self._apply(tenure, effect, since, head, defer=True)
            return self._advance(outcome, head, small_only=True)
        if since != applied:  # what was deferred goes along
            effect = self._effect(applied, head)
        return self._advance(self._apply(tenure, effect, applied, head), head)

    def _known(self, applied: int) -> int:
        """The log's head. Raises CorruptionError if the log ends before what was applied: new records would get the
        LSNs of lost ones, and count as applied before they are."""
        head = self._log.known()  # whoever takes the right over has followed the log
        if applied > head:
            raise CorruptionError(f"the log in {layout.LOG} ends at {head}, and the files show it up to {applied}")
        return head

    def _apply(self, tenure: wal.Tenure, effect: Effect, since: int, head: int, *, defer: bool = False) -> Outcome:
        return self._ours(tenure, self._flushing.apply(tenure, effect, since, head, defer=defer))

    def _write_anew(self, tenure: wal.Tenure, applied: int, head: int) -> Outcome:
        """Apply the records (applied, head], then write again what they put. What is applied was flushed before the
        mark said so; and an overtaken host that published the mark may be trimming its records."""
        outcome = self._apply(tenure, self._effect(applied, head), applied, head)
        if not outcome.failed:
            outcome = self.rewrite_held(tenure, applied, head)
        if not outcome.failed:
            self._flushing.settled()
        return self._advance(outcome, head)

    def _ours(self, tenure: wal.Tenure, outcome: Outcome) -> Outcome:
        """The outcome. Raises RightLostError if steps failed because another host has taken over."""
        if outcome.failed:
            with suppress(OSError):  # if the storage does not answer, it is unknown
                tenure.check(now=True)
        return outcome

    def rewrite_held(
        self, tenure: wal.Tenure, redo: int, applied: int, choose: Callable[[Effect], Effect] | None = None
    ) -> Outcome:
        """Write again what the records (redo, applied] put, since it may not be durable (E8) or may be damaged. Removed
        files do not reappear, not even for a moment, so others may read during it. `choose`: selects a part of the
        effect."""

        def effect_to(upto: int) -> Effect:
            effect = self._effect(redo, upto)
            return effect if choose is None else choose(effect)

        if self._objects is not None:
            outcome, _ = self._objects.apply(effect_to, applied, tenure, rewrite=True)
        else:
            outcome = self._flushing.apply(tenure, effect_to(applied), redo, applied, mode=Mode.REWRITE)
        if self._ours(tenure, outcome).failed:
            self._failed(outcome)
        return outcome

    def fault(self) -> None:
        """Record that writes may have been lost: the next checkpoint writes everything since the redo mark again."""
        if self.unsynced:
            self._flushing.doubt()

    def store_fault(self) -> None:
        """Store a fault that could not be stored when it was recorded. Raises OSError."""
        self._flushing.store_fault()

    def _advance(self, outcome: Outcome, head: int, *, small_only: bool = False) -> Outcome:
        if outcome.failed:
            self._failed(outcome)
            return outcome
        self.failure = None
        self._log.store_mark(marks.APPLIED_SMALL if small_only else marks.APPLIED, head)
        return outcome

    def _failed(self, outcome: Outcome) -> None:
        path, error = next(iter(outcome.failed.items()))
        self.fault()
        self.failure = f"{path or 'the root'}: {reason(error)}"

    def _effect(self, after: int, head: int) -> Effect:
        """The net effect of (after, head], from the reader's memory if it holds all of it."""
        with self._reader.lock:
            self._reader.follow(head)
            facts = self._reader.facts(after) if self._reader.head == head else None
            if facts is not None:
                return fold(facts)
        return fold_log(self._log, after, head)

    # --- the background thread ----------------------------------------------------------------------------------------

    def follow(self) -> bool:
        """Have the background thread follow, if it was not stopped; False if it cannot be started."""
        if not self._wake.is_set():  # if it is set, the thread has not read the log's head yet
            self._wake.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._stop.is_set():
                    thread = threading.Thread(target=self._run, name="metatree-committer", daemon=True)
                    with suppress(RuntimeError):  # the system refuses, or the interpreter is ending
                        thread.start()
                        self._thread = thread
        return self._thread is not None or self._stop.is_set()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._wake.wait(LOOK)
                if self._stop.wait(self._delay):  # so that one pass applies what is committed in a row
                    continue
                self._wake.clear()
                try:
                    self._catch_up()
                except Exception as error:  # noqa: BLE001  any, as lack of memory: for flush(); tried again in a second
                    self.failure = reason(error)
        finally:
            with self._starting:
                self._thread = None  # if not even that could be done, the next commit starts another

    def _catch_up(self) -> None:
        if self.applied() < self._log.head():
            self.pass_(defer=False)
        self.upkeep()

    def stop(self) -> None:
        """End the background thread; commits that are not applied stay in the log."""
        self._stop.set()
        self._wake.set()
        thread = self._thread
        while thread is not None and thread is not threading.current_thread() and thread.is_alive():
            thread.join(LOOK)
            wal.safe_point()
