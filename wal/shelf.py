"""The segments of one log on its storage, and the files that this handle has open."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress

from wal.errors import LogClosedError, LogCorruptionError
from wal.format import FRAME_HEADER, SEGMENT_HEADER
from wal.names import Names, segment_numbers
from wal.segment import SegmentHeader, Tail
from wal.storage.base import RandomFile, Storage


class _Open:
    __slots__ = ("file", "retired", "users")

    def __init__(self, file: RandomFile) -> None:
        self.file = file
        self.users = 0
        self.retired = False


class Shelf:
    """Opens each segment once and closes it when no thread reads it any more.

    A file is never closed while a thread reads it: the number of its descriptor could be reused for another file.
    A segment behind the tail may be an orphan, which an interrupted rotation left: the next rotation puts another file
    in its place. So these are only peeked at; a handle that kept one open would go on in a file that has no name.
    """

    def __init__(self, storage: Storage, names: Names, *, writable: bool) -> None:
        self.storage = storage
        self.names = names
        self._writable = writable
        self._mutex = threading.RLock()  # reentrant for a signal handler that reads
        self._open: dict[int, _Open] = {}
        self._closed = False

    def numbers(self) -> list[int]:
        """The segments that exist, ascending; none if the folder is missing.

        A listing misses those that are freed while it is made, which may be all: if it shows none, it is made again.
        """
        return self._listed() or self._listed()

    def _listed(self) -> list[int]:
        try:
            return segment_numbers(self.storage.list(self.names.folder))
        except FileNotFoundError:
            return []

    def written(self) -> list[int]:
        """`numbers` without a last one that has no frame, unless it is the only one: the header of an orphan counts
        batches as its own that went into the segment before it."""
        numbers = self.numbers()
        if len(numbers) > 1:
            with suppress(FileNotFoundError):  # it was freed meanwhile, so there were frames in it
                if not any(self.peek(numbers[-1], FRAME_HEADER, SEGMENT_HEADER)):
                    return numbers[:-1]
        return numbers

    def header(self, number: int, log_id: bytes | None) -> SegmentHeader:
        """A segment's header."""
        return self.check(number, self.peek(number, SEGMENT_HEADER), log_id)

    def peek(self, number: int, length: int | None = None, offset: int = 0) -> bytes:
        """`pread`, or all of the segment, without keeping the file open."""
        file = self.storage.open_file(self.names.segment(number), writable=False)
        try:
            return file.pread(file.size() if length is None else length, offset)
        finally:
            file.close()

    def check(self, number: int, data: bytes, log_id: bytes | None) -> SegmentHeader:
        """Decode a segment's header and check that it is of this segment and log. Raises LogCorruptionError."""
        name = self.names.segment(number)
        header = SegmentHeader.decode(data, name)
        if header.number != number:
            raise LogCorruptionError(f"the file's header says segment {header.number}", file=name)
        if log_id is not None and header.log_id != log_id:
            raise LogCorruptionError("the segment belongs to another log", file=name)
        return header

    def pread(self, number: int, length: int, offset: int) -> bytes:
        """Bytes of a segment. Raises FileNotFoundError if it was trimmed."""
        held = self._borrow(number)
        try:
            return held.file.pread(length, offset)
        finally:
            self._release(held)

    def reader(self, number: int) -> Callable[[int, int], bytes]:
        """`pread` of one segment."""
        return lambda length, offset: self.pread(number, length, offset)

    def size(self, number: int) -> int:
        """A segment's length in bytes."""
        held = self._borrow(number)
        try:
            return held.file.size()
        finally:
            self._release(held)

    def datasync(self, number: int) -> None:
        """Make a segment durable."""
        held = self._borrow(number)
        try:
            held.file.datasync()
        finally:
            self._release(held)

    def file(self, number: int) -> RandomFile:
        """The open file of the segment being appended to, which is never freed. For the holder of the append right."""
        held = self._open.get(number)
        if held is None:
            held = self._borrow(number)
            self._release(held)
        return held.file

    def blank(self, tail: Tail) -> bool:
        """Whether there are only zeros, or nothing, where the next frame's header goes."""
        found = self.file(tail.number).pread(FRAME_HEADER, tail.offset)
        return found == _BLANK[: len(found)]

    def retire(self, number: int) -> None:
        """The segment was erased or replaced: close it as soon as no thread reads it."""
        with self._mutex:
            held = self._open.pop(number, None)
            if held is not None:
                self._retire(held)

    def retire_before(self, number: int) -> None:
        """Close the segments before `number`, which may have been trimmed."""
        for other in [other for other in self._open if other < number]:
            self.retire(other)

    def close(self) -> None:
        """Close all; later reads raise LogClosedError."""
        with self._mutex:
            self._closed = True
            with ExitStack() as closing:
                closing.callback(self._open.clear)
                for held in self._open.values():
                    closing.callback(self._retire, held)

    def _retire(self, held: _Open) -> None:
        held.retired = True
        if not held.users:
            held.file.close()

    def _borrow(self, number: int) -> _Open:
        with self._mutex:
            if self._closed:
                raise LogClosedError("the log was closed")
            held = self._open.get(number)
            if held is None:
                held = _Open(self.storage.open_file(self.names.segment(number), writable=self._writable))
                self._open[number] = held
            held.users += 1
            return held

    def _release(self, held: _Open) -> None:
        with self._mutex:
            held.users -= 1
            if held.retired and not held.users:
                held.file.close()


_BLANK = bytes(FRAME_HEADER)
