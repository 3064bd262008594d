"""`apply`: makes the folders show a net effect. Commit, checkpoint and recovery all use it.

Applying a net effect again, or one whose window begins earlier, ends in the same files. The order serves readers of the
folders without this library: a new node is complete before it appears, a node is added to its parent's `children` last
and removed from them first, and what is dropped is renamed to the trash. A staged file is never consumed.

A metadata.json whose whole content is in records since the redo mark is replaced without a flush: recovery would write
it again. One of which only the changes are logged is flushed before its rename, and may be deferred (`defer`).
"""

from __future__ import annotations

from collections.abc import Callable

import wal

from . import folders, foreign, layout, shown
from .clearing import Clearing
from .errors import CorruptionError
from .facts import BlobFact
from .fold import Effect
from .location import Path, join
from .outcome import Mode, Outcome
from .sources import Sources, told


def apply(
    storage: wal.Storage,
    effect: Effect,
    since: int,
    lsn: int,
    *,
    defer: bool = False,
    mode: Mode = Mode.FOLLOW,
    check: Callable[[], None] = wal.safe_point,
) -> Outcome:
    """Make the folders show `effect`, the net effect of the records (since, lsn]. For the holder of the right to apply.

    `defer`: defer large metadata.json files. A REWRITE writes again what is there and removes nothing, so that readers
    of the files miss nothing. Errors are recorded by node and do not stop the other nodes. `check` is called before
    each node, and may end the application by raising.
    """
    with Sources(storage, anew=mode is Mode.REWRITE) as sources:
        clearing = Clearing(storage, effect, since, lsn, mode)
        application = _Application(storage, sources, clearing, since, lsn, mode, defer=defer, check=check)
        application.node((), effect)
        return application.outcome


def may_defer(effect: Effect) -> bool:
    """Whether `effect` has large metadata.json files that may be deferred: not if a node below one is dropped (E7)."""
    found = False
    for _, inner in effect.walk():
        if inner.has_metadata() and not inner.whole:
            found = True
            if any(below.reset for below in inner.below.values()):
                return False
    return found


