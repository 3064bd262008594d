"""Empties the trash: erases what the log dropped, and keeps what the engine did not write.

A dropped node is renamed to the trash as a whole. What a person or another program had put into it is found here, when
a checkpoint erases the trash and visits each file anyway: a metadata.json edited by hand, a folder that is neither node
nor blob, a tree of its own. These go to the quarantine.
"""

from __future__ import annotations

import errno
from contextlib import suppress

import wal

from . import config, folders, layout
from .errors import CorruptionError


def empty_trash(storage: wal.Storage, upto: int) -> None:
    """Erase the trash, but for what is kept in the quarantine. For the holder of the right to apply.

    Where it may have been overtaken, only what was dropped for records up to `upto`: its successor drops things for
    later records. Both may empty the trash at once. What vanishes while it is looked through is left to the other, or
    to the next checkpoint: the other may have kept only some of what has to be kept.
    """
    try:
        entries = storage.list(layout.TRASH)
    except FileNotFoundError:
        return
    alone = storage.capabilities.fence is wal.Fence.LOCK
    kept: list[str] = []  # names in the quarantine
    through: list[str] = []
    for entry in entries:
        if alone or not (entry.name.isdecimal() and int(entry.name) > upto):
            with suppress(FileNotFoundError):
                if entry.kind is wal.Kind.FOLDER:
                    _Sorting(storage, entry.name, kept).look("", 0)
                through.append(layout.trash_of(entry.name, ""))
    for folder in {name.rpartition("/")[0] for name in kept}:
        storage.sync_folder(folder)
    for name in through:
        try:
            storage.erase(name)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise  # else an overtaken host has made a folder there, into which it can move nothing any more


class _Sorting:
    """What was dropped up to one LSN. Names are relative to `.wal/trash/<lsn>`, as they were in the tree."""

    def __init__(self, storage: wal.Storage, lsn: str, kept: list[str]) -> None:
        self._storage = storage
        self._lsn = lsn
        self._kept = kept
        found = config.read(storage)
        self._levels = len(found.keys) if found is not None else 0
        self._adopted = found is not None and found.adopted
        self._marks = storage.capabilities.attributes

    def look(self, top: str, level: int) -> None:
        """From the top: folders that only lead to what was dropped, then nodes and directory blobs."""
        pending = [(top, level)]  # a stack of our own: folders may be nested deeper than calls may be
        while pending:
            wal.safe_point()
            name, depth = pending.pop()
            kinds = self._kinds(name)
            if depth and self._is_node(name, kinds, depth):
                self._node(name, kinds, depth)
            elif depth and self._is_tree(name, kinds):
                self._keep(name)
            else:
                for inner, kind in kinds.items():
                    full = f"{name}/{inner}" if name else inner
                    if kind is wal.Kind.FOLDER:
                        pending.append((full, depth + 1))
                    elif kind is wal.Kind.OTHER:
                        self._keep(full)  # a link or special file: renamed, neither followed nor opened

    def _node(self, name: str, kinds: dict[str, wal.Kind], depth: int) -> None:
        """A dropped node: its children and blobs go with it."""
        children = self._children(name)
        if children is None or self._is_tree(name, kinds):
            self._keep(name)  # its children are unknown, or it is a tree of its own
            return
        for inner, kind in kinds.items():
            full = f"{name}/{inner}"
            if kind is wal.Kind.OTHER:
                self._keep(full)
            if kind is not wal.Kind.FOLDER:
                continue
            below = self._kinds(full)
            if inner in children or self._is_node(full, below, depth + 1, marked=True):
                if layout.METADATA in below:
                    self._node(full, below, depth + 1)
                elif below:
                    self._keep(full)
            elif depth < self._levels and self._marks and self._attribute(full) is None:
                self._keep(full)  # neither node nor blob
            else:
                self.look(full, self._levels + 1)  # a directory blob, which holds no nodes

    def _is_node(self, name: str, kinds: dict[str, wal.Kind], depth: int, *, marked: bool = False) -> bool:
        if depth > self._levels or kinds.get(layout.METADATA) is not wal.Kind.FILE:
            return False
        if marked:  # a node that its parent did not list yet
            return self._attribute(f"{name}/{layout.METADATA}") is not None
        return self._attribute(name) is None  # otherwise a directory blob, which may hold a file of this name

    def _is_tree(self, name: str, kinds: dict[str, wal.Kind]) -> bool:
        return layout.CONFIG in kinds and folders.is_tree(self._storage, self._in_trash(name))

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
