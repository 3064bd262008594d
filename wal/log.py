"""The write-ahead log: its interface and what it guarantees, whatever lies beneath.

A log is a numbered sequence of **batches**; a batch holds one or more **records**. The number is the LSN
(1, 2, 3, ... without a gap); a record's place is its LSN and its index in the batch.

1. *Durable.* `append` returns only after its record survives `kill -9` and, as far as the storage's own
   acknowledgement goes, power loss.
2. *Atomic.* A batch is there whole or not at all.
3. *Ordered.* Every reader sees the same batches in the same order, and never one that could still vanish.
4. *Validated in place.* `prepare` runs while nobody else can append: what it decides from the log up to `head`
   and from the records accepted before it in its batch holds at the record's own position.
5. *Kept.* `trim` drops bodies, never headers; it drops a body only when its caller says so.
6. *Told apart.* A torn tail is quarantined and reported, corruption is refused by name and offset, a missing log
   is LogMissingError, and what cannot be read is the storage's own OSError.

A record is two byte strings that the log does not look into: the `header` stays for ever, the `body` until trimmed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from wal.storage.base import Storage

LSN = int


class Record(NamedTuple):
    """One entry of a batch."""

    header: bytes  # kept for ever; may be empty
    body: bytes | None  # None: trimmed (never None when appended)


class Batch(NamedTuple):
    """What one flush made durable."""

    lsn: LSN
    records: tuple[Record, ...]


class Position(NamedTuple):
    """Where a record stands."""

    lsn: LSN
    index: int  # type: ignore[assignment]  # not the method of tuples


class Deferred(Exception):
    """Raised by `prepare`: not in this batch; ask again when it is committed (a conflict with a batch mate)."""


Prepare = Callable[[LSN, Sequence[Record]], Record | None]
"""`prepare(head, mates)`: `head` is the last committed LSN, `mates` the records accepted before in the batch head + 1.

Returns the record to append or None to append nothing; raises Deferred; any other exception reaches the caller of
its `append` and concerns nobody else. It may run in another thread, and more than once: only its last result counts.
An error or a None that may rest on mates counts once these are durable; if they could not be written it is asked again.
"""


class TailReport(NamedTuple):
    """What opening the log found behind its last valid frame."""

    quarantined: int  # bytes of torn tail moved to quarantine; a mere reader leaves them, a writer may be at work there
    quarantine: tuple[str, ...]  # names of the files that hold them
    adopted: int  # batches that were complete but not yet acknowledged


class Verification(NamedTuple):
    """Result of `verify`."""

    first: LSN  # oldest batch whose body is held; head + 1 if none
    head: LSN
    segments: int
    problems: tuple[str, ...]  # empty: every byte of the log reads back


class Tenure(Protocol):
    """The right to apply, while it is held."""

    @property
    def died(self) -> bool:
        """Whether the holder before died while it held the right, or was believed dead."""
        ...

    @property
    def storage(self) -> Storage:
        """What the holder publishes through: of one that was overtaken, nothing that it does through this stays."""
        ...

    def check(self, *, now: bool = False) -> None:
        """Raises RightLostError if another has taken over. To be called now and then; usually costs nothing.
        `now`: find out, as after a step that failed. Then also raises OSError."""
        ...


class WriteAheadLog(Protocol):
    """An open log. Safe for threads; one handle serves a whole process. See the module for the guarantees."""

    @property
    def id(self) -> str:
        """32 hex digits, made when the log was created."""
        ...

    @property
    def tail_report(self) -> TailReport:
        """What this handle's opening repaired."""
        ...

    def append(self, prepare: Prepare) -> Position | None:
        """Append what `prepare` returns; None if it returned None.

        Threads that append at the same time share one flush. Raises what `prepare` raised; LockBusyError (nothing was
        appended); InDoubtError (the flush failed: the record may or may not be there; this handle is poisoned);
        PoisonedError; OSError (nothing was appended).
        """
        ...

    def head(self, *, fresh: bool = False) -> LSN:
        """The last committed LSN, 0 for an empty log. One `pread`, or one request; inside `prepare` its `head`, for
        nothing. `fresh`: as of now, whatever staleness was allowed."""
        ...

    def attended(self) -> bool | None:
        """Whether a writer has the log open, on one machine; None: that cannot be told, here or by this user."""
        ...

    def trimmed(self, *, fresh: bool = False) -> LSN:
        """All bodies up to here may be gone; replay begins after it. A durable lower bound, as of the last look.

        `fresh`: look again.
        """
        ...

    def known(self) -> LSN:
        """The last committed LSN that this handle has seen, without looking: for what is validated later anyway."""
        ...

    def settle(self) -> None:
        """Decide whatever an append that failed, of any process, may have left at the log's end: after this it is
        committed for good or void for good. Raises OSError, PoisonedError, InDoubtError: it cannot be decided now."""
        ...

    def read(self, after: LSN, upto: LSN | None = None) -> Iterator[Batch]:
        """The batches after `after`, in order, to `upto`, which `head` or `known` returned (None: `head` now).

        Records up to `trimmed()` come with `body=None`. Raises LogCorruptionError.
        """
        ...

    def trim(self, upto: LSN) -> None:
        """Declare that bodies up to `upto` are no longer needed, durably, then free what can be freed."""
        ...

    def size_after(self, lsn: LSN) -> int:
        """Bytes of log after `lsn`, roughly: for deciding when to checkpoint."""
        ...

    def load_mark(self, index: int) -> int:
        """A number kept for the log's consumer (index 0 to 7); volatile, and never more than what was stored.

        On one machine all handles see one number, which is 0 again whenever a first opener recovers. Where hosts share
        the log a number is the handle's own; it grows to the last holder's when this handle takes the right to apply.
        """
        ...

    def store_mark(self, index: int, value: int) -> None:
        """Set a consumer's mark, 0 to 2**63 - 1. Not durable; a torn write is never read."""
        ...

    def right(self, timeout: float | None = None) -> AbstractContextManager[Tenure]:
        """The right to carry the log out into other files: one holder among all processes and threads.

        On one machine `trimmed()` is exact meanwhile. Never take it inside `prepare` (order: right before append).
        Raises LockBusyError naming the holder; at the block's end RightLostError if another took over meanwhile.
        """
        ...

    def verify(self) -> Verification:
        """Read every byte again and say what is wrong; changes nothing."""
        ...

    def reset_after_fork(self) -> None:
        """In a forked child: reopen what must not be shared with the parent."""
        ...

    def close(self) -> None: ...
