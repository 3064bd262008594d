"""What `check` finds, and in which words: stable for programs (docs/decisions/0035)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


class Weight(enum.Enum):
    """What a kind of finding means for whoever relies on the tree."""

    DAMAGE = "damage"  # something durable is missing or does not read back as it was written
    CANNOT_READ = "cannot read"  # refused to this user, or not answered now: of damage nothing is known
    EDIT = "edit"  # somebody else's hand: nothing is lost
    RECOVERY = "recovery"  # the log holds more than the files are sure to show, and no program is at it, or can be
    LEFTOVER = "leftover"  # of a program that is at work or died; harms nobody


ADOPT, REVERT, REBUILD, ASIDE = "adopt", "revert", "rebuild", "set aside"  # what `repair` can do

# kind -> its weight, and what may be done about it (`repair` says whether it can)
KINDS: dict[str, tuple[Weight, tuple[str, ...]]] = {
    "log": (Weight.DAMAGE, ()),
    "marks": (Weight.DAMAGE, ()),
    "content-missing": (Weight.DAMAGE, ()),  # of a commit whose blob waits in the staging area
    "not-applied": (Weight.DAMAGE, ()),  # what is committed: something that it takes is missing or damaged
    "node-missing": (Weight.DAMAGE, (REBUILD,)),
    "node-unreadable": (Weight.DAMAGE, (REBUILD,)),
    "node-wrong": (Weight.DAMAGE, (REBUILD,)),
    "blob-missing": (Weight.DAMAGE, (REBUILD,)),
    "blob-changed": (Weight.DAMAGE, (ADOPT, REVERT)),  # rot, or an edit: its bytes cannot say which
    "not-removed": (Weight.DAMAGE, (ASIDE,)),
    "cannot-read": (Weight.CANNOT_READ, ()),
    "node-edited": (Weight.EDIT, (ADOPT, REVERT)),  # in place
    "node-replaced": (Weight.EDIT, (ADOPT, REVERT)),  # by a file without the engine's mark
    "blob-extra": (Weight.EDIT, (ADOPT, REVERT)),
    "folder-extra": (Weight.EDIT, (REVERT,)),
    "link": (Weight.EDIT, ()),
    "tree-inside": (Weight.EDIT, ()),
    "twin": (Weight.EDIT, ()),
    "not-recovered": (Weight.RECOVERY, ("recover",)),
    "cannot-write": (Weight.RECOVERY, ()),  # what is committed: the system did not let the files follow
    "staged": (Weight.LEFTOVER, ("gc",)),
    "unfinished": (Weight.LEFTOVER, ("gc",)),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One deviation."""

    path: str  # of the file or folder, below the root
    reason: str
    kind: str = ""  # one of KINDS

    @property
    def weight(self) -> Weight:
        """How bad it is."""
        return KINDS[self.kind][0]

    @property
    def remedies(self) -> tuple[str, ...]:
        """What may be done about it, in the words of `repair`; none: by hand, as `reason` says."""
        return KINDS[self.kind][1]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the names are stable."""
        found = {"path": self.path, "reason": self.reason, "kind": self.kind}
        return {**found, "weight": self.weight.value, "remedies": list(self.remedies)}


@dataclass(slots=True)
class Report:
    """What `check` found."""

    head: int = 0  # the last committed LSN
    nodes: int = 0  # looked at
    blobs: int = 0  # looked at
    deep: bool = False  # whether the blobs' content was read
    bytes: int = 0  # of blobs whose content was read
    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """No problems."""
        return not self.problems

    @property
    def clean(self) -> bool:
        """Nothing deviates: no problems, and no notes but of leftovers."""
        return not self.problems and all(note.weight is Weight.LEFTOVER for note in self.notes)

    def has(self, weight: Weight) -> bool:
        """Whether something of this weight was found."""
        return any(finding.weight is weight for finding in (*self.problems, *self.notes))

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the names are stable."""
        counted = {"head": self.head, "nodes": self.nodes, "blobs": self.blobs, "deep": self.deep, "bytes": self.bytes}
        found = {"problems": self.problems, "notes": self.notes}
        lists = {name: [finding.as_dict() for finding in findings] for name, findings in found.items()}
        return {"ok": self.ok, "clean": self.clean, **counted, **lists}

    def __str__(self) -> str:
        lines = [f"{self.nodes} nodes, {self.blobs} blobs, log to {self.head}: {'ok' if self.ok else 'PROBLEMS'}"]
        lines += [f"  problem: {finding.path}: {finding.reason}" for finding in self.problems]
        lines += [f"  note: {finding.path}: {finding.reason}" for finding in self.notes]
        return "\n".join(lines)
