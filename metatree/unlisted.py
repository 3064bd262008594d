"""Tells a node that its parent does not list from other folders: by the headers of the log, which say for ever what was
created, dropped and put, and where they say nothing, by the engine's attributes."""

from __future__ import annotations

import wal

from . import folders, layout
from .facts import Changes, header_of
from .location import Path, join


class Unlisted:
    """For one tree; keeps what it has read of the log."""

    def __init__(self, storage: wal.Storage, log: wal.WriteAheadLog) -> None:
        self._storage = storage
        self._log = log
        self._made: dict[Path, dict[str, bool]] = {}

    def is_node(self, path: Path, name: str) -> bool:
        """Whether the folder `name` in the node `path`, which does not list it, is a node all the same."""
        folder = layout.folder((*path, name))
        entry = self._storage.entry(f"{folder}/{layout.METADATA}")
        if entry is None or entry.kind is not wal.Kind.FILE or folders.is_tree(self._storage, folder):
            return False
        made = self.made(path, name)
        return folders.holds_node(self._storage, folder) if made is None else made

    def made(self, path: Path, name: str) -> bool | None:
        """Whether the log has made the node, and not dropped it; None if it says nothing of the name."""
        return self._names(path).get(name)

    def _names(self, path: Path) -> dict[str, bool]:
        """Name -> whether it is a node: False if it was dropped, or is a blob."""
        if path not in self._made:
            names: dict[str, bool] = {}
            for batch in self._log.read(0):
                for record in batch.records:
                    _note(names, path, header_of(record).changes)
            self._made[path] = names
        return self._made[path]


def _note(names: dict[str, bool], path: Path, changes: Changes) -> None:
    for depth in range(len(path)):
        if path[depth] in changes.get(join(path[:depth]), {}).get("gone", ()):
            names.clear()
    change = changes.get(join(path), {})
    names.update(dict.fromkeys((name.partition("/")[0] for name in change.get("put", ())), False))
    names.update(dict.fromkeys(change.get("gone", ()), False))
    names.update(dict.fromkeys(change.get("new", ()), True))
