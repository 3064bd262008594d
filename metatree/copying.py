"""`move` and `copy`: the log knows neither. They become puts and drops in one record, whose bytes were staged first."""

from __future__ import annotations

import wal

from . import layout
from .content import open_blob
from .draft import Draft
from .errors import BlobExistsError, BlobNotFoundError, CorruptionError, InvalidLocationError, NodeExistsError
from .facts import BlobFact
from .folders import Attribute
from .location import Path, check_path, join
from .staging import INLINE_BLOB, Staging


class Copying:
    """Copies within one draft. `move`: the source goes away in the same record, so that files may be shared."""

    def __init__(self, storage: wal.Storage, draft: Draft, staging: Staging, *, move: bool) -> None:
        self._storage = storage
        self._draft = draft
        self._staging = staging
        self._move = move

    def run(self, source: tuple[Path, str], target: Path, depth: int) -> None:
        """Copy a node, or a blob (path, name), to `target`, which must not exist. `depth`: the tree's levels."""
        path, name = source
        if not path and not name:
            raise InvalidLocationError("the root cannot be copied or moved")
        if name:
            self._blob(path, name, target, depth)
        else:
            self._node(path, target, depth)

    # --- a blob -------------------------------------------------------------------------------------------------------

    def _blob(self, path: Path, name: str, target: Path, depth: int) -> None:
        if not 1 <= len(target) <= depth + 1:
            raise InvalidLocationError(f"{join(target)!r} is no place for a blob: it needs a node and a name")
        names = self._names(path, name)
        parent, top = target[:-1], target[-1]
        if (parent, top) == (path, name):
            raise BlobExistsError(f"{join(target)!r} is the source itself")
        emptied = self._draft.emptied(path, name)
        facts = [self._stage(path, inner, parent, top + inner[len(name) :]) for inner in names]
        self._draft.put(parent, [(f.name, f.size, f.sha256, f.source) for f in facts], force=False)
        if self._move:
            self._draft.drop_blob(path, emptied)

    def _names(self, path: Path, name: str) -> list[str]:
        self._draft.reads.name(path, name)
        if not self._draft.view.has_blob(path, name):
            raise BlobNotFoundError(f"there is no node or blob {join((*path, name))!r}")
        return self._draft.view.blob_files(path, name) or [name]

    # --- a node -------------------------------------------------------------------------------------------------------

    def _node(self, path: Path, target: Path, depth: int) -> None:
        draft = self._draft
        if target[: len(path)] == path:
            raise InvalidLocationError(f"{join(path)!r} cannot be copied or moved into itself ({join(target)!r})")
        draft.reads.name(target[:-1], target[-1])  # and not only that it can be created: it must not exist
        if draft.view.exists(target):
            raise NodeExistsError(f"{join(target)!r} exists")
        draft.reads.tree(path)
        nodes = list(self._walk(path))
        if max(len(node) for node in nodes) - len(path) + len(target) > depth:
            raise InvalidLocationError(f"{join(path)!r} has nodes below it that would stand below the last level")
        copies = [
            (self._moved(node, path, target), draft.view.keys(node), self._stage_blobs(node, path, target))
            for node in nodes
        ]
        draft.ensure(target)
        for new, keys, facts in copies:
            draft.graft(new, keys, facts)
        if self._move:
            draft.drop_node(path)

    def _walk(self, path: Path) -> list[Path]:
        nodes = [path]
        for node in nodes:
            nodes.extend((*node, child) for child in self._draft.view.children(node))
        return nodes

    @staticmethod
    def _moved(node: Path, source: Path, target: Path) -> Path:
        return check_path((*target, *node[len(source) :]))

    def _stage_blobs(self, node: Path, source: Path, target: Path) -> list[BlobFact]:
        new = self._moved(node, source, target)
        facts = []
        for top in self._draft.view.blobs(node):
            for name in self._draft.view.blob_files(node, top) or [top]:
                facts.append(self._stage(node, name, new, name))
        return facts

    def _stage(self, path: Path, name: str, new_path: Path, new_name: str) -> BlobFact:
        """Bring a blob's content into this transaction's staging: large files on the storage's side.

        Raises CorruptionError if the content is not what was put: a copy would make the damage look right.
        """
        known, said = self._draft.view.blob(path, name)
        file = layout.blob(path, name)
        entry = self._storage.entry(file) if known is None and not said else None
        if entry is not None and entry.kind is wal.Kind.FILE and entry.size > INLINE_BLOB:
            attribute = Attribute.decode(self._storage.attribute(file))
            wanted = attribute.sha256 if attribute is not None else None
            fact = BlobFact(new_path, new_name, *self._staging.add_existing(file, entry.size, share=self._move))
        else:
            blob = open_blob(self._storage, self._draft, path, name)
            wanted = blob.sha256
            with blob.stream as stream:
                fact = BlobFact(new_path, new_name, *self._staging.add(stream))
        if wanted and wanted != fact.sha256:
            raise CorruptionError(f"{file}: its content is not what was put; nothing was moved or copied")
        return fact
