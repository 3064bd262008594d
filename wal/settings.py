"""The options with which a log was opened."""

from __future__ import annotations

from typing import NamedTuple

from wal.clock import Clock
from wal.storage.base import Storage

TTL = 15.0  # seconds without a sign of life after which a holder is overtaken


class Settings(NamedTuple):
    """What every kind of log needs; see `wal.open_log`."""

    storage: Storage
    folder: str
    read_only: bool
    lock_timeout: float  # seconds
    clock: Clock
    segment_size: int  # bytes; append log
    staleness: float  # seconds for which a look at the log's end may be reused; slot log
    done: int | None  # index of the mark up to which an opener needs no records; slot log
    ttl: float  # seconds without a sign of life after which a committer is overtaken; slot log
