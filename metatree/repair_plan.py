"""The plan of a repair: an action for each deviation that `check` finds. repair.py carries it out.

Nothing is guessed. What the log holds since the redo mark is rebuilt from it. An edit by hand is adopted by a commit or
reverted, as the caller chooses, and left alone if the caller does not choose. What cannot be supplied is reported. A
file that the engine did not put there is not an edit: a revert leaves it alone unless its path is given. Nothing is
deleted: what has to make room goes to the quarantine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import wal

from . import folders, layout
from .draft import Draft
from .errors import CorruptionError, InvalidLocationError
from .findings import ADOPT, ASIDE, KINDS, REBUILD, RECOVER, REVERT, Finding, Report, Weight
from .inner import prefixes
from .location import Path, check_blob_name, fold_name, join
from .supply import is_node, is_unlisted, lacks
from .values import check_size
from .view import View
from .window import fold_log

if TYPE_CHECKING:
    from .engine import Engine

CHOOSE, CANNOT, LEAVE = "choose", "cannot", "leave"
DOING = frozenset({ADOPT, ASIDE, REBUILD, REVERT, RECOVER})
_REBUILDS = "rebuilds it, unless programs have it open for writing: close these first"
_RESTORE = "restore it from a backup"
_BY_HAND = {
    "content-missing": "put it again with force=True, or adopt what its file holds now: --adopt with --path",
    "link": "move it out of the tree",
    "twin": "rename one of the two",
}
_NAME_IT = "damage and an edit look the same: it is adopted only if --path names it"
_FOREIGN_KINDS = frozenset({"blob-extra", "folder-extra"})


@dataclass(frozen=True, slots=True)
class Step:
    """One deviation, and the action for it."""

    path: str  # of the file or folder, below the root
    kind: str  # see findings.KINDS
    reason: str
    action: str  # adopt, revert, rebuild, set aside, recover: carried out; choose, cannot, leave: left as it is
    detail: str = ""  # what the action does here, or why there is none
    source: str = ""  # where the edited file is now, if a recovery moved it into the quarantine


@dataclass(slots=True)
class Repaired:
    """What a repair found, and what it did or would do."""

    head: int = 0  # the log's, when the plan was made
    done: bool = False  # False: a plan only
    steps: list[Step] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # in the quarantine, also by the recovery with which the tree opened
    failed: dict[str, str] = field(default_factory=dict)  # path -> why its step failed
    lsn: int | None = None  # of the commit that adopts edits
    remains: Report | None = None  # what `check` finds afterwards

    @property
    def clean(self) -> bool:
        """Whether there was nothing to repair or, once it is carried out, nothing is left to repair."""
        return not self.failed and (self.remains.clean if self.remains is not None else not self.steps)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the names are stable."""
        steps = [asdict(step) for step in self.steps]
        found = {"clean": self.clean, "done": self.done, "head": self.head, "steps": steps, "kept": self.kept}
        remains = None if self.remains is None else self.remains.as_dict()
        return {**found, "failed": self.failed, "lsn": self.lsn, "remains": remains}


