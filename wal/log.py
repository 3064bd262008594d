"""The interface of the write-ahead log and its guarantees, the same on every storage.

A log is a sequence of **batches**, numbered 1, 2, 3, ... without gaps; the number is the LSN. A batch holds **records**
(none if it only occupies its number); the position of a record is its LSN and its index in the batch.

1. *Durable.* When `append` returns, its record survives `kill -9` and, as far as the storage keeps what it
   acknowledges, power loss.
2. *Atomic.* A batch is present whole or not at all.
3. *Ordered.* Every reader sees the same batches in the same order, and never one that could still vanish.
4. *Validated in place.* What `prepare` decides from the log up to `head`, and from the records accepted before it in
   its batch, holds at the position of its own record: nothing else is appended in between.
5. *Kept.* `trim` drops bodies, never headers, and only those that its caller declares unneeded.
6. *Told apart.* A torn tail is quarantined and reported, corruption is refused with file and offset, a missing log
   is LogMissingError, and what cannot be read is the storage's own OSError.

A record is two byte strings, opaque to the log: the `header` is kept for ever, the `body` until trimmed.
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
    """The records that one flush made durable together."""

    lsn: LSN
    records: tuple[Record, ...]


class Position(NamedTuple):
    """The position of a record."""

    lsn: LSN
    index: int  # type: ignore[assignment]  # hides tuple.index


class Deferred(Exception):
    """Raised by `prepare` to wait until this batch is committed and be called again, e.g. on a conflict with a mate."""


Prepare = Callable[[LSN, Sequence[Record]], Record | None]
"""`prepare(head, mates)`: `head` is the last committed LSN; `mates` are the records already accepted in batch head + 1.

Returns the record to append, or None to append nothing. May raise Deferred; any other exception is raised by its own
`append` and affects no other caller. It may run in another thread, and more than once: only the last result counts. An
error or None that may depend on mates counts once these are durable; if they could not be written, it is called again.
"""


class TailReport(NamedTuple):
    """What opening the log found after its last valid frame."""

    quarantined: int  # bytes of torn tail moved to quarantine; readers move none: a writer may be active
    quarantine: tuple[str, ...]  # names of the files that hold them
    adopted: int  # batches that were complete but unacknowledged, and are now committed


class Verification(NamedTuple):
    """Result of `verify`."""

    first: LSN  # oldest batch whose bodies are kept; head + 1 if none
    head: LSN
    segments: int
    problems: tuple[str, ...]  # empty: every byte of the log reads back
    only_head: bool = False  # the one problem is the head file, which the next first opener for appending rebuilds


class Applying(NamedTuple):
    """What the last holder of the right to apply has published of itself, where hosts share the log."""

    marks: tuple[int, ...]  # its marks, as it last wrote them: what they describe was done before
    held: bool  # False: it has released the right; True: it holds it, or has died
    sign: tuple[str, int, int]  # differs from time to time if it holds the right and lives ...
    ttl: float  # ... and if it does not differ for so many seconds, the holder is overtaken


class Tenure(Protocol):
    """The right to apply, for as long as it is held."""

    @property
    def died(self) -> bool:
        """Whether the previous holder died, or was presumed dead, while it held the right."""
        ...

    @property
    def storage(self) -> Storage:
        """The storage to publish through. It is fenced: no change made through it by an overtaken holder stays."""
        ...

    def check(self, *, now: bool = False) -> None:
        """Raise RightLostError if another holder has taken over. Call it regularly; it is usually free.
        `now`: ask the storage, as after a failed step; may then also raise OSError. If it raises nothing, every later
        holder begins with marks at least as high as the present ones: call it before removing what lower ones need."""
        ...


class WriteAheadLog(Protocol):
    """An open log. Thread-safe; one handle serves a whole process. The module docstring states the guarantees."""

    @property
    def id(self) -> str:
        """32 hex digits, chosen when the log was created."""
        ...

    @property
    def tail_report(self) -> TailReport:
        """What was found and repaired when this handle was opened."""
        ...

    def append(self, prepare: Prepare) -> Position | None:
        """Append the record that `prepare` returns and return its position; None if it returned None.

        Threads that append concurrently share one flush. Raises what `prepare` raised; LockBusyError and OSError
        (nothing was appended); InDoubtError (the outcome is unknown; on one machine the handle is then poisoned);
        PoisonedError.
        """
        ...

    def head(self, *, fresh: bool = False) -> LSN:
        """The last committed LSN, 0 for an empty log. Costs one `pread` or one request; inside `prepare` it returns
        that call's `head` at no cost. `fresh`: ask now, whatever staleness is allowed."""
        ...

    def shown(self) -> LSN | None:
        """The last committed LSN, if one look at a file shows it; None: ask `head`. Makes no request and takes no lock,
        so it is also allowed in a forked child before `reset_after_fork`. May raise what `head` raises."""
        ...

    def attended(self) -> bool | None:
        """Whether a writer on this machine has the log open; None if the storage or this user cannot tell."""
        ...

    def applying(self) -> Applying | None:
        """What the last holder of the right to apply has published, read now; None if nothing is known of one. Always
        None on one machine, where `attended` and `load_mark` tell it."""
        ...

    def trimmed(self, *, fresh: bool = False) -> LSN:
        """The redo mark: bodies up to this LSN may be gone, and replay begins after it. A lower bound, as last read.

        `fresh`: read it again.
        """
        ...

    def known(self) -> LSN:
        """The last committed LSN this handle has seen, without any I/O: for work that is validated later anyway."""
        ...

    def settle(self) -> None:
        """Decide the outcome of a failed append, of any process, at the end of the log: afterwards it is committed for
        good or void for good. Raises OSError, PoisonedError, InDoubtError if it cannot be decided now."""
        ...

    def read(self, after: LSN, upto: LSN | None = None) -> Iterator[Batch]:
        """The batches after LSN `after` through `upto`, in order. `upto`: a result of `head` or `known` (None: `head`).

        Records up to `trimmed()` have `body=None`. Raises LogCorruptionError.
        """
        ...

    def trim(self, upto: LSN) -> None:
        """Record durably that bodies up to `upto` are no longer needed, then free what can be freed. It is not fenced:
        a mark that says so must have been published first, see `Tenure.check`."""
        ...

    def size_after(self, lsn: LSN) -> int:
        """Approximate bytes of log after `lsn`, for deciding when to make a checkpoint."""
        ...

    def load_mark(self, index: int) -> int:
        """A number kept for the consumer of the log (index 0 to 7); volatile, and never above what was stored.

        On one machine all handles share it, and it is reset to 0 when a first opener recovers. Where hosts share the
        log each handle has its own, raised to the last holder's when this handle takes the right to apply.
        """
        ...

    def store_mark(self, index: int, value: int) -> None:
        """Set a mark, 0 to 2**63 - 1. Not durable; a torn write is never returned."""
        ...

    def right(self, timeout: float | None = None) -> AbstractContextManager[Tenure]:
        """The right to apply the log to other files: one holder among all processes and threads.

        On one machine `trimmed()` is exact while it is held. Never take it inside `prepare` (lock order: this right,
        then append). `timeout` in seconds. Raises LockBusyError naming the holder; at the end of the block
        RightLostError if another holder took over.
        """
        ...

    def verify(self) -> Verification:
        """Read every byte again and report what is wrong; changes nothing."""
        ...

    def reset_after_fork(self) -> None:
        """Call in a forked child: reopens what must not be shared with the parent. Once: further calls wait for the
        first one and do nothing, unless it failed; then the next one tries again."""
        ...

    def close(self) -> None: ...
