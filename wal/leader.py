"""Group commit in an append log: asks the queued entries for their records and writes one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wal.chain import Chain
from wal.group import Entry
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

    def flush(self, take: Callable[[], list[Entry]]) -> None:
        """See `group.Leader`."""
        self._right.acquire()  # `append` has deferred interrupts
        try:
            self._writer.catch_up()
            accepted, refused = ask(take(), self._chain.tail.lsn)
            if accepted:
                settle(accepted, self._writer.write([entry.record for entry in accepted if entry.record is not None]))
            for entry, refusal in refused:
                entry.settle(error=refusal)
        finally:
            self._right.release()


def settle(accepted: Sequence[Entry], lsn: LSN) -> None:
    """Their batch is committed. Whatever happens in here, nobody may write their records once more."""
    try:
        for index, entry in enumerate(accepted):
            entry.settle(Position(lsn, index))
    except BaseException:
        for index, entry in enumerate(accepted):
            entry.settle(Position(lsn, index))
        raise


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
