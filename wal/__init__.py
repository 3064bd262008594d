"""A write-ahead log: numbered batches of records, durable when `append` returns, shared by threads and processes.

Records are opaque to it. `wal.log` states the guarantees, docs/log_format.md the bytes on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wal.clock import Clock
from wal.errors import (
    CutShortError,
    InDoubtError,
    LockBusyError,
    LogClosedError,
    LogCorruptionError,
    LogFormatError,
    LogMissingError,
    PoisonedError,
    RightLostError,
    UnsupportedError,
    WalError,
)
from wal.interrupts import DeferredInterrupt, safe_point
from wal.log import (
    LSN,
    Applying,
    Batch,
    Deferred,
    Position,
    Prepare,
    Record,
    TailReport,
    Tenure,
    Verification,
    WriteAheadLog,
)
from wal.opening import open_log
from wal.parallel import spread
from wal.process import whoami
from wal.renewal import Renewal
from wal.settings import TTL
from wal.storage import (
    Capabilities,
    ChangedError,
    Condition,
    Content,
    Entry,
    Fence,
    Kind,
    LocalStorage,
    Lock,
    Posix,
    Publication,
    RandomFile,
    Staged,
    StagedFile,
    Storage,
    Stored,
    UnsafePathError,
    list_source,
    local_path,
    make_root,
    open_source,
    open_storage,
    probe_storage,
    try_conditions,
    written_at,
)
from wal.turn import Turn

if TYPE_CHECKING:
    from wal.storage import MemoryPosix, MemoryStorage

__all__ = [
    "LSN",
    "TTL",
    "Applying",
    "Batch",
    "Capabilities",
    "ChangedError",
    "Clock",
    "Condition",
    "Content",
    "CutShortError",
    "Deferred",
    "DeferredInterrupt",
    "Entry",
    "Fence",
    "InDoubtError",
    "Kind",
    "LocalStorage",
    "Lock",
    "LockBusyError",
    "LogClosedError",
    "LogCorruptionError",
    "LogFormatError",
    "LogMissingError",
    "MemoryPosix",
    "MemoryStorage",
    "PoisonedError",
    "Position",
    "Posix",
    "Prepare",
    "Publication",
    "RandomFile",
    "Record",
    "Renewal",
    "RightLostError",
    "Staged",
    "StagedFile",
    "Storage",
    "Stored",
    "TailReport",
    "Tenure",
    "Turn",
    "UnsafePathError",
    "UnsupportedError",
    "Verification",
    "WalError",
    "WriteAheadLog",
    "list_source",
    "local_path",
    "make_root",
    "open_log",
    "open_source",
    "open_storage",
    "probe_storage",
    "safe_point",
    "spread",
    "try_conditions",
    "whoami",
    "written_at",
]


def __getattr__(name: str) -> object:
    if name in ("MemoryPosix", "MemoryStorage"):  # as in `wal.storage`
        from wal import storage

        return getattr(storage, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
