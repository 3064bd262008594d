"""Group commit in an append log: asks the queued entries for their records and writes one batch."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence

from wal.chain import Chain
from wal.group import Entry, Queue
from wal.interrupts import tell
from wal.log import LSN, Deferred, Position, Record
from wal.rights import Right
from wal.writer import Writer

_BATCH_BYTES = 2**23  # of records; no more join a batch that has so many


class Leader:
    """Shared by all leaders of one handle."""

    def __init__(self, right: Right, writer: Writer, chain: Chain) -> None:
        self._right = right
        self._writer = writer
        self._chain = chain

    def flush(self, queue: Queue) -> None:
        """Called by the leader: one batch, from taking the append right to waking the callers."""
        entries: list[Entry] = []
        try:
            self._right.acquire()  # `append` has deferred interrupts
            try:
                self._writer.catch_up()
                entries = queue.take()
                accepted, refused = ask(entries, self._chain.tail.lsn)
                if accepted:
                    tell(f"batch {self._commit(accepted)} was committed before the interrupt")
                for entry, refusal in refused:
                    entry.settle(error=refusal)
            finally:
                self._right.release()
        except Exception as error:  # noqa: BLE001  whatever it is, no caller in the queue may hang
            tell(f"the append failed before the interrupt: {error}")
            entries = entries or queue.take()
            # the outcome of the entries whose records were to be written, if any; the others are asked again
            fail([entry for entry in entries if entry.record is not None] or entries, error)
        finally:
            queue.end_batch()

    def _commit(self, accepted: list[Entry]) -> LSN:
        lsn = self._writer.write([entry.record for entry in accepted if entry.record is not None])
        for index, entry in enumerate(accepted):
            entry.settle(Position(lsn, index))
        return lsn


def ask(entries: Sequence[Entry], head: LSN) -> tuple[list[Entry], list[tuple[Entry, Exception | None]]]:
    """Ask each entry, in queue order, for its record: (entries that gave one, the others with their error, if any).

    Each answer rests on the log up to `head` and on the records accepted before it: it counts only if these are
    committed directly after `head`. Entries in neither list wait for the next batch.
    """
    accepted: list[Entry] = []
    refused: list[tuple[Entry, Exception | None]] = []
    mates: list[Record] = []
    size = 0
    for entry in entries:
        entry.record = None
    for entry in entries:
        if size > _BATCH_BYTES:
            break
        try:
            entry.record = entry.prepare(head, mates)
            if entry.record is not None and entry.record.body is None:
                raise ValueError("a record to append needs a body")
        except Deferred as error:
            if not mates:  # nothing to wait for
                refused.append((entry, error))
        except Exception as error:  # noqa: BLE001  an error of the caller's `prepare`: for that caller alone
            refused.append((entry, error))
        else:
            if entry.record is None:
                refused.append((entry, None))
            else:
                accepted.append(entry)
                mates.append(entry.record)
                size += len(entry.record.header) + len(entry.record.body or b"")
    return accepted, refused


def fail(entries: list[Entry], error: Exception) -> None:
    """Settle what is not settled: this thread's entry with the error itself, the others with a copy."""
    here = threading.get_ident()
    for entry in entries:
        if not entry.done:
            entry.settle(error=error if entry.thread == here else _alike(error))


def _alike(error: Exception) -> Exception:
    """A copy: one exception raised in several threads would collect the tracebacks of all."""
    alike = copy.copy(error)
    alike.__cause__ = error
    return alike
