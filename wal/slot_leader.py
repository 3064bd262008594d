"""Group commit in a slot log: creating slot N commits batch N.

Other processes append at the same time, so an answer of `prepare` counts only if the log has not grown since it was
asked: creating the slot, or a read of the log's end, tells. If it has grown, the batch is made anew from the queue. The
end on which `prepare` was asked is kept in a variable, since another thread may advance the chain's at any time.

The outcome of a creation may be unknown (the reply was lost). Then the slot is read, and our token decides. *An absent
slot is unknown too*, since the request may still be in flight: the creation is tried again with the same bytes, or the
slot is occupied with an empty batch, and until one of these has succeeded this handle appends nothing else.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Sequence

from wal.clock import Clock
from wal.errors import InDoubtError, PoisonedError
from wal.group import Entry
from wal.interrupts import safe_point
from wal.leader import ask, settle
from wal.log import LSN, Record
from wal.slot import TOKEN_BYTES, Slot
from wal.slot_chain import End, SlotChain

_PAUSE = 0.002  # seconds; doubled with each attempt whose outcome is unknown, up to ...
_LONGEST_PAUSE = 1.0
# The winner of a slot could try the next one at once, and win it too, for ever: the losers have to read the slot first.
_REST = 4  # the winner waits for up to this many times as long as its last creation took (or _LONGEST_PAUSE), ...
_TURN = 4  # after this many slots in a row, ...
_SHARED = 10.0  # if it met a slot of another host less than these seconds ago, ...
_RUN = 64  # or after this many: there may be hosts that never won one
# Refused by the storage before it wrote anything, unless the slot exists all the same.
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


class SlotLeader:
    """Shared by all leaders of one handle."""

    def __init__(self, chain: SlotChain, clock: Clock, patience: float) -> None:
        """`patience`: seconds for which a creation whose outcome is unknown is tried again."""
        self._chain = chain
        self._clock = clock
        self._patience = patience
        self._doubt: LSN | None = None  # the slot that we may have created
        self._took = 0.0  # seconds, by the last creation
        self._own: LSN = 0  # the last slot that we created ...
        self._run = 0  # ... and how many in a row
        self._met = -math.inf  # when another host's slot was met last
        self.asked = chain.head  # the head that the last `prepare` was given

    def flush(self, take: Callable[[], list[Entry]]) -> None:
        """See `group.Leader`. Settles nothing if the log has grown."""
        self.settle_doubt()
        self._rest()
        entries, end = take(), self._chain.end
        self.asked = end.lsn
        accepted, refused = ask(entries, end.lsn)
        if self._counts(accepted, end):
            for entry, error in refused:
                entry.settle(error=error)

    def _counts(self, accepted: Sequence[Entry], end: End) -> bool:
        """Commit the accepted records if the answers given on `end` still count; False: all entries are asked again."""
        if self._chain.head != end.lsn:  # another thread has read new slots, or `prepare` itself took one
            return False
        if accepted:
            return self._create(accepted, end)
        self._chain.follow()
        return self._chain.head == end.lsn

    def _create(self, accepted: Sequence[Entry], end: End) -> bool:
        """Commit the accepted records directly after `end`; False if another process took the slot."""
        records = tuple(entry.record for entry in accepted if entry.record is not None)
        slot = self._slot(records, end)
        try:
            won = self._put(slot)
        except BaseException as error:
            if self._doubt is not None:  # also after an interrupt: these must not be tried again before it is settled
                if not isinstance(error, InDoubtError):
                    error.add_note(str(self._in_doubt(slot.lsn)))
                for entry in accepted:
                    doubt = self._in_doubt(slot.lsn)
                    doubt.__cause__ = error.__cause__ if isinstance(error, InDoubtError) else error
                    entry.settle(error=doubt)
            raise
        if not won:
            return False
        settle(accepted, slot.lsn)
        return True

    def _slot(self, records: tuple[Record, ...], end: End) -> Slot:
        return Slot(self._chain.log_id, end.lsn + 1, self._clock.token(TOKEN_BYTES), end.link, records)

    def _put(self, slot: Slot) -> bool:
        """Create a slot; False if another process did. Raises InDoubtError; OSError if the storage refused it."""
        before, self._doubt = self._doubt, slot.lsn
        found = self._try_until_known(slot, before)
        ours = found.token == slot.token
        if ours:
            self._chain.take(slot)
            self._run = self._run + 1 if slot.lsn == self._own + 1 else 1
            self._own = slot.lsn
        self._doubt = None
        if not ours:
            self._chain.follow(found)
        return ours

    def _try_until_known(self, slot: Slot, before: LSN | None) -> Slot:
        """Create the slot, or read who did: ours, durable, or another's. `before`: the doubt to restore if refused."""
        deadline = self._clock.monotonic() + self._patience
        pause = 0.0
        while True:
            failure = self._try(slot)
            if failure is None:
                return slot
            found, known = self._read_back(slot)
            if found is not None:
                return found
            if not pause and known and failure.errno in _REFUSED:
                self._doubt = before
                raise failure
            if self._clock.monotonic() >= deadline:
                raise self._in_doubt(slot.lsn) from failure
            pause = min(_LONGEST_PAUSE, pause * 2 or _PAUSE)
            safe_point()
            self._sleep(pause)

    def _try(self, slot: Slot) -> OSError | None:
        """Try once; None if it was created, else the error: FileExistsError if the name is taken."""
        file = self._chain.names.slot(slot.lsn)
        begun = self._clock.monotonic()
        try:
            if self._chain.storage.create(file, slot.encode()):
                self._took = self._clock.monotonic() - begun
                return None
        except OSError as error:
            return error
        return FileExistsError(errno.EEXIST, "the slot is taken, and cannot be read", file)

    def _read_back(self, slot: Slot) -> tuple[Slot | None, bool]:
        """(the slot as stored, whether that is known). Our own slot counts only once its name is durable, since that
        may be the step that failed: then a second flush would prove nothing."""
        try:
            found = self._chain.get(slot.lsn)
            if found is not None and found.token == slot.token:
                self._chain.doubt()
                self._chain.make_sure([found])
        except OSError:
            self._chain.doubt()
            return None, False
        return found, True

    def _in_doubt(self, lsn: LSN) -> InDoubtError:
        file = f"{self._chain.storage.url}/{self._chain.names.slot(lsn)}"
        return InDoubtError(f"it is unknown whether slot {lsn} ({file}) was created")

    def settle_doubt(self) -> None:
        """Decide the slot that an earlier append left in doubt. Raises PoisonedError if it cannot be decided now."""
        if self._doubt is None:
            return
        try:
            self._chain.doubt()
            self._chain.follow()
            if self._chain.head < self._doubt:
                self._put(self._slot((), self._chain.end))  # ours and empty, or another's: decided either way
            else:  # a reader may have taken it after a flush that proves nothing
                self._chain.doubt()
                self._chain.make_sure([slot for slot in (self._chain.get(self._doubt),) if slot is not None])
        except (OSError, InDoubtError) as error:
            raise PoisonedError(
                f"an earlier append is still in doubt (slot {self._doubt}), and the storage does not answer: {error}"
            ) from error
        self._doubt = None

    def occupy(self) -> LSN:
        """Take the next slot with an empty batch, so that no append in flight can take it; returns its LSN."""
        while True:
            slot = self._slot((), self._chain.end)
            if self._put(slot):
                return slot.lsn

    def _rest(self) -> None:
        """Let others have the next slot if we had the last one."""
        now = self._clock.monotonic()
        if 0 < self._own < self._chain.head:
            self._met = now
        elif self._run >= (_TURN if now - self._met < _SHARED else _RUN):
            self._run = 0
            if self._took:
                self._sleep(min(_LONGEST_PAUSE, _REST * self._took))

    def _sleep(self, longest: float) -> None:
        """Half to all of these seconds."""
        self._clock.sleep(longest * (0.5 + 0.5 * self._clock.token(1)[0] / 255))
