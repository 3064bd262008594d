"""The parts of an open tree, wired: storage, log, reader, committer, checkpointer. No verb of the API is here."""

from __future__ import annotations

import atexit
import os
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

import wal

from . import checkpoint, config, layout, recovery
from .clock import Clock
from .commit import Committing
from .committer import Committer
from .draft import Draft
from .errors import (
    ClosedError,
    CorruptionError,
    MetatreeError,
    ReadOnlyError,
    TransactionError,
    UnavailableError,
    UnsupportedStorageError,
)
from .location import Path
from .reader import Reader
from .staging import Staging
from .view import View

if TYPE_CHECKING:
    from .transaction import Transaction

T = TypeVar("T")

LOCK_TIMEOUT = 60.0  # seconds to wait for another process before LockTimeoutError
MAX_UNAPPLIED = 64 << 20  # bytes of log the files may be behind before a background writer applies them itself

_open: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """An open tree's inside."""

    def __init__(
        self,
        storage: wal.Storage,
        keys: Sequence[str] | None,
        *,
        read_only: bool,
        background: bool,
        clock: Clock | None = None,
        lock_timeout: float = LOCK_TIMEOUT,
        segment_size: int = 16 << 20,
    ) -> None:
        self.storage = storage
        self.clock = clock or Clock()
        self.read_only = read_only
        self.recovered: recovery.Recovered | None = None
        self._pid = os.getpid()
        self._closed = False
        self.lock_timeout = lock_timeout
        self._segment_size = segment_size
        wanted = None if keys is None else config.check_keys(keys)
        self.levels, self.log = self._open(wanted)
        self.reader = Reader(storage, self.log, len(self.levels), trust_applied=not read_only)
        self.committer = Committer(
            storage,
            self.log,
            self.reader,
            self.clock,
            background=background and not read_only,
            lock_timeout=lock_timeout,
        )
        vouches_from = 0 if self.recovered is not None else self.log.head()
        self.checkpointer = checkpoint.Checkpointer(
            storage, self.log, self.committer, self.clock, vouches_from=vouches_from, lock_timeout=lock_timeout
        )
        self.committing = Committing(self.log, self.reader, self.committer, self.levels, self.clock)
        self.cursor: ContextVar[Path] = ContextVar("cursor", default=())
        self.active: ContextVar[Transaction | None] = ContextVar("active", default=None)
        self.committer.start()
        _open.add(self)

    # --- opening ---------------------------------------------------------------------------------------------------

    def _open(self, keys: tuple[str, ...] | None) -> tuple[tuple[str, ...], wal.WriteAheadLog]:
        found = config.read(self.storage)
        if found is None and not config.is_free(self.storage):
            found = config.read(self.storage)  # another process may have made the tree meanwhile
            if found is None:
                raise MetatreeError(
                    f"{self.storage.url} is neither a tree nor empty; choose an empty or new folder for a new tree"
                )
        if found is not None and found.log_id is not None:
            config.check_same_keys(keys, found, self.storage)
            return found.keys, self._open_log(found.log_id)
        if self.read_only and found is None:
            raise MetatreeError(f"{self.storage.url} holds no tree")
        if self.read_only:
            raise ReadOnlyError(f"{self.storage.url} is a tree of metatreedb 0.2.3: open it for writing to adopt it")
        self._require_writable()
        return self._found(keys) if found is None else self._adopt(keys, found)

    def _open_log(self, log_id: str) -> wal.WriteAheadLog:
        if not self.read_only:
            self._require_writable()
            config.keep_tripwire(self.storage)
        log = self._log(create=False)
        if log.id != log_id:
            log.close()
            raise CorruptionError(
                f"the log in {self.storage.url}/{layout.LOG} is that of another tree (log {log.id}, tree {log_id}): "
                "the folders of two trees were mixed; restore one of them whole"
            )
        return log

    def _found(self, keys: tuple[str, ...] | None) -> tuple[tuple[str, ...], wal.WriteAheadLog]:
        if keys is None:
            raise MetatreeError(
                f"{self.storage.url} holds no tree yet; to create one, name its levels: keys=('model', …)"
            )
        self.storage.make_folder(layout.LOG)
        log = self._log(create=True)
        config.found(self.storage, keys, log.id)
        return keys, log

    def _adopt(self, keys: tuple[str, ...] | None, found: config.Config) -> tuple[tuple[str, ...], wal.WriteAheadLog]:
        config.check_same_keys(keys, found, self.storage)
        config.set_tripwire(self.storage)
        self.storage.make_folder(layout.LOG)
        log = self._log(create=True)
        config.adopt(self.storage, found.keys, log.id)
        return found.keys, log

    def _log(self, *, create: bool) -> wal.WriteAheadLog:
        def recover(log: wal.WriteAheadLog) -> None:
            self.recovered = recovery.recover(self.storage, log, self.clock)

        return wal.open_log(
            self.storage,
            layout.LOG,
            create=create,
            read_only=self.read_only,
            recover=None if self.read_only else recover,
            lock_timeout=self.lock_timeout,
            segment_size=self._segment_size,
            clock=self.clock,
        )

    def _require_writable(self) -> None:
        can = self.storage.capabilities
        if not can.writable:
            raise ReadOnlyError(f"{self.storage.url} cannot be written ({can.reason}); open it with read_only=True")
        if not can.append_log:
            raise UnsupportedStorageError(f"{self.storage.url}: {can.reason}; open it with read_only=True")

    # --- reading and changing ---------------------------------------------------------------------------------------

    def read(self, question: Callable[[Draft], T]) -> T:
        """The answer of `question`: in the running transaction's state, or in one committed state."""
        self.require_usable()
        active = self.active.get()
        if active is not None:
            return active.run(question)
        return self.reader.ask(lambda reads: question(Draft(View(self.reader), self.levels, reads)))

    def change(self, change: Callable[[Draft], T], staging: Staging | None = None) -> T:
        """Make a change: in the running transaction, or as a commit of its own."""
        active = self.active.get()
        if active is not None:
            return active.run(change)
        outcome = self.committing.single(change, staging or self.staging())
        self.committed(outcome.position)
        return outcome.value

    def committed(self, position: wal.Position | None) -> None:
        """What follows a commit: files, back-pressure, checkpoint. Whatever fails here, the commit is durable: it is a
        warning, and `flush` raises it."""
        if position is None:
            return
        try:
            self.committer.committed(position.lsn)
            if self.committer.background and self._behind(position.lsn) > MAX_UNAPPLIED:
                self.committer.flush()
            if checkpoint.is_due(self.log):
                self.checkpoint_quietly()
        except (OSError, wal.WalError, MetatreeError) as error:
            self.committer.note(f"{type(error).__name__}: {error}")
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f"the commit with LSN {position.lsn} is durable; its files will follow")
            raise

    def _behind(self, lsn: int) -> int:
        """Bytes of log that the files are behind."""
        return self.log.size_after(lsn - self.committer.unapplied())

    def checkpoint_quietly(self) -> None:
        """A checkpoint nobody asked for: what keeps it from being made is kept for `flush` and the next one."""
        try:
            self.checkpointer.run()
        except (OSError, wal.WalError, MetatreeError) as error:
            self.committer.failure = f"no checkpoint: {error}"

    def staging(self) -> Staging:
        """Staging for a commit: the running transaction's, or one of its own."""
        self.require_writable()
        active = self.active.get()
        if active is not None:
            return active.staging
        return Staging(self.storage, lambda: self.clock.txid(self.log.head()))

    def require_usable(self) -> None:
        """Raises ClosedError; after a fork, reopens first what must not be shared."""
        if self._closed:
            raise ClosedError("the tree is closed; open it again with Metatree(root)")
        if self._pid != os.getpid():
            self.reset_after_fork()

    def require_writable(self) -> None:
        """Raises ClosedError, ReadOnlyError."""
        self.require_usable()
        if self.read_only:
            raise ReadOnlyError(f"{self.storage.url} was opened with read_only=True")

    # --- life cycle -------------------------------------------------------------------------------------------------

    def reset_after_fork(self) -> None:
        """In a forked child: new locks and threads, and nothing of the transaction that may have been running."""
        self._pid = os.getpid()
        self.log.reset_after_fork()
        self.committer.reset_after_fork()
        self.reader.reset_after_fork()
        self.active.set(None)

    def close(self) -> None:
        """Bring the files up to date, make a checkpoint, release everything. Raises what kept the files behind."""
        if self._closed:
            return
        if self._pid != os.getpid():  # a forked child that never used the tree
            self._closed = True
            return
        if self.active.get() is not None:
            raise TransactionError("the tree cannot be closed inside a transaction")
        self._closed = True
        try:
            if not self.read_only:
                self.committer.stop()
                self._drain()
        finally:
            self.log.close()
            self.storage.close()

    def abandon(self) -> None:
        """Release everything at once, as a crash would: for a tree that was dropped without being closed."""
        if not self._closed and self._pid == os.getpid():
            self._closed = True
            self.committer.stop()
            self.log.close()
            self.storage.close()

    def _drain(self) -> None:
        """Checkpoint; if it cannot be made the log keeps everything, and only files left behind are an error."""
        try:
            self.checkpointer.run()
        except (OSError, wal.WalError, MetatreeError) as error:
            if self.committer.unapplied():
                raise UnavailableError(f"closed, but files are behind the log until the next open: {error}") from error


@atexit.register
def _close_all() -> None:
    """A program that ends without closing its trees still leaves files that show every commit, and a short log."""
    for engine in list(_open):
        try:
            engine.close()
        except (MetatreeError, OSError, wal.WalError) as error:
            warnings.warn(f"{engine.storage.url}: {error}", RuntimeWarning, stacklevel=1)
