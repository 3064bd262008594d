"""`check`: every invariant, from the log to the folders and from the folders to the log.

It repairs nothing; commits that the files have not followed yet are applied first, as any pass would. A tree that is
open for reading is checked as it stands: if others write meanwhile, what they are at is looked at again.

A *problem* is a broken promise or damage: with its path and the reason. A *note* is something a person may want to
know: foreign files and folders, leftovers of a process that died.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import wal

from . import config, folders, layout, marks, recovery
from .errors import CorruptionError
from .facts import BlobFact, Slice
from .findings import Finding, Report
from .fold import Effect
from .location import Path, fold_name, join
from .sources import Sources
from .window import fold_log

if TYPE_CHECKING:
    from .engine import Engine

Progress = Callable[[Report, float], None]  # what is found so far, and which part of the tree that is, 0 to 1

_LOOKS = 3  # of a reader, while others write
_MOVE_OUT = "Move it out of here while no program has it open: a deletion around it would set it aside"


def check(engine: Engine, *, deep: bool, progress: Progress | None = None) -> Report:
    """Check an open tree; a writer holds the committer's right meanwhile, so that the files stand still."""
    if engine.read_only:
        return _standing(engine, deep=deep, progress=progress)

    def held(tenure: wal.Tenure) -> Report:
        checking = _Check(engine, deep=deep, progress=progress)
        try:
            behind = engine.committer.pass_held(tenure).failed  # what is committed belongs into the files anyway
        except (CorruptionError, wal.LogCorruptionError) as damage:
            behind = {layout.LOG: damage}
        for path, error in behind.items():
            why = f"cannot be brought up to date with the log: {error}"
            checking.report.problems.append(Finding(path, why, "log" if path == layout.LOG else "not-applied"))
        return checking.run()

    return engine.committer.holding(held)


def _standing(engine: Engine, *, deep: bool, progress: Progress | None) -> Report:
    """Of a tree that others may change: only what is found again counts, unless the log stood still meanwhile."""
    log = engine.log
    report, before = None, None
    for _ in range(_LOOKS):
        begin = log.head(fresh=True), log.load_mark(marks.APPLIED), log.trimmed(fresh=True)
        checking = _Check(engine, deep=deep, progress=progress)
        report = checking.run()
        if before is not None:
            seen = {(finding.kind, finding.path) for finding in (*before.problems, *before.notes)}
            report.problems = [each for each in report.problems if (each.kind, each.path) in seen]
            report.notes = [each for each in report.notes if (each.kind, each.path) in seen]
        still = begin == (log.head(fresh=True), log.load_mark(marks.APPLIED), log.trimmed(fresh=True))
        if still or not (report.problems or report.notes):
            break
        before = report
    assert report is not None  # noqa: S101  it was looked at least once
    return report


