"""Compares one node's folder with the log: the part of `check` that reads files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import wal

from . import folders, layout
from .errors import CorruptionError
from .expected import Excuse, Expected, agrees, is_blob, is_gone, is_known, is_removed, may_stand
from .facts import BlobFact
from .findings import Finding, Report
from .fold import Effect
from .location import Path, fold_name, join
from .recorded import Recorded, checked
from .unlisted import Unlisted

_MOVE_OUT = "Move it out of here while no program has it open: a deletion around it would set it aside"
_STILL_THERE = "was deleted by the log, but is still there"
_LINK = "is a link or special file, which the engine neither follows nor opens"
_UNMARKED = "has no attribute of the engine: replaced by another program, or copied without attributes"
_UNLISTED = "is a node that its parent does not list: no program finds it. If it was renamed by hand, rename it back"
_ABSENT = (FileNotFoundError, NotADirectoryError)
_READS = 3  # attempts at a blob that is replaced while it is read


def is_refusal(error: Exception) -> bool:
    """Whether an error of a read leaves it unknown what is there: it may be absent, intact or damaged."""
    return isinstance(error, OSError) and not isinstance(error, (*_ABSENT, IsADirectoryError, wal.UnsafePathError))


@dataclass(frozen=True, slots=True)
class Place:
    """The tree that is checked, and how."""

    storage: wal.Storage
    depth: int  # number of levels: there are no nodes below them
    adopted: bool  # from metatreedb 0.2.3, whose files have no mark
    deep: bool
    unlisted: Unlisted
    recorded: Recorded
    tell: Callable[[int], None]  # called with the number of further bytes read

    def is_there(self, folder: str) -> bool:
        """Whether a folder that was listed exists: an object store may list removed folders for a while."""
        return self.storage.capabilities.folders or bool(self.storage.versions(folder))


@dataclass(slots=True)
class _Found:
    finding: Finding
    excuse: Excuse | None  # whether it is correct in a given state; None: in no state
    problem: bool


class Look:
    """The findings in one node's folder."""

    def __init__(self, place: Place, path: Path, shown: Effect) -> None:
        """`shown`: the effect that the tree's files must show."""
        self._place = place
        self._storage = place.storage
        self._path = path
        self._shown, _ = shown.find(path)
        self._found: list[_Found] = []
        self._seen: set[str] = set()  # files of blobs, by their names in the node
        self._told: set[str] = set()  # those of them that deviate
        self._recorded: dict[str, str] = {}  # file -> the commit that put it
        self._tops: set[str] = set()  # of directory blobs among these
        self.children: tuple[str, ...] = ()
        self.blobs = 0

    def run(self) -> None:
        """Check the folder."""
        name = layout.metadata(self._path)
        try:
            if self._metadata(name):
                self._recorded.update(self._place.recorded.files(self._path, self.children))
                self._tops.update(file.partition("/")[0] for file in self._recorded if "/" in file)
                with self._reading(layout.folder(self._path) or "."):
                    self._folder()
        except _ABSENT:
            self._problem("node-missing", name, self._missing(), lambda window: is_gone(window, self._path))

    def _missing(self) -> str:
        if not self._path:
            return f"is missing: {folders.RESTORING}"
        if len(self._path) > self._place.depth:
            above = layout.metadata(self._path[:-1])
            return f"is missing, though {above} lists it, of a node of the last level: take the name out of it"
        reason = (
            "is missing, though the node is listed by its parent: rename or copy it back, or give the node up with "
        )
        return reason + f"tree.delete({join(self._path)!r}, recursive=True)"

    def settle(self, expected: Expected) -> bool:
        """Drop the findings that a commit during the check explains. False: some of these commits were trimmed."""
        excuses = [(found, found.excuse) for found in self._found if found.excuse is not None]
        holding = expected.excused(self._path, [excuse for _, excuse in excuses])
        for n in holding:
            self._found.remove(excuses[n][0])
        return len(holding) == len(excuses) or not expected.overtaken()

    def report_to(self, report: Report) -> None:
        """Add the findings to a report."""
        report.nodes += 1
        report.blobs += self.blobs
        for found in self._found:
            (report.problems if found.problem else report.notes).append(found.finding)

    def _problem(self, kind: str, path: str, reason: str, excuse: Excuse | None = None) -> None:
        self._found.append(_Found(Finding(path, reason, kind), excuse, problem=True))

    def _note(self, kind: str, path: str, reason: str, excuse: Excuse | None = None) -> None:
        self._found.append(_Found(Finding(path, reason, kind), excuse, problem=False))

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Context manager around reads: a file that cannot be read is a finding of its own, not damage."""
        try:
            yield
        except OSError as error:
            if not is_refusal(error):
                raise
            self._problem("cannot-read", name, f"cannot be read: {error.strerror or error}")

    # --- its metadata.json --------------------------------------------------------------------------------------------

    def _metadata(self, name: str) -> bool:
        """Check the metadata.json; returns whether the node's children are known."""
        try:
            with self._reading(name):
                stored = self._storage.read(name)
                self._compare(name, stored, folders.parse_node(name, stored))
                return True
        except _ABSENT:
            raise
        except (OSError, CorruptionError) as error:
            why = folders.not_a_file(name) if isinstance(error, IsADirectoryError) else error
            self._problem("node-unreadable", name, str(why).removeprefix(f"{name} "))
        return False

    def _compare(self, name: str, stored: wal.Stored, file: folders.NodeFile) -> None:
        self.children = file.children
        wrong = not agrees(self._shown, file.keys, file.children)
        if file.edited:
            self._problem("node-edited", name, "was edited by hand: its content is not what the engine published")
        elif folders.is_unmarked(self._storage, stored) and not self._place.adopted:
            tell = self._problem if wrong else self._note
            tell("node-replaced", name, f"{_UNMARKED}; the log says otherwise" if wrong else _UNMARKED)
        elif wrong:
            reason = "does not show what the log says was applied"
            self._problem(
                "node-wrong", name, reason, lambda window: agrees(window.find(self._path)[0], file.keys, file.children)
            )

    # --- what else is in its folder -----------------------------------------------------------------------------------

    def _folder(self) -> None:
        path = self._path
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
                self._problem("link", full, _LINK)
            elif name not in self.children:
                with suppress(*_ABSENT), self._reading(full):  # removed since the listing: the log tells
                    self._entry(name, entry)
        if path and layout.CONFIG in entries and folders.is_tree(self._storage, layout.folder(path)):
            reason = f"is a tree of its own as well: it holds {layout.CONFIG}. {_MOVE_OUT}"
            self._problem("tree-inside", layout.folder(path), reason)
        if self._shown is not None:
            self._check_shown(self._shown, entries)
        self._check_recorded()

    def _entry(self, name: str, entry: wal.Entry) -> None:
        full = layout.blob(self._path, name)
        if entry.kind is wal.Kind.FILE:
            self._blob(name)
            return
        for inner in folders.trees_below(self._storage, full):
            self._note("tree-inside", inner, f"is a tree inside this one. {_MOVE_OUT}")
        if not self._place.is_there(full):
            return
        known = lambda window: is_known(window, self._path, name)  # noqa: E731
        if self._is_unlisted(name):
            self._note("node-unlisted", full, _UNLISTED, known)
            return
        leaf = len(self._path) >= self._place.depth
        if name not in self._tops and not folders.is_blob_folder(self._storage, full, leaf=leaf):
            self._note("folder-extra", full, "a folder that is neither a node nor a blob; it is left alone", known)
            return
        for inner, kind in folders.entries_below(self._storage, self._path, name):
            file = layout.blob(self._path, inner)
            if kind is wal.Kind.OTHER:
                self._problem("link", file, _LINK)
                continue
            with suppress(*_ABSENT), self._reading(file):
                self._blob(inner)

    def _is_unlisted(self, name: str) -> bool:
        """Whether a folder is a node that its parent does not list. One that the log has dropped is another finding."""
        below = None if self._shown is None else self._shown.below.get(name)
        if len(self._path) >= self._place.depth or (below is not None and below.exists is False):
            return False
        return self._place.unlisted.is_node(self._path, name)

    def _blob(self, inner: str) -> None:
        self.blobs += 1
        self._seen.add(inner)
        name = layout.blob(self._path, inner)
        for _ in range(_READS):
            attribute = folders.Attribute.decode(self._storage.attribute(name))
            if attribute is None:
                if self._storage.capabilities.attributes:
                    self._unmarked(inner)
                return
            if not self._place.deep or not attribute.sha256:
                return
            if folders.digest_of(self._storage, name, self._place.tell) == attribute.sha256:
                return
            if attribute == folders.Attribute.decode(self._storage.attribute(name)):
                self._told.add(inner)
                self._problem("blob-changed", name, "its content is not what was put: damaged, or edited by hand")
                return

    def _unmarked(self, inner: str) -> None:
        """Tell of a file without the engine's attribute."""
        name, put = layout.blob(self._path, inner), self._recorded.get(inner)
        self._told.add(inner)
        stray = ("blob-extra", "a file the engine did not put here; it reads as a blob")
        kind, reason = stray if put is None else ("blob-replaced", f"{_UNMARKED}; {put}")
        self._note(kind, name, reason)

    def _check_shown(self, shown: Effect, entries: dict[str, wal.Entry]) -> None:
        for name, fact in shown.blobs.items():
            with suppress(*_ABSENT), self._reading(layout.blob(self._path, name)):
                self._blob_shown(name, fact)
        for name, below in shown.below.items():
            if below.exists is False and name in entries and not is_blob(shown, name):
                self._not_removed(name)

    def _not_removed(self, name: str) -> None:
        full = layout.blob(self._path, name)
        if self._place.is_there(full):
            self._problem("not-removed", full, _STILL_THERE, lambda window: may_stand(window, self._path, name))

    def _blob_shown(self, name: str, fact: BlobFact | None) -> None:
        full = layout.blob(self._path, name)
        entry = self._storage.entry(full)
        is_file = entry is not None and entry.kind is wal.Kind.FILE
        if fact is None:
            if is_file and self._storage.attribute(full) is not None:
                self._problem("not-removed", full, _STILL_THERE, lambda window: self._fact(window, name) is not None)
        elif entry is None or not is_file:
            reason = "is missing, though the log says it was applied"
            self._problem("blob-missing", full, reason, lambda window: self._fact(window, name) is None)
        elif name not in self._told:
            size, version = entry.size, folders.Attribute.decode(self._storage.attribute(full))
            if size != fact.size:
                reason = f"has {size} bytes, not the {fact.size} that were put"
                self._problem("blob-changed", full, reason, lambda window: self._shows(window, name, "size", size))
            elif version is not None and version.sha256 != fact.sha256:
                reason, sha256 = "is not the version that was put last, but another one", version.sha256
                self._problem("blob-changed", full, reason, lambda window: self._shows(window, name, "sha256", sha256))

    def _check_recorded(self) -> None:
        known = frozenset() if self._shown is None else self._shown.blobs.keys()  # these are compared already
        for name, put in self._recorded.items():
            if name not in self._seen and name not in known:
                with self._reading(layout.blob(self._path, name)):
                    self._blob_recorded(checked(name), put)

    def _blob_recorded(self, name: str, put: str) -> None:
        full = layout.blob(self._path, name)
        entry = self._storage.entry(full)
        if entry is not None and entry.kind is wal.Kind.FILE:
            return  # listed under another form of its name, or not listed yet
        reason = f"is missing: {put}, and none has removed it since: removed by hand, or lost"
        if entry is not None:
            reason += f"; {'a folder' if entry.kind is wal.Kind.FOLDER else 'a link or special file'} is in its place"
        self._problem("blob-missing", full, reason, lambda window: is_removed(window, self._path, name))

    def _shows(self, window: Effect, name: str, field: str, value: object) -> bool:
        return getattr(self._fact(window, name), field, None) == value

    def _fact(self, window: Effect, name: str) -> BlobFact | None:
        effect, _ = window.find(self._path)
        return None if effect is None else effect.blob(name)[0]
