"""The writing half of an append log: settle what a failed writer left, write batches, rotate segments.

Every method is called with the append right held. The order of a commit is

    catch up · announce · (rotate) · (reserve zeros) · pwrite · datasync · publish

and the right is released only after `publish`. So the next holder finds every earlier frame durable, or finds the
announcement and settles the one frame that may not be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from wal.chain import Chain
from wal.checkpoint import Checkpoint
from wal.errors import InDoubtError, LogCorruptionError, PoisonedError
from wal.format import SEAL_SIZE, SEGMENT_HEADER
from wal.frame import encode_batch, encode_seal, find_later
from wal.head import HeadFile
from wal.log import LSN, Batch, Record, TailReport
from wal.segment import SegmentHeader, Tail, extend, unpadded
from wal.storage.base import RandomFile


class Writer:
    """The writing half of one handle."""

    def __init__(self, chain: Chain, segment_size: int) -> None:
        self.poisoned: str | None = None  # why this handle appends nothing more
        self._chain = chain
        self._shelf = chain.shelf
        self._head: HeadFile
        self._segment_size = segment_size
        self._reserved: dict[int, int] = {}  # of the segment written to: its length in bytes, as last seen

    def attach(self, head: HeadFile) -> None:
        """Set the head file; to be called before any other method."""
        self._head = head

    # --- before writing ----------------------------------------------------------------------------------------------

    def catch_up(self) -> TailReport:
        """Move the tail behind the last frame, with everything before it durable and nothing behind it.

        Raises PoisonedError, LogCorruptionError, OSError.
        """
        if self.poisoned is not None:
            raise PoisonedError(f"{self.poisoned}; open the log again")
        durable, announced = self._head.state() or (None, None)
        chain = self._chain
        if durable is not None and durable == announced:
            chain.reach(durable)
            if chain.tail.lsn == durable and self._shelf.blank(chain.tail):
                return _CLEAN
        return self.settle(durable)

    def settle(self, durable: LSN | None) -> TailReport:
        """Examine every byte behind the last frame: adopt it, quarantine it or refuse. `durable` None: unknown.

        A frame beyond the durable word may be in the page cache only, because its writer's flush failed. So its bytes
        are written again (which makes the pages dirty again), flushed and published before anything builds on it.
        """
        chain = self._chain
        chain.follow()
        if durable is not None and chain.tail.lsn < durable:
            raise chain.short_of(durable)
        self._refuse_successor()
        quarantined, name = self._clean()
        self._rewrite_last()
        self._head.publish(chain.tail.lsn)
        self._head.announce(chain.tail.lsn)
        return TailReport(quarantined, (name,) if name else (), int(durable is not None and chain.tail.lsn > durable))

    def _refuse_successor(self) -> None:
        """Raises LogCorruptionError for segments after an unsealed one, except a single empty one (an interrupted
        rotation)."""
        number = self._chain.tail.number
        later = [other for other in self._shelf.numbers() if other > number]
        if not later:
            return
        empty = later == [number + 1] and not self._holds_frames(number + 1)
        if not empty:
            name = self._shelf.names.segment(number)
            message = f"the segment has no seal, but the log goes on in segment {later[-1]}"
            raise LogCorruptionError(message, file=name, offset=self._chain.tail.offset)

    def _holds_frames(self, number: int) -> bool:
        self._shelf.header(number, self._chain.log_id)
        return bool(unpadded(self._shelf.peek(number)[SEGMENT_HEADER:]))

    def _clean(self) -> tuple[int, str]:
        """Copy what is behind the last frame to the quarantine and overwrite it with zeros; (bytes, file name)."""
        tail = self._chain.tail
        file = self._shelf.file(tail.number)
        stray = self._chain.stray()
        if not stray:
            return 0, ""
        behind = file.pread(file.size(), tail.offset)  # with the zeros: a batch may end in some
        later = find_later(behind, tail.lsn)
        if later is not None:
            message = f"batch {tail.lsn + 1} cannot be read, but a later one is intact at offset {tail.offset + later}"
            raise LogCorruptionError(message, file=self._shelf.names.segment(tail.number), offset=tail.offset)
        name = self._quarantine(tail, stray)
        self._sure(lambda: file.pwrite(bytes(len(stray)), tail.offset))
        self._sure(file.datasync)
        return len(stray), name

    def _quarantine(self, tail: Tail, stray: bytes) -> str:
        """Keep the bytes, durably; returns the file's name. A file of an interrupted attempt with the same bytes is
        used again."""
        storage, names = self._shelf.storage, self._shelf.names
        attempt = 0
        while True:
            name = names.quarantine(tail.number, tail.offset, attempt)
            if storage.create(name, stray) or storage.read(name).data == stray:
                storage.sync_folder(names.quarantine_folder)
                return name
            attempt += 1

    def _rewrite_last(self) -> None:
        """Make the last batch, and a seal behind it, durable. Earlier frames are: each was flushed before the next was
        written. So are freed ones: whoever raised the redo mark had settled them."""
        tail, seal = self._chain.tail, self._chain.seal
        if tail.lsn > self._chain.index.base:
            number, start = self._chain.index.place(tail.lsn)
        elif seal is not None:
            number, start = seal.number, seal.offset
        else:
            return
        end = seal.offset + SEAL_SIZE if seal is not None and seal.number == number else tail.offset
        try:
            file = self._shelf.file(number)
        except FileNotFoundError:
            if self._chain.load_checkpoint().redo < tail.lsn:
                raise
            return
        data = file.pread(end - start, start)
        self._sure(lambda: file.pwrite(data, start))
        self._sure(file.datasync)

    def _sure(self, step: Callable[[], None]) -> None:
        """Run a step; if it fails, this handle appends nothing more. A failed step is never tried again: after a failed
        flush the system may have dropped the pages, and would report success the next time."""
        try:
            step()
        except BaseException as error:
            self.poisoned = f"the log could not be made durable ({error})"
            raise

    def store_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint with a higher redo mark, durably."""
        storage, names = self._shelf.storage, self._shelf.names
        self._head.forget_trimmed()
        storage.publish(names.checkpoint, checkpoint.encode(), b"", durable=True)
        self._sure(lambda: storage.sync_folder(names.folder))
        self._head.store_trimmed(checkpoint.redo)

    # --- writing -----------------------------------------------------------------------------------------------------

    def write(self, records: Sequence[Record]) -> LSN:
        """Commit one batch. Raises OSError or ValueError (nothing was appended), InDoubtError (poisoned)."""
        chain = self._chain
        tail = chain.tail
        lsn = tail.lsn + 1
        frame, crc = encode_batch(lsn, tail.crc, records)
        self._head.announce(lsn)
        try:
            if tail.offset + len(frame) + SEAL_SIZE > self._segment_size and tail.offset > SEGMENT_HEADER:
                tail = self._rotate(tail)
                frame, crc = encode_batch(lsn, tail.crc, records)
            self._reserve(tail, len(frame) + SEAL_SIZE)
        except BaseException:
            if self.poisoned is None:
                with suppress(OSError):  # a leftover announcement only makes the next holder check the tail
                    self._head.announce(lsn - 1)
            raise
        file = self._shelf.file(tail.number)
        self._pwrite(file, tail, frame)
        try:
            file.datasync()
            chain.add(Tail(tail.number, tail.offset + len(frame), crc, lsn), len(frame), Batch(lsn, tuple(records)))
            self._head.publish(lsn)
        except BaseException as error:
            self.poisoned = f"the flush of batch {lsn} failed ({error})"
            raise InDoubtError(f"{self.poisoned}: it may or may not be in the log; open the log again") from error
        return lsn

    def _pwrite(self, file: RandomFile, tail: Tail, frame: bytes) -> None:
        """Write a frame, or leave no trace of it. A frame that is complete although its write failed (the missing part
        being zeros) stays: a reader that opened in between may have flushed and served it (E18)."""
        try:
            file.pwrite(frame, tail.offset)
        except BaseException as error:
            if self._took_back(file, tail, frame, error):
                raise
            if not isinstance(error, OSError):
                self.poisoned = f"the write of batch {tail.lsn + 1} was interrupted ({error!r})"
                raise InDoubtError(f"{self.poisoned}: it may or may not be in the log; open the log again") from error

    def _took_back(self, file: RandomFile, tail: Tail, frame: bytes, error: BaseException) -> bool:
        """After `error` in its write: remove the frame; False if it is complete and stays. Raises InDoubtError."""
        try:
            if file.pread(len(frame), tail.offset) == frame:
                return False
            file.pwrite(bytes(len(frame)), tail.offset)  # zeros and no quarantine: the batch was never committed
            file.datasync()
            self._head.announce(tail.lsn)
        except BaseException as worse:  # noqa: BLE001  after any error here the tail is unknown
            self.poisoned = f"the write of batch {tail.lsn + 1} failed ({error}), and so did undoing it ({worse})"
            raise InDoubtError(f"{self.poisoned}: it may or may not be in the log; open the log again") from error
        return True

    def _rotate(self, tail: Tail) -> Tail:
        """Continue in a new segment: create it durably, then seal the old one, both before any frame in the new one.

        A handle that still has the old segment open therefore finds the seal where it would have written.
        """
        storage, names, number = self._shelf.storage, self._shelf.names, tail.number + 1
        seal, crc = encode_seal(tail.lsn, tail.crc, number)  # each batch has reserved room for it
        header = SegmentHeader(self._chain.log_id, number, tail.lsn + 1, crc)
        self._shelf.retire(number)
        storage.publish(names.segment(number), header.encode(), b"", durable=True)
        self._sure(lambda: storage.sync_folder(names.folder))
        file = self._shelf.file(tail.number)
        self._pwrite(file, tail, seal)
        self._sure(file.datasync)
        self._chain.enter(header.tail(), tail)
        return header.tail()

    def _reserve(self, tail: Tail, length: int) -> None:
        """Make sure of durable zeros for `length` more bytes."""
        upto = tail.offset + length
        if self._reserved.get(tail.number, 0) < upto:
            file = self._shelf.file(tail.number)
            size = file.size()  # asked anew: another process may have reserved and written more
            if size < upto:
                size = extend(file, size, upto, self._segment_size)
                self._sure(file.datasync)
            self._reserved = {tail.number: size}


_CLEAN = TailReport(0, (), 0)
