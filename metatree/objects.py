"""`apply` on storage without folders: makes the objects show a net effect, safely even beside another committer.

Order: read objects, read the log, publish. What was read is then no newer than what is folded, so no step undoes what a
later record has put. If an object is not of the expected version, its step is planned again from what is stored.

The versions that this process published are remembered, and an unknown object is first assumed to be absent: so an
ordinary commit reads nothing.
"""

from __future__ import annotations

import errno
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import wal

from . import config, folders, foreign
from .errors import CorruptionError, UnavailableError
from .facts import BlobFact, header_of
from .fold import Effect
from .inner import prefixes
from .location import Path, join
from .object_plan import ABSENT, Plan, Wanted, by_depth, failed_below, is_gone, metadata, plan, same_text
from .outcome import Edit, Outcome
from .sources import Sources

REMEMBERED = 20_000  # versions
_PATIENCE = 50  # plans of one pass; each new one requires a change by another process


@dataclass(slots=True)
class _Pass:
    """The state of one application."""

    tenure: wal.Tenure
    head: int  # the last LSN that `effect` contains
    effect: Effect
    plan: Plan
    sources: Sources
    rewrite: bool  # the objects showed `head` when it began: what differs was put there by hand
    outcome: Outcome = field(default_factory=Outcome)
    seen: dict[str, wal.Stored | None] = field(default_factory=dict)  # metadata.json files that were read
    versions: dict[str, dict[str, str]] = field(default_factory=dict)  # name -> versions found at and below it
    stale: set[str] = field(default_factory=set)  # wanted names to be read before they are published
    done: set[str] = field(default_factory=set)  # objects that show `head`
    reading: threading.Lock = field(default_factory=threading.Lock)