class _Check:
    def __init__(self, engine: Engine, *, deep: bool, progress: Progress | None) -> None:
        self._progress = progress
        self._done = 0.0
        self._storage = engine.storage
        self._log = engine.log
        self._depth = len(engine.levels)
        self._read_only = engine.read_only
        self._shared = engine.shared
        self._adopted = config.is_adopted(engine.storage)
        self.report = Report(deep=deep)

    def run(self) -> Report:
        self._check_log()
        redo, head = self._log.trimmed(fresh=True), self._log.head(fresh=True)
        self.report.head = head
        shown = self._check_marks(redo, head)
        try:
            self._shown = fold_log(self._log, redo, shown)  # what the files must show
            self._window = fold_log(self._log, redo, head)  # what the tree is, laid over the files
        except (CorruptionError, wal.LogCorruptionError) as error:
            self._problem("log", layout.LOG, str(error))  # against what is not known, no file can be held
            return self.report
        self._node((), self._shown, 1.0)
        self._check_staged()
        for name in recovery.leftovers(self._storage):
            shared = "an unfinished file, of a writer that is at work or died"
            reason = shared if self._shared else "an unfinished file; the next recovery sets it aside"
            self._note("unfinished", name, reason)
        return self.report

    def _problem(self, kind: str, path: str, reason: str) -> None:
        self.report.problems.append(Finding(path, reason, kind))

    def _note(self, kind: str, path: str, reason: str) -> None:
        self.report.notes.append(Finding(path, reason, kind))

    def _tell(self, share: float = 0.0) -> None:
        """To who waits: a part of the tree that is this large is done."""
        wal.safe_point()
        self._done += share
        if self._progress is not None:
            self._progress(self.report, self._done)

    # --- the log ------------------------------------------------------------------------------------------------------

    def _is_there(self, folder: str) -> bool:
        """Whether a folder that was listed exists: an object store may list for a while what is gone."""
        return self._storage.capabilities.folders or bool(self._storage.versions(folder))

    def _check_log(self) -> None:
        for problem in self._log.verify().problems:
            self._problem("log", layout.LOG, problem)

    def _check_marks(self, redo: int, head: int) -> int:
        """The LSN that the files must show."""
        applied = self._log.load_mark(marks.APPLIED)
        if applied > head or redo > head:
            marks_are = f"the marks (redo {redo}, applied {applied}) are beyond the log's head {head}"
            self._problem("marks", layout.LOG, marks_are)
        if self._read_only and (self._shared or not self._is_attended(redo, applied, head)):
            return redo
        return min(head, max(applied, redo))

    def _is_attended(self, redo: int, applied: int, head: int) -> bool:
        """Whether a writer lives, so that the marks may be believed; if not, whether there is something to recover."""
        lives = self._log.attended()
        torn = self._log.tail_report.quarantined
        if lives is None:  # not allowed to find out: then what is not behind needs nobody
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
        for _, effect in self._window.walk():
            for fact in effect.blobs.values():
                if fact is not None and isinstance(fact.source, Slice):
                    self._check_source(fact)
        for name in filter(self._is_there, recovery.orphans(self._storage, self._log)):
            self._note("staged", name, "staged blobs of a transaction that is still running or never committed")

    def _check_source(self, fact: BlobFact) -> None:
        try:
            with Sources(self._storage) as sources:
                content = sources.read(fact)
            if isinstance(content, wal.Staged):
                entry = self._storage.entry(content.name)
                if entry is None or entry.size != fact.size:
                    raise CorruptionError(f"{content.name} is missing or cut short")
        except (OSError, CorruptionError) as error:
            self._problem(
                "content-missing", join((*fact.path, fact.name)), f"the log needs its staged content, but {error}"
            )

    # --- the folders --------------------------------------------------------------------------------------------------

    def _node(self, path: Path, shown: Effect | None, share: float) -> None:
        name = layout.metadata(path)
        self.report.nodes += 1
        try:
            stored = self._storage.read(name)
            file = folders.parse_node(name, stored)
        except (FileNotFoundError, NotADirectoryError):
            self._problem(
                "node-missing",
                name,
                "is missing, though the node is listed by its parent: restore it, or give the node up with "
                f"delete({join(path)!r}, recursive=True)",
            )
            return
        except (OSError, CorruptionError) as error:
            self._problem("node-unreadable", name, str(error).removeprefix(f"{name} "))
            return
        children = dict.fromkeys(file.children, True)
        wrong = shown is not None and (
            shown.over_keys(file.keys) != file.keys or list(shown.over_children(children)) != list(children)
        )
        if file.edited:
            self._problem("node-edited", name, "was edited by hand: its content is not what the engine published")
        elif folders.is_unmarked(self._storage, stored) and not self._adopted:
            reason = "carries no mark of the engine: replaced by another program, or copied without attributes"
            tell = self._problem if wrong else self._note
            tell("node-replaced", name, f"{reason}; the log says otherwise" if wrong else reason)
        elif wrong:
            self._problem("node-wrong", name, "does not show what the log says was applied")
        self._folder(path, children, shown)
        share /= 1 + len(children)
        self._tell(share)
        for child in file.children:
            self._node((*path, child), shown.below.get(child) if shown is not None else None, share)

    def _folder(self, path: Path, children: dict[str, bool], shown: Effect | None) -> None:
        entries = {entry.name: entry for entry in self._storage.list(layout.folder(path))}
        twins: dict[str, str] = {}
        for name, entry in sorted(entries.items()):
            if name == layout.METADATA or (not path and name in layout.ENGINE_NAMES):
                continue
            full = layout.blob(path, name)
            if fold_name(name) in twins:
                self._note("twin", full, f"differs from {twins[fold_name(name)]!r} only in case or form")
            twins[fold_name(name)] = name
            if entry.kind is wal.Kind.OTHER:
                self._problem("link", full, "is a link or special file, which the engine neither follows nor opens")
            elif name not in children:
                self._entry(path, name, entry)
        if path and layout.CONFIG in entries and folders.is_tree(self._storage, layout.folder(path)):
            reason = f"is a tree of its own as well: it holds {layout.CONFIG}. {_MOVE_OUT}"
            self._problem("tree-inside", layout.folder(path), reason)
        for name, fact in shown.blobs.items() if shown is not None else ():
            self._blob_shown(path, name, fact)
        for name, below in shown.below.items() if shown is not None else ():
            there = below.exists is False and name in entries and shown is not None and not _is_blob(shown, name)
            if there and self._is_there(layout.blob(path, name)):
                self._problem("not-removed", layout.blob(path, name), "was deleted by the log, but is still there")

    def _entry(self, path: Path, name: str, entry: wal.Entry) -> None:
        full = layout.blob(path, name)
        if entry.kind is wal.Kind.FILE:
            self._blob(full)
            return
        for inner in folders.trees_below(self._storage, full):
            self._note("tree-inside", inner, f"is a tree inside this one. {_MOVE_OUT}")
        if not self._is_there(full):
            return
        if not folders.is_blob_folder(self._storage, full, leaf=len(path) >= self._depth):
            self._note("folder-extra", full, "a folder that is no node and no blob; it is left alone")
            return
        for inner in folders.files_below(self._storage, path, name):
            self._blob(layout.blob(path, inner))

    def _blob(self, name: str) -> None:
        self.report.blobs += 1
        attribute = folders.Attribute.decode(self._storage.attribute(name))
        if attribute is None:
            if self._storage.capabilities.attributes:
                self._note("blob-extra", name, "a file the engine did not put here; it reads as a blob")
        elif self.report.deep and attribute.sha256 and self._digest(name) != attribute.sha256:
            self._problem("blob-changed", name, "its content is not what was put: damaged, or edited by hand")

    def _digest(self, name: str) -> str:
        hasher = hashlib.sha256()
        with self._storage.open(name) as stream:
            while chunk := stream.read(1 << 20):
                hasher.update(chunk)
                self.report.bytes += len(chunk)
                self._tell()
        return hasher.hexdigest()

    def _blob_shown(self, path: Path, name: str, fact: BlobFact | None) -> None:
        full = layout.blob(path, name)
        entry = self._storage.entry(full)
        if fact is None:
            if entry is not None and entry.kind is wal.Kind.FILE and self._storage.attribute(full) is not None:
                self._problem("not-removed", full, "was deleted by the log, but is still there")
            return
        if entry is None or entry.kind is not wal.Kind.FILE:
            self._problem("blob-missing", full, "is missing, though the log says it was applied")
        elif entry.size != fact.size and not self.report.deep:  # else its content was compared
            self._problem("blob-changed", full, f"has {entry.size} bytes, not the {fact.size} that were put")


def _is_blob(effect: Effect, name: str) -> bool:
    return effect.blob(name)[0] is not None or effect.blob_below(name)
