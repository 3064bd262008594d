"""How a net effect is applied, and what came of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


@dataclass(slots=True)
class Outcome:
    """What one application did."""

    nodes: int = 0  # metadata.json files written
    blobs: int = 0  # blobs written
    removed: int = 0  # nodes and blobs moved to the trash
    edited: list[str] = field(default_factory=list)  # quarantined copies of files that were changed by hand
    failed: dict[str, Exception] = field(default_factory=dict)  # node path -> why it could not be applied


class Mode(enum.Enum):
    """What is known of the files before an application."""

    FOLLOW = enum.auto()  # they show the state at the window's beginning, or anything since: the ordinary case
    REWRITE = enum.auto()  # they show the window's end, but their content may not have reached the disk
    REPLAY = enum.auto()  # a crash came in between: any part of the window may have been lost, nobody reads meanwhile