class Objects:
    """Applies for one handle, and remembers versions."""

    def __init__(self, storage: wal.Storage, log: wal.WriteAheadLog) -> None:
        self._storage = storage
        self._log = log
        self._known: OrderedDict[str, str] = OrderedDict()  # name -> version, as this handle published it
        self._made: dict[str, int] = {}  # objects that this tenure has created, or may have: name -> LSN applied
        self._unsure: dict[str, int] | None = None  # the same of lost tenures, not checked yet; None: none was lost

    def apply(
        self, fold: Callable[[int], Effect], head: int, tenure: wal.Tenure, *, rewrite: bool = False
    ) -> tuple[Outcome, int]:
        """Make the objects show `fold(head)`, or that of a later head; returns (outcome, head that was applied).

        `rewrite`: it was applied, and what differs is kept in the quarantine. Raises UnavailableError if objects keep
        changing.
        """
        self._heal()
        with Sources(self._storage) as sources:
            effect = fold(head)
            outcome, head = self._apply(fold, _Pass(tenure, head, effect, plan(effect), sources, rewrite))
        if not outcome.failed:
            self._unsure = None
        return outcome, head

    @property
    def unsure(self) -> bool:
        """Whether a tenure was lost and its effects are not checked yet. Then everything since the redo mark must be
        applied again, which also restores objects that the lost one removed after its successor had put them."""
        return self._unsure is not None

    def _apply(self, fold: Callable[[int], Effect], work: _Pass) -> tuple[Outcome, int]:
        for _ in range(_PATIENCE):
            while self._look(work):
                newest = self._log.head(fresh=True)  # a cached one may be older than the objects
                if newest == work.head:
                    break
                work.head, work.effect = newest, fold(newest)
                work.plan, work.done = plan(work.effect), set()
            work.outcome.failed.clear()
            if self._publish(work):
                return work.outcome, work.head
        raise UnavailableError("the objects change faster than they can be brought up to date; try again")

    def released(self) -> None:
        """The tenure has ended, and nobody had taken over: what it has created needs no check."""
        self._made.clear()

    def lost(self) -> None:
        """Another committer has taken over, or may have: the next `apply` first checks what this one has created."""
        # One entry for a name: what was dropped since a later LSN was dropped since the earlier one. So failures that
        # last take no more memory than what they cannot apply.
        self._unsure = {**self._made, **(self._unsure or {})}

    # --- reading ------------------------------------------------------------------------------------------------------

    def _look(self, work: _Pass) -> bool:
        """Read what the plan needs and is not known; returns whether anything had to be read."""
        nodes = [w for w in work.plan.nodes if w.name not in work.seen and self._must_read(work, w)]
        blobs = [w for w in work.plan.blobs if w.name in work.stale and w.name not in work.versions]
        gone = [name for name, _ in work.plan.gone if name not in work.versions]
        if not (nodes or blobs or gone):
            return False
        names = [wanted.name for wanted in nodes]
        work.seen.update(zip(names, wal.spread(self._read, names), strict=True))
        names = [*(wanted.name for wanted in blobs), *gone]
        work.versions.update(zip(names, wal.spread(self._storage.versions, names), strict=True))
        return True

    def _must_read(self, work: _Pass, wanted: Wanted) -> bool:
        return not wanted.effect.whole or wanted.name in work.stale

    def _read(self, name: str) -> wal.Stored | None:
        try:
            return self._storage.read(name)
        except FileNotFoundError:
            return None

    # --- publishing ---------------------------------------------------------------------------------------------------

    def _publish(self, work: _Pass) -> bool:
        """Carry out the plan; False if some objects had unexpected versions, which are now marked stale."""
        wanted = {w.name for w in (*work.plan.blobs, *work.plan.nodes)}
        self._remove_all(work, wanted, first=True)
        self._each(work, work.plan.blobs, self._put_blob)
        for nodes in by_depth(work.plan.nodes):
            ready = [w for w in nodes if not failed_below(w.path, work.outcome.failed)]
            self._each(work, ready, self._put_metadata)
        self._remove_all(work, wanted, first=False)
        return not any(isinstance(error, wal.ChangedError) for error in work.outcome.failed.values())

    def _each(self, work: _Pass, steps: Sequence[Wanted], step: Callable[[_Pass, Wanted], None]) -> None:
        def one(wanted: Wanted) -> None:
            work.tenure.check()
            try:
                step(work, wanted)
            except wal.ChangedError as error:
                self._forget(work, wanted.name)
                work.outcome.failed[join(wanted.path)] = error
            except (OSError, CorruptionError) as error:
                self._found(work, wanted.name, None)
                work.outcome.failed.setdefault(join(wanted.path), error)
            else:
                work.done.add(wanted.name)

        wal.spread(one, [wanted for wanted in steps if wanted.name not in work.done])

    def _forget(self, work: _Pass, name: str) -> None:
        self._known.pop(name, None)
        work.stale.add(name)
        work.seen.pop(name, None)
        self._found(work, name, None)

    def _found(self, work: _Pass, name: str, version: str | None) -> None:
        """What this pass now knows of an object (None: nothing) belongs to what it read before, at and above its name:
        a later plan of this pass may have to remove it."""
        for top in (name, *prefixes(name)):
            if version is None:
                work.versions.pop(top, None)
            elif (found := work.versions.get(top)) is not None:  # looked up once: other threads may remove it
                found[name] = version

    def _put_blob(self, work: _Pass, wanted: Wanted) -> None:
        fact = wanted.blob
        assert fact is not None  # noqa: S101  the plan's blobs have one
        there = work.versions.get(wanted.name, {}).get(wanted.name) if wanted.name in work.stale else None
        if there is not None:
            attribute = folders.Attribute.decode(self._storage.attribute(wanted.name))
            if attribute is not None and attribute.sha256 == fact.sha256 and self._has_size(wanted.name, fact.size):
                return
            if work.rewrite or (attribute is None and not config.is_adopted(self._storage)):
                kind = "blob-replaced" if attribute is None else "blob-changed"
                self._keep(work, wanted.name, wal.Staged(wanted.name), kind)
        try:
            self._store(work, wanted.name, self._content(work, fact), fact.sha256, there)
        except FileNotFoundError as error:
            if wanted.name in work.stale:  # looked at: it is not there either
                raise
            # a checkpoint of another host has erased what was staged, since the object was in place: look at it
            raise wal.ChangedError(errno.ESTALE, "its staged content is gone", wanted.name) from error
        work.outcome.blobs += 1

    def _has_size(self, name: str, size: int) -> bool:
        """A server may have stored the attribute without all of the content."""
        entry = self._storage.entry(name)
        return entry is not None and entry.size == size

    def _put_metadata(self, work: _Pass, wanted: Wanted) -> None:
        old = work.seen.get(wanted.name)
        data = metadata(wanted, old, work.head)
        if old is not None and (self._is_edited(old) or (work.rewrite and not same_text(old.data, data))):
            self._keep(work, wanted.name, old.data, "node-edited" if folders.is_edited(old) else "node-replaced")
        self._store(work, wanted.name, data, folders.digest(data), None if old is None else old.version)
        work.outcome.nodes += 1

    def _is_edited(self, old: wal.Stored) -> bool:
        """Whether the file was edited by hand; in an adopted tree, one without the attribute is older than the log."""
        if folders.is_unmarked(self._storage, old):
            return not config.is_adopted(self._storage)
        return folders.is_edited(old)

    def _store(self, work: _Pass, name: str, content: wal.Content, sha256: str, there: str | None) -> None:
        expect = there or self._known.get(name, ABSENT)
        attribute = folders.Attribute(work.head, sha256).encode()
        if expect == ABSENT:
            self._made.setdefault(name, work.head)  # before the request: if its reply is lost, the object may exist
        version = work.tenure.storage.publish(name, content, attribute, durable=True, expect=expect)
        self._remember(name, version)
        self._found(work, name, version)

    def _content(self, work: _Pass, fact: BlobFact) -> wal.Content:
        with work.reading:  # reads a pack of small blobs in order, once
            return work.sources.read(fact)

    def _keep(self, work: _Pass, name: str, content: wal.Content, kind: str) -> None:
        work.outcome.edits[foreign.keep(self._storage, work.head, name, content)] = Edit(name, kind)

    def _remember(self, name: str, version: str) -> None:
        self._known[name] = version
        self._known.move_to_end(name)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _remove_all(self, work: _Pass, wanted: set[str], *, first: bool) -> None:
        """Remove objects. `first`: only those in the place of something of another kind (E3); else the others."""
        above = {prefix for name in wanted for prefix in prefixes(name)}
        steps = [
            (name, version, path)
            for top, path in work.plan.gone
            if not failed_below(path, work.outcome.failed)
            for name, version in work.versions[top].items()
            if name not in wanted and first is (name in above or not wanted.isdisjoint(prefixes(name)))
        ]
        wal.spread(lambda step: self._remove(work, *step), steps)

    def _remove(self, work: _Pass, name: str, version: str, path: Path) -> None:
        work.tenure.check()
        try:
            if self._storage.attribute(name) is None:  # not ours to delete
                foreign.keep(self._storage, work.head, name, wal.Staged(name), "replaced")
            work.tenure.storage.remove(name, version)  # of the version that was found: another may be there by now
        except FileNotFoundError:
            return
        except wal.ChangedError as error:
            self._found(work, name, None)
            work.outcome.failed[join(path)] = error
        except OSError as error:
            work.outcome.failed.setdefault(join(path), error)
        else:
            work.outcome.removed += 1
            self._known.pop(name, None)

    # --- after a tenure was lost --------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """Remove what a lost tenure created after its successor had dropped it. Every other late step names a version
        that its successor has replaced, and fails. The object is read before the log: one that is put again later has
        another version.
        """
        if not self._unsure:
            return
        names = sorted(self._unsure)
        there = wal.spread(self._version, names)
        # At the LSN of each it was in place, so what was dropped before was put again: one list does for all.
        batches = self._log.read(min(self._unsure.values()))
        changes = [header_of(record).changes for batch in batches for record in batch.records]
        for name, version in zip(names, there, strict=True):
            if version is not None and is_gone(name, changes):
                self._remove_ghost(name, version)

    def _version(self, name: str) -> str | None:
        return self._storage.versions(name).get(name)

    def _remove_ghost(self, name: str, version: str) -> None:
        try:
            if self._storage.attribute(name) is not None:
                self._storage.remove(name, version)
        except (FileNotFoundError, wal.ChangedError):
            return  # another process has removed or replaced it
