"""Checkpoint: everything up to one LSN becomes durable in the files; then the log up to it is trimmed.

Order: apply everything -> sync -> redo mark durable, log trimmed -> staged files and trash of trimmed records erased.
A crash between any two steps leaves more to replay or to erase than necessary, never less than is needed.

The right to apply is not held during the sync, which may take long (E14). What other processes apply in the meantime
comes from later records, which hold all that a replay needs, with one exception: a process that rewrites the window
replaces files without a sync, and their content may be only in records before our mark. It records that in the head
file, and we then sync again.

Where hosts share the storage, what a pass has published is durable before the mark APPLIED says so (see `flushing`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

import wal

from . import layout, marks
from .clock import Clock
from .committer import Committer
from .discard import empty_trash
from .errors import UnavailableError
from .staging import waiting
from .window import fold_log

LOG_BYTES = 16 << 20  # a checkpoint is due when the log has this many bytes after the redo mark ...
BATCHES = 10_000  # ... or this many batches
SLOTS = 64  # ... or this many slots where hosts share the storage: every opener reads each of them
_WHAT = "the checkpoint of this handle"
_ATTEMPTS = 100  # an attempt is repeated if another process died, failed to write or rewrote the window during it


class _Window(NamedTuple):
    """What is applied and waits for the sync, and the marks that must not have changed after it."""

    redo: int
    head: int
    fault: int  # marks
    rewrites: int


class Checkpointer:
    """Makes checkpoints for one open tree."""

    def __init__(
        self,
        storage: wal.Storage,
        log: wal.WriteAheadLog,
        committer: Committer,
        clock: Clock,
        *,
        vouches_from: int,
        batches: int,
    ) -> None:
        """`vouches_from`: files applied from records after this LSN were written while our storage was open, so its
        sync would report a failed write; files from records before it are first written again (E8)."""
        self._storage = storage
        self._log = log
        self._committer = committer
        self._clock = clock
        self._vouches_from = vouches_from
        self._turn = wal.Turn(_WHAT, clock)
        self._syncing = False  # a sync was begun, and has not succeeded
        self._sure_of = 0  # the value of the mark FAULT after which this handle wrote everything again
        self._batches = batches
        self._sparing = False  # the checkpoint on closing must not write over edits by hand
        self._cleared = 0  # records up to this LSN have nothing left in the staging area

    def is_due(self, head: int) -> bool:
        """Whether the log, which ends at `head`, has grown enough since the last checkpoint."""
        redo = self._log.trimmed()
        return head - redo >= self._batches or self._log.size_after(redo) >= LOG_BYTES

    def run(self, *, unless_running: bool = False) -> int:
        """Make a checkpoint; returns the new redo mark. Raises UnavailableError: then the log keeps what it needs.

        One thread at a time: of the threads that sync through one descriptor, the kernel tells only one that a write
        has failed, and another would trim before that one has recorded it. `unless_running`: none if another thread
        makes one now.
        """
        with wal.DeferredInterrupt():
            if not unless_running:
                self._turn.take(self._committer.lock_timeout)
            elif not self._turn.try_take(0):
                return self._log.trimmed()
            try:
                return self._run()
            finally:
                self._turn.release()

    def spare_edits(self) -> None:
        """After a repair: the edits by hand that it has left alone are not written over when the tree is closed."""
        self._sparing = True

    def run_at_end(self) -> None:
        """The checkpoint on closing. One that would write the window again is left to others, if edits are spared."""
        if self._sparing and self._is_doubtful(self._log.trimmed(fresh=True), self._log.load_mark(marks.FAULT)):
            self._committer.flush()
        else:
            self.run()

    def _run(self) -> int:
        if not self._committer.unsynced:
            return self._committer.holding(self._run_shared)
        for _ in range(_ATTEMPTS):
            window = self._begin()
            if window.head > window.redo:
                self._sync(window)
            redo = self._finish(window)
            if redo is not None:
                return redo
        raise UnavailableError("no checkpoint: writes of other processes kept failing meanwhile; try again")

    def reset_after_fork(self) -> None:
        """In a forked child, whose storage was opened anew: its sync vouches for nothing that was written before."""
        self._turn = wal.Turn(_WHAT, self._clock)
        self._vouches_from = sys.maxsize

    def _run_shared(self, tenure: wal.Tenure) -> int:
        """Published files are durable here: no sync is needed, and one tenure is enough.

        What is removed here is not fenced. So every successor must know before that the files show `head`: it then
        needs neither bodies nor staged files nor trash of records up to that, whenever we may wake up and remove them.
        """
        if self._committer.pass_held(tenure).failed:
            raise UnavailableError(f"no checkpoint: some files could not be written: {self._committer.failure}")
        head = self._committer.applied()
        done = self._staged(head)
        # Again if anything was staged: a slot may say that bodies are gone though its trim was cut short, and others
        # do not know it.
        if done or head > self._log.trimmed():
            tenure.check(now=True)  # publishes the mark, unless we were overtaken
            self._log.trim(head)
        self._clear(done, head)
        return head

    def _begin(self) -> _Window:
        return self._committer.holding(self._begin_held)

    def _begin_held(self, tenure: wal.Tenure) -> _Window:
        """Apply everything; write again what may not have reached the disk, so that our sync covers it."""
        self._committer.store_fault()
        redo, fault = self._log.trimmed(), self._log.load_mark(marks.FAULT)
        doubtful = self._is_doubtful(redo, fault)
        outcome = self._committer.pass_held(tenure)
        head = self._log.load_mark(marks.APPLIED)
        if doubtful and not outcome.failed and head > redo:
            self._log.store_mark(marks.REWRITES, int.from_bytes(self._clock.token(7), "big"))
            outcome = self._committer.rewrite_held(tenure, redo, head)
        if outcome.failed:
            raise UnavailableError(f"no checkpoint: some files could not be written: {self._committer.failure}")
        self._vouches_from, self._sure_of = 0, fault
        return _Window(redo, head, fault, self._log.load_mark(marks.REWRITES))

    def _is_doubtful(self, redo: int, fault: int) -> bool:
        """Whether our sync could succeed although something of the window after `redo` did not reach the disk."""
        sure = fault in (self._log.load_mark(marks.FAULT_SEEN), self._sure_of) and not self._syncing
        return self._committer.unsynced and (not sure or redo < self._vouches_from)

    def _sync(self, window: _Window) -> None:
        self._syncing = True  # an interrupted sync has an unknown result, and the next may not report its error
        try:
            self._storage.sync(self._touched(window.redo, window.head))
        except OSError:
            self._committer.fault()
            raise
        self._syncing = False

    def _finish(self, window: _Window) -> int | None:
        return self._committer.holding(lambda tenure: self._finish_held(tenure, window))

    def _finish_held(self, tenure: wal.Tenure, window: _Window) -> int | None:
        """Trim what is durable and return the redo mark; None if something came in between: sync again."""
        if tenure.died:
            return None
        redo = self._log.trimmed()
        if window.head <= redo:  # nothing to do, or another checkpoint has done it
            self._clear(self._staged(redo), redo)  # also what a checkpoint that died after its trim has left
            return redo
        changed = self._log.load_mark(marks.FAULT), self._log.load_mark(marks.REWRITES)
        if changed != (window.fault, window.rewrites):
            return None
        done = self._staged(window.head)  # before the trim, which makes reading their records slower
        self._log.trim(window.head)
        self._log.store_mark(marks.FAULT_SEEN, window.fault)
        self._clear(done, window.head)
        return window.head

    def _touched(self, redo: int, head: int) -> Iterator[str]:
        """Every file and folder that the records (redo, head] touched; read only if one sync cannot cover all."""
        for path, effect in fold_log(self._log, redo, head).walk():
            yield layout.folder(path)
            yield layout.metadata(path)
            yield from (layout.blob(path, name) for name in effect.blobs)

    def _staged(self, redo: int) -> list[str]:
        """The staging folders of records up to `redo`, also of those trimmed by a checkpoint that then died."""
        found = waiting(self._storage, self._log, self._cleared)
        return [layout.staged_folder(txid) for txid, lsn in found.items() if lsn is not None and lsn <= redo]

    def _clear(self, staged: list[str], redo: int) -> None:
        for name in staged:
            self._storage.erase(name)
        if self._storage.capabilities.folders:  # without folders, removed objects are erased at once
            empty_trash(self._storage, redo)
        self._cleared = redo
