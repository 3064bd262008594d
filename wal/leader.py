"""What a leader does for all who wait: one batch, from taking the right to append to waking its callers."""

from __future__ import annotations

import copy
import threading

from wal.chain import Chain
from wal.group import Entry, Queue
from wal.interrupts import tell
from wal.log import LSN, Deferred, Position, Record
from wal.rights import Right
from wal.writer import Writer

_BATCH_RECORDS = 1024
_BATCH_BYTES = 8 * 2**20


class Leader:
    """The same for every leader of one handle."""

    def __init__(self, right: Right, writer: Writer, chain: Chain) -> None:
        self._right = right
        self._writer = writer
        self._chain = chain

    def flush(self, queue: Queue) -> None:
        """By the leader: one batch, from taking the right to waking its callers."""
        entries: list[Entry] = []
        try:
            with self._right:
                self._writer.catch_up()
                entries = queue.take(_BATCH_RECORDS)
                accepted, resting = self._prepare(entries)
                if accepted:
                    tell(f"batch {self._commit(accepted)} was committed before the interrupt")
                for entry, outcome in resting:
                    entry.settle(error=outcome)
        except Exception as error:  # noqa: BLE001  whatever it is, nobody in the queue may hang
            tell(f"the append failed before the interrupt: {error}")
            if entries:  # it concerns those whose records were to be written; the others are asked again
                _fail([entry for entry in entries if entry.record is not None], error)
            else:
                entries = queue.take(_BATCH_RECORDS)
                _fail(entries, error)
        finally:
            queue.put_back(entry for entry in entries if not entry.done)  # deferred, or the leader was interrupted
            queue.wake(entry for entry in entries if entry.done)

    def _prepare(self, entries: list[Entry]) -> tuple[list[Entry], list[tuple[Entry, Exception | None]]]:
        """Ask each in queue order: the accepted ones, and those whose refusal (or None: nothing to append) counts only
        if the batch becomes durable, since it may rest on a mate. The rest is settled, or stays for the next batch."""
        head = self._chain.tail.lsn
        accepted: list[Entry] = []
        resting: list[tuple[Entry, Exception | None]] = []
        mates: list[Record] = []
        size = 0
        for entry in entries:
            entry.record = None
            if size > _BATCH_BYTES:
                entry.taken = False
                continue
            outcome: Exception | None = None
            try:
                record = _ask(entry, head, mates)
                if record is not None:
                    entry.record = record
                    accepted.append(entry)
                    mates.append(record)
                    size += len(record.header) + len(record.body or b"")
                    continue
            except Deferred as error:
                if mates:
                    entry.taken = False
                    continue
                outcome = error  # nobody to wait for: asking again could only say the same
            except Exception as error:  # noqa: BLE001  a caller's own error, for that caller alone
                outcome = error
            if mates:
                resting.append((entry, outcome))
            else:
                entry.settle(error=outcome)
        return accepted, resting

    def _commit(self, accepted: list[Entry]) -> LSN:
        lsn = self._writer.write([entry.record for entry in accepted if entry.record is not None])
        for index, entry in enumerate(accepted):
            entry.settle(Position(lsn, index))
        return lsn


def _ask(entry: Entry, head: LSN, mates: list[Record]) -> Record | None:
    record = entry.prepare(head, mates)
    if record is not None and record.body is None:
        raise ValueError("a record to append needs a body")
    return record


def _fail(entries: list[Entry], error: Exception) -> None:
    """Tell everybody who is not settled, the leader with the error itself and the others with one like it."""
    here = threading.get_ident()
    for entry in entries:
        if not entry.done:
            entry.settle(error=error if entry.thread == here else _alike(error))


def _alike(error: Exception) -> Exception:
    """A copy, since one exception raised in several threads would collect all their tracebacks."""
    alike = copy.copy(error)
    alike.__cause__ = error
    return alike
