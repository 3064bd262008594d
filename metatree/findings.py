"""The kinds of findings of `check`, and its report. Kinds and JSON names are stable (docs/decisions/0035)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


class Weight(enum.Enum):
    """What a kind of finding means for the users of a tree."""

    DAMAGE = "damage"  # something durable is missing or does not read back as it was written
    CANNOT_READ = "cannot read"  # access was denied or the storage did not answer: whether there is damage is unknown
    EDIT = "edit"  # a person or another program changed the tree's files: nothing is lost
    RECOVERY = "recovery"  # the files may lack commits that the log holds, and no program is applying them, or none can
    LEFTOVER = "leftover"  # of a program that is running or has died; harmless


WORDS = {  # for people, in what commands print
    Weight.DAMAGE: "DAMAGE",
    Weight.CANNOT_READ: "no read",
    Weight.EDIT: "by hand",
    Weight.RECOVERY: "recover",
    Weight.LEFTOVER: "left",
}
EDIT_ADVICE = "edits by hand: `metatree repair {root}` shows what adopting or reverting each would do"

ADOPT, REVERT, REBUILD, ASIDE, RECOVER = "adopt", "revert", "rebuild", "set aside", "recover"  # what `repair` can do

# kind -> its weight, and the possible remedies (whether `repair` can apply one depends on the case)
KINDS: dict[str, tuple[Weight, tuple[str, ...]]] = {
    "log": (Weight.DAMAGE, ()),
    "log-head": (Weight.DAMAGE, (RECOVER,)),  # only .wal/head, which the log itself supplies
    "marks": (Weight.DAMAGE, ()),
    "content-missing": (Weight.DAMAGE, ()),  # the staged content of a blob that is not applied yet
    "not-applied": (Weight.DAMAGE, ()),  # a commit cannot be applied: something that it needs is missing or damaged
    "node-missing": (Weight.DAMAGE, (REBUILD,)),
    "node-unreadable": (Weight.DAMAGE, (REBUILD,)),
    "node-wrong": (Weight.DAMAGE, (REBUILD,)),
    "blob-missing": (Weight.DAMAGE, (REBUILD, ADOPT)),  # adopt: give it up
    "blob-changed": (Weight.DAMAGE, (ADOPT, REVERT)),  # decay or an edit: the bytes cannot tell
    "not-removed": (Weight.DAMAGE, (ASIDE,)),
    "cannot-read": (Weight.CANNOT_READ, ()),
    "node-edited": (Weight.EDIT, (ADOPT, REVERT)),  # in place
    "node-replaced": (Weight.EDIT, (ADOPT, REVERT)),  # by a file without the engine's attribute
    "node-unlisted": (Weight.EDIT, (ADOPT, REVERT)),  # by its parent, whose metadata.json was changed
    "blob-replaced": (Weight.EDIT, (ADOPT, REVERT)),  # the same, of a blob that a commit put
    "blob-extra": (Weight.EDIT, (ADOPT, REVERT)),
    "folder-extra": (Weight.EDIT, (REVERT,)),
    "link": (Weight.EDIT, ()),
    "tree-inside": (Weight.EDIT, ()),
    "twin": (Weight.EDIT, ()),
    "not-recovered": (Weight.RECOVERY, (RECOVER,)),
    "cannot-write": (Weight.RECOVERY, ()),  # committed, but the system refused to write the files
    "staged": (Weight.LEFTOVER, ("gc",)),
    "staged-extra": (Weight.LEFTOVER, ()),  # in the staging area, but not the engine's
    "unfinished": (Weight.LEFTOVER, ("gc",)),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One deviation."""

    path: str  # of the file or folder, below the root
    reason: str
    kind: str = ""  # one of KINDS
    hopeless: bool = False  # the log cannot supply what a rebuild needs

    @property
    def weight(self) -> Weight:
        """What it means; see `Weight`."""
        return KINDS[self.kind][0]

    @property
    def remedies(self) -> tuple[str, ...]:
        """The actions of `repair` that may apply; if there are none, `reason` says what to do by hand."""
        return tuple(each for each in KINDS[self.kind][1] if not (self.hopeless and each == REBUILD))

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the names are stable."""
        found = {"path": self.path, "reason": self.reason, "kind": self.kind}
        return {**found, "weight": self.weight.value, "remedies": list(self.remedies)}


@dataclass(slots=True)
class Report:
    """What `check` found."""

    head: int = 0  # the last committed LSN
    nodes: int = 0  # number checked
    blobs: int = 0  # number checked
    deep: bool = False  # whether the blobs' content was read
    bytes: int = 0  # of blobs whose content was read
    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    @property
    def clean(self) -> bool:
        """Whether there are no problems, and no notes except of leftovers."""
        return not self.problems and all(note.weight is Weight.LEFTOVER for note in self.notes)

    def has(self, weight: Weight) -> bool:
        """Whether there is a finding of this weight."""
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
