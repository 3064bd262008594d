"""A write-ahead log for files: numbered batches of records, durable on return, shared by threads and processes.

It knows nothing of what its records mean. Guarantees: `wal.log`. Bytes on disk: docs/log_format.md.
"""

from __future__ import annotations

from wal.claim import whoami
from wal.clock import Clock
from wal.errors import (
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
from wal.host_right import TTL
from wal.interrupts import DeferredInterrupt, safe_point
from wal.log import LSN, Batch, Deferred, Position, Prepare, Record, TailReport, Tenure, Verification, WriteAheadLog
from wal.opening import open_log
from wal.storage import (
    Capabilities,
    ChangedError,
    Content,
    Entry,
    Fence,
    Kind,
    LocalStorage,
    Lock,
    MemoryPosix,
    MemoryStorage,
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
    open_source,
    open_storage,
)

__all__ = [
    "LSN",
    "TTL",
    "Batch",
    "Capabilities",
    "ChangedError",
    "Clock",
    "Content",
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
    "RightLostError",
    "Staged",
    "StagedFile",
    "Storage",
    "Stored",
    "TailReport",
    "Tenure",
    "UnsafePathError",
    "UnsupportedError",
    "Verification",
    "WalError",
    "WriteAheadLog",
    "list_source",
    "local_path",
    "open_log",
    "open_source",
    "open_storage",
    "safe_point",
    "whoami",
]
