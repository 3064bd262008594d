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
                accepted = self._prepare(entries)
                if accepted:
                    tell(f"batch {self._commit(accepted)} was committed before the interrupt")
                for entry in entries:
                    if entry.taken and not entry.done:
                        entry.settle()
        except Exception as error:  # noqa: BLE001  whatever it is, nobody in the queue may hang
            tell(f"the append failed before the interrupt: {error}")
            entries = entries or queue.take(_BATCH_RECORDS)
            _fail(entries, error)
        finally:
            queue.put_back(entry for entry in entries if not entry.done)  # deferred, or the leader was interrupted
            queue.wake(entry for entry in entries if entry.done)

    def _prepare(self, entries: list[Entry]) -> list[Entry]:
        """Ask each in queue order; the accepted ones. The rest is settled, or stays for the next batch."""
        head = self._chain.tail.lsn
        accepted: list[Entry] = []
        mates: list[Record] = []
        size = 0
        for entry in entries:
            entry.record = None
            if size > _BATCH_BYTES:
                entry.taken = False
                continue
            try:
                record = entry.prepare(head, mates)
                if record is not None and record.body is None:
                    raise ValueError("a record to append needs a body")
            except Deferred as error:
                if mates:
                    entry.taken = False
                else:  # nobody to wait for: asking again could only say the same
                    entry.settle(error=error)
            except Exception as error:  # noqa: BLE001  a caller's own error, for that caller alone
                entry.settle(error=error)
            else:
                if record is not None:
                    entry.record = record
                    accepted.append(entry)
                    mates.append(record)
                    size += len(record.header) + len(record.body or b"")
                elif not mates:  # else its "nothing to do" may rest on a mate that is not committed yet
                    entry.settle()
        return accepted

    def _commit(self, accepted: list[Entry]) -> LSN:
        lsn = self._writer.write([entry.record for entry in accepted if entry.record is not None])
        for index, entry in enumerate(accepted):
            entry.settle(Position(lsn, index))
        return lsn


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
