"""The end of the log that may not be applied yet, as read by one reader: record by record, folded to its net effect.

It covers the records from `floor` to `head`. Every record that is read updates the parsed nodes kept here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import takewhile

import wal

from . import marks
from .facts import BlobFact, Fact, Header, check_format, decode_header, facts_of, header_of
from .fold import Effect, fold
from .nodes import NodeCache

RECENT = 4096  # headers kept to validate transactions without reading the log again ...
LONG = 1000  # records held after which a read-only handle reads how far the log was trimmed
RECENT_BYTES = 8 << 20  # ... and as many bytes of them


class Window:
    """The records (floor, head] of a log. Not thread-safe: the reader's lock guards it."""

    def __init__(self, log: wal.WriteAheadLog, *, trust_applied: bool, eager: bool) -> None:
        """`trust_applied`: begin at the applied mark, which is valid while a writer is alive; a read-only handle begins
        at the redo mark (E18). `eager`: see `NodeCache`."""
        self._log = log
        self._eager = eager
        self._trust_applied = trust_applied
        self._facts: deque[tuple[int, Sequence[Fact]]] = deque()  # (LSN, facts) of each record
        self._recent: deque[tuple[wal.Position, bytes]] = deque()  # encoded headers, parsed when needed
        self._skip(0)

    def begin(self) -> None:
        """Begin at the mark, as it was when the log was opened."""
        self._log.head()
        self._skip(max(self.mark(), self._log.trimmed()))

    def restart(self) -> None:
        """Forget everything and begin again at the present mark. The head does not go back: answers may rely on it."""
        head = self.head
        self._skip(max(self.mark(), self._log.trimmed(fresh=True)))
        if head > self.head:
            self.extend(head)

    def _skip(self, lsn: int) -> None:
        """Begin after `lsn`: earlier records are in the files, and cached nodes may be older."""
        self.nodes = NodeCache(eager=self._eager)  # at the head; before it, for threads without the lock
        self.floor = lsn  # the window begins after this LSN ...
        self.head = lsn  # ... and ends with this one
        self._forget_facts()
        self._long = LONG
        self._recent.clear()
        self._recent_bytes = 0

    def _forget_facts(self) -> None:
        self._folded = 0
        self._facts.clear()
        self._effect = Effect()  # of the first of these records, as many as are folded

    @property
    def effect(self) -> Effect:
        """The net effect of (floor, head]. Folded only when it is asked for, which a writer seldom does: its own
        records are applied, and leave the window, before it reads a file that they touch."""
        while (number := self._folded) < len(self._facts):
            fold(self._facts[number][1], self._effect)
            # Set, not raised: an interrupt may cut the folding short, and a signal handler may read the tree within it.
            # Then records are folded again, in order, which changes nothing.
            self._folded = number + 1
        return self._effect

    def mark(self) -> int:
        """The LSN up to which the files certainly show the log; to be read before any of them."""
        if self._trust_applied:
            return max(self._log.load_mark(marks.APPLIED), self._log.trimmed())
        return self._log.trimmed()

    # --- following the log --------------------------------------------------------------------------------------------

    def extend(self, head: int) -> bool:
        """Follow the log to `head`; returns whether it had grown."""
        if head <= self.head:
            return False
        if self._log.trimmed() > self.head:
            self._skip(self._log.trimmed())
        for batch in self._log.read(self.head, head):
            if None in [record.body for record in batch.records]:
                self._jump(batch)
            else:
                self._take(batch)
            self.head = batch.lsn
        return True

    def _take(self, batch: wal.Batch) -> None:
        for index, record in enumerate(batch.records):
            facts = facts_of(record)
            self._note(wal.Position(batch.lsn, index), record.header)
            self._facts.append((batch.lsn, facts))
            self.nodes.forward(facts)

    def _jump(self, batch: wal.Batch) -> None:
        """A trimmed record: its changes are in the files, and cached nodes may be older."""
        self.floor = batch.lsn
        self._forget_facts()
        self.nodes = NodeCache(eager=self._eager)
        for index, record in enumerate(batch.records):
            check_format(record.header)
            self._note(wal.Position(batch.lsn, index), record.header)

    def _note(self, position: wal.Position, header: bytes) -> None:
        self._recent.append((position, header))
        self._recent_bytes += len(header)
        while len(self._recent) > RECENT or (self._recent_bytes > RECENT_BYTES and len(self._recent) > 1):
            self._recent_bytes -= len(self._recent.popleft()[1])

    def is_long(self) -> bool:
        """Whether so many records are held that the redo mark should be read; True once for each doubling."""
        if len(self._facts) < self._long:
            return False
        self._long = 2 * len(self._facts)
        return True

    def forget(self, mark: int) -> None:
        """Drop the records up to `mark`, if these are most of them, since the others must be folded again."""
        if not self._facts or self._facts[len(self._facts) // 2][0] > mark:
            return
        # The floor first: after an interrupt between these steps the window claims too few records, never too many.
        self.floor = max(self.floor, min(mark, self.head))
        self._folded = 0  # before the others, so that none is taken for folded
        while self._facts and self._facts[0][0] <= mark:
            self._facts.popleft()
        self._effect = Effect()
        self._long = max(LONG, 2 * len(self._facts))

    # --- what it holds -----------------------------------------------------------------------------------------------

    def since(self, base: int) -> Iterator[tuple[wal.Position, Header]]:
        """Positions and headers of the records (base, head]."""
        oldest = self._recent[0][0] if self._recent else None
        if oldest is not None and (oldest.lsn <= base or (oldest.lsn == base + 1 and oldest.index == 0)):
            later = list(takewhile(lambda recent: recent[0].lsn > base, reversed(self._recent)))
            yield from ((position, decode_header(header)) for position, header in reversed(later))
            return
        for batch in self._log.read(base, self.head):
            for index, record in enumerate(batch.records):
                yield wal.Position(batch.lsn, index), header_of(record)

    def facts(self, after: int) -> list[Fact] | None:
        """The facts of the records (after, head]; None if not all of them are held."""
        if after < self.floor:
            return None
        return [fact for lsn, facts in self._facts if lsn > after for fact in facts]


def fold_log(log: wal.WriteAheadLog, after: int, head: int) -> Effect:
    """The net effect of the records (after, head] of a log."""
    return fold_counted(log, after, head)[0]


def fold_counted(log: wal.WriteAheadLog, after: int, head: int) -> tuple[Effect, int]:
    """(net effect of the records (after, head] of a log, their number).

    A record that is trimmed by now is in the files, and so are all before it, even if their bodies were still there
    when they were read: without it, their effect would be an older state.
    """
    effect, count = Effect(), 0
    for batch in takewhile(lambda batch: batch.lsn <= head, log.read(after)):
        count += len(batch.records)
        for record in batch.records:
            if record.body is None:
                effect = Effect()
            else:
                fold(facts_of(record), effect)
    return effect, count


def put_at(effect: Effect, name: str) -> BlobFact | None:
    """The blob whose file has this name, if the window with this effect on the root put it."""
    parts = name.split("/")
    for depth in range(len(parts)):
        inner, _ = effect.find(tuple(parts[:depth]))
        if inner is None:
            return None
        if (fact := inner.blobs.get("/".join(parts[depth:]))) is not None:
            return fact
    return None
