"""Wires the parts of an open tree: storage, log, reader, committer, checkpointer. It holds no verb of the API."""

from __future__ import annotations

import atexit
import os
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import closing
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

import wal

from . import checkpoint, config, recovery
from .clock import Clock
from .commit import Committing
from .committer import Committer
from .draft import Draft
from .errors import (
    ClosedError,
    MetatreeError,
    ReadOnlyError,
    TransactionError,
    UnavailableError,
    raise_from_handler,
    reason,
    translated,
)
from .location import Path
from .nodes import Found, Where
from .opening import Opening
from .reader import Reader
from .staging import Staging
from .view import View

if TYPE_CHECKING:
    from .transaction import Transaction

T = TypeVar("T")

LOCK_TIMEOUT = 60.0  # seconds to wait for another process before LockTimeoutError
# With apply="background", a commit applies the log itself once the files are behind by this many bytes of log ...
MAX_UNAPPLIED = 64 << 20
MAX_UNAPPLIED_SLOTS = 256  # ... or by this many slots, where hosts share the storage

_open: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """The internals of an open tree."""

    def __init__(
        self,
        storage: wal.Storage,
        keys: Sequence[str] | None,
        *,
        read_only: bool,
        apply: str = "sync",
        clock: Clock | None = None,
        staleness: float = 0.0,
        lock_timeout: float = LOCK_TIMEOUT,
        segment_size: int = 16 << 20,
        ttl: float = wal.TTL,
    ) -> None:
        """`staleness`, `ttl`, `segment_size`: see `wal.open_log`."""
        self.storage = storage
        self.translated = translated(storage.url)  # around every call of the API
        self.clock = clock or Clock()
        self.read_only = read_only
        self._renewal = wal.Renewal(storage.url)
        self._closed = False
        self.lock_timeout = lock_timeout
        opened = Opening(
            storage,
            self.clock,
            read_only=read_only,
            lock_timeout=lock_timeout,
            segment_size=segment_size,
            staleness=staleness,
            ttl=ttl,
        ).open(None if keys is None else config.check_keys(keys))
        self.levels, self.log, self.shared, self.recovered = opened
        self._wire(background=apply == "background" and not read_only)
        self.cursor: ContextVar[Path] = ContextVar("cursor", default=())
        self.active: ContextVar[Transaction | None] = ContextVar("active", default=None)
        if self.committer.background:
            self.committer.follow()
        _open.add(self)
        atexit.unregister(_close_all)  # registered last, it runs first: before connections are closed
        atexit.register(_close_all)

    def _wire(self, *, background: bool) -> None:
        """Create the parts that work on the log."""
        # where hosts share the storage, published files are durable: every process can trust the applied mark
        trust = not self.read_only or self.shared
        self.reader = Reader(self.storage, self.log, len(self.levels), trust_applied=trust, shared=self.shared)
        self.committer = Committer(
            self.storage,
            self.log,
            self.reader,
            self.clock,
            background=background,
            lock_timeout=self.lock_timeout,
            shared=self.shared,
        )
        self.checkpointer = checkpoint.Checkpointer(
            self.storage,
            self.log,
            self.committer,
            self.clock,
            vouches_from=0 if self.recovered is not None else self.log.known(),
            batches=checkpoint.SLOTS if self.shared else checkpoint.BATCHES,
        )
        if self.shared and background:  # a checkpoint makes about a hundred requests, for which no caller should wait
            self.committer.upkeep = lambda: self._checkpoint_if_due(self.log.known())
        self.committing = Committing(self.log, self.reader, self.committer, self.levels, self.clock)

    # --- reading and changing ---------------------------------------------------------------------------------------

    def read(self, question: Callable[[Draft], T]) -> T:
        """The answer of `question`: in the running transaction's state, or in one committed state."""
        self.require_usable()
        active = self.active.get()
        if active is not None:
            return active.run(question)
        return self.reader.ask(lambda reads: question(Draft(View(self.reader), self.levels, reads)))

    def warm(self, where: Where) -> Found | None:
        """The node at a location, if it is held in memory at the log's present head; None: use `read`."""
        if self.active.get() is not None:
            return None
        window = self.reader.window
        head = window.head  # first: an entry is removed before the window leaves the state that it describes
        found = window.nodes.resolved.get(where)
        if found is None:
            return None if self.shared or self._closed or self._renewal.pid != os.getpid() else self.reader.hold(where)
        try:  # takes no lock, so a forked child may do the same; and a log that was closed says so
            return found if self.log.shown() == head else None
        except (wal.WalError, OSError) as error:
            raise_from_handler(error)
            return None

    def examine(self, question: Callable[[Draft], object]) -> None:
        """Ask `question` only for the errors it may raise, before work that the commit validates again."""
        self.require_usable()
        active = self.active.get()
        if active is not None:
            active.run(question)
        else:
            self.reader.ask(lambda reads: question(Draft(View(self.reader), self.levels, reads)), fresh=False)

    def change(self, change: Callable[[Draft], T], staging: Staging | None = None) -> T:
        """Make a change: in the running transaction, or as a commit of its own."""
        staging = staging or self.staging()  # first: in a forked child, it leaves the parent's transaction
        active = self.active.get()
        if active is not None:
            return active.run(change)
        outcome = self.committing.single(change, staging)
        self.committed(outcome.position)
        return outcome.value

    def committed(self, position: wal.Position | None) -> None:
        """The work after a commit: apply, back-pressure, checkpoint. A failure is a warning, and `flush` raises it."""
        if position is None:
            return
        try:
            if self.shared and not self.committer.background:
                self._checkpoint_if_due(position.lsn)  # before `committed`, since it also applies, under one tenure
            self.committer.committed(position.lsn)
            due = not self.shared and self.checkpointer.is_due(position.lsn)  # else its log is short
            if self.committer.background and (self.shared or due) and self._is_far_behind(position.lsn):
                self.committer.flush()
            if due:
                self.checkpoint_quietly()
        except (OSError, wal.WalError, MetatreeError) as error:
            self.committer.note(reason(error))
        except BaseException as error:
            error.add_note(f"the commit with LSN {position.lsn} is durable; its files will follow")
            raise

    def _is_far_behind(self, lsn: int) -> bool:
        """Whether the files are so far behind `lsn` that its commit has to wait for them."""
        applied = self.committer.applied()
        return (self.shared and lsn - applied > MAX_UNAPPLIED_SLOTS) or self.log.size_after(applied) > MAX_UNAPPLIED

    def _checkpoint_if_due(self, head: int) -> None:
        if self.checkpointer.is_due(head):
            self.checkpoint_quietly()

    def checkpoint_quietly(self) -> None:
        """An automatic checkpoint: a failure is not raised but kept for `flush`, and the next one tries again."""
        try:
            self.checkpointer.run(unless_running=True)
        except (OSError, wal.WalError, MetatreeError) as error:
            self.committer.failure = f"no checkpoint: {error}"

    def staging(self) -> Staging:
        """Staging for a commit: the running transaction's, or one of its own."""
        self.require_writable()
        active = self.active.get()
        if active is not None:
            return active.staging
        return Staging(self.storage, lambda: self.clock.txid(self.reader.head), self.committing.require_not_aborted)

    def let_read(self) -> None:
        """Called before a blob is opened: make what the running transaction staged readable."""
        self.require_usable()  # first: in a forked child, it leaves the parent's transaction
        if (active := self.active.get()) is not None:
            active.staging.let_read()

    def require_usable(self) -> None:
        """Raises ClosedError. After a fork, first renews what must not be shared."""
        if self._renewal.pid != os.getpid():
            self._renewal.run(self._reset_after_fork)
        if self._closed:
            raise ClosedError("the tree is closed; open it again with Metatree(root)")

    def require_writable(self) -> None:
        """Raises ClosedError, ReadOnlyError."""
        self.require_usable()
        if self.read_only:
            raise ReadOnlyError(f"{self.storage.url} was opened with read_only=True")

    def recover(self, *, dry_run: bool) -> recovery.Recovered:
        """See `Metatree.recover`."""
        self.require_usable()
        if dry_run:
            return recovery.plan(self.storage, self.log, shared=self.shared)
        self.require_writable()
        if self.shared:
            return recovery.recover_shared(self.log, self.committer)
        head = self.log.head()
        done = self.recovered or recovery.Recovered(head, head)
        if not done.failed:
            self.committer.flush()
        return done

    # --- life cycle -------------------------------------------------------------------------------------------------

    def _reset_after_fork(self) -> None:
        """In a forked child: make new locks and threads, and forget the transaction that may have been running."""
        if self._closed:
            return
        if not self.read_only:
            self.storage.reset_after_fork()  # may fail, and so may the log: then the next call tries again
        self.log.reset_after_fork()
        self.committer.reset_after_fork()
        self.checkpointer.reset_after_fork()
        self.reader.reset_after_fork()
        self.active = ContextVar("active", default=None)  # for every thread, whichever has come here

    def close(self) -> None:
        """Bring the files up to date, make a checkpoint, release everything. Raises what kept the files behind. Its
        caller defers signals: a half-released tree could be neither used nor closed again."""
        if self._renewal.pid != os.getpid():
            with self._renewal.turn():
                self._closed |= self._renewal.pid != os.getpid()  # a forked child that never used the tree
        if self._closed:
            return
        if self.active.get() is not None:
            raise TransactionError("the tree cannot be closed inside a transaction")
        self._closed = True
        with closing(self.storage), closing(self.log):
            if not self.read_only:
                self.committer.stop()
                self._drain()

    def abandoned_with(self, tree: object) -> weakref.finalize[..., object]:
        """Release everything when `tree` is garbage-collected without being closed; `close` detaches the result."""
        finalizer = weakref.finalize(tree, self.abandon)
        finalizer.atexit = False  # at exit `_close_all` closes the tree instead
        return finalizer

    def abandon(self) -> None:
        """Release everything at once, without applying or a checkpoint: for a tree that was never closed."""
        with wal.DeferredInterrupt():
            if not self._closed and self._renewal.pid == os.getpid():
                self._closed = True
                with closing(self.storage), closing(self.log):
                    self.committer.stop()

    def _drain(self) -> None:
        """Make a checkpoint. If it fails, the log keeps everything: only files that are behind the log are an error."""
        try:
            self.checkpointer.run_at_end()
        except (OSError, wal.WalError, MetatreeError) as error:
            if self.committer.unapplied():
                raise UnavailableError(f"closed, but files are behind the log until the next open: {error}") from error


def _close_all() -> None:
    """Close every tree that the program left open, so that the files show every commit and the log is short."""
    for engine in list(_open):
        try:
            with wal.DeferredInterrupt():
                engine.close()
        except Exception as error:  # noqa: BLE001  whatever it is, the others are closed too
            warnings.warn(f"{engine.storage.url}: {reason(error)}", RuntimeWarning, stacklevel=1)
