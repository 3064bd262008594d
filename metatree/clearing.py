"""Makes room for what the log says: moves what is in the way to the trash, and what others wrote to the quarantine."""

from __future__ import annotations

from collections.abc import Iterable

import wal

from . import config, folders, foreign, layout
from .facts import BlobFact
from .fold import Effect
from .inner import prefixes
from .location import Path
from .outcome import Edit, Mode, Outcome
from .window import put_at

_READ_TO_COMPARE = 1 << 20  # bytes; a larger blob is not read to compare it


class Clearing:
    """Makes room for one application."""

    def __init__(self, storage: wal.Storage, window: Effect, since: int, lsn: int, mode: Mode) -> None:
        """`window`: what is applied, the records (since, lsn]."""
        self._storage = storage
        self._window = window
        self._since = since
        self._lsn = lsn
        self._mode = mode
        self.outcome = Outcome()

    # --- before a file is replaced ------------------------------------------------------------------------------------

    def keep_node(self, name: str, old: wal.Stored, data: bytes, *, edited: bool, unmarked: bool) -> None:
        """The log overwrites an edit by hand of a metadata.json, but a copy is kept in the quarantine.

        A file without our attribute counts as an edit, since replacing a file drops the attribute. In an adopted tree
        it is more likely older than the adoption, unless `data` should be there already. So it should in a rewrite:
        whatever else is there was put there by hand.
        """
        adopted = self._mode is Mode.FOLLOW and unmarked and config.is_adopted(self._storage)
        foreign_file = self._mode is Mode.REWRITE or (unmarked and not adopted)
        if edited or (old.data != data and foreign_file):
            self._keep(name, old.data, "node-replaced" if unmarked else "node-edited")

    def keep_blob(self, name: str, fact: BlobFact) -> None:
        """In a rewrite or replay: keep a file that another program put in the place of a blob, or changed.

        A change within a large file that keeps its size is not noticed, since replays do not read those.
        """
        entry, marks = self._storage.entry(name), self._storage.capabilities.attributes
        if entry is None or self._mode is Mode.FOLLOW or (self._mode is Mode.REPLAY and not marks):
            return
        attribute = folders.Attribute.decode(self._storage.attribute(name))
        if attribute is not None and attribute.sha256 != fact.sha256 and self._mode is Mode.REPLAY:
            edited = self._is_edited(name, entry, attribute)  # else it is the blob before this one
        elif (attribute is None and marks) or entry.size != fact.size:
            edited = True
        elif entry.size > _READ_TO_COMPARE:
            edited = attribute is not None and attribute.sha256 != fact.sha256
        else:
            edited = folders.digest(self._storage.read(name).data) != fact.sha256
        if edited:
            self._keep(name, wal.Staged(name), "blob-replaced" if attribute is None else "blob-changed")

    def _is_edited(self, name: str, entry: wal.Entry, attribute: folders.Attribute) -> bool:
        """Whether a file that the window put is not as it was put. Older ones are not read, so that a replay takes as
        long as its window is large, and not the tree."""
        if attribute.lsn <= self._since:
            return False
        fact = put_at(self._window, name) if entry.size > _READ_TO_COMPARE else None
        if fact is not None and fact.sha256 == attribute.sha256:
            return entry.size != fact.size
        return folders.digest_of(self._storage, name) != attribute.sha256

    def _keep(self, name: str, content: wal.Content, kind: str) -> None:
        self.outcome.edits[foreign.keep(self._storage, self._lsn, name, content)] = Edit(name, kind)

    # --- before a name is taken or goes -------------------------------------------------------------------------------

    def clear_way(self, fact: BlobFact) -> None:
        """A name changes its kind: move what is of the old kind to the trash first (E3)."""
        kinds = {**dict.fromkeys(prefixes(fact.name), wal.Kind.FOLDER), fact.name: wal.Kind.FILE}
        for part, kind in kinds.items():
            name = layout.blob(fact.path, part)
            entry = self._storage.entry(name)
            if entry is None:
                return
            if entry.kind is not kind:
                self.remove(name, dropped=False, damaged=foreign.is_unknown_folder(self._storage, fact.path, part))
                return

    def remove_all(self, path: Path, effect: Effect) -> dict[str, str | None]:
        """Remove the dropped blobs of a node; returns where each was moved. A node may have taken a blob's name."""
        names = [name for name, fact in effect.blobs.items() if fact is None and self._mode is not Mode.REWRITE]
        return {name: self._remove_blob(path, name, dropped=name not in effect.below) for name in names}

    def _remove_blob(self, path: Path, name: str, *, dropped: bool) -> str | None:
        unknown = dropped and foreign.is_unknown_folder(self._storage, path, name)
        return self.remove(layout.blob(path, name), dropped=dropped, damaged=unknown)

    def drop_all(self, path: Path, names: Iterable[str]) -> None:
        """Drop child nodes."""
        for name in names if self._mode is not Mode.REWRITE else ():
            self.drop((*path, name))

    def drop(self, path: Path, *, dropped: bool = True) -> str | None:
        """Drop a node. One without a metadata.json is damaged: it is kept, since its content cannot be told apart."""
        damaged = dropped and folders.is_headless(self._storage, layout.folder(path))
        return self.remove(layout.folder(path), dropped=dropped, damaged=damaged)

    def remove(self, name: str, *, dropped: bool, damaged: bool = False) -> str | None:
        """Move something to the trash, which the next checkpoint empties, if the log dropped it.

        It is moved to the quarantine if it may hold files that the log did not drop: if only its name is needed, if
        in a replay it may have appeared after the removal was first applied, or if it is `damaged`. A rewrite removes
        only what was put there by hand. Returns its new name, None if there was nothing.
        """
        aside, kept = layout.trash(self._lsn, name), damaged or self._mode is Mode.REWRITE
        if self._mode is Mode.REPLAY:
            kept = self._keep_edits(name) or kept
        elif not dropped:
            kept = kept or foreign.holds_foreign(self._storage, name)
        if kept:
            aside = layout.quarantine("replaced", f"{self._lsn}/{name}")
        went = self._storage.set_aside(name, aside)
        self.outcome.removed += int(went is not None)
        if went is not None and self._mode is Mode.REWRITE:
            self.outcome.edits[went] = Edit(name, "blob-extra")
        return went

    def _keep_edits(self, name: str) -> bool:
        """Keep copies of the edited files at and below a name that may have been put again since it was dropped;
        returns whether something there lacks the engine's attribute."""
        entry = self._storage.entry(name)
        if entry is None or entry.kind is wal.Kind.OTHER:
            return entry is not None
        if entry.kind is wal.Kind.FOLDER:
            lacking = [self._keep_edits(f"{name}/{inner.name}") for inner in self._storage.list(name)]
            return any(lacking)
        data = self._storage.attribute(name)
        attribute = folders.Attribute.decode(data)
        if attribute is not None and self._is_edited(name, entry, attribute):
            is_node = name.endswith(f"/{layout.METADATA}") and put_at(self._window, name) is None
            self._keep(name, wal.Staged(name), "node-edited" if is_node else "blob-changed")
        return data is None
