"""The trash is emptied for good: what the log dropped goes, what was never the engine's to delete is kept.

A dropped node is renamed to the trash whole, in one step. What a person or another program had put into it beside the
node's own files is told apart here, when a checkpoint erases the trash and looks at each file anyway: a metadata.json
that was edited by hand, a folder that is neither node nor blob, a tree of its own. These go to the quarantine.
"""

from __future__ import annotations

import wal

from . import config, folders, layout
from .errors import CorruptionError


def empty_trash(storage: wal.Storage) -> list[str]:
    """Erase the trash; the names, in the quarantine, of what was kept. Holder of the log's right only."""
    kept: list[str] = []
    try:
        entries = storage.list(layout.TRASH)
    except FileNotFoundError:
        return kept
    for entry in entries:
        if entry.kind is wal.Kind.FOLDER:
            _Sorting(storage, entry.name, kept).way("", 0)
    for folder in {name.rpartition("/")[0] for name in kept}:
        storage.sync_folder(folder)
    storage.erase(layout.TRASH)
    return kept


class _Sorting:
    """What the passes up to one LSN dropped. Names are relative to `.wal/trash/<lsn>`, as they were in the tree."""

    def __init__(self, storage: wal.Storage, lsn: str, kept: list[str]) -> None:
        self._storage = storage
        self._lsn = lsn
        self._kept = kept
        found = config.read(storage)
        self._levels = len(found.keys) if found is not None else 0
        self._adopted = found is not None and found.adopted
        self._marks = storage.capabilities.attributes

    def way(self, name: str, depth: int) -> None:
        """A folder that only leads to what was dropped, or was: a node, or a directory blob."""
        wal.safe_point()
        kinds = self._kinds(name)
        if depth and self._is_node(name, kinds, depth):
            self.node(name, kinds, depth)
            return
        if depth and layout.CONFIG in kinds:
            self._keep(name)
            return
        for inner, kind in kinds.items():
            if kind is wal.Kind.FOLDER:
                self.way(f"{name}/{inner}" if name else inner, depth + 1)

    def node(self, name: str, kinds: dict[str, wal.Kind], depth: int) -> None:
        """A dropped node: its children and blobs go with it."""
        children = self._children(name)
        if children is None or layout.CONFIG in kinds:
            self._keep(name)  # it cannot be told what is below; or it is a tree of its own
            return
        for inner, kind in kinds.items():
            if kind is not wal.Kind.FOLDER:
                continue
            full = f"{name}/{inner}"
            below = self._kinds(full)
            if inner in children or self._is_node(full, below, depth + 1, marked=True):
                if layout.METADATA in below:
                    self.node(full, below, depth + 1)
                elif below:
                    self._keep(full)
            elif depth < self._levels and self._marks and self._attribute(full) is None:
                self._keep(full)  # neither node nor blob
            else:
                self._blob(full, below)

    def _blob(self, name: str, kinds: dict[str, wal.Kind]) -> None:
        if layout.CONFIG in kinds:
            self._keep(name)
            return
        for inner, kind in kinds.items():
            if kind is wal.Kind.FOLDER:
                self._blob(f"{name}/{inner}", self._kinds(f"{name}/{inner}"))

    def _is_node(self, name: str, kinds: dict[str, wal.Kind], depth: int, *, marked: bool = False) -> bool:
        if depth > self._levels or kinds.get(layout.METADATA) is not wal.Kind.FILE:
            return False
        if marked:  # a node that its parent did not list yet
            return self._attribute(f"{name}/{layout.METADATA}") is not None
        return self._attribute(name) is None  # else a directory blob, in which such a name is free

    def _children(self, name: str) -> frozenset[str] | None:
        """The children of a dropped node, whose metadata.json is kept if it is not as the engine left it."""
        file = f"{name}/{layout.METADATA}"
        stored = self._storage.read(self._in_trash(file))
        try:
            parsed = folders.parse_node(file, stored)
        except CorruptionError:
            return None
        if parsed.edited or (folders.is_unmarked(self._storage, stored) and not self._adopted):
            self._keep(file)
        return frozenset(parsed.children)

    def _keep(self, name: str) -> None:
        went = self._storage.set_aside(self._in_trash(name), layout.quarantine("dropped", f"{self._lsn}/{name}"))
        if went is not None:
            self._kept.append(went)

    def _kinds(self, name: str) -> dict[str, wal.Kind]:
        return {entry.name: entry.kind for entry in self._storage.list(self._in_trash(name))}

    def _attribute(self, name: str) -> bytes | None:
        return self._storage.attribute(self._in_trash(name))

    def _in_trash(self, name: str) -> str:
        return layout.trash_of(self._lsn, name)
