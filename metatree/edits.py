"""Reads what was changed by hand, to be adopted by a commit.

Under the right to apply, the files show every commit up to a known LSN, the base. What deviates from these commits is
looked at again there, since others may have committed after the check: what a pass has written since is no edit. A
commit after the base that touches what was read here is a conflict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import wal

from . import config, folders, layout
from .draft import Draft
from .errors import CorruptionError, InvalidLocationError
from .facts import BlobFact, BlobGone, Changes, Fact, NodeFact
from .location import Path, check_name, fold_name, join, split
from .reads import ReadSet
from .recorded import Recorded
from .repair_plan import Step
from .staging import Staging
from .supply import is_node, is_unlisted, node_of
from .unlisted import Unlisted
from .values import check_size
from .view import View
from .window import fold_log

if TYPE_CHECKING:
    from .engine import Engine

_UNREAD = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError, wal.UnsafePathError)  # one file


class Edits:
    """The edits that some steps adopt. One step that fails does not concern the others."""

    def __init__(self, engine: Engine, tenure: wal.Tenure, staging: Staging) -> None:
        """Brings the files up to date. `tenure`: of the right to apply, which the caller holds until `read` returns."""
        self._engine = engine
        self._storage = engine.storage
        self._tenure = tenure
        self._staging = staging
        self.base = engine.log.head(fresh=True)
        outcome = engine.committer.pass_held(tenure)
        self.kept = list(outcome.edits)
        self._behind = {split(path): error for path, error in outcome.failed.items()}
        with engine.reader.lock:
            engine.reader.refresh()
        self.draft = Draft(View(engine.reader), engine.levels, ReadSet())
        self.facts: list[Fact] = []
        self.changes: Changes = {}
        self.failed: dict[str, str] = {}  # path of a step -> why
        self.needless: list[Step] = []  # where nothing deviates any more
        self._recorded: Recorded | None = None  # read when it is needed
        self._files: dict[Path, dict[str, str]] = {}

    def read(self, steps: Sequence[Step]) -> None:
        """Read what the steps adopt. Raises RightLostError."""
        nodes: dict[Path, list[Step]] = {}
        for step in steps:
            if is_node(step) or is_unlisted(step):
                nodes.setdefault(node_of(step.path), []).append(step)
        for path, several in nodes.items():
            with self._failing(several):
                self._node(path, several)
        for step in steps:
            if not (is_node(step) or is_unlisted(step)):
                with self._failing([step]):
                    self._gone(step) if step.kind == "blob-missing" else self._blob(step)
        if self.failed:  # perhaps because a successor has moved or replaced something
            with suppress(OSError):
                self._tenure.check(now=True)

    @contextmanager
    def _failing(self, steps: Sequence[Step]) -> Iterator[None]:
        """Context manager around the reading for some steps: an error is theirs alone."""
        try:
            yield
        except (CorruptionError, *_UNREAD, ValueError) as error:
            self.failed.update((step.path, str(error)) for step in steps)

    def _require_followed(self, path: Path, *, also_below: bool = False) -> None:
        """Raises CorruptionError if commits could not be applied to the node's files, or in one above it, or below."""
        for behind, error in self._behind.items():
            if path[: len(behind)] == behind or (also_below and behind[: len(path)] == path):
                where = join(behind) or "the root"
                raise CorruptionError(f"the files of {where} do not show every commit yet: {error}")

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _node(self, path: Path, steps: Sequence[Step]) -> None:
        """A node with the keys in its file, and its listed children: a list entry makes no node, a missing one drops
        none, and a missing folder, which is damage, gives none up."""
        self._require_followed(path, also_below=True)  # a node is not written before its children
        source = next((step.source for step in steps if step.source), "")
        self._require_nothing_since(source)
        name = source or layout.metadata(path)
        try:
            stored = self._storage.read(name)
        except FileNotFoundError:
            self.needless += steps
            return
        file = folders.parse_node(name, stored)
        check_size(file.keys)
        view = self.draft.view
        keys, listed, blobs = self._engine.reader.ask(
            lambda _: (dict(view.keys(path)), list(view.children(path)), view.blobs(path))
        )
        children = self._children(path, file.children, listed, blobs)
        edited = bool(source) or file.edited or folders.is_unmarked(self._storage, stored)
        wanted = [step for step in steps if self._stands(step, edited, file.children, children)]
        if not wanted:
            return
        self.draft.reads.all_keys(path)
        self.draft.reads.names(path)
        change = self.changes.setdefault(join(path), {})
        for word, names in (
            ("set", list(file.keys)),
            ("unset", [key for key in keys if key not in file.keys]),
            ("new", [name for name in children if name not in listed]),
            ("gone", [name for name in listed if name not in children]),
        ):
            if names:
                change[word] = names
        self.facts.append(NodeFact(path, file.keys, children))

    def _stands(self, step: Step, edited: bool, listed: Sequence[str], children: Sequence[str]) -> bool:
        """Whether the step is still due: the file was `edited`, or does not list a node. A node that is not among the
        `children` of a commit cannot be listed."""
        name = step.path.rpartition("/")[2]
        if is_node(step):
            stands = edited
        elif name in listed or self._storage.entry(f"{step.path}/{layout.METADATA}") is None:
            stands = False
        elif name not in children:
            self.failed[step.path] = (
                "its parent cannot list it: it is a blob or a tree of its own, or another name differs from it only in "
                "case or form"
            )
            return False
        else:
            stands = True
        self.needless += [] if stands else [step]
        return stands

    def _children(
        self, path: Path, wanted: Sequence[str], committed: Sequence[str], blobs: Sequence[str]
    ) -> tuple[str, ...]:
        """`wanted`: in the file. A listed node that the log has made stays, even if its folder is missing: that is
        damage of its own. Any other needs a folder, and a name that can stand beside the others and the `blobs`. These
        may hold it, as the folder of an unlisted node that was copied from a directory blob looks like one."""
        if len(path) >= len(self._engine.levels):
            return ()
        there = [
            entry.name
            for entry in sorted(self._storage.list(layout.folder(path)))
            if entry.kind is wal.Kind.FOLDER and self._storage.entry(layout.metadata((*path, entry.name))) is not None
        ]
        unlisted, adopted = Unlisted(self._storage, self._engine.log), config.is_adopted(self._storage)
        listed, present = frozenset(committed), frozenset(there)
        asked = (listed | frozenset(wanted)) - frozenset(blobs)
        names = [name for name in dict.fromkeys((*wanted, *there)) if _is_valid(name)]
        crowd = Counter(fold_name(name) for name in {*names, *blobs})

        def stays(name: str) -> bool:
            if name in present and crowd[fold_name(name)] == 1:
                return name in asked or unlisted.is_node(path, name)
            made = unlisted.made(path, name)
            return made or (made is None and adopted and name in listed)

        return tuple(filter(stays, names))

    # --- blobs --------------------------------------------------------------------------------------------------------

    def _resolve(self, step: Step, *, damaged: bool = False) -> tuple[Path, str]:
        segments = step.path.split("/")
        path, name = self._engine.reader.ask(lambda _: self.draft.resolve_blob(segments, damaged=damaged))
        self._require_followed(path)
        return path, name

    def _blob(self, step: Step) -> None:
        """The content that is there now becomes the blob's."""
        self._require_nothing_since(step.source)
        path, name = self._resolve(step)
        if not name:
            raise CorruptionError(f"{step.path} is now a node")
        mark = None
        if not step.source:
            entry = self._storage.entry(step.path)
            if entry is not None and entry.kind is wal.Kind.FOLDER:
                raise CorruptionError(f"{step.path} is a folder now, no longer the file that was found")
            mark = None if entry is None else folders.Attribute.decode(self._storage.attribute(step.path))
            is_marked = mark is not None and step.kind != "blob-changed"
            if (
                entry is None
                or is_marked
                or not self._engine.reader.ask(lambda _: self.draft.view.has_blob(path, name))
            ):
                self.needless.append(step)
                return
        self.draft.reads.name(path, name)
        size, sha256, place = self._staging.add_existing(step.source or step.path, share=False)
        if mark is not None and mark.sha256 == sha256 and self._is_as_put(path, name, size, sha256):
            self.needless.append(step)
            return
        self.changes.setdefault(join(path), {}).setdefault("put", []).append(name)
        self.facts.append(BlobFact(path, name, size, sha256, place))

    def _is_as_put(self, path: Path, name: str, size: int, sha256: str) -> bool:
        """Whether a file of this size and digest can be what its last commit put; else `check` tells it."""
        log = self._engine.log
        effect, _ = fold_log(log, log.trimmed(fresh=True), self.base).find(path)
        fact = None if effect is None else effect.blob(name)[0]
        return fact is None or (fact.size, fact.sha256) == (size, sha256)

    def _gone(self, step: Step) -> None:
        """A blob whose file is missing is given up."""
        path, name = self._resolve(step, damaged=True)
        there = self._storage.entry(step.path)
        if there is not None and there.kind is wal.Kind.FILE and self._storage.attribute(step.path) is not None:
            self.needless.append(step)  # put again
            return
        if not name or there is not None:
            raise CorruptionError(f"{step.path} is there again, or something in its place: run check")
        if self._put(path, name) is None:  # a commit has removed it
            self.needless.append(step)
            return
        self.draft.reads.name(path, name)
        self.changes.setdefault(join(path), {}).setdefault("del", []).append(name)
        self.facts.append(BlobGone(path, name))

    def _put(self, path: Path, name: str) -> str | None:
        """The commit that put a blob's file, if none has removed it since."""
        if self._recorded is None:
            self._recorded = Recorded(self._engine.log)
            self._recorded.follow(self.base)
        if path not in self._files:
            self._files[path] = dict(self._recorded.files(path, ()))
        return self._files[path].get(name)

    def _require_nothing_since(self, source: str) -> None:
        """Raises CorruptionError if commits followed the recovery that moved an edit to `source`."""
        recovered = self._engine.recovered
        if source and (recovered is None or recovered.head != self.base):
            raise CorruptionError(f"others have committed since the recovery that kept the edit as {source}")


def _is_valid(name: str) -> bool:
    try:
        return bool(check_name(name))
    except InvalidLocationError:
        return False