class _Application:
    def __init__(
        self,
        storage: wal.Storage,
        sources: Sources,
        clearing: Clearing,
        since: int,
        lsn: int,
        mode: Mode,
        *,
        defer: bool,
        check: Callable[[], None],
    ) -> None:
        self._storage = storage
        self._sources = sources
        self._clearing = clearing
        self._check = check
        self._since = since
        self._lsn = lsn
        self._mode = mode
        self._defer = defer
        self.outcome = clearing.outcome

    def node(self, path: Path, effect: Effect) -> None:
        """Apply to a node that exists, and below it; the caller removes dropped nodes."""
        wal.safe_point()  # an interrupt is safe here: what is not applied stays in the log
        self._check()
        try:
            if self._born_whole(path, effect):
                return
            gone = [name for name, below in effect.below.items() if below.exists is False]
            put = [fact for fact in effect.blobs.values() if fact is not None]
            asides = self._clearing.remove_all(path, effect)
            if gone:  # a blob takes the name: first (E3)
                retyped = {fact.name.partition("/")[0] for fact in put}
                self._clearing.drop_all(path, [name for name in gone if name in retyped])
                gone = [name for name in gone if name not in retyped]
            there = {
                name: self._child((*path, name), effect)
                for name, below in effect.below.items()
                if below.exists is not False
            }
            for name, aside in asides.items():  # nodes with a blob's former name, perhaps made in an earlier pass
                if aside is not None and there.get(name):
                    self._restore_foreign(aside, layout.blob(path, name), effect.below[name], self._since)
            for fact in put:
                self._publish_blob(fact)
            if not all(there.values()):
                return  # a child must not be listed before it exists; its failure keeps the marks where they are
            self._publish_metadata(path, effect)
            self._clearing.drop_all(path, gone)  # after they left `children`
        except (OSError, CorruptionError) as error:
            self.outcome.failed[join(path)] = told(error)

    def _child(self, path: Path, parent: Effect) -> bool:
        """Apply to a child; returns whether it exists."""
        self.node(path, parent.below[path[-1]])
        return join(path) not in self.outcome.failed or self._storage.entry(layout.metadata(path)) is not None

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _born_whole(self, path: Path, effect: Effect) -> bool:
        """Create a new node with everything below it in one step, or see that it was; False if it must be merged."""
        if not path or not effect.is_all():
            return False
        folder, aside = layout.folder(path), None
        entry = self._storage.entry(folder)
        if entry is not None:
            if entry.kind is wal.Kind.FOLDER and (not effect.reset or self._mode is Mode.REWRITE):
                return False
            if self._mode is Mode.FOLLOW and shown.is_shown(self._storage, path, effect, self._since):
                return True
        files, deep = list[wal.Publication](), list[BlobFact]()
        nodes = self._gather(path, effect, files, deep)  # a pack that is missing is noticed before anything is dropped
        if entry is not None:
            went = self._clearing.drop(path, dropped=effect.reset)
            aside = went if entry.kind is wal.Kind.FOLDER else None  # a file holds nothing that belongs into the node
        if not self._storage.publish_folder(folder, files):
            return False
        if aside is not None:
            self._restore_foreign(aside, folder, effect, self._since if effect.reset else None)
        self.outcome.nodes += nodes
        self.outcome.blobs += len(files) - nodes
        for fact in deep:
            self._mark_folders(fact.path, fact.name)
        return True

    def _restore_foreign(self, aside: str, folder: str, effect: Effect, since: int | None) -> None:
        # a power loss may have removed attributes of what the window put, but not of older files, which were synced
        unmarked = effect.files_put() if self._mode is Mode.REPLAY else frozenset()
        foreign.restore(self._storage, aside, folder, since, unmarked)

    def _gather(self, path: Path, effect: Effect, files: list[wal.Publication], deep: list[BlobFact]) -> int:
        """Add the files of a new node and everything below it to `files`, those of directory blobs to `deep`; returns
        the number of nodes."""
        nodes = 1
        for fact in effect.blobs.values():
            if fact is not None:
                files.append(self._publication(fact))
                if "/" in fact.name:
                    deep.append(fact)
        for name, below in effect.below.items():
            if below.exists is not False:
                nodes += self._gather((*path, name), below, files, deep)
        data = folders.render(effect.keys, list(effect.children))
        files.append(wal.Publication(layout.metadata(path), data, self._attribute(folders.digest(data))))
        return nodes

    def _publish_metadata(self, path: Path, effect: Effect) -> None:
        if not effect.has_metadata() or (self._defer and not effect.whole):
            return
        name = layout.metadata(path)
        old = self._old(name)
        if effect.whole:
            keys, children = effect.keys, list(effect.children)
        else:
            if old is None:
                raise CorruptionError(
                    f"{name} is missing, and the log since the last checkpoint holds only its changes"
                )
            file = folders.parse_node(name, old)
            keys, children = effect.over_keys(file.keys), list(effect.over_children(file.children))
        data = folders.render(keys, children)
        if old is not None:
            edited, unmarked = folders.is_edited(old), folders.is_unmarked(self._storage, old)
            if old.data == data and self._mode is Mode.FOLLOW and not (edited or unmarked):
                return
            self._clearing.keep_node(name, old, data, edited=edited, unmarked=unmarked)
        self._storage.publish(name, data, self._attribute(folders.digest(data)), durable=not effect.whole)
        self.outcome.nodes += 1

    def _old(self, name: str) -> wal.Stored | None:
        try:
            return self._storage.read(name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except IsADirectoryError:
            self._clearing.remove(name, dropped=False)
            return None

    # --- blobs --------------------------------------------------------------------------------------------------------

    def _publish_blob(self, fact: BlobFact) -> None:
        name, content, attribute = self._publication(fact)
        self._clearing.clear_way(fact)
        self._clearing.keep_blob(name, fact)
        self._storage.publish(name, content, attribute, durable=False)
        if "/" in fact.name:
            self._mark_folders(fact.path, fact.name)
        self.outcome.blobs += 1

    def _mark_folders(self, path: Path, name: str) -> None:
        """Give the top folder of a directory blob an attribute, so that `list` can tell it from a foreign folder."""
        top = layout.blob(path, name.partition("/")[0])
        if self._storage.attribute(top) is None:
            self._storage.make_folder(top, self._attribute(""))

    def _publication(self, fact: BlobFact) -> wal.Publication:
        name, attribute = layout.blob(fact.path, fact.name), self._attribute(fact.sha256)
        return wal.Publication(name, self._sources.read(fact), attribute)

    def _attribute(self, sha256: str) -> bytes:
        return folders.Attribute(self._lsn, sha256).encode()
