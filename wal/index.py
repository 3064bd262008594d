"""An in-memory index of the batches after the redo mark: 8 bytes a batch, so that a read never scans again.

The frames of all segments are laid end to end on one scale of virtual offsets: the difference of two is the number
of bytes of the frames in between.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import NamedTuple

from wal.log import LSN


class _Span(NamedTuple):
    """The batches of one segment."""

    first: LSN
    number: int
    shift: int  # virtual = offset + shift


class Extent(NamedTuple):
    """Consecutive frames of one segment."""

    number: int
    offset: int
    size: int
    last: LSN


class Index:
    """The frames of the batches base + 1, base + 2, ..."""

    def __init__(self, base: LSN) -> None:
        self.base = base
        self._starts: array[int] = array("Q")
        self._end = 0
        self._spans: list[_Span] = []

    def add(self, lsn: LSN, number: int, offset: int, size: int) -> None:
        """Add the next batch, or the last one again, as after an interrupt: its segment, offset and size in bytes."""
        del self._starts[lsn - self.base - 1 :]
        if not self._spans or self._spans[-1].number != number:
            self._spans.append(_Span(lsn, number, self._end - offset))
        start = offset + self._spans[-1].shift
        self._starts.append(start)
        self._end = start + size

    def extent(self, lsn: LSN, upto: LSN, limit: int) -> Extent:
        """Frames from `lsn` to at most `upto` in one segment: those that begin within `limit` bytes."""
        at = self._span(lsn)
        span = self._spans[at]
        if at + 1 < len(self._spans):
            upto = min(upto, self._spans[at + 1].first - 1)
        low = lsn - self.base - 1
        start = self._starts[low]
        high = bisect_right(self._starts, start + limit, low, upto - self.base)
        return Extent(span.number, start - span.shift, self._ends(high) - start, self.base + high)

    def _span(self, lsn: LSN) -> int:
        """The index of the span that a batch is in, if that is indexed; -1 if there are no spans."""
        return bisect_right(self._spans, lsn, key=_first) - 1

    def _ends(self, count: int) -> int:
        """The virtual end of the first `count` frames."""
        return self._starts[count] if count < len(self._starts) else self._end

    def place(self, lsn: LSN) -> tuple[int, int]:
        """(segment, offset) of a batch's frame."""
        extent = self.extent(lsn, lsn, 0)
        return extent.number, extent.offset

    def size_after(self, lsn: LSN) -> int:
        """Bytes of all frames after `lsn`."""
        at = max(lsn, self.base) - self.base
        return self._end - self._starts[at] if at < len(self._starts) else 0

    def drop(self, upto: LSN) -> None:
        """Forget the batches up to `upto`, which is beyond the base."""
        del self._starts[: upto - self.base]
        self.base = upto
        del self._spans[: self._span(upto + 1)]


def _first(span: _Span) -> LSN:
    return span.first