class Planner:
    """Makes the plan for one tree."""

    def __init__(self, engine: Engine, report: Report, edits: str | None, paths: Sequence[str]) -> None:
        """`edits`: adopt, revert or None. `paths`: if any, only findings at or below these; '' is the root."""
        self._engine = engine
        self._findings = [each for each in (*report.problems, *report.notes) if each.weight is not Weight.LEFTOVER]
        self._deep = report.deep
        self._edits = edits
        self._paths = frozenset(path.strip("/") for path in paths)
        redo, self._head = engine.log.trimmed(fresh=True), engine.log.known()
        self._window = fold_log(engine.log, redo, self._head)
        # The recovery of a local tree writes all again that the log holds; between hosts, only what is not applied.
        self._rewriting = not engine.shared and any(each.kind == "not-recovered" for each in self._findings)
        self._inside: dict[tuple[Path, str], defaultdict[str, set[str]]] = {}  # see `_names_inside`
        self._lost = {each.path: each for each in self._findings if each.kind == "blob-missing"}
        self._lost_below: dict[str, list[str]] = {}  # folder -> lost blobs
        for path in self._lost:
            for folder in prefixes(path):
                self._lost_below.setdefault(folder, []).append(path)
        self._twins = {_folded(each.path) for each in self._findings if each.kind == "twin"}

    def steps(self) -> list[Step]:
        """A step for each finding, in order."""
        steps = self._recovered()
        known = {step.path for step in steps}
        chosen = [each for each in self._findings if each.path not in known and self._is_selected(each.path)]
        return steps + [self._step(each) for each in chosen]

    def require_found(self, steps: Sequence[Step]) -> None:
        """Raises InvalidLocationError for a path without findings, unless there are no findings at all, or the recovery
        by this handle may have repaired what was there."""
        recovered = self._engine.recovered
        if not self._findings or not (recovered is None or recovered.clean):
            return
        known = {path for step in steps for path in ("", *_upwards(step.path))}
        for path in sorted(self._paths):
            if path not in known:
                count = len(self._findings)
                others = f"{count} other finding{'s' * (count > 1)}: name paths as check does"
                deep = "" if self._deep else "; whether a blob's content changed is checked with deep only"
                raise InvalidLocationError(f"there is nothing to repair at {path!r}, but {others}{deep}")

    def _is_selected(self, path: str) -> bool:
        return not self._paths or "" in self._paths or self._is_named(path)

    def _is_named(self, path: str) -> bool:
        """Whether the caller named the file or folder, or one above it that is not the root."""
        return not self._paths.isdisjoint(_upwards(path))

    def _step(self, finding: Finding) -> Step:
        action, detail = self._decide(finding)
        reason = finding.reason
        if action == CANNOT:  # one advice, not two
            reason = reason.replace(folders.RESTORING, _RESTORE)
            detail = detail.removesuffix(f": {_RESTORE}") if _RESTORE in reason else detail
        return Step(finding.path, finding.kind, reason, action, detail)

    def _lacks(self, finding: Finding) -> str | None:
        return lacks(self._engine.storage, self._window, finding)

    def _decide(self, finding: Finding) -> tuple[str, str]:
        remedies = KINDS[finding.kind][1]
        if RECOVER in remedies:
            replays = finding.kind == "not-recovered"
            return RECOVER, f"opening the tree for writing {'replays them' if replays else _REBUILDS}"
        if finding.weight is Weight.CANNOT_READ:
            return CANNOT, "whether it is damaged is unknown: run the repair as a user who may read it"
        if finding.kind == "cannot-write":
            return CANNOT, "the log keeps it: the next program that may write there brings the files up to date"
        if REBUILD in remedies:
            why = self._lacks(finding)
            if why and ADOPT in remedies:
                return self._giving_up(finding, why)
            if why:
                return CANNOT, f"{why}: {_RESTORE}"
            entry = self._engine.storage.entry(finding.path)
            if is_node(finding) and entry is not None and entry.kind is wal.Kind.OTHER:
                return CANNOT, "the log holds it, but a link or special file is in its place: move that away first"
            return REBUILD, "the log since the last checkpoint holds it"
        if ASIDE in remedies:
            return ASIDE, f"goes to {layout.QUARANTINE}"
        if REVERT not in remedies:
            return CANNOT, _BY_HAND.get(finding.kind, "it can only be repaired by hand")
        reverting, adopting = self._reverting(finding), self._adopting(finding)
        replayed = self._rewriting and not self._lacks(finding)  # the recovery will revert it
        if self._edits == ADOPT and replayed and adopting[0] == CANNOT:
            return reverting[0], f"{reverting[1]}; {adopting[1]}"
        if self._edits == ADOPT:
            return adopting
        if self._edits == REVERT or replayed:
            return reverting
        ways = [f"--{word}: {text}" for word, (_, text) in ((ADOPT, adopting), (REVERT, reverting))]
        return CHOOSE, "; ".join(ways)

    def _reverting(self, finding: Finding) -> tuple[str, str]:
        why = self._lacks(finding)
        if why is None:
            return REVERT, "the content in the log is restored, the edit is kept in the quarantine"
        if is_unlisted(finding):
            return CANNOT, (
                "the log holds no list of its parent since the last checkpoint, and a node is not set aside: adopting "
                "lists it again"
            )
        if finding.kind not in _FOREIGN_KINDS:
            return CANNOT, f"{why}: {_RESTORE}, or adopt it"
        if finding.path in self._paths:
            return ASIDE, f"goes to {layout.QUARANTINE}"
        return LEAVE, "left alone, unless --path names it"

    def _adopting(self, finding: Finding) -> tuple[str, str]:
        if ADOPT not in finding.remedies:
            return CANNOT, "a folder that is neither node nor blob cannot be adopted: put its files, or leave it alone"
        why = self._hides_loss(finding.path)
        if why:
            return CANNOT, why
        if finding.kind == "blob-changed" and not self._is_named(finding.path):
            return CANNOT, _NAME_IT
        if is_node(finding):
            return ADOPT, "a commit sets the node's keys to those in the file"
        why = self._engine.reader.ask(lambda _: self._refusal(finding.path))
        if why:
            return CANNOT, why
        if is_unlisted(finding):
            return ADOPT, "a commit lists it in its parent again, with the keys in the parent's file"
        return ADOPT, "a commit makes it " + ("the blob" if finding.kind == "blob-replaced" else "a blob")

    def _hides_loss(self, path: str) -> str:
        """Why adopting it would make the loss of another blob official that is not given up; '' if it would not."""
        for lost in _upwards(path):
            if lost in self._lost:
                return f"{lost} is lost, and this stands in its place: move it away first"
        for lost in sorted(self._lost_below.get(path, ())):
            if self._decide(self._lost[lost])[0] != ADOPT:
                return (
                    f"{lost} is lost, and this stands in the place of a folder above it: move it away first, or name "
                    "it with --path, which gives up what is lost there"
                )
        return ""

    def _giving_up(self, finding: Finding, why: str) -> tuple[str, str]:
        if self._engine.storage.entry(finding.path) is not None:
            return CANNOT, f"{why}: move away what is in its place, then {_RESTORE}, or give it up"
        if self._edits == ADOPT and self._is_named(finding.path):
            return ADOPT, "a commit removes it from the tree: its content is given up"
        return CANNOT, f"{why}: {_RESTORE}, or give it up: --adopt with --path"

    def _refusal(self, location: str) -> str:
        """Why nothing can be committed under the name that a file or folder has; '' if it can."""
        view = View(self._engine.reader)
        try:
            path, name = Draft(view, self._engine.levels, None).resolve_blob(location.split("/"), damaged=True)
            check_blob_name(name or location.rpartition("/")[2])
            parts = [*prefixes(name), name]
            twin = view.twin(path, parts[0])
        except (InvalidLocationError, CorruptionError) as error:
            return f"rename it: {error}"
        twins = self._names_inside(view, path, parts[0]) if len(parts) > 1 else {}
        if (
            twin not in (None, parts[0])
            or any(_folded(join((*path, part))) in self._twins for part in parts)
            or any(len(twins[fold_name(part)]) > 1 for part in parts if twins)
        ):
            return "another name differs from it only in case or form: rename one"
        return ""

    def _names_inside(self, view: View, path: Path, top: str) -> dict[str, set[str]]:
        """Folded name -> names, of the files and folders of a directory blob."""
        if (path, top) not in self._inside:
            names = self._inside[path, top] = defaultdict[str, set[str]](set)
            for file in view.blob_files(path, top):
                for each in (*prefixes(file), file):
                    names[fold_name(each)].add(each)
        return self._inside[path, top]

    def _recovered(self) -> list[Step]:
        """Steps for edits that the recovery by this handle moved to the quarantine, if nothing was committed since."""
        found = self._engine.recovered
        if found is None or self._edits != ADOPT or found.head != self._head:
            return []
        steps = []
        for kept, edit in found.edits.items():
            why = f"was edited by hand; the recovery kept the edit as {kept}"
            step = Step(edit.path, edit.kind, why, ADOPT, "a commit adopts the edit", kept)
            if self._is_selected(edit.path) and self._is_adoptable(step):
                steps.append(step)
        return steps

    def _is_adoptable(self, step: Step) -> bool:
        """Whether a kept edit may become official; otherwise it stays in the quarantine."""
        if step.kind == "blob-changed":
            return self._is_named(step.path)
        if is_node(step):
            try:
                check_size(folders.parse_node(step.source, self._engine.storage.read(step.source)).keys)
            except (CorruptionError, FileNotFoundError, ValueError):
                return False
        return True


def _upwards(path: str) -> tuple[str, ...]:
    """The folders above a file or folder, but for the root, and itself."""
    return (*prefixes(path), path)


def _folded(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, fold_name(name)
