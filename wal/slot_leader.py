"""What a leader does for all who wait, where batches are slots: whoever creates slot N has committed batch N.

Nobody is kept from appending meanwhile, so an answer of `prepare` counts only if the log has not grown since: the new
slot, or a look at the log's end, tells. If it has, the batch is made again from the queue.

The outcome of a creation may be unknown (a reply was lost). Then the slot is read: our token decides. *Absent is
unknown too*, since the request may still be on its way: the same slot is tried again with the same bytes, or given up
by occupying it with nothing, and until that is done this handle appends nothing else.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from wal.clock import Clock
from wal.errors import InDoubtError, PoisonedError
from wal.group import Entry, Queue
from wal.interrupts import safe_point, tell
from wal.leader import ask, fail
from wal.log import LSN, Position, Record
from wal.slot import TOKEN_BYTES, Slot
from wal.slot_chain import SlotChain

_BATCH_RECORDS = 1024
_PAUSE = 0.002  # seconds; doubled with each slot that was lost, to at most ...
_LONGEST_PAUSE = 1.0
# Refused by the storage before anything was written.
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


class SlotLeader:
    """The same for every leader of one handle."""

    def __init__(self, chain: SlotChain, clock: Clock, patience: float) -> None:
        """`patience`: seconds for which a creation whose outcome is unknown is tried again."""
        self._chain = chain
        self._clock = clock
        self._patience = patience
        self._doubt: LSN | None = None  # the slot that we may have created
        self._lost = 0  # slots, one after the other

    def flush(self, queue: Queue) -> None:
        """By the leader: one batch, or the knowledge that the log has grown."""
        entries: list[Entry] = []
        try:
            self.settle_doubt()
            entries = queue.take(_BATCH_RECORDS)
            accepted, refused = ask(entries, self._chain.head)
            if self._create(accepted) if accepted else not self._chain.follow():
                self._lost = 0
                for entry, error in refused:
                    entry.settle(error=error)
            else:
                self._pause()
        except Exception as error:  # noqa: BLE001  whatever it is, nobody in the queue may hang
            tell(f"the append failed before the interrupt: {error}")
            entries = entries or queue.take(_BATCH_RECORDS)
            # it concerns those whose records were to be written, if there are any: the others are asked again
            fail([entry for entry in entries if entry.record is not None] or entries, error)
        finally:
            queue.put_back(entry for entry in entries if not entry.done)
            queue.wake(entry for entry in entries if entry.done)

    def _create(self, accepted: Sequence[Entry]) -> bool:
        """Whether the accepted records are committed now; if not, another was faster and they are to be asked again."""
        records = tuple(entry.record for entry in accepted if entry.record is not None)
        slot = self._slot(records)
        try:
            won = self._put(slot)
        except BaseException as error:
            if self._doubt is not None:  # also when interrupted: nobody may try these again before that is settled
                for entry in accepted:
                    entry.settle(error=error if isinstance(error, InDoubtError) else self._in_doubt(slot.lsn))
            raise
        if not won:
            return False
        for index, entry in enumerate(accepted):
            entry.settle(Position(slot.lsn, index))
        tell(f"batch {slot.lsn} was committed before the interrupt")
        return True

    def _slot(self, records: tuple[Record, ...]) -> Slot:
        chain = self._chain
        return Slot(chain.log_id, chain.head + 1, self._clock.token(TOKEN_BYTES), chain.link, records)

    def _put(self, slot: Slot) -> bool:
        """Create a slot; False if another was faster. Raises InDoubtError; OSError if the storage refused it."""
        data, file = slot.encode(), self._chain.names.slot(slot.lsn)
        deadline = self._clock.monotonic() + self._patience
        attempt = 0
        while True:
            self._doubt = slot.lsn
            try:
                won, found = self._chain.storage.create(file, data), None
                if not won:
                    found = self._chain.get(slot.lsn)
            except OSError as error:
                if attempt == 0 and error.errno in _REFUSED:
                    self._doubt = None
                    raise
                found = self._read_back(slot.lsn)
                if found is None and self._clock.monotonic() >= deadline:
                    raise self._in_doubt(slot.lsn) from error
                won = False
            if won or found is not None:
                break
            attempt += 1
            safe_point()
            self._wait(attempt)
        self._doubt = None
        if won or (found is not None and found.token == slot.token):
            self._chain.take(slot)
            return True
        self._chain.follow(found)
        return False

    def _read_back(self, lsn: LSN) -> Slot | None:
        """What stands in a slot; None if nothing, or if that cannot be learned now."""
        try:
            return self._chain.get(lsn)
        except OSError:
            return None

    def _in_doubt(self, lsn: LSN) -> InDoubtError:
        file = f"{self._chain.storage.url}/{self._chain.names.slot(lsn)}"
        return InDoubtError(f"whether slot {lsn} ({file}) was created cannot be learned")

    def settle_doubt(self) -> None:
        """Decide the slot that an earlier append left in doubt. Raises PoisonedError: it cannot be decided now."""
        if self._doubt is None:
            return
        try:
            self._chain.follow()
            if self._chain.head < self._doubt:
                self.occupy()
        except (OSError, InDoubtError) as error:
            raise PoisonedError(
                f"an earlier append is still in doubt (slot {self._doubt}), and the storage does not answer: {error}"
            ) from error
        self._doubt = None

    def occupy(self) -> LSN:
        """Take the next slot with an empty batch, so that no append that is still on its way can have it; its LSN."""
        while True:
            slot = self._slot(())
            if self._put(slot):
                return slot.lsn
            self._pause()

    def _pause(self) -> None:
        self._lost += 1
        self._wait(self._lost)

    def _wait(self, attempt: int) -> None:
        longest = min(_LONGEST_PAUSE, _PAUSE * 2.0 ** min(attempt, 20))
        self._clock.sleep(longest * (0.2 + 0.8 * self._clock.token(1)[0] / 255))
