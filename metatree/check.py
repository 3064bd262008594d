"""`check`: every invariant, from the log to the folders and from the folders to the log.

It repairs nothing; commits that are not applied yet are applied first, as in any pass. A tree that is open for reading
is checked as it is; if others write during the check, what they have changed is checked again. Damage to the log is a
finding whenever it is met; a storage that does not answer is an error.

A *problem* is a broken guarantee or damage, with its path and the reason. A *note* is something a person may want to
know: foreign files and folders, leftovers of a process that died.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import wal

from . import behind, config, layout, marks, recovery
from .errors import CorruptionError
from .expected import Expected
from .findings import REBUILD, Finding, Report
from .location import Path, join
from .look import Look, Place, is_refusal
from .recorded import Recorded
from .staging import is_transaction
from .supply import lacking, lacks
from .unlisted import Unlisted
from .window import fold_log

if TYPE_CHECKING:
    from .engine import Engine

Progress = Callable[[Report, float], None]  # the findings so far, and the part of the tree that is done, 0 to 1

_LOOKS = 3  # attempts at the tree, or at one node, while others write
_DAMAGE = (CorruptionError, wal.LogCorruptionError)


def check(engine: Engine, *, deep: bool, progress: Progress | None = None) -> Report:
    """Check an open tree. A writable tree is checked under the committer's right, so that the files do not change."""
    if engine.read_only:
        return _standing(engine, deep=deep, progress=progress)

    def held(tenure: wal.Tenure) -> Report:
        checking = _Check(engine, deep=deep, progress=progress)
        try:
            failed = engine.committer.pass_held(tenure).failed  # committed changes belong in the files anyway
        except _DAMAGE as damage:
            failed = {layout.LOG: damage}
        checking.report.problems += [_behind(path, error) for path, error in failed.items()]
        return checking.run()

    try:
        return engine.committer.holding(held)
    except wal.LogCorruptionError as damage:  # nothing was checked: the right cannot be taken without the log
        return Report(head=engine.log.known(), problems=[_behind(layout.LOG, damage)], deep=deep)


def _behind(path: str, error: Exception) -> Finding:
    """The finding for files that could not be brought up to date; `path`: of their node."""
    path = path or "."
    if is_refusal(error):
        why = f"is behind the log: its commits are durable, but its files could not be written: {error}"
        return Finding(path, why, "cannot-write")
    why = f"cannot be brought up to date with the log: {error}"
    return Finding(path, why, "log" if path == layout.LOG else "not-applied")


def _standing(engine: Engine, *, deep: bool, progress: Progress | None) -> Report:
    """Check a tree that others may change: a finding counts only if it is found again, or the log has not grown."""
    report, seen, begun = None, None, None
    for _ in range(_LOOKS):
        begin = _reached(engine.log)
        begun = begun or begin
        report = _Check(engine, deep=deep, progress=progress).run()
        end = _reached(engine.log)
        if begin == end:
            break
        found = {(finding.kind, finding.path) for finding in (*report.problems, *report.notes)}
        if seen is not None:
            report.problems = [each for each in report.problems if (each.kind, each.path) in seen]
            report.notes = [each for each in report.notes if (each.kind, each.path) in seen]
        if end is not None and not (report.problems or report.notes):
            break
        seen = found
    assert report is not None  # noqa: S101  the loop has run at least once
    if engine.shared and begun is not None:
        report.notes[:0] = _unattended(engine, begun[0])
    return report


def _unattended(engine: Engine, head: int) -> list[Finding]:
    """The finding for commits up to `head` that nobody is applying, if there are any."""
    try:
        finding = behind.unattended(engine.log, engine.clock, head)
    except _DAMAGE:
        return []  # a finding of its own
    return [] if finding is None else [finding]


def _reached(log: wal.WriteAheadLog) -> tuple[int, int, int] | None:
    """What changes with each commit, pass and checkpoint; None if the log is damaged."""
    try:
        return log.head(fresh=True), log.load_mark(marks.APPLIED), log.trimmed(fresh=True)
    except wal.LogCorruptionError:
        return None


