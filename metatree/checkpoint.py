"""Checkpoint: everything up to one LSN becomes durable in the files, then the log before it may go.

Order: apply everything -> sync -> redo mark durable and log trimmed -> staged files and trash of trimmed records gone.
A crash between any two steps leaves more to replay or to clear away, never less than is needed.
"""

from __future__ import annotations

from collections.abc import Iterator

import wal

from . import layout, marks
from .committer import Committer, fold_log
from .discard import empty_trash
from .errors import UnavailableError
from .staging import waiting

LOG_BYTES = 16 << 20  # of log since the redo mark after which a checkpoint is due
BATCHES = 10_000  # ... and as many batches
SLOTS = 64  # ... or slots, where hosts share the storage and every opener asks for each


class Checkpointer:
    """Makes checkpoints for one open tree."""

    def __init__(
        self,
        storage: wal.Storage,
        log: wal.WriteAheadLog,
        committer: Committer,
        *,
        vouches_from: int,
        lock_timeout: float,
        batches: int,
    ) -> None:
        """`vouches_from`: files applied from the records after it were written while our storage was open, so that
        its sync would report a write that failed; those before it are written again first (E8)."""
        self._storage = storage
        self._log = log
        self._committer = committer
        self._vouches_from = vouches_from
        self._lock_timeout = lock_timeout
        self._batches = batches
        self._cleared = 0  # of records up to this LSN nothing is left in the staging area

    def is_due(self) -> bool:
        """Whether the log has grown enough since the last checkpoint."""
        redo = self._log.trimmed()
        return self._log.known() - redo >= self._batches or self._log.size_after(redo) >= LOG_BYTES

    def run(self) -> int:
        """Make a checkpoint; the new redo mark. Raises UnavailableError: then the log keeps what it needs."""
        with self._log.right(self._lock_timeout) as tenure:
            if tenure.died:
                self._committer.fault()
            return self._run_held()

    def _run_held(self) -> int:
        self._committer.store_fault()
        redo = self._log.trimmed()
        fault = self._log.load_mark(marks.FAULT)
        doubtful = fault != self._log.load_mark(marks.FAULT_SEEN) or redo < self._vouches_from
        outcome = self._committer.pass_held()
        head = self._log.load_mark(marks.APPLIED)
        if doubtful and not outcome.failed and head > redo:
            outcome = self._committer.rewrite_held(redo, head)
        if outcome.failed:
            raise UnavailableError(f"no checkpoint: some files could not be written: {self._committer.failure}")
        if head <= redo:
            self._clear(self._staged(redo), redo)  # what a checkpoint that died after its trim had left to clear
            return redo
        try:
            self._storage.sync(self._touched(redo, head))
        except OSError:
            self._committer.fault()
            raise
        if self._log.load_mark(marks.FAULT) != fault:
            raise UnavailableError("no checkpoint: a write failed meanwhile; try again")
        done = self._staged(head)  # before the trim, while the log has their records at hand
        self._log.trim(head)
        self._log.store_mark(marks.FAULT_SEEN, fault)
        self._vouches_from = 0
        self._clear(done, head)
        return head

    def _touched(self, redo: int, head: int) -> Iterator[str]:
        """Every file and folder that the records (redo, head] touched; only asked where one sync cannot do."""
        for path, effect in fold_log(self._log, redo, head).walk():
            yield layout.folder(path)
            yield layout.metadata(path)
            yield from (layout.blob(path, name) for name in effect.blobs)

    def _staged(self, redo: int) -> list[str]:
        """The staging folders of records up to `redo`: also of those that another checkpoint trimmed, and then died."""
        found = waiting(self._storage, self._log, self._cleared)
        return [layout.staged_folder(txid) for txid, lsn in found.items() if lsn is not None and lsn <= redo]

    def _clear(self, staged: list[str], redo: int) -> None:
        for name in staged:
            self._storage.erase(name)
        empty_trash(self._storage)
        self._cleared = redo
