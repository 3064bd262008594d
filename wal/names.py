"""Every name inside the log's folder is made and parsed here, and only here."""

from __future__ import annotations

import re
from collections.abc import Iterable

from wal.storage.base import Entry, Kind

_SEGMENT = re.compile(r"([0-9]{20})\.log")
_HISTORY = re.compile(r"([0-9]{20})\.hdr")
_SLOT = re.compile(r"([0-9]{20})\.rec")
_EPOCH = re.compile(r"([0-9]{20})")


class Names:
    """The names of one log, relative to its storage's root."""

    def __init__(self, folder: str) -> None:
        self.folder = folder  # locking it is the append right
        self.head = f"{folder}/head"
        self.checkpoint = f"{folder}/checkpoint.json"
        self.apply = f"{folder}/apply"
        self.alive = f"{folder}/alive"
        self.opening = f"{folder}/opening"
        self.epochs = f"{folder}/epoch"
        self.history_folder = f"{folder}/history"
        self.quarantine_folder = f"{folder}/quarantine"

    def segment(self, number: int) -> str:
        """Segments are numbered 1, 2, 3, ...; the number says nothing about LSNs."""
        return f"{self.folder}/{number:020d}.log"

    def slot(self, lsn: int) -> str:
        """Slot 0 creates the log; slot N holds batch N."""
        return f"{self.folder}/{lsn:020d}.rec"

    def epoch(self, number: int) -> str:
        """The folder of an epoch, which is never removed."""
        return f"{self.epochs}/{number:020d}"

    def moved_away(self, number: int) -> str:
        """Where the working folder of an epoch is moved when its holder is overtaken."""
        return f"{self.quarantine_folder}/epoch-{number:020d}"

    def history(self, number: int) -> str:
        """The file with the headers of the segment `number`."""
        return f"{self.history_folder}/{number:020d}.hdr"

    def quarantine(self, number: int, offset: int, attempt: int) -> str:
        """For bytes found at `offset` of the segment `number`; `attempt` keeps different contents apart."""
        return f"{self.quarantine_folder}/{number:020d}-{offset:020d}-{attempt}.bin"


def segment_numbers(entries: Iterable[Entry]) -> list[int]:
    """The segments among a folder's entries, ascending."""
    return _numbers(_SEGMENT, entries)


def history_numbers(entries: Iterable[Entry]) -> list[int]:
    """The history files among a folder's entries, ascending."""
    return _numbers(_HISTORY, entries)


def slot_numbers(entries: Iterable[Entry]) -> list[int]:
    """The slots among a folder's entries, ascending."""
    return _numbers(_SLOT, entries)


def epoch_numbers(entries: Iterable[Entry]) -> list[int]:
    """The epochs among a folder's entries, ascending."""
    return _numbers(_EPOCH, entries, Kind.FOLDER)


def _numbers(pattern: re.Pattern[str], entries: Iterable[Entry], kind: Kind = Kind.FILE) -> list[int]:
    matches = (pattern.fullmatch(entry.name) for entry in entries if entry.kind is kind)
    return sorted(int(match[1]) for match in matches if match)
