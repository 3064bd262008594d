"""Applies a net effect where hosts share the storage, so that the marks may say so: folders are flushed before.

Other hosts believe the marks, and a server that lost its power cannot tell anybody that names are gone. So unlike on a
local disk, where only a checkpoint makes files durable, each pass does. Where names are durable by themselves (buckets,
HDFS) there is nothing to flush.

A flush that failed proves nothing when it is repeated: the kernel may have dropped what it could not write, and the
next flush succeeds all the same. After a failure, an interrupt, or the death of the last committer, everything that no
mark calls applied is in doubt: the next pass writes it anew before it believes a flush.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import wal

from . import apply, layout, marks
from .clock import Clock
from .fold import Effect
from .outcome import Mode, Outcome


class Flushing:
    """Applies for one committer, in its tenures."""

    def __init__(self, storage: wal.Storage, log: wal.WriteAheadLog, clock: Clock, *, shared: bool) -> None:
        self._storage = storage
        self._log = log
        self._fault = 0  # the value of a fault that is not stored as a mark yet
        self._clock = clock
        self._shared = shared
        self._needed = shared and storage.capabilities.needs_sync

    def apply(
        self,
        tenure: wal.Tenure,
        effect: Effect,
        since: int,
        lsn: int,
        *,
        defer: bool = False,
        mode: Mode = Mode.FOLLOW,
    ) -> Outcome:
        """See `apply.apply`. A flush that fails is a failure of the root."""
        outcome = apply.apply(tenure.storage, effect, since, lsn, defer=defer, mode=mode, check=tenure.check)
        if self._needed and not outcome.failed:
            try:
                self._storage.sync(_folders(effect))
            except BaseException as error:
                self.doubt()
                if not isinstance(error, OSError):
                    raise
                outcome.failed[""] = error
        return outcome

    def doubt(self) -> None:
        """What was applied may not be durable: the next checkpoint must write it again; on a mount the next pass, what
        no mark calls applied."""
        if self._needed:
            # one more, not a random value: of two hosts' marks the higher one counts
            self._log.store_mark(marks.FAULT, self._log.load_mark(marks.FAULT) + 1)
        elif not self._shared:
            self._fault = int.from_bytes(self._clock.token(7), "big") | 1
            with suppress(OSError, wal.LogClosedError):  # the caller's error matters more; a checkpoint stores it
                self.store_fault()

    def store_fault(self) -> None:
        """Store a fault that could not be stored when it was recorded. Raises OSError."""
        if self._fault:
            self._log.store_mark(marks.FAULT, self._fault)
            self._fault = 0

    def in_doubt(self) -> bool:
        """Whether all that no mark calls applied must be written anew."""
        return self._needed and self._log.load_mark(marks.FAULT) != self._log.load_mark(marks.FAULT_SEEN)

    def settled(self) -> None:
        """It was."""
        self._log.store_mark(marks.FAULT_SEEN, self._log.load_mark(marks.FAULT))


def _folders(effect: Effect) -> Iterator[str]:
    """Every folder in which names changed. (Content was made durable before it took its name.)"""
    for path, inner in effect.walk():
        yield layout.folder(path)
        yield from {layout.blob(path, name).rpartition("/")[0] for name in inner.blobs if "/" in name}
