"""`WriteAheadLog` over a storage that hosts share: every batch is an object of its own, created by put-if-absent.

Reading order: `append` → `Group` → `SlotLeader` → `SlotChain`; the right to apply: `host_right`. Nothing here is
volatile: what is acknowledged is durable, so there is no first opener and no recovery of the log itself.

Beyond `WriteAheadLog`: a slot, once created, is never removed. Trimming replaces its bodies by the LSN up to which
bodies are trimmed, so a writer that was paused finds its slot taken, and a reader that was paused skips to that LSN.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NoReturn

from wal.checkpoint import Checkpoint
from wal.claim import MARKS
from wal.epoch import Epochs
from wal.errors import InDoubtError, LogClosedError, LogCorruptionError, UnsupportedError, WalError
from wal.fencing import applying, at_once, claimant
from wal.group import Group
from wal.host_right import HostRight
from wal.interrupts import DeferredInterrupt, safe_point
from wal.lease import Lease
from wal.log import LSN, Applying, Batch, Deferred, Position, Prepare, Record, TailReport, Tenure, Verification
from wal.names import Names, slot_numbers
from wal.parallel import WORKERS, spread
from wal.renewal import Renewal
from wal.settings import Settings
from wal.slot import NO_LINK, TOKEN_BYTES, Slot
from wal.slot_chain import SlotChain
from wal.slot_history import SlotHistory
from wal.slot_leader import SlotLeader


class SlotLog:
    def __init__(self, settings: Settings) -> None:
        """See `WriteAheadLog`. Made by `wal.open_log`."""
        self.settings = settings
        self.names = Names(settings.folder)
        self._closed = False
        self._renewal = Renewal(f"the log in {settings.storage.url}/{settings.folder}")
        self._marks = [0] * MARKS
        self._looked = -math.inf  # when the last read of the log's end began
        self._attach()

    @staticmethod
    def make(settings: Settings) -> None:
        """Create the log: slot 0, by put-if-absent, so that only one of two creators sets its id."""
        slot = Slot(settings.clock.token(16), 0, settings.clock.token(TOKEN_BYTES), NO_LINK, ())
        settings.storage.create(Names(settings.folder).slot(0), slot.encode())

    def _attach(self) -> None:
        settings = self.settings
        claim = at_once(settings, self.names)
        done = 0 if claim is None or settings.done is None else claim.marks[settings.done]
        self.chain = SlotChain(settings.storage, self.names, done, writes=not settings.read_only)
        if claim is not None and claim.log == self.id:
            self._marks[:] = map(max, self._marks, claim.marks)
        fencing = self._fencing(settings.clock.token(TOKEN_BYTES).hex())
        if not settings.read_only:
            known = 0 if settings.done is None else self._marks[settings.done]  # from `claim`
            applied = max(known, self._applied(fencing)) if isinstance(fencing, Epochs) else known
            if settings.done is not None:
                self.chain.write_anew(applied)
            self.chain.require(applied)  # a new batch must not take a lost one's place
            self.chain.make_sure()  # its creator may have died before the folder's name was durable
        self._leader = SlotLeader(self.chain, settings.clock, settings.lock_timeout)
        self._group = Group(self._leader)
        what = f"the right to apply ({settings.storage.url}/{self.names.folder})"
        self._right = HostRight(fencing, what, settings.lock_timeout, settings.clock, settings.ttl, self.chain.refresh)

    def _fencing(self, token: str) -> Lease | Epochs:
        return claimant(self.settings, self.names, self.id, token, self._marks, self._epoch)

    def _applied(self, fencing: Lease | Epochs) -> LSN:
        """Up to where the last committer has applied the log, by its claim; 0 if unknown."""
        done = self.settings.done
        last = None if done is None else applying(fencing, self.id, self.settings.ttl)
        return 0 if last is None or done is None else last.marks[done]

    # --- state ------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """32 hex digits, made when the log was created."""
        return self.chain.log_id.hex()

    @property
    def tail_report(self) -> TailReport:
        """Always empty: a slot is complete or absent, so there is no tail to repair."""
        return TailReport(0, (), 0)

    def head(self, *, fresh: bool = False) -> LSN:
        """The last committed LSN. One request; none inside `prepare` or within the allowed staleness."""
        if self._closed:
            raise LogClosedError("the log was closed")
        now = self.settings.clock.monotonic()
        if self._group.leading():
            return self._leader.asked
        if fresh or now - self._looked >= self.settings.staleness:
            self.chain.follow()
            self._looked = now
        return self.chain.head

    def shown(self) -> None:
        """None: the log's end is in no file."""

    def known(self) -> LSN:
        """The last committed LSN that this handle has seen."""
        if self._closed:
            raise LogClosedError("the log was closed")
        return self._leader.asked if self._group.leading() else self.chain.head

    def trimmed(self, *, fresh: bool = False) -> LSN:
        """See WriteAheadLog; `fresh`: read the checkpoint."""
        if fresh:
            self.chain.refresh()
        return self.chain.trimmed

    def size_after(self, lsn: LSN) -> int:
        """Approximate bytes of log after `lsn`, as far as it was read."""
        return self.chain.size_after(lsn)

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, after: LSN, upto: LSN | None = None) -> Iterator[Batch]:
        """The batches after `after`, in order, to `upto` or the head as it is now. See WriteAheadLog."""
        head = self.head() if upto is None else upto
        return self._read(after, head)

    def _read(self, after: LSN, head: LSN) -> Iterator[Batch]:
        for batch in self.chain.batches(after, head):
            if self._closed:
                raise LogClosedError("the log was closed")
            yield batch

    def verify(self) -> Verification:
        """Read every slot again and say what is wrong; changes nothing."""
        chain, problems = self.chain, []
        applied = self._applied(self._fencing(""))  # before the head, which must not be behind it
        head = self.head(fresh=True)
        if applied > head:
            lost = self.names.slot(head + 1)
            problems.append(f"the log ends before slot {applied}, which was already applied (file {lost})")
        try:
            chain.load_checkpoint()
        except WalError as error:
            problems.append(str(error))
        there = set(slot_numbers(self.settings.storage.list(self.names.folder)))
        # others may append during the listing, which is not a snapshot: slots that it lacks are read
        beyond = [n for n in sorted(there) if n > head + 1 and n - 1 not in there and chain.get(n - 1) is None]
        problems += [f"a slot lies beyond the log's end (file {self.names.slot(number)})" for number in beyond]
        link = NO_LINK
        for lsn in range(head + 1):
            safe_point()
            try:
                slot = chain.get(lsn)
                if slot is None:
                    problems.append(f"a slot is missing (file {self.names.slot(lsn)})")
                elif link and slot.previous != link:
                    problems.append(f"the slot does not follow the one before it (file {self.names.slot(lsn)})")
                link = b"" if slot is None else slot.link()
            except WalError as error:
                problems.append(str(error))
                link = b""
        return Verification(min(chain.trimmed, head) + 1, head, len(there), tuple(problems))

    # --- appending --------------------------------------------------------------------------------------------------

    def append(self, prepare: Prepare) -> Position | None:
        """Append what `prepare` returns; None if it returned None. See WriteAheadLog."""
        self._require_writable()
        with DeferredInterrupt():
            return self._group.submit(prepare)

    def attended(self) -> bool | None:
        """Always None: a host cannot know about writers on others."""
        return None

    def applying(self) -> Applying | None:
        """What the last committer has published of itself. One request, or two where an epoch is a folder."""
        return applying(self._fencing(""), self.id, self.settings.ttl)

    def settle(self) -> None:
        """Take the next slot with an empty batch, so that no append in flight can be committed."""
        self._require_writable()
        with DeferredInterrupt():
            self._occupy()

    def _occupy(self) -> LSN:
        """Have the leader append an empty batch; returns its LSN."""
        taken: list[LSN] = []

        def prepare(_: LSN, mates: Sequence[Record]) -> None:
            if mates:
                raise Deferred
            taken[:] = taken or [self._leader.occupy()]

        self._group.submit(prepare)
        return taken[0]

    def _epoch(self) -> LSN:
        """Take a slot for the epoch of a lease. An empty batch in doubt does no harm: it is reported as an OSError."""
        try:
            return self._occupy()
        except InDoubtError as error:
            raise OSError(errno.EIO, f"no slot could be taken for a new epoch: {error}") from error

    def _require_writable(self) -> None:
        if self._closed or self.settings.read_only:
            self._refuse()

    def _refuse(self) -> NoReturn:
        if self._closed:
            raise LogClosedError("the log was closed")
        raise UnsupportedError("this log was opened read-only")

    # --- marks, the right to apply, trimming ------------------------------------------------------------------------

    def load_mark(self, index: int) -> int:
        """A consumer's mark, as this handle knows it."""
        return self._marks[index]

    def store_mark(self, index: int, value: int) -> None:
        """Set a consumer's mark."""
        self._require_writable()
        if not (0 <= index < MARKS and 0 <= value < 2**63):
            raise ValueError(f"a mark is 0 to 2**63 - 1, and its index 0 to {MARKS - 1}")
        self._marks[index] = value

    def right(self, timeout: float | None = None) -> AbstractContextManager[Tenure]:
        """The right to carry the log out. None: the handle's time limit."""
        self._require_writable()
        if self._group.leading():
            raise RuntimeError("the right to apply was asked for inside a prepare: its order is apply before append")
        return self._right.hold(timeout)

    def trim(self, upto: LSN) -> None:
        """Drop the bodies up to `upto`, oldest first, then raise the redo mark, durably. No effect if it is higher."""
        self._require_writable()
        if upto > self.chain.head:
            self.chain.follow()  # marks that came with the right may be ahead of what was read
        if not 0 <= upto <= self.chain.head:
            raise ValueError(f"cannot trim up to {upto}: the head is {self.chain.head}")
        checkpoint = self.chain.load_checkpoint()
        redo = 0 if checkpoint is None else checkpoint.redo
        if upto < redo:
            self.chain.moved(redo)
            return
        trimmed: list[Slot] = []
        for first in range(redo + 1, upto + 1, WORKERS):
            trimmed += self._trim(range(first, min(upto + 1, first + WORKERS)), upto)
        if trimmed:
            SlotHistory(self.settings.storage, self.names, self.chain.log_id).keep(trimmed)
        self._publish(self.names.checkpoint, Checkpoint(self.id, upto).encode())
        self.settings.storage.sync_folder(self.names.folder)  # before anybody removes what was staged for these bodies
        self.chain.moved(upto)

    def _trim(self, lsns: range, upto: LSN) -> list[Slot]:
        """Replace the slots without their bodies, unconditionally: what others write meanwhile stays true."""

        def one(lsn: LSN) -> Slot:
            slot = self.chain.seen(lsn)
            if slot is None:
                raise LogCorruptionError("a slot is missing in the middle of the log", file=self.names.slot(lsn))
            if slot.trimmed is None:
                slot = slot.without_bodies(upto)
                self._publish(self.names.slot(lsn), slot.encode())
            return slot

        return spread(one, lsns)

    def _publish(self, name: str, data: bytes) -> None:
        self.settings.storage.publish(name, data, b"", durable=True)

    # --- life -------------------------------------------------------------------------------------------------------

    def reset_after_fork(self) -> None:
        """In a forked child: drop the locks and waits of the parent's threads."""
        self._renewal.run(lambda: None if self._closed else self._attach())

    def close(self) -> None:
        """Close the handle; calling it again does nothing."""
        if self._closed:
            return
        self._right.close()
        self._closed = True
