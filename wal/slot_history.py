"""Headers of trimmed slots, those of one trim in one object, so that one request reads them all.

The object only saves requests: each slot keeps its own headers for ever, and is read where there is no such object.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from wal.errors import LogCorruptionError
from wal.format import LENGTH
from wal.log import LSN, Batch
from wal.names import Names, history_numbers
from wal.parallel import WORKERS, spread
from wal.slot import Slot, decode
from wal.storage.base import Storage


class SlotHistory:
    """The history objects of one log; the number in a name is the last LSN in it."""

    def __init__(self, storage: Storage, names: Names, log_id: bytes) -> None:
        self._storage = storage
        self._names = names
        self._log_id = log_id

    def keep(self, slots: Sequence[Slot]) -> None:
        """Store the headers of consecutive trimmed slots, unless another trim has stored an object of this name."""
        parts: list[bytes] = []
        for slot in slots:
            data = slot.encode()
            parts += (LENGTH.pack(len(data)), data)
        self._storage.create(self._names.history(slots[-1].lsn), b"".join(parts))

    def batches(self, after: LSN, upto: LSN) -> Iterator[Batch]:
        """The batches from `after` + 1 to at most `upto`, as far as history objects hold them without a gap."""
        try:
            numbers = history_numbers(self._storage.list(self._names.history_folder))
        except FileNotFoundError:
            return
        lsn = after
        for slot in self._slots(numbers[bisect_right(numbers, after) : bisect_left(numbers, upto) + 1]):
            if slot.lsn > upto or slot.lsn > lsn + 1:
                return
            if slot.lsn == lsn + 1:
                yield Batch(slot.lsn, slot.records)
                lsn = slot.lsn

    def _slots(self, numbers: Sequence[LSN]) -> Iterator[Slot]:
        """What these objects hold, of which several are read at once."""
        for start in range(0, len(numbers), WORKERS):
            for slots in spread(self._read, numbers[start : start + WORKERS]):
                yield from slots

    def _read(self, number: LSN) -> list[Slot]:
        file = self._names.history(number)
        data = self._storage.read(file).data
        slots, at = [], 0
        try:
            while at < len(data):
                (size,) = LENGTH.unpack_from(data, at)
                at += LENGTH.size
                slots.append(decode(data[at : at + size], file))
                at += size
        except struct.error as error:
            raise LogCorruptionError("the history ends inside a length", file=file, offset=at) from error
        if any(slot.log_id != self._log_id or slot.trimmed is None for slot in slots):
            raise LogCorruptionError("the history belongs to another log, or holds a slot with bodies", file=file)
        return slots
