"""Looks into the queue of those who append at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from wal import Record, WriteAheadLog


def waiting(log: WriteAheadLog) -> int:
    """How many calls of `append` wait for the next batch."""
    return sum(not entry.taken for entry in log._group._queue)  # type: ignore[attr-defined]


def in_one_batch(
    log: WriteAheadLog, prepares: Sequence[Callable[[int, Sequence[Record]], Record | None]]
) -> list[object]:
    """What each `append` gave or raised, when all are queued behind a leader that waits."""
    leads, go, results = threading.Event(), threading.Event(), [None] * len(prepares)

    def wait(head: int, mates: Sequence[Record]) -> None:
        leads.set()
        go.wait()

    def run(index: int) -> None:
        try:
            results[index] = log.append(prepares[index])  # type: ignore[call-overload]
        except BaseException as error:  # noqa: BLE001  the outcome is what is looked at
            results[index] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=log.append, args=(wait,))]
    threads[0].start()
    leads.wait()
    for index in range(len(prepares)):
        threads.append(threading.Thread(target=run, args=(index,)))
        threads[-1].start()
        while waiting(log) <= index:
            time.sleep(0.001)
    go.set()
    for thread in threads:
        thread.join()
    return results  # type: ignore[return-value]
