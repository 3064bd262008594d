"""Headers of trimmed batches: one history file for each freed segment; and freeing a segment."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from wal.errors import LogCorruptionError
from wal.format import BATCH, HEADERS, HISTORY_MAGIC, SEAL, SEGMENT_HEADER, SEGMENT_MAGIC
from wal.frame import encode_headers, encode_seal
from wal.log import LSN, Batch
from wal.names import history_numbers
from wal.segment import Found, SegmentHeader, records, scan, successor
from wal.shelf import Shelf


class History:
    """Reads the batches up to the redo mark, without bodies, from history files and from segments not yet freed."""

    def __init__(self, shelf: Shelf, log_id: bytes) -> None:
        self._shelf = shelf
        self._log_id = log_id

    def numbers(self) -> list[int]:
        """The segments that have a history file, ascending."""
        try:
            return history_numbers(self._shelf.storage.list(self._shelf.names.history_folder))
        except FileNotFoundError:
            return []

    # --- reading -----------------------------------------------------------------------------------------------------

    def headers(self, after: LSN, upto: LSN) -> Iterator[Batch]:
        """The batches (after, upto] without bodies; it begins at the oldest batch that is kept, if that is later.

        Raises LogCorruptionError if batches are missing in between, or nothing is left of the log.
        """
        segments = self._shelf.written()  # listed first: a segment that is freed now has its history file already
        numbers = sorted({*self.numbers(), *segments})
        if not numbers:
            raise LogCorruptionError("the log's segments are missing", file=self._shelf.names.segment(1))
        start = bisect_right(numbers, after + 1, key=self._first) - 1
        lsn, pruned, read = after, start < 0, 0
        for number in numbers[max(0, start) :]:
            for batch in self._of(number):
                if batch.lsn > after:
                    if batch.lsn != lsn + 1 and not pruned:
                        raise self._gap(lsn, read)
                    if batch.lsn > upto:  # even the oldest batch that is kept is later
                        return
                    yield batch
                    lsn, pruned = batch.lsn, False
                    if lsn == upto:
                        return
            read = number
        if lsn < upto and not pruned:
            raise self._gap(lsn, read)

    def _gap(self, lsn: LSN, read: int) -> LogCorruptionError:
        """`read`: the last that was read to its end. A history file has a seal there, so its successor is lost; a
        segment may have been cut, or damaged in the middle."""
        names = self._shelf.names
        file = names.history(read + 1) if read in self.numbers() else names.segment(read)
        return LogCorruptionError(f"the headers after batch {lsn} are missing", file=file)

    def _first(self, number: int) -> LSN:
        return self._opened(number, whole=False)[0].first

    def _of(self, number: int) -> Iterator[Batch]:
        """One segment's batches, from its history file or, if there is none yet, from the segment."""
        header, data, name = self._opened(number, whole=True)
        for found in frames(header, data, name, sealed=name == self._shelf.names.history(number)):
            if found.header.kind != SEAL:
                yield Batch(found.header.lsn, records(found, name, bodies=False))

    def _opened(self, number: int, *, whole: bool) -> tuple[SegmentHeader, bytes, str]:
        """(header, content, file name); not `whole`: of the content at most the header, and no file is kept open."""
        try:
            return self.opened(number, whole=whole)
        except FileNotFoundError:
            name = self._shelf.names.segment(number)
        try:
            data = self._shelf.peek(number, None if whole else SEGMENT_HEADER)
        except FileNotFoundError:
            return self.opened(number, whole=whole)  # freed meanwhile
        return self._shelf.check(number, data, self._log_id), data, name

    def opened(self, number: int, *, whole: bool) -> tuple[SegmentHeader, bytes, str]:
        """(header, content, name) of a history file. Raises FileNotFoundError, LogCorruptionError."""
        name = self._shelf.names.history(number)
        with self._shelf.storage.open(name) as file:
            data = file.read() if whole else file.read(SEGMENT_HEADER)
        header = SegmentHeader.decode(data, name, HISTORY_MAGIC)
        if header.log_id != self._log_id or header.number != number:
            raise LogCorruptionError("the history file belongs to another segment or log", file=name)
        return header, data, name

    # --- freeing -----------------------------------------------------------------------------------------------------

    def free(self, redo: LSN) -> None:
        """Free the sealed segments that hold nothing after `redo`. Idempotent, and safe at every step: a segment is
        erased only when its headers are durable, and two processes that free the same one write the same bytes."""
        for number in self._shelf.numbers()[:-1]:
            try:
                if self._shelf.header(number + 1, self._log_id).first > redo + 1:
                    return
                content = self._summary(number)
            except FileNotFoundError:
                continue  # another process freed it, or its successor; or the successor is lost
            if content is None:
                return
            self._keep(number, content)
            self._shelf.storage.erase(self._shelf.names.segment(number))
            self._shelf.retire(number)

    def _keep(self, number: int, content: bytes) -> None:
        """Make the history file durable. If it is there already, a flush of its folder may have failed: the system may
        then have lost the name, and call the next flush a success all the same. So the name is taken anew."""
        storage, names = self._shelf.storage, self._shelf.names
        name = names.history(number)
        if not storage.create(name, content):
            if storage.read(name).data != content:
                raise LogCorruptionError("the history file differs from its segment", file=name)
            storage.publish(name, content, b"", durable=True)
        storage.sync_folder(names.history_folder)

    def _summary(self, number: int) -> bytes | None:
        """The content of a segment's history file; None if it has no seal (its rotation was interrupted)."""
        name = self._shelf.names.segment(number)
        data = self._shelf.pread(number, self._shelf.size(number), 0)
        header = self._shelf.check(number, data, self._log_id)
        parts, crc = [header.encode(HISTORY_MAGIC)], header.previous
        for found in frames(header, data, name):
            following = successor(found, name)
            if following is not None:
                return b"".join([*parts, encode_seal(found.header.lsn, crc, following)[0]])
            frame, crc = encode_headers(found.header.lsn, crc, records(found, name, bodies=False))
            parts.append(frame)
        return None


def frames(header: SegmentHeader, data: bytes, name: str, *, sealed: bool = False) -> Iterator[Found]:
    """The frames of a whole file. Raises LogCorruptionError if one is of a kind that does not belong there, or if
    the file must be `sealed` and is not."""
    kind = BATCH if data.startswith(SEGMENT_MAGIC) else HEADERS
    last, end = None, SEGMENT_HEADER
    for found in scan(lambda length, offset: data[offset : offset + length], len(data), header.tail()):
        if found.header.kind not in (kind, SEAL):
            raise LogCorruptionError("a frame of this kind is not valid in this file", file=name, offset=found.offset)
        last, end = found.header.kind, found.offset + found.header.size
        yield found
    if sealed and (last != SEAL or end != len(data)):
        raise LogCorruptionError("the file does not end with its seal", file=name, offset=end)
