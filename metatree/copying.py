"""`move` and `copy`: the log has no such facts. They become puts and drops in one record, whose bytes are staged first.

Three steps: find what there is to copy, in one state; stage the bytes, which may take long and blocks nobody; change
the draft. The read set makes sure that nothing found in the first step has changed by the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import wal

from . import layout
from .content import OpenBlob, open_blob, refuse_twins
from .draft import Draft
from .errors import BlobExistsError, BlobNotFoundError, CorruptionError, InvalidLocationError, NodeExistsError
from .facts import BlobFact
from .folders import Attribute
from .location import Path, Segment, check_blob_name, check_length, check_path, join
from .staging import INLINE_BLOB, Staging

Ask = Callable[[Callable[[Draft], Any]], Any]  # runs a verb of a transaction's draft


@dataclass(frozen=True, slots=True)
class _Blob:
    """One file to copy."""

    path: Path
    name: str
    new_path: Path
    new_name: str


@dataclass(frozen=True, slots=True)
class _Plan:
    """What there is to copy."""

    source: Path  # a node, or the node of a blob
    name: str  # of the blob; '' for a node
    target: Path
    nodes: tuple[tuple[Path, dict[str, Any]], ...]  # new path, keys
    blobs: tuple[_Blob, ...]


class Copying:
    """Copies within one transaction. `move`: the same record drops the source, so files may be shared with it."""

    def __init__(self, storage: wal.Storage, ask: Ask, staging: Staging, *, move: bool, depth: int) -> None:
        """`depth`: the tree's levels."""
        self._storage = storage
        self._ask = ask
        self._staging = staging
        self._move = move
        self._depth = depth

    def run(self, source: Sequence[Segment], target: Sequence[Segment]) -> None:
        """Copy a node with everything below it, or a blob, to `target`, which must not exist."""
        plan: _Plan = self._ask(lambda draft: self._plan(draft, source, target))
        self._staging.let_read()
        facts = [self._stage(blob) for blob in plan.blobs]
        self._ask(lambda draft: self._change(draft, plan, facts))

    # --- what there is to copy ----------------------------------------------------------------------------------------

    def _plan(self, draft: Draft, source: Sequence[Segment], target: Sequence[Segment]) -> _Plan:
        path, name = draft.resolve_blob(source)
        new = draft.resolve_target(target)
        if not path and not name:
            raise InvalidLocationError("the root cannot be copied or moved")
        return self._plan_blob(draft, path, name, new) if name else self._plan_node(draft, path, new)

    def _plan_blob(self, draft: Draft, path: Path, name: str, target: Path) -> _Plan:
        if not 1 <= len(target) <= self._depth + 1:
            raise InvalidLocationError(f"{join(target)!r} cannot be a blob's location, which is a node's and a name")
        draft.reads.name(path, name)
        if not draft.view.has_blob(path, name):
            draft.require_above(path, name)
            raise BlobNotFoundError(f"there is no node or blob {join((*path, name))!r}")
        parent, top = target[:-1], target[-1]
        if (parent, top) == (path, name):
            raise BlobExistsError(f"{join(target)!r} is the source itself")
        files = self._files(draft, path, [name])
        if not files:
            raise BlobNotFoundError(
                f"{join((*path, name))!r} is a folder that holds no file: there is nothing to copy or move"
            )
        blobs = _checked(_Blob(path, file, parent, top + file[len(name) :]) for file in files)
        refuse_twins([join((*path, file)) for file in files])
        return _Plan(path, name, target, (), blobs)

    def _plan_node(self, draft: Draft, path: Path, target: Path) -> _Plan:
        if target[: len(path)] == path:
            raise InvalidLocationError(f"{join(path)!r} cannot be copied or moved into itself ({join(target)!r})")
        if not target:
            raise NodeExistsError("the root exists")
        draft.reads.name(target[:-1], target[-1])  # stricter than being creatable: it must not exist
        if draft.view.exists(target):
            raise NodeExistsError(f"{join(target)!r} exists")
        draft.reads.tree(path)
        nodes = [path]
        for node in nodes:
            nodes.extend((*node, child) for child in draft.view.children(node))
        if max(len(node) for node in nodes) - len(path) + len(target) > self._depth:
            raise InvalidLocationError(f"{join(path)!r} has nodes below it that would be below the last level")
        for node in nodes:
            draft.view.require_unedited(node)  # a copy would make the edit official
        new = {node: check_path((*target, *node[len(path) :])) for node in nodes}
        blobs = _checked(
            _Blob(node, file, new[node], file)
            for node in nodes
            for file in self._files(draft, node, draft.view.blobs(node))
        )
        refuse_twins([join(node) for node in nodes] + [join((*blob.path, blob.name)) for blob in blobs])
        return _Plan(path, "", target, tuple((new[node], draft.view.keys(node)) for node in nodes), blobs)

    def _files(self, draft: Draft, node: Path, blobs: Iterable[str]) -> list[str]:
        """The files of these blobs of a node. A folder without files, which a person made or emptied, has none."""
        files: list[str] = []
        for name in blobs:
            files += draft.view.blob_files(node, name, whole=True) or [name] * (not self._is_folder(draft, node, name))
        return files

    def _is_folder(self, draft: Draft, node: Path, name: str) -> bool:
        if not self._storage.capabilities.folders or draft.view.blob(node, name)[1]:
            return False
        entry = self._storage.entry(layout.blob(node, name))
        return entry is not None and entry.kind is wal.Kind.FOLDER

    # --- its bytes ----------------------------------------------------------------------------------------------------

    def _stage(self, blob: _Blob) -> BlobFact:
        """Stage a blob's content for the transaction; large files are copied by the storage.

        Raises CorruptionError if the content is not what was put: a copy would make the damage look valid.
        """
        file = layout.blob(blob.path, blob.name)
        found: OpenBlob = self._ask(lambda draft: open_blob(self._storage, draft, blob.path, blob.name))
        with found.stream as stream:
            if found.in_place and stream.seek(0, 2) > INLINE_BLOB:
                content = self._staging.add_existing(file, share=self._move)
            else:
                stream.seek(0)
                content = self._staging.add(stream)
        fact = BlobFact(blob.new_path, blob.new_name, *content)
        if found.sha256 and found.sha256 != fact.sha256:
            attribute = Attribute.decode(self._storage.attribute(file)) if found.in_place else None
            if (
                attribute is None or attribute.sha256 != fact.sha256
            ):  # otherwise it was replaced in the meantime: the commit will conflict
                raise CorruptionError(f"{file}: its content is not what was put; nothing was moved or copied")
        return fact

    # --- the change ---------------------------------------------------------------------------------------------------

    def _change(self, draft: Draft, plan: _Plan, facts: Sequence[BlobFact]) -> None:
        if plan.name:
            emptied = draft.emptied(plan.source, plan.name)
            draft.put(plan.target[:-1], [(f.name, f.size, f.sha256, f.source) for f in facts], force=False)
            if self._move:
                draft.drop_blob(plan.source, emptied)
            return
        blobs: dict[Path, list[BlobFact]] = {}
        for fact in facts:
            blobs.setdefault(fact.path, []).append(fact)
        draft.ensure(plan.target)
        for path, keys in plan.nodes:
            draft.graft(path, keys, blobs.get(path, []))
        if self._move:
            draft.drop_node(plan.source)


def _checked(blobs: Iterable[_Blob]) -> tuple[_Blob, ...]:
    """The blobs, if all can be put. Raises InvalidLocationError for a file that another program put there under a name
    that no blob can have, and for a location that is too long."""
    checked = tuple(blobs)
    for blob in checked:
        shown = join((*blob.path, blob.name))
        try:
            check_blob_name(blob.new_name)
        except InvalidLocationError as error:
            raise InvalidLocationError(f"the file {shown!r} cannot be copied or moved, rename it: {error}") from error
        try:
            check_length((*blob.new_path, blob.new_name))
        except InvalidLocationError as error:
            new = join((*blob.new_path, blob.new_name))
            raise InvalidLocationError(f"{shown!r} cannot become {new!r}, choose a shorter target: {error}") from error
    return checked
