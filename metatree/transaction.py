"""A transaction: a draft on one committed snapshot, with its read set; committed or rolled back once.

No lock is held while its block runs. The snapshot is taken when the block begins. When a file has to be read, the
snapshot is extended to the head of the log if nothing in the read set has changed since; otherwise ConflictError is
raised, and raised again when the block ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import wal

from .commit import conflict
from .draft import Draft
from .errors import TransactionError
from .reads import ReadSet, Watch
from .view import View

if TYPE_CHECKING:
    from .engine import Engine

T = TypeVar("T")


class Transaction:
    """Returned by `tree.transaction()`; use it in one `with` statement. Without `with` it has no effect, and the calls
    that follow are committed one by one. (No warning when it is dropped unused: an interrupt just before the block
    would trigger it too.)

    After the block, `lsn` is the LSN of its record (None if there was nothing to commit). `replayed` tells whether its
    idempotency key had been used before; then nothing was committed and `lsn` is that of the first use. If the use is
    already known, both are set when the block begins.
    """

    def __init__(self, engine: Engine, message: str | None, idempotency_key: str | None, tree: object) -> None:
        """`tree` is kept alive as long as the transaction is."""
        self._tree = tree
        self._pid = os.getpid()
        self._engine = engine
        self._key = idempotency_key
        self._finished = False
        self._failure: Exception | None = None  # why it cannot be committed any more: most often a conflict
        self._draft: Draft | None = None
        self._base = 0
        self.staging = engine.staging()
        self.message = message
        self.lsn: int | None = None
        self.replayed = False
        self._entered = False

    @property
    def txid(self) -> str:
        """The transaction's id, for `tree.status`."""
        return self.staging.txid

    def __repr__(self) -> str:
        state = f"lsn={self.lsn}" if self._finished else "open" if self._draft is not None else "new"
        return f"<metatree.Transaction {self.message!r} {state}>"

    def __enter__(self) -> Transaction:
        if self._draft is not None or self._finished:
            raise TransactionError("a transaction is used once; make a new one with tree.transaction()")
        if self._engine.active.get() is not None:
            raise TransactionError("transactions do not nest: this task is inside one already")
        if self._pid != os.getpid():
            raise TransactionError("the transaction is the parent process's: make a new one in the forked child")
        try:
            with self._engine.translated, self._engine.reader.lock:
                self._engine.reader.refresh()
                self._base = self._engine.reader.head
                self._look_up_key()
            self._draft = Draft(View(self._engine.reader), self._engine.levels, ReadSet())
            self._engine.active.set(self)
            return self
        except BaseException:  # an interrupt after the `set` would leave this task in a block that never begins
            self.leave()
            raise

    def leave(self) -> None:
        """Take this task out of the transaction, however its block was left."""
        if self._engine.active.get() is self:
            self._step_out()
            self.staging.discard()

    def _look_up_key(self) -> None:
        """If the key is known to be used, set `replayed` and `lsn` now, so that the block can skip its work."""
        position = None if self._key is None else self._engine.committing.used(self._key)
        if position is not None:
            self.replayed, self.lsn = True, position.lsn

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._step_out()
            self._end(error)
        finally:
            self._step_out()  # an interrupt may have kept the first one from it

    def _step_out(self) -> None:
        """Take this task out of the transaction."""
        self._finished = True
        if self._engine.active.get() is self:
            self._engine.active.set(None)

    def _end(self, error: BaseException | None) -> None:
        if self._pid != os.getpid():
            if error is None:
                raise TransactionError("the transaction is the parent process's: a forked child cannot commit it")
            return
        if error is not None or self._failure is not None or self._draft is None:
            self.staging.discard()
            if error is None and self._failure is not None:
                with self._engine.translated:
                    raise self._failure
            return
        with wal.DeferredInterrupt(), self._engine.translated:  # what a signal handler raises is not translated
            outcome = self._engine.committing.transaction(
                self._draft, self._base, self.staging, self.message, self._key
            )
            self.replayed = outcome.replayed
            self.lsn = outcome.position.lsn if outcome.position is not None else None
            if not outcome.replayed:
                self._engine.committed(outcome.position)

    def run(self, verb: Callable[[Draft], T]) -> T:
        """Run a verb of the draft on its snapshot. Raises ConflictError."""
        if self._finished or self._draft is None:
            raise TransactionError("the transaction is finished; make a new one with tree.transaction()")
        draft, ran = self._draft, False

        def question(_: ReadSet) -> T:
            nonlocal ran
            self._extend(draft)
            answer = verb(draft)
            ran = True
            return answer

        try:
            return self._engine.reader.ask(question, draft.reads, fresh=False)
        except Exception as error:
            if ran and self._failure is None:  # the draft has changed, perhaps on a state that no longer holds
                self._failure = error
            raise

    def _extend(self, draft: Draft) -> None:
        if self._failure is not None:
            raise self._failure
        head = self._engine.reader.head
        if head != self._base:
            self._require_unchanged(draft.reads, self._base)
            self._base = head

    def _require_unchanged(self, reads: ReadSet, base: int) -> None:
        for _, header in self._engine.reader.since(base):
            found = reads.conflict(header.changes)
            if found:
                self._failure = conflict(found, header)
                raise self._failure

    def watching(self, draft: Draft) -> Watch:
        """For results that the block examines later: adds what it looks at to the read set, and raises ConflictError if
        that changed between the snapshot of then and of now. Later changes are found through the read set."""
        base = self._base

        def watch(note: Callable[[ReadSet], None]) -> None:
            note(draft.reads)
            looked_at = ReadSet()
            note(looked_at)
            if not self._finished and self._base != base and self._pid == os.getpid():
                with self._engine.translated, self._engine.reader.lock:
                    self._require_unchanged(looked_at, base)

        return watch
