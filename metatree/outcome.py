"""How a net effect is applied, and with what outcome."""

from __future__ import annotations

import enum


class Outcome:
    """What one application did."""

    def __init__(self) -> None:
        self.nodes = 0  # metadata.json files written
        self.blobs = 0  # blobs written
        self.removed = 0  # nodes and blobs moved to the trash
        self.edited: list[str] = []  # quarantined copies of files that were changed by hand
        self.failed: dict[str, Exception] = {}  # node path -> why it could not be applied


class Mode(enum.Enum):
    """What is known about the files before an application."""

    FOLLOW = enum.auto()  # they show some state of the window, from its beginning on: the ordinary case
    REWRITE = enum.auto()  # they show the window's end, but their content may not be durable
    REPLAY = enum.auto()  # after a crash: any part of the window may be lost; no other process reads now
