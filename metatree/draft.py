"""A `Draft`: changes on top of a view, and the verbs that make them.

A verb first reads and checks, then changes: one that raises has changed nothing. The same verbs serve a transaction
(its draft lives for a block, with a read set) and a single call (its draft lives inside `prepare`, where the state is
fixed, so it needs no read set).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import (
    BlobExistsError,
    BlobNotFoundError,
    ConflictError,
    InvalidLocationError,
    NodeExistsError,
    NodeNotFoundError,
)
from .facts import BlobFact, Source
from .fold import Effect
from .inner import InnerNames, prefixes
from .location import Path, Reference, Segment, check_length, check_name, check_path, join, substitute
from .reads import UNREAD, ReadSet
from .values import check_values, same_value
from .view import View


class Draft:
    """Reads and changes of one transaction."""

    def __init__(self, below: View, levels: Sequence[str], reads: ReadSet | None) -> None:
        """`below`: the state under the changes. `reads`: None if that state is fixed, and the draft is for one verb
        only, which needs to see no changes but its own."""
        self.delta = Effect()
        self.below = below
        self.view = below if reads is None else View(below.reader, (*below.layers, self.delta))
        self.reads = UNREAD if reads is None else reads
        self._levels = levels
        self._void: set[Path] = set()  # nodes that do not exist in the state below, where no folder lies either
        self._listed: dict[tuple[Path, str], tuple[Effect, InnerNames]] = {}  # see `_files`

    # --- resolving ----------------------------------------------------------------------------------------------------

    def resolve(self, segments: Sequence[Segment]) -> Path:
        """The path of a node that need not exist. Raises InvalidLocationError; NodeNotFoundError for a reference whose
        node does not exist."""
        if len(segments) > len(self._levels):
            shown = "/".join(each if isinstance(each, str) else f"<{each.key}>" for each in segments)
            raise InvalidLocationError(
                f"{shown!r} has {len(segments)} segments, but this tree has {len(self._levels)} levels: "
                f"{', '.join(self._levels)}; a blob is read with get or open, and put takes its name as name='…'"
            )
        return self.resolve_target(segments)

    def resolve_target(self, segments: Sequence[Segment]) -> Path:
        """The path of a node or blob that need not exist."""
        path: Path = ()
        for segment in segments:
            path = (*path, segment if isinstance(segment, str) else self._value(segment, path))
        return check_path(path)

    def resolve_node(self, segments: Sequence[Segment]) -> Path:
        """The path of a node that exists. Raises NodeNotFoundError."""
        path = self.resolve(segments)
        self.require(path)
        return path

    def resolve_blob(self, segments: Sequence[Segment], *, damaged: bool = False) -> tuple[Path, str]:
        """(path of a node that exists, name of a blob in it that need not). As many segments as possible name nodes.

        The name is '' if the whole location is a node. `damaged`: also follow nodes that are listed but whose file is
        missing or cannot be parsed.
        """
        exists = self.view.stands if damaged else self.view.exists
        path: Path = ()
        rest: list[str] = []
        for segment in segments:
            name = self._name(segment, path)
            if not rest and len(path) < len(self._levels):
                self.reads.name(path, name)
                if exists((*path, name)):
                    path = (*path, name)
                    continue
            rest.append(name)
        if rest:
            check_name(rest[0])
        check_length((*path, *rest))
        return path, "/".join(rest)

    def _name(self, segment: Segment, path: Path) -> str:
        if isinstance(segment, str):
            return segment
        return self._value(segment, path)

    def _value(self, reference: Reference, path: Path) -> str:
        self.require(path)
        self.reads.key(path, reference.key)
        return substitute(reference, self.view.keys(path), path)

    def require(self, path: Path) -> None:
        """Raises NodeNotFoundError unless the node exists."""
        if path:
            self.reads.name(path[:-1], path[-1])
        if not self.view.exists(path):
            for depth in range(1, len(path)):
                if not self.view.exists(path[:depth]):
                    path = path[:depth]
                    break
            raise NodeNotFoundError(f"there is no node {join(path)!r} in {self.view.reader.url}")

    def require_above(self, path: Path, name: str) -> None:
        """For a blob that does not exist: raises NodeNotFoundError if the node that should hold it does not either."""
        top, below, _ = name.partition("/")
        if below and len(path) < len(self._levels) and not self.view.has_blob(path, top):
            self.require((*path, top))

    # --- changing -----------------------------------------------------------------------------------------------------

    def put(self, path: Path, blobs: Sequence[tuple[str, int, str, Source]], *, force: bool) -> None:
        """Put blobs (name, size, sha256, source) into the node, which is created with what is missing above it.

        Raises BlobExistsError, NodeExistsError, InvalidLocationError; then nothing was changed.
        """
        tops: dict[str, bool] = {}
        for name, _, _, _ in blobs:
            check_length((*path, name))
            tops[name.partition("/")[0]] = True
        there = self._check_creatable(path)
        replaced = [top for top in tops if self._check_blob(path, top, force=force, there=there)]
        effect = self._ensure(path, there)
        for top in tops if self._listed else ():
            self._listed.pop((path, top), None)
        for top in replaced:
            effect.drop_blob(top)
        for name, size, sha256, source in blobs:
            effect.put_blob(BlobFact(path, name, size, sha256, source))

    def _check_blob(self, path: Path, top: str, *, force: bool, there: int) -> bool:
        """Whether an existing blob must be dropped before `top` is put. Raises BlobExistsError, NodeExistsError.

        Only the first `there` nodes of the path exist. In a new node only a foreign file can be in the way."""
        self.reads.name(path, top)
        new = there < len(path)
        if new and self._is_void(path, there):
            return False
        if not new:
            twin = self.view.twin(path, top)
            if twin is not None and twin != top:
                raise BlobExistsError(
                    f"{join((*path, twin))!r} exists, and {top!r} differs from it only in case or form"
                )
            if self.view.exists((*path, top)):
                raise NodeExistsError(f"{join((*path, top))!r} is a node; a blob cannot have its name")
        if not self.view.has_blob(path, top, new=new):
            return False
        if not force:
            raise BlobExistsError(f"{join((*path, top))!r} exists; use force=True to replace it")
        return True

    def _is_void(self, path: Path, there: int) -> bool:
        """Whether a node above the last of the path is known to be new, with no folder in its place."""
        for depth in range(1, there + 1):
            if path[:depth] in self._void:
                return True
        if there + 1 < len(path) and self.view.reader.is_void(path[: there + 1]):
            self._void.add(path[: there + 1])
            return True
        return False

    def ensure(self, path: Path) -> None:
        """Create a node and what is missing above it. Raises NodeExistsError, InvalidLocationError."""
        self._ensure(path, self._check_creatable(path))

    def _check_creatable(self, path: Path) -> int:
        """How many nodes of the path exist. Raises BlobExistsError or NodeExistsError if the next name is taken by a
        blob, or by a name that differs from it only in case or Unicode form."""
        depth = 0
        while depth < len(path) and self.view.exists(path[: depth + 1]):
            self.reads.name(path[:depth], path[depth])
            depth += 1
        if depth == len(path):
            return depth
        for missing in range(depth, len(path)):
            self.reads.creatable(path[:missing], path[missing])
        parent, name = path[:depth], path[depth]
        twin = self.view.twin(parent, name)
        if twin is not None:
            self.reads.name(parent, name)  # the caller may rely on the refusal
        if twin == name:
            raise BlobExistsError(f"{join((*parent, name))!r} is a blob; a node cannot have its name")
        if twin is not None:
            raise NodeExistsError(f"{join((*parent, twin))!r} exists, and {name!r} differs only in case or form")
        return depth

    def _ensure(self, path: Path, there: int) -> Effect:
        """Create what is missing of the path, of which the first `there` nodes exist; returns the node's effect."""
        effect = self.delta.at(path[:there])
        for name in path[there:]:
            parent, effect = effect, effect.at((name,))
            effect.exists = True
            parent.add_child(name)
        return effect

    def update(self, path: Path, values: dict[str, Any]) -> None:
        """Set keys (checked values) of a node. Raises NodeNotFoundError, InvalidMetadataError (too large)."""
        self.require(path)
        for key, value in values.items():
            current, there = self.view.key(path, key)
            if there and same_value(current, value):
                self.reads.key(path, key)  # it makes no fact, but the caller relies on the value
        self.delta.at(path).set_keys(values)

    def unset(self, path: Path, keys: Sequence[str]) -> None:
        """Remove keys of a node, ignoring those it does not have. Raises NodeNotFoundError."""
        self.require(path)
        self.delta.at(path).unset_keys(keys)

    def compare_and_set(self, path: Path, key: str, expect: Any, value: Any) -> None:
        """Set a key whose value is `expect` (None: absent or null). Raises ConflictError."""
        self.require(path)
        self.reads.key(path, key)
        current, _ = self.view.key(path, key)
        if not same_value(current, expect):
            raise ConflictError(f"key {key!r} of {join(path) or 'the root'} is {current!r}, not {expect!r}")
        self.delta.at(path).set_keys(check_values({key: value}))

    def delete_node(self, path: Path, *, recursive: bool) -> None:
        """Drop a node and everything below it; with `recursive` also one whose file is missing or cannot be parsed.
        Raises NodeNotFoundError; NodeExistsError if it is not empty and not `recursive`."""
        if not path:
            raise InvalidLocationError("the root cannot be deleted")
        self.reads.name(path[:-1], path[-1])
        if not (recursive and self.view.stands(path)):
            self.require(path)
        self.reads.tree(path)
        if not recursive and (self.view.children(path) or self.view.blobs(path)):
            raise NodeExistsError(f"{join(path)!r} has children or blobs; use recursive=True to delete them with it")
        self.drop_node(path)

    def drop_node(self, path: Path) -> None:
        """Drop a node whose existence the caller has checked."""
        parent = self.delta.at(path[:-1])
        parent.drop_child(path[-1])
        parent.drop_node(path[-1])

    def delete_blob(self, path: Path, name: str, *, recursive: bool) -> None:
        """Drop a blob. Raises BlobNotFoundError, BlobExistsError for a directory blob without `recursive`."""
        self.reads.name(path, name)
        if not self.view.has_blob(path, name):
            self.require_above(path, name)
            raise BlobNotFoundError(f"there is no node or blob {join((*path, name))!r}")
        if not recursive and self.view.blob_files(path, name):
            raise BlobExistsError(
                f"{join((*path, name))!r} is a folder; use recursive=True to delete it with its files"
            )
        self.drop_blob(path, self.emptied(path, name))

    def emptied(self, path: Path, name: str) -> str:
        """What is dropped with a file of a directory blob: the uppermost folder that holds nothing else, or the file.

        A directory blob consists of its files: without this an empty folder would remain or not, depending on how the
        committer works.
        """
        top, inner, _ = name.partition("/")
        if inner:
            files = self._files(path, top)
            going = len(files.below(name)) + (name in files.below(top))
            for folder in prefixes(name):
                if len(files.below(folder)) == going:
                    return folder
        return name

    def _files(self, path: Path, top: str) -> InnerNames:
        """The files of a directory blob. Listed once, then brought forward, since a draft may drop many: a commit that
        changes them conflicts with this one, which has read their name."""
        effect = self.delta.at(path)
        known = self._listed.get((path, top))
        if known is None or known[0] is not effect:  # the same effect: the node was not dropped since
            known = self._listed[path, top] = effect, InnerNames(self.view.blob_files(path, top))
        return known[1]

    def drop_blob(self, path: Path, name: str) -> None:
        """Drop a blob whose existence the caller has checked."""
        self.delta.at(path).drop_blob(name)
        known = self._listed.get((path, name.partition("/")[0]))
        if known is not None:
            for file in [*known[1].below(name), name]:
                known[1].discard(file)

    def graft(self, path: Path, keys: dict[str, Any], blobs: Sequence[BlobFact]) -> None:
        """Add a copied node with its keys and blobs. `ensure` of the copy's top node has checked `path`."""
        there = len(path) - (not self.view.exists(path))
        effect = self._ensure(path, there)
        effect.set_keys(keys)
        for fact in blobs:
            effect.put_blob(fact)
