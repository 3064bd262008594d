"""The engine's numbers in the log's head file: which index means what. All volatile, see `load_mark` of the log."""

from __future__ import annotations

APPLIED = 0  # the files show every record up to here
APPLIED_SMALL = 1  # ... all but the large metadata.json files that were put off
FAULT = 2  # changed to a new random value by whoever sees a flush fail
FAULT_SEEN = 3  # FAULT as it was when the last checkpoint had made everything durable
REWRITES = 4  # changed to a new random value by whoever writes files of a window again
