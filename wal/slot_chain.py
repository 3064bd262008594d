"""Follows the slots of a log one after another, and reads them again.

A slot is never removed, so one request tells whether anything is new: is there a slot head + 1? Each slot holds the
link of the one before, which reveals that two logs were mixed or that a slot was replaced.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wal.checkpoint import Checkpoint
from wal.errors import CANNOT_SYNC, LogCorruptionError, LogMissingError, UnsupportedError
from wal.log import LSN, Batch, Record
from wal.names import Names, segment_numbers, slot_numbers
from wal.parallel import WORKERS, spread
from wal.slot import Slot, decode
from wal.slot_history import SlotHistory
from wal.storage.base import Storage

CACHE_BYTES = 8 << 20  # of the slots read most recently


@dataclass(frozen=True, slots=True)
class End:
    """Where the next slot goes. One immutable value, so that another thread never sees half of an update."""

    lsn: LSN  # of the last slot
    link: bytes  # what the next holds as `previous`


class SlotChain:
    """Follows the slots of one log. Thread-safe."""

    def __init__(self, storage: Storage, names: Names, done: LSN, *, writes: bool) -> None:
        """Finds the log and begins at slot `done` if it exists, else at the redo mark. Raises LogMissingError,
        LogCorruptionError, LogFormatError, UnsupportedError."""
        self._can_doubt = writes and storage.capabilities.needs_sync
        self._in_doubt = False  # a flush of the folder failed, or may have: the next one proves nothing
        self._sure: LSN = 0  # slots up to this one are durable in any case
        self.storage = storage
        self.names = names
        self._mutex = threading.RLock()
        self._looks = 0
        self._cache: OrderedDict[LSN, tuple[Slot, int]] = OrderedDict()
        self._cached = 0
        self._sizes: dict[LSN, int] = {}  # bytes of the slots seen after the redo mark
        self.log_id = b""  # not known yet
        checkpoint = self.load_checkpoint()
        redo = 0 if checkpoint is None else checkpoint.redo
        start = self.get(max(done, redo))
        if done > redo and (start is None or start.trimmed is not None):  # no such slot, or an outdated redo mark
            start = self.get(redo)
        if start is None:
            start = self._missing(checkpoint)
        self.log_id = start.log_id
        self._require_own(checkpoint)
        self.trimmed = redo
        self.end = End(start.lsn, start.link())

    @property
    def head(self) -> LSN:
        """The last slot that was seen."""
        return self.end.lsn

    def _missing(self, checkpoint: Checkpoint | None) -> Slot:
        """The first slot to read was missing: there is no log, a damaged one, or one that is being created now."""
        storage, names = self.storage, self.names
        try:
            entries = storage.list(names.folder)
        except (FileNotFoundError, NotADirectoryError):
            entries = []
        if segment_numbers(entries):
            raise UnsupportedError(f"the log in {storage.url}/{names.folder} has segments, not slots")
        if checkpoint is not None:
            raise LogCorruptionError("the slot that the checkpoint names is missing", file=names.slot(checkpoint.redo))
        if slot_numbers(entries):
            start = self.get(0)
            if start is None:
                raise LogCorruptionError("the log's first slot is missing", file=names.slot(0))
            return start
        raise LogMissingError(f"there is no log in {storage.url}/{names.folder}")

    def load_checkpoint(self) -> Checkpoint | None:
        """The stored redo mark, a lower bound that may be outdated; None if there is none. Raises
        LogCorruptionError."""
        try:
            data = self.storage.read(self.names.checkpoint).data
        except FileNotFoundError:
            return None
        checkpoint = Checkpoint.decode(data, self.names.checkpoint)
        if self.log_id:
            self._require_own(checkpoint)
        return checkpoint

    def _require_own(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None and bytes.fromhex(checkpoint.log) != self.log_id:
            raise LogCorruptionError("the checkpoint is that of another log", file=self.names.checkpoint)

    # --- following ----------------------------------------------------------------------------------------------------

    def get(self, lsn: LSN) -> Slot | None:
        """The slot as it is now; None if there is none. One request, or a second one if the first reply is damaged."""
        file = self.names.slot(lsn)
        try:
            data = self.storage.read(file).data
            try:
                return decode(data, file, lsn)
            except LogCorruptionError:
                again = self.storage.read(file).data  # the reply may have been cut short, or have crossed a replacement
                return decode(again, file, lsn)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def follow(self, first: Slot | None = None) -> None:
        """Read all new slots. `first`: slot head + 1, if the caller has it.

        Threads that call at the same time share one read of the log's end, if it began after they called.
        """
        asked = self._looks
        with self._mutex:
            if self._looks > asked and first is None:
                return
            self._looks += 1
            found: list[Slot] = []
            lsn, link, trimmed = self.end.lsn, self.end.link, self.trimmed
            slot = first if first is not None and first.lsn == lsn + 1 else self.get(lsn + 1)
            while slot is not None:
                self._check(slot, link)
                if slot.trimmed is not None:
                    trimmed = max(trimmed, slot.trimmed)
                    if slot.trimmed > slot.lsn:
                        slot, found = self._jump(slot.trimmed), []
                found.append(slot)
                lsn, link = slot.lsn, slot.link()
                slot = self.get(lsn + 1)
            if found:
                self.make_sure(found)
                self._take(found, link)
                self.trimmed = max(self.trimmed, trimmed)  # last: other threads never see it beyond the head

    def refresh(self) -> None:
        """Read all new slots, and how far bodies are trimmed: slots that were read long ago may have been since."""
        self.follow()
        checkpoint = self.load_checkpoint()
        if checkpoint is not None:
            self.moved(min(checkpoint.redo, self.head))

    def require(self, lsn: LSN) -> None:
        """For a handle that will append: slot `lsn`, which was applied, must exist. Raises LogCorruptionError."""
        if self.head < lsn:
            self.follow()
        if self.head < lsn:
            missing = self.names.slot(self.head + 1)
            raise LogCorruptionError(f"the log ends before slot {lsn}, which was already applied", file=missing)

    def _check(self, slot: Slot, link: bytes) -> None:
        if slot.log_id != self.log_id:
            raise LogCorruptionError("the slot belongs to another log", file=self.names.slot(slot.lsn))
        if slot.previous != link:
            message = "the slot does not follow the one before it: one of the two was replaced"
            raise LogCorruptionError(message, file=self.names.slot(slot.lsn))

    def _jump(self, lsn: LSN) -> Slot:
        """The slot up to which bodies are trimmed; those in between need not be read."""
        target = self.get(lsn)
        if target is None or target.log_id != self.log_id:
            raise LogCorruptionError("a slot is missing", file=self.names.slot(lsn))
        return target

    def write_anew(self, sure: LSN) -> None:
        """For a handle that will append: follow, and write the slots after `sure` anew: of a flush that failed a writer
        may have been told that then died."""
        if self._can_doubt:
            self._sure = sure
            self.doubt()
            self.follow()
            self._in_doubt = False

    def doubt(self) -> None:
        """A flush of the folder failed, or may have: slots that are not taken yet may be lost."""
        with self._mutex:
            self._in_doubt = self._can_doubt

    def make_sure(self, found: Sequence[Slot] = ()) -> None:
        """Make the names of the slots durable before anything builds on them: a writer may have died before it did.

        After a flush that failed, the next one succeeds although the kernel may have dropped what it could not write.
        So `found`, the slots that are not taken yet, are written anew before a flush is believed again.
        """
        with self._mutex:
            if self._in_doubt:
                for slot in found:
                    if slot.lsn > self._sure:
                        self.storage.publish(self.names.slot(slot.lsn), slot.encode(), b"", durable=True)
            try:
                self.storage.sync_folder(self.names.folder)
            except OSError as error:
                if error.errno not in CANNOT_SYNC:
                    self.doubt()
                    raise
            self._in_doubt = self._in_doubt and not found

    def take(self, slot: Slot) -> None:
        """Add a slot that this process wrote and made durable, unless another thread has read it already."""
        with self._mutex:
            if slot.lsn == self.end.lsn + 1:
                self._take([slot], slot.link())

    def _take(self, slots: Sequence[Slot], link: bytes) -> None:
        for slot in slots:
            self._remember(slot)
        self.end = End(slots[-1].lsn, link)

    def _remember(self, slot: Slot) -> None:
        size = sum(len(record.header) + len(record.body or b"") for record in slot.records) + 128
        if slot.trimmed is None:
            self._sizes[slot.lsn] = size
        self._cache[slot.lsn] = (slot, size)
        self._cached += size
        while self._cached > CACHE_BYTES and len(self._cache) > 1:
            self._cached -= self._cache.popitem(last=False)[1][1]

    def moved(self, redo: LSN) -> None:
        """Record that bodies up to `redo` are trimmed, or are about to be."""
        with self._mutex:
            self.trimmed = max(self.trimmed, redo)
            self._sizes = {lsn: size for lsn, size in self._sizes.items() if lsn > redo}

    def size_after(self, lsn: LSN) -> int:
        """Bytes of the slots after `lsn` that were seen."""
        with self._mutex:
            return sum(size for at, size in self._sizes.items() if at > lsn)

    # --- reading again ----------------------------------------------------------------------------------------------

    def seen(self, lsn: LSN) -> Slot | None:
        """The slot, as cached or, with one request, as it is now; None if there is none."""
        with self._mutex:
            kept = self._cache.get(lsn)
        return self.get(lsn) if kept is None else kept[0]

    def batches(self, after: LSN, head: LSN) -> Iterator[Batch]:
        """The batches (after, head]. Raises LogCorruptionError if a slot is missing."""
        lsn = after
        if min(head, self.trimmed) - lsn > WORKERS:
            for batch in SlotHistory(self.storage, self.names, self.log_id).batches(lsn, min(head, self.trimmed)):
                yield batch
                lsn = batch.lsn
        while lsn < head:
            upto = min(head, lsn + WORKERS)
            yield from self._some(range(lsn + 1, upto + 1))
            lsn = upto

    def _some(self, lsns: range) -> list[Batch]:
        with self._mutex:
            known = {lsn: Batch(lsn, self._cache[lsn][0].records) for lsn in lsns if lsn in self._cache}
        missing = [lsn for lsn in lsns if lsn not in known]
        if missing:
            known.update(zip(missing, spread(self._read, missing), strict=True))
        return [_without_bodies(known[lsn]) if lsn <= self.trimmed else known[lsn] for lsn in lsns]

    def _read(self, lsn: LSN) -> Batch:
        slot = self.get(lsn)
        if slot is None or slot.log_id != self.log_id:
            raise LogCorruptionError("a slot is missing in the middle of the log", file=self.names.slot(lsn))
        if slot.trimmed is not None:
            self.moved(min(slot.trimmed, self.head))
        return Batch(lsn, slot.records)


def _without_bodies(batch: Batch) -> Batch:
    """A trimmed batch reads as trimmed even if this handle still holds its bodies."""
    return Batch(batch.lsn, tuple(Record(record.header, None) for record in batch.records))