class _Check:
    def __init__(self, engine: Engine, *, deep: bool, progress: Progress | None) -> None:
        self._progress = progress
        self._done = 0.0
        self._storage = engine.storage
        self._log = engine.log
        self._read_only = engine.read_only
        self._shared = engine.shared
        adopted = config.is_adopted(engine.storage)
        unlisted, self._recorded = Unlisted(engine.storage, engine.log), Recorded(engine.log)
        self._place = Place(engine.storage, len(engine.levels), adopted, deep, unlisted, self._recorded, self._was_read)
        self.report = Report(deep=deep)

    def run(self) -> Report:
        try:
            self._run()
        except _DAMAGE as error:
            self._problem("log", layout.LOG, str(error))  # without the log, no file can be compared
        return self.report

    def _run(self) -> None:
        self._check_log()
        redo, shown = self._check_marks()
        self._expect(redo, shown)
        self._window = fold_log(self._log, redo, self.report.head)  # the tree's state, to be overlaid on the files
        self._node((), 1.0)
        self._check_staged()
        self.report.problems[:] = map(self._settled, self.report.problems)
        for name in recovery.leftovers(self._storage):
            shared = "an unfinished file, of a writer that is still running or has died"
            reason = shared if self._shared else "an unfinished file; the next recovery sets it aside"
            self._note("unfinished", name, reason)

    def _problem(self, kind: str, path: str, reason: str) -> None:
        self.report.problems.append(Finding(path, reason, kind))

    def _note(self, kind: str, path: str, reason: str) -> None:
        self.report.notes.append(Finding(path, reason, kind))

    def _settled(self, finding: Finding) -> Finding:
        """The finding; if only a rebuild would repair it, and the log cannot supply that, without this remedy."""
        hopeless = REBUILD in finding.remedies and lacks(self._storage, self._window, finding) is not None
        return replace(finding, hopeless=True) if hopeless else finding

    def _progressed(self, share: float = 0.0) -> None:
        """Report progress: a further part of the tree, `share` of 1, is done."""
        wal.safe_point()
        self._done += share
        if self._progress is not None:
            self._progress(self.report, self._done)

    def _was_read(self, count: int) -> None:
        self.report.bytes += count
        self._progressed()

    # --- the log ------------------------------------------------------------------------------------------------------

    def _check_log(self) -> None:
        verified = self._log.verify()
        kind = "log-head" if verified.only_head else "log"
        for problem in verified.problems:
            self._problem(kind, layout.LOG, problem)

    def _check_marks(self) -> tuple[int, int]:
        """The redo mark, and the LSN that the files must show."""
        # The head last: a mark that is read after it may rightly be beyond it.
        applied, redo = self._log.load_mark(marks.APPLIED), self._log.trimmed(fresh=True)
        head = self.report.head = self._log.head(fresh=True)
        if applied > head or redo > head:
            marks_are = f"the marks (redo {redo}, applied {applied}) are beyond the log's head {head}"
            self._problem("marks", layout.LOG, marks_are)
        self._trusted = not self._read_only or (not self._shared and self._is_attended(redo, applied, head))
        return redo, min(head, max(applied, redo)) if self._trusted else redo

    def _noted(self) -> tuple[int, int]:
        """The same, read again later."""
        applied, redo = self._log.load_mark(marks.APPLIED), self._log.trimmed(fresh=True)
        return redo, min(self._log.head(fresh=True), max(applied, redo)) if self._trusted else redo

    def _expect(self, redo: int, shown: int) -> None:
        self._expected = Expected(self._log, redo, shown)
        if any(each.kind in ("log", "marks") for each in self.report.problems):
            self._recorded.forget()  # a removal may be among what is lost
            return
        try:
            self._recorded.follow(shown)
        except (*_DAMAGE, FileNotFoundError) as error:  # the rest of the tree can be checked
            self._recorded.forget()
            self._problem("log", layout.LOG, str(error))

    def _is_attended(self, redo: int, applied: int, head: int) -> bool:
        """Whether a writer is alive, so that the marks can be trusted; if not, reports what is to be recovered."""
        lives = self._log.attended()
        torn = self._log.tail_report.quarantined
        if lives is None:  # unknown, for lack of permission: attended unless the files are behind
            lives = applied >= head and not torn
        if not lives and (head > redo or torn):
            tail = f", and {torn} bytes of a torn tail" if torn else ""
            self._note(
                "not-recovered",
                layout.LOG,
                f"holds {head - redo} commits that no checkpoint has secured{tail}, and no program has the tree open: "
                "the next that opens it for writing replays them, as metatree-recover does",
            )
        return lives

    def _check_staged(self) -> None:
        staged = [fact for _, effect in self._window.walk() for fact in effect.blobs.values() if fact is not None]
        missing = [(fact, error) for fact in staged if (error := lacking(self._storage, fact))]
        if missing:
            # A checkpoint may have erased it since. It raises the mark first, so what is needed now was there.
            needed = fold_log(self._log, self._log.trimmed(fresh=True), self.report.head)
            for fact, error in missing:
                effect, _ = needed.find(fact.path)
                if effect is not None and effect.blobs.get(fact.name) == fact:
                    kind = "cannot-read" if is_refusal(error) else "content-missing"
                    where = join((*fact.path, fact.name))
                    self._problem(kind, where, f"the log needs its staged content, but {error}")
        for name in filter(self._place.is_there, recovery.orphans(self._storage, self._log)):
            entry = self._storage.entry(name)
            if entry is None or is_transaction(entry):
                self._note("staged", name, "staged blobs of a transaction that is still running or never committed")
            else:
                self._note("staged-extra", name, "not the engine's, and gc never touches it: move it out of the tree")

    # --- the folders --------------------------------------------------------------------------------------------------

    def _node(self, path: Path, share: float) -> None:
        """Check a node and everything below it; again if records committed during the check were trimmed."""
        for _ in range(_LOOKS):
            look = Look(self._place, path, self._expected.shown)
            look.run()
            if look.settle(self._expected):
                break
            self._expect(*self._noted())
        look.report_to(self.report)
        share /= 1 + len(look.children)
        self._progressed(share)
        for child in look.children:
            self._node((*path, child), share)
