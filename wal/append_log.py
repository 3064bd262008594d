"""`WriteAheadLog` over files shared by processes of one host: segments, with one frame and one fdatasync per batch.

Reading order: `append` → `Group` → `Leader` → `Writer`. `opening` finds or creates a log.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from typing import NoReturn

from wal.chain import Chain
from wal.checkpoint import Checkpoint
from wal.errors import CANNOT_SYNC, LogClosedError, Translating, UnsupportedError
from wal.group import Group
from wal.head import HeadFile
from wal.history import History
from wal.interrupts import DeferredInterrupt
from wal.leader import Leader
from wal.log import LSN, Batch, Position, Prepare, TailReport, Tenure, Verification
from wal.names import Names
from wal.renewal import Renewal
from wal.rights import Holding, Right
from wal.settings import Settings
from wal.shelf import Shelf
from wal.storage.base import Lock
from wal.writer import Writer


class AppendLog:
    """See `WriteAheadLog`. Made by `wal.open_log`; `enter` finds the log's end, see `opening`."""

    def __init__(self, settings: Settings, log_id: bytes, enter: Callable[[AppendLog], TailReport]) -> None:
        self.settings = settings
        self.names = Names(settings.folder)
        self.log_id = log_id
        self.head_file: HeadFile | None = None
        self.alive: Lock | None = None  # held shared by every writer while it lives
        self._enter = enter
        self._closed = False
        self._renewal = Renewal(f"the log in {settings.storage.url}/{settings.folder}")
        self._at_work = Translating(self._translate)  # around uses of files that `close` may close in another thread
        self._attach()

    def _attach(self) -> None:
        settings = self.settings
        self.shelf = Shelf(settings.storage, self.names, writable=not settings.read_only)
        self.chain = Chain(self.shelf, self.log_id)
        self.history = History(self.shelf, self.log_id)
        if not settings.read_only:
            self.writer = Writer(self.chain, settings.segment_size)
            self.append_right = make_right(settings, self.names.folder, "the right to append")
            self._group = Group(Leader(self.append_right, self.writer, self.chain))
            self._apply_right = make_right(settings, self.names.apply, "the right to apply")
        try:
            self.report(self._enter(self))
        except BaseException:
            self.close()
            raise

    # --- state ------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """32 hex digits, made when the log was created."""
        return self.log_id.hex()

    @property
    def tail_report(self) -> TailReport:
        """What this handle's opening repaired."""
        return self._tail_report

    def head(self, *, fresh: bool = False) -> LSN:
        """The last committed LSN, 0 for an empty log. One `pread`; always `fresh`."""
        try:
            shown = self.shown()
            return self.look() if shown is None else shown
        except OSError as error:
            self._translate(error)

    known = head  # which is cheap here

    def attended(self) -> bool | None:
        """Whether a writer has the log open. Takes an opener's turn: an opener that found `alive` locked by this check
        would take that for a living writer, and not recover."""
        if self.alive is not None:
            return True
        storage, names = self.settings.storage, self.names
        try:
            if storage.entry(names.alive) is None or storage.entry(names.opening) is None:
                return False if storage.capabilities.append_log else None
            with closing(storage.lock(names.opening)) as opening, closing(storage.lock(names.alive)) as alive:
                if not opening.acquire(timeout=self.settings.lock_timeout):
                    return True  # an opener is still in recovery
                return not alive.acquire(timeout=0)
        except (OSError, UnsupportedError):
            return None

    def applying(self) -> None:
        """None: the marks are in the head file, and whether a writer lives is known from its lock."""

    def settle(self) -> None:
        """Decide what is at the log's end, as every holder of the append right does first."""
        self.append(lambda _head, _mates: None)

    def report(self, found: TailReport) -> TailReport:
        """Set by `enter` before the consumer's replay, which may read it: what was repaired."""
        self._tail_report = found
        return found

    def attach(self, head: HeadFile | None) -> None:
        """Set the head file, None if there is none: called by `enter` before anything else."""
        self.head_file = head
        self.shown: Callable[[], LSN | None] = _nothing if head is None else head.durable  # see WriteAheadLog
        if head is not None and not self.settings.read_only:
            self.writer.attach(head)

    def look(self, durable: LSN | None = None) -> LSN:
        """The last intact frame, made durable before it is returned (unless it is known to be `durable`)."""
        chain = self.chain
        chain.follow()
        lsn = chain.tail.lsn
        if lsn > chain.index.base and lsn != durable:
            try:
                self.shelf.datasync(chain.index.place(lsn)[0])
            except OSError as error:
                if error.errno not in CANNOT_SYNC:
                    raise
        if self.head_file is not None:
            self.head_file.raise_floor(lsn)
        return lsn

    def trimmed(self, *, fresh: bool = False) -> LSN:
        """See WriteAheadLog; `fresh`: read the checkpoint."""
        if fresh:
            with self._at_work:
                self._look_for_trim()
        return self.chain.checkpoint.redo

    def size_after(self, lsn: LSN) -> int:
        """Approximate bytes of log after `lsn`, as far as this handle has read it."""
        return self.chain.size_after(lsn)

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, after: LSN, upto: LSN | None = None) -> Iterator[Batch]:
        """The batches after `after`, in order, to `upto` or the head as it is now. See WriteAheadLog."""
        head = self.head() if upto is None else upto
        with self._at_work:
            self.chain.reach(head)
        return self._read(after, head)

    def _read(self, lsn: LSN, head: LSN) -> Iterator[Batch]:
        while lsn < head:
            if self._closed:
                raise LogClosedError("the log was closed")
            with self._at_work:
                batches = self.chain.batches(lsn + 1, head)
            if batches is None:
                upto = min(head, self.chain.index.base)
                yield from self.history.headers(lsn, upto)
                lsn = upto
            else:
                yield from batches
                lsn = batches[-1].lsn

    def verify(self) -> Verification:
        """Read every byte again and say what is wrong; changes nothing."""
        from wal.verify import verify_log  # imported here: rarely used

        head = self.head()
        with self._at_work:
            if self.settings.read_only:
                return verify_log(self.chain, self.history, self.head_file, head, whole=False)
            with self.append_right:
                return verify_log(self.chain, self.history, self.head_file, self.head(), whole=True)

    # --- appending --------------------------------------------------------------------------------------------------

    def append(self, prepare: Prepare) -> Position | None:
        """Append what `prepare` returns; None if it returned None. See WriteAheadLog."""
        if self._closed or self.settings.read_only:
            self._refuse()
        try:
            with DeferredInterrupt():
                return self._group.submit(prepare)
        except OSError as error:
            self._translate(error)

    def _translate(self, error: OSError) -> NoReturn:
        """Raise `error`, or LogClosedError if `close` has closed the file under this thread."""
        if self._closed and error.errno == errno.EBADF:
            raise LogClosedError("the log was closed") from error
        raise error

    def _refuse(self) -> NoReturn:
        if self._closed:
            raise LogClosedError("the log was closed")
        raise UnsupportedError("this log was opened read-only")

    def _writable_head(self) -> HeadFile:
        if self._closed or self.settings.read_only or self.head_file is None:
            self._refuse()
        return self.head_file

    # --- marks, the right to apply, trimming ------------------------------------------------------------------------

    def load_mark(self, index: int) -> int:
        """A consumer's mark; 0 if unknown."""
        try:
            return self.head_file.load_mark(index) if self.head_file is not None else 0
        except OSError as error:
            self._translate(error)

    def store_mark(self, index: int, value: int) -> None:
        """Set a consumer's mark. Not durable."""
        with self._at_work:
            self._writable_head().store_mark(index, value)

    def right(self, timeout: float | None = None) -> AbstractContextManager[Tenure]:
        """The right to apply. `timeout`: seconds; None: the handle's lock_timeout."""
        head_file = self._writable_head()
        if self._group.leading():
            raise RuntimeError("the right to apply was asked for inside a prepare: its order is apply before append")
        return Holding(self._apply_right, head_file, self._follow_trim, timeout, self.settings.storage, self._translate)

    def _follow_trim(self) -> None:
        """`_look_for_trim`, unless the head file shows no new redo mark."""
        if self._writable_head().trimmed() != self.chain.checkpoint.redo:
            self._look_for_trim()

    def _look_for_trim(self) -> None:
        """Read a redo mark that another handle has raised: bodies up to it may be gone."""
        checkpoint = self.chain.load_checkpoint()
        if checkpoint.redo > self.chain.checkpoint.redo:
            self.chain.reach(self.head())
            self.chain.moved(checkpoint)

    def trim(self, upto: LSN) -> None:
        """Raise the redo mark durably, then free what can be freed. If it is not higher, only free."""
        self._writable_head()
        with self._at_work, self.append_right:
            self.writer.catch_up()
            if not 0 <= upto <= self.chain.tail.lsn:
                raise ValueError(f"cannot trim up to {upto}: the head is {self.chain.tail.lsn}")
            checkpoint = self.chain.load_checkpoint()
            if upto > checkpoint.redo:
                checkpoint = Checkpoint(self.id, upto, *self.chain.index.place(upto))
                self.writer.store_checkpoint(checkpoint)
            self.chain.moved(checkpoint)
        with self._at_work:
            self.history.free(checkpoint.redo)

    # --- life -------------------------------------------------------------------------------------------------------

    def reset_after_fork(self) -> None:
        """In a forked child: reopen what must not be shared with the parent.

        The parent's files and locks are dropped, not closed: the parent's threads may still use them.
        """
        self._renewal.run(self._renew)

    def _renew(self) -> None:
        if self._closed:
            return
        if not self.settings.read_only:
            self.append_right.disown()
            self._apply_right.disown()
        if self.alive is not None:
            self.alive.disown()
        self.alive = self.head_file = None
        try:
            self._attach()
        except BaseException:
            self._closed = False  # the next call tries again
            raise

    def close(self) -> None:
        """Release every handle; calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        with ExitStack() as stack:  # the last first; and each, although another fails
            for file in (self.alive, self.head_file, self.shelf):
                if file is not None:
                    stack.callback(file.close)
            if not self.settings.read_only:
                stack.callback(self._apply_right.close)
                stack.callback(self.append_right.close)  # waits for a flush in progress


def _nothing() -> None:
    """Shown by a log without a head file."""


def make_right(settings: Settings, name: str, what: str) -> Right:
    """The right behind the lock `name`; `what`: its name in messages."""
    lock = settings.storage.lock(name)
    return Right(lock, f"{what} ({settings.storage.url}/{name})", settings.lock_timeout, settings.clock)
