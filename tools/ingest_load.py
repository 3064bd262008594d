"""Loads one batch as one transaction, while threads read the sources ahead of it.

A row is in the tree with its blob and its metadata, or it is rejected: a row that fails half way makes the batch begin
again without it, since what a call did inside a transaction can only be undone by rolling back all of it.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import stat
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

from ingest_manifest import Batch, Reject, Row, is_url
from ingest_rejects import Rejects

from metatree import (
    BlobExistsError,
    BlobNotFoundError,
    CommitUnknownError,
    ConflictError,
    InvalidLocationError,
    InvalidMetadataError,
    LockTimeoutError,
    Metatree,
    MetatreeError,
    NodeExistsError,
    NodeNotFoundError,
    UnavailableError,
)

READ_LIMIT = 1 << 20  # sources above this are handed to the tree as paths, which streams them
ROWS_AHEAD = 32  # sources read ahead: at most 32 MiB wait in memory
ATTEMPTS = 10
ROW_ERRORS = (
    BlobExistsError,
    BlobNotFoundError,
    InvalidLocationError,
    InvalidMetadataError,
    NodeExistsError,
    NodeNotFoundError,
)
# after any of these the same batch may be tried again: its idempotency key makes a second commit impossible
AGAIN = (ConflictError, CommitUnknownError, LockTimeoutError, UnavailableError)
# trouble of this machine, not of a row: rejecting rows for it would empty a manifest
OWN_TROUBLE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT}


class TreeStoppedError(Exception):
    """Loading cannot go on; the text says why."""


class _BeginAgainError(Exception):
    """Rolls the transaction back: a row failed half way."""


@dataclass(slots=True)
class Outcome:
    """What loading one batch did."""

    added: int = 0
    bytes: int = 0
    replayed: bool = False  # an earlier run had committed it


@dataclass(slots=True)
class _Attempt:
    """One pass over a batch."""

    outcome: Outcome = field(default_factory=Outcome)
    rejects: list[Reject] = field(default_factory=list)
    half_done: bool = False  # a rejected row left something in the transaction


@dataclass(frozen=True, slots=True)
class _Source:
    """What `put` gets for a row."""

    content: bytes | str  # small content, or the path or URL of a large source
    size: int


class Loader:
    """Loads batches into `tree`. `run` names manifest and options; it begins every idempotency key."""

    def __init__(self, tree: Metatree, run: str, workers: int) -> None:
        self._tree = tree
        self._run = run
        self._ahead = _ReadAhead(workers)
        self._last = _Attempt()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ahead.close()

    def load(self, batch: Batch, following: Sequence[Row], rejects: Rejects) -> Outcome:
        """Commit `batch`, or find that an earlier run did. `following` is what to read while it commits."""
        unknown: Outcome | None = None  # of an attempt that may have been committed
        for attempt in itertools.count():
            try:
                outcome = self._commit(batch, following, rejects)
            except AGAIN as error:
                self._ahead.forget()
                if attempt == ATTEMPTS - 1:
                    raise
                if isinstance(error, CommitUnknownError):
                    unknown = self._last.outcome
                time.sleep(random.uniform(0.0, 0.02 * 2**attempt))  # noqa: S311  (spreads competitors, no secret)
            else:
                break
        return unknown if unknown and outcome.replayed else outcome

    def _commit(self, batch: Batch, following: Sequence[Row], rejects: Rejects) -> Outcome:
        bad: list[Reject] = []
        while True:
            self._last = attempt = _Attempt(rejects=list(bad))
            try:
                return self._transact(batch, following, rejects, attempt)
            except _BeginAgainError:
                bad = attempt.rejects
                self._ahead.forget()

    def _transact(self, batch: Batch, following: Sequence[Row], rejects: Rejects, attempt: _Attempt) -> Outcome:
        offset: int | None = None
        with self._tree.transaction(self._message(batch), idempotency_key=self._key(batch)) as txn:
            if not txn.replayed:
                self._put_rows(batch, following, attempt)
                # before the commit: a kill between the two must lose neither
                offset = rejects.write(batch.number, self._sorted(batch, attempt))
        if not txn.replayed:
            return attempt.outcome
        self._ahead.forget()
        if offset is not None:  # committed by another run meanwhile: its rejects are the right ones
            rejects.take_back(offset)
        return Outcome(replayed=True)

    def _put_rows(self, batch: Batch, following: Sequence[Row], attempt: _Attempt) -> None:
        excluded = {reject.line for reject in attempt.rejects}
        rows = [row for row in batch.rows if row.line not in excluded]
        for row, future in self._ahead.through(rows, following):
            self._put_row(row, future, attempt)
        if attempt.half_done:
            raise _BeginAgainError

    def _put_row(self, row: Row, future: Future[_Source], attempt: _Attempt) -> None:
        put = False
        try:
            source = _result(future)
            self._tree.put(row.location, source.content, name=row.name)
            put = True
            if row.metadata:
                self._tree.update(row.location, row.metadata)
        except (MetatreeError, OSError, ValueError, _SourceError) as error:
            attempt.rejects.append(Reject.of(row.line, row.raw, _fault_of_row(error)))
            attempt.half_done |= put
        else:
            attempt.outcome.added += 1
            attempt.outcome.bytes += source.size

    def _sorted(self, batch: Batch, attempt: _Attempt) -> list[Reject]:
        return sorted([*batch.rejects, *attempt.rejects], key=lambda reject: reject.line)

    def _key(self, batch: Batch) -> str:
        return f"ingest-{self._run}-{batch.number}"

    def _message(self, batch: Batch) -> str:
        return f"ingest batch {batch.number}, {len(batch.rows)} rows"


class _SourceError(Exception):
    """A source cannot be read; the cause says why."""


def _result(future: Future[_Source]) -> _Source:
    error = future.exception()
    if error is None:
        return future.result()
    raise _SourceError from error  # filesystems of others raise whatever they like


def _fault_of_row(error: Exception) -> BaseException:
    """What is wrong with the row; raises `error` if the row is not to blame for it."""
    fault = (error.__cause__ or error) if isinstance(error, _SourceError) else error
    if isinstance(fault, MetatreeError) and not isinstance(fault, ROW_ERRORS):
        raise fault
    if isinstance(fault, MemoryError) or (isinstance(fault, OSError) and fault.errno in OWN_TROUBLE):
        raise TreeStoppedError(f"cannot read sources: {fault}") from fault
    return fault


class _ReadAhead:
    """Reads the sources of the next ROWS_AHEAD rows in threads."""

    def __init__(self, workers: int) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="read-source")
        self._window = max(ROWS_AHEAD, 2 * workers)
        self._pending: deque[tuple[Row, Future[_Source]]] = deque()

    def through(self, rows: Sequence[Row], following: Sequence[Row]) -> Iterator[tuple[Row, Future[_Source]]]:
        """Each of `rows` with its source; keeps reading into `following`, which the next call begins with."""
        upcoming = itertools.chain(itertools.islice(rows, len(self._pending), None), following)
        for _ in rows:
            self._fill(upcoming)
            yield self._pending.popleft()
        self._fill(upcoming)

    def _fill(self, upcoming: Iterator[Row]) -> None:
        for row in itertools.islice(upcoming, self._window - len(self._pending)):
            self._pending.append((row, self._pool.submit(_read, row.source)))

    def forget(self) -> None:
        """Drop what was read; the next call begins with other rows."""
        for _, future in self._pending:
            future.cancel()
        self._pending.clear()

    def close(self) -> None:
        self.forget()
        self._pool.shutdown(cancel_futures=True)


def _read(source: str) -> _Source:
    return _read_url(source) if is_url(source) else _read_path(source)


def _read_path(path: str) -> _Source:
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return _source(path, file.read(READ_LIMIT + 1), status.st_size)


def _open_without_waiting(path: str, flags: int) -> int:
    # what it is is asked through the descriptor: a FIFO would otherwise block for ever
    return os.open(path, flags | os.O_NONBLOCK)


def _read_url(url: str) -> _Source:
    import fsspec  # here: most loads are local and must not pay for it

    with fsspec.open(url, "rb") as file:
        return _source(url, file.read(READ_LIMIT + 1), getattr(file, "size", None) or 0)


def _source(where: str, head: bytes, size: int) -> _Source:
    """Small content itself; for a large one only where it is (`size` may be unknown: 0)."""
    return _Source(head, len(head)) if len(head) <= READ_LIMIT else _Source(where, max(size, len(head)))
