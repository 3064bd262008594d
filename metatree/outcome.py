"""How a net effect is applied, and with what outcome."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Edit(NamedTuple):
    """A file that was edited by hand, of which the quarantine holds a copy."""

    path: str
    kind: str  # see findings.KINDS


class Outcome:
    """What one application did."""

    def __init__(self) -> None:
        self.nodes = 0  # metadata.json files written
        self.blobs = 0  # blobs written
        self.removed = 0  # nodes and blobs moved to the trash
        self.edits: dict[str, Edit] = {}  # name of a copy in the quarantine -> the file that was changed by hand
        self.failed: dict[str, Exception] = {}  # node path -> why it could not be applied


class Mode(enum.Enum):
    """What is known about the files before an application."""

    FOLLOW = enum.auto()  # they show some state of the window, from its beginning on: the ordinary case
    REWRITE = enum.auto()  # they show the window's end, but their content may not be durable
    REPLAY = enum.auto()  # after a crash: any part of the window may be lost; no other process reads now
