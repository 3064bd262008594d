"""The chain of frames from the redo mark on: finds, follows and reads it. Changes nothing on the storage."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from wal.checkpoint import Checkpoint, read_checkpoint
from wal.errors import LogCorruptionError
from wal.format import BATCH, SEAL, SEGMENT_HEADER
from wal.frame import intact, parse_header
from wal.index import Extent, Index
from wal.interrupts import DeferredInterrupt
from wal.log import LSN, Batch
from wal.segment import Found, Tail, behind, first_log_crc, frame_at, records, scan, successor, unpadded
from wal.shelf import Shelf
from wal.storage.base import UnsafePathError

_READ = 2**18  # bytes
_ZEROS = bytes(2**16)  # compared with at once; a larger read is new memory each time, which costs more


class Chain:
    """This handle's view of the log: the index of its frames, and the tail behind them.

    Frames up to the durable head never change, so following them needs no lock but the handle's own mutex.
    """

    checkpoint: Checkpoint  # these are set by `locate`, which comes first
    index: Index
    tail: Tail
    seal: Tail | None  # the position of the last seal that was passed

    def __init__(self, shelf: Shelf, log_id: bytes) -> None:
        self.shelf = shelf
        self.log_id = log_id
        self._last: Batch | None = None  # the last batch that this handle appended
        self._mutex = threading.RLock()

    # --- the beginning ----------------------------------------------------------------------------------------------

    def locate(self) -> None:
        """Read the checkpoint and move the tail behind its frame. Raises LogCorruptionError."""
        with self._mutex:
            checkpoint = self.load_checkpoint()
            while True:
                try:
                    self._locate(checkpoint)
                    return
                except (FileNotFoundError, LogCorruptionError):
                    newer = self.load_checkpoint()
                    if newer == checkpoint:  # no trim explains the error
                        raise
                    checkpoint = newer

    def load_checkpoint(self) -> Checkpoint:
        """The stored checkpoint. Raises LogCorruptionError, LogFormatError."""
        checkpoint = read_checkpoint(self.shelf.storage, self.shelf.names)
        if checkpoint.log != self.log_id.hex():
            raise LogCorruptionError("the checkpoint belongs to another log", file=self.shelf.names.checkpoint)
        return checkpoint

    def _locate(self, checkpoint: Checkpoint) -> None:
        tail = self._hinted(checkpoint) or self._searched(checkpoint.redo)
        self.checkpoint, self.index, self.tail, self.seal = checkpoint, Index(checkpoint.redo), tail, None

    def _hinted(self, checkpoint: Checkpoint) -> Tail | None:
        """The tail behind the frame of batch `redo` where the checkpoint's hint says it is; None if it is not there."""
        number, offset = checkpoint.segment, checkpoint.offset
        if not number:
            return None
        try:
            self.shelf.header(number, self.log_id)
        except (FileNotFoundError, IsADirectoryError, UnsafePathError):  # it is not a segment
            return None
        found = frame_at(self.shelf.reader(number), self.shelf.size(number), offset)
        if found is None or found.header.kind != BATCH or found.header.lsn != checkpoint.redo:
            self.shelf.retire(number)  # an orphan will be replaced by another file
            return None
        return Tail(number, offset + found.header.size, found.header.crc, checkpoint.redo)

    def _searched(self, redo: LSN) -> Tail:
        """The tail behind batch `redo`: scans its segment, or is the start of the segment that begins after it."""
        numbers = self.shelf.written()
        for number in reversed(numbers):
            header = self.shelf.header(number, self.log_id)
            if header.first <= redo or (number == numbers[0] and header.first == redo + 1):
                break
        else:
            missing = self.shelf.names.segment(min(numbers, default=2) - 1)
            raise LogCorruptionError(f"the segment that holds batch {redo + 1} is missing", file=missing)
        if number == 1 and header.previous != first_log_crc(self.log_id):
            raise LogCorruptionError("the first segment is chained to something", file=self.shelf.names.segment(1))
        tail = header.tail()
        if tail.lsn < redo:
            for found in scan(self.shelf.reader(number), self.shelf.size(number), tail):
                if found.header.kind == SEAL or tail.lsn == redo:
                    break
                tail = behind(number, found)
        if tail.lsn != redo:
            message = f"batch {tail.lsn + 1} cannot be read, and {redo} had been flushed"
            raise LogCorruptionError(message, file=self.shelf.names.segment(number), offset=tail.offset)
        return tail

    # --- going on ---------------------------------------------------------------------------------------------------

    def follow(self, limit: LSN | None = None) -> None:
        """Index all frames up to the batch `limit`, or to the last intact one. Raises LogCorruptionError.

        Batches that another process has trimmed are skipped: the chain then begins again at its redo mark.
        """
        with DeferredInterrupt(), self._mutex:  # a signal handler that reads would follow in the middle of it
            number = self.tail.number
            while limit is None or self.tail.lsn < limit:
                before = self.tail
                try:
                    sealed = self._segment(limit)
                except FileNotFoundError:
                    self._after_trim(before.lsn, before.number)
                    continue
                if not sealed:
                    break
            if self.tail.number != number:
                self._look_for_trim()

    def _look_for_trim(self) -> None:
        """Called for each segment, even if this handle never trims: its open files would keep freed ones on disk."""
        checkpoint = self.load_checkpoint()
        if checkpoint.redo <= self.tail.lsn:
            self.moved(checkpoint)

    def reach(self, limit: LSN) -> None:
        """`follow` to a batch that was flushed. Raises LogCorruptionError if it is not there."""
        if self.tail.lsn < limit:
            with self._mutex:
                self.follow(limit)
                if self.tail.lsn < limit:
                    raise self.short_of(limit)

    def short_of(self, limit: LSN, tail: Tail | None = None) -> LogCorruptionError:
        """The error for a log that ends before what was flushed, at `tail` or where this handle has read to."""
        tail = tail or self.tail
        message = f"batch {tail.lsn + 1} cannot be read, and {limit} had been flushed"
        return LogCorruptionError(message, file=self.shelf.names.segment(tail.number), offset=tail.offset)

    def _segment(self, limit: LSN | None) -> bool:
        """Index the rest of the tail's segment; True if it is sealed and the tail is in its successor."""
        number = self.tail.number
        reader = self.shelf.reader(number)
        for found in scan(reader, self.shelf.size(number), self.tail):
            following = successor(found, self.shelf.names.segment(number))
            if following is not None:
                self.enter(self._enter(following, found), self.tail)
                return True
            if found.header.kind != BATCH:
                return False
            self.add(behind(number, found), found.header.size)
            if self.tail.lsn == limit:
                return False
        return False

    def _enter(self, number: int, seal: Found) -> Tail:
        if number != self.tail.number + 1:
            raise LogCorruptionError(
                f"the seal names segment {number}", file=self.shelf.names.segment(self.tail.number), offset=seal.offset
            )
        header = self.shelf.check(number, self.shelf.pread(number, SEGMENT_HEADER, 0), self.log_id)
        if header.first != seal.header.lsn + 1 or header.previous != seal.header.crc:
            name = self.shelf.names.segment(number)
            raise LogCorruptionError("the segment does not follow the one before", file=name)
        return header.tail()

    def add(self, tail: Tail, size: int, batch: Batch | None = None) -> None:
        """Add a batch of `size` bytes that ends at `tail`; `batch`: its content."""
        with self._mutex:
            self._last = batch or self._last
            if tail.lsn <= self.tail.lsn:  # another thread, reading without the head word, has added it
                return
            self.index.add(tail.lsn, tail.number, tail.offset - size, size)
            self.tail = tail

    def enter(self, tail: Tail, seal: Tail) -> None:
        """The log continues in another segment; the old one was sealed at `seal`."""
        with self._mutex:
            self.tail, self.seal = tail, seal

    def _after_trim(self, lsn: LSN, number: int) -> None:
        """A segment is missing: valid only if the redo mark has reached `lsn`, and the log continues after `number`."""
        if self.load_checkpoint().redo >= lsn:
            self.locate()
            if self.tail.number > number:
                return
        raise self._missing(lsn, number + (number in self.shelf.numbers()))

    def _missing(self, lsn: LSN, number: int) -> LogCorruptionError:
        message = f"a segment is missing in the middle of the log, behind batch {lsn}"
        return LogCorruptionError(message, file=self.shelf.names.segment(number))

    def stray(self) -> bytes:
        """The bytes behind the last intact frame, without trailing zeros; b"" unless a write was interrupted."""
        with self._mutex:
            tail = self.tail
        end = self.shelf.size(tail.number)
        for at in range(tail.offset, end, len(_ZEROS)):
            data = self.shelf.pread(tail.number, min(len(_ZEROS), end - at), at)
            if data != _ZEROS[: len(data)]:
                return unpadded(self.shelf.pread(tail.number, end - tail.offset, tail.offset))
        return b""

    def size_after(self, lsn: LSN) -> int:
        """Bytes of the frames after `lsn` that were followed."""
        with self._mutex:  # a trim by another thread shortens the index
            return self.index.size_after(lsn)

    # --- reading ----------------------------------------------------------------------------------------------------

    def batches(self, lsn: LSN, upto: LSN) -> list[Batch] | None:
        """One or more batches from `lsn` on, at most to `upto`; None if they were trimmed."""
        with self._mutex:
            if lsn <= self.index.base:
                return None
            if self._last is not None and self._last.lsn == lsn:
                return [self._last]
            extent = self.index.extent(lsn, upto, _READ)
        try:
            data = self.shelf.pread(extent.number, extent.size, extent.offset)
        except FileNotFoundError:
            self._learn_of_trim(lsn, extent.number)
            return None
        return list(self._decode(data, lsn, extent))

    def _learn_of_trim(self, lsn: LSN, number: int) -> None:
        """The segment that holds batch `lsn` is missing: valid only if the redo mark has reached it. The tail stays:
        a writer may be about to append there."""
        with self._mutex:
            checkpoint = self.load_checkpoint()
            self.reach(checkpoint.redo)
            self.moved(checkpoint)
            if self.index.base < lsn:
                raise self._missing(lsn, number)

    def _decode(self, data: bytes, lsn: LSN, extent: Extent) -> Iterator[Batch]:
        name = self.shelf.names.segment(extent.number)
        at = 0
        for expected in range(lsn, extent.last + 1):
            header = parse_header(data, at)
            offset = extent.offset + at
            if header is None or header.lsn != expected or header.kind != BATCH or not intact(data, at, header):
                raise LogCorruptionError(f"batch {expected} no longer reads back", file=name, offset=offset)
            yield Batch(expected, records(Found(offset, header, data, at), name))
            at += header.size

    def moved(self, checkpoint: Checkpoint) -> None:
        """The redo mark was raised, if this is a later one: forget the positions of batches before it."""
        with self._mutex:
            if self.checkpoint.redo < checkpoint.redo:
                self.checkpoint = checkpoint
                self.index.drop(checkpoint.redo)
                self.shelf.retire_before(min(checkpoint.segment, self.tail.number))
