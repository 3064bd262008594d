"""Indexes of the engine's marks in the log. All are volatile; see `WriteAheadLog.load_mark`."""

from __future__ import annotations

APPLIED = 0  # LSN: the files show every record up to it
APPLIED_SMALL = 1  # LSN: the same, except for large metadata.json files whose writing was deferred; counts if higher
FAULT = 2  # set to a new random value by each process that sees a write or flush fail
FAULT_SEEN = 3  # the value of FAULT at the last checkpoint
REWRITES = 4  # set to a new random value by each process that rewrites the files of a window
