"""Tools for testing code that uses `wal.storage`, in this project and in others.

`FaultyStorage` and `CrashStorage` are operating-system boundaries for a storage; the code under test is not patched:

    posix = CrashStorage(Crashing(call=7, when="before"))
    storage = LocalStorage(root, posix=posix)      # or MemoryStorage(CrashStorage(plan, disk))

The seventh mutating call then "kills the process": `Crash` is raised, every later call through the same boundary
raises it again, and its descriptors are closed, so that locks are free as after a real death. To find every crash
point, run once with `Recorder()` and count its `calls`, then once for each number and each `when`.

`PowerPosix` is an in-memory disk that models power loss: its `platter` knows what is durable, and every state that may
be left.

`Mounted` makes a local folder look like a mount that other hosts may share.

`wal.testing.storage_suite` (needs pytest) is the conformance suite for implementations of `Storage`.

A crash of `CrashStorage` keeps everything that was written, synced or not: it does not test power loss.
"""

from __future__ import annotations

from wal.testing.boundary import ALL_CALLS, MUTATING_CALLS, Boundary, Call, Recorder
from wal.testing.faults import Crash, Crashing, CrashStorage, Failing, FaultyStorage
from wal.testing.mounted import Mounted
from wal.testing.power_posix import PowerPosix

__all__ = [
    "ALL_CALLS",
    "MUTATING_CALLS",
    "Boundary",
    "Call",
    "Crash",
    "CrashStorage",
    "Crashing",
    "Failing",
    "FaultyStorage",
    "Mounted",
    "PowerPosix",
    "Recorder",
]
