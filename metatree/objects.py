"""`apply` where there are no folders: makes the objects show a net effect, whoever else may believe to do so.

Read, then look at the log, then publish: what was read is no newer than what is folded, so no step takes back what a
later record brought. A step whose object is not the version that was expected is planned again from what is there.

What this process published last is remembered by its version, and what is not known is first taken to be absent: so the
ordinary commit reads nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import wal

from . import config, folders, foreign, layout
from .errors import CorruptionError, UnavailableError
from .facts import BlobFact, header_of
from .fold import Effect
from .location import Path, join
from .object_plan import ABSENT, Plan, Wanted, by_depth, failed_below, is_gone, metadata, plan, prefixes
from .outcome import Outcome
from .sources import Sources

REMEMBERED = 20_000  # versions
_PATIENCE = 50  # plans of one pass; each needs somebody else's change in between


@dataclass(slots=True)
class _Pass:
    """One application."""

    tenure: wal.Tenure
    head: int  # the effect is that of the records up to here
    effect: Effect
    plan: Plan
    sources: Sources
    outcome: Outcome = field(default_factory=Outcome)
    seen: dict[str, wal.Stored | None] = field(default_factory=dict)  # metadata.json files that were read
    versions: dict[str, dict[str, str]] = field(default_factory=dict)  # what was found at and below a name
    done: set[str] = field(default_factory=set)  # objects that show `head`
    reading: threading.Lock = field(default_factory=threading.Lock)


class Objects:
    """Applies for one handle; remembers versions."""

    def __init__(self, storage: wal.Storage, log: wal.WriteAheadLog) -> None:
        self._storage = storage
        self._log = log
        self._known: OrderedDict[str, str] = OrderedDict()  # name -> version, as this handle published it
        self._stale: set[str] = set()  # names to be read before they are published
        self._made: dict[str, int] = {}  # what this tenure created, or may have: name -> for the records up to here
        self._unsure: list[dict[str, int]] = []  # the same of tenures that were lost

    def apply(self, fold: Callable[[int], Effect], head: int, tenure: wal.Tenure) -> tuple[Outcome, int]:
        """Make the objects show `fold(head)`, or that of a later head; what came of it, and of which head."""
        self._made.clear()  # of the tenure before, which was given back in order
        self._heal()
        with Sources(self._storage) as sources:
            effect = fold(head)
            outcome, head = self._apply(fold, _Pass(tenure, head, effect, plan(effect), sources))
        if not outcome.failed:
            self._unsure.clear()
        return outcome, head

    @property
    def unsure(self) -> bool:
        """Whether a tenure was lost and what came of it has not been looked at: then all since the redo mark is to be
        applied again, which also brings back what the lost one removed though its successor had put it again."""
        return bool(self._unsure)

    def _apply(self, fold: Callable[[int], Effect], work: _Pass) -> tuple[Outcome, int]:
        for _ in range(_PATIENCE):
            while self._look(work):
                newest = self._log.head(fresh=True)  # never an older one than what was read
                if newest == work.head:
                    break
                work.head, work.effect = newest, fold(newest)
                work.plan, work.done = plan(work.effect), set()
            work.outcome.failed.clear()
            if self._publish(work):
                return work.outcome, work.head
        raise UnavailableError("the objects change faster than they can be brought up to date; try again")

    def lost(self) -> None:
        """Another committer took over, or may have: before anything else, what this one did is looked at again."""
        self._unsure.append(dict(self._made))
        self._made.clear()
        self._known.clear()

    # --- reading ------------------------------------------------------------------------------------------------------

    def _look(self, work: _Pass) -> bool:
        """Read what has to be known and is not; whether anything had to be read."""
        nodes = [w for w in work.plan.nodes if w.name not in work.seen and self._must_read(w)]
        blobs = [w for w in work.plan.blobs if w.name in self._stale and w.name not in work.versions]
        gone = [name for name, _ in work.plan.gone if name not in work.versions]
        if not (nodes or blobs or gone):
            return False
        names = [wanted.name for wanted in nodes]
        work.seen.update(zip(names, wal.spread(self._read, names), strict=True))
        names = [*(wanted.name for wanted in blobs), *gone]
        work.versions.update(zip(names, wal.spread(self._storage.versions, names), strict=True))
        return True

    def _must_read(self, wanted: Wanted) -> bool:
        return not wanted.effect.whole or wanted.name in self._stale

    def _read(self, name: str) -> wal.Stored | None:
        try:
            return self._storage.read(name)
        except FileNotFoundError:
            return None

    # --- publishing ---------------------------------------------------------------------------------------------------

    def _publish(self, work: _Pass) -> bool:
        """Carry out the plan; False if some objects were not what was thought: they are stale now."""
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
                work.outcome.failed.setdefault(join(wanted.path), error)
            else:
                work.done.add(wanted.name)

        wal.spread(one, [wanted for wanted in steps if wanted.name not in work.done])

    def _forget(self, work: _Pass, name: str) -> None:
        self._known.pop(name, None)
        self._stale.add(name)
        work.seen.pop(name, None)
        work.versions.pop(name, None)

    def _put_blob(self, work: _Pass, wanted: Wanted) -> None:
        fact = wanted.blob
        assert fact is not None  # noqa: S101  the plan's blobs have one
        there = work.versions.get(wanted.name, {}).get(wanted.name) if wanted.name in self._stale else None
        if there is not None:
            attribute = folders.Attribute.decode(self._storage.attribute(wanted.name))
            if attribute is not None and attribute.sha256 == fact.sha256:
                self._remember(wanted.name, there)
                return
            if attribute is None and not config.is_adopted(self._storage):
                self._keep(work, wanted.name, wal.Staged(wanted.name))
        content = self._content(work, fact)
        self._store(work, wanted.name, content, fact.sha256, there)
        work.outcome.blobs += 1

    def _put_metadata(self, work: _Pass, wanted: Wanted) -> None:
        old = work.seen.get(wanted.name)
        data = metadata(wanted, old, work.head)
        if old is not None and self._is_edited(old):
            self._keep(work, wanted.name, old.data)
        self._store(work, wanted.name, data, folders.digest(data), None if old is None else old.version)
        work.outcome.nodes += 1

    def _is_edited(self, old: wal.Stored) -> bool:
        """Whether the log's word replaces somebody else's; in an adopted tree an unmarked file is from before that."""
        if folders.is_unmarked(self._storage, old):
            return not config.is_adopted(self._storage)
        return folders.is_edited(old)

    def _store(self, work: _Pass, name: str, content: wal.Content, sha256: str, there: str | None) -> None:
        expect = there or self._known.get(name, ABSENT)
        attribute = folders.Attribute(work.head, sha256).encode()
        if expect == ABSENT:
            self._made.setdefault(name, work.head)  # before: if the reply gets lost, it may be there all the same
        version = work.tenure.storage.publish(name, content, attribute, durable=True, expect=expect)
        self._remember(name, version)

    def _content(self, work: _Pass, fact: BlobFact) -> wal.Content:
        with work.reading:  # small blobs lie in a pack, one after the other: read it in their order, once
            return work.sources.read(fact)

    def _keep(self, work: _Pass, name: str, content: wal.Content) -> None:
        work.outcome.edited.append(foreign.keep(self._storage, work.head, name, content))

    def _remember(self, name: str, version: str) -> None:
        self._stale.discard(name)
        self._known[name] = version
        self._known.move_to_end(name)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _remove_all(self, work: _Pass, wanted: set[str], *, first: bool) -> None:
        """What goes; `first`: what stands where something of another kind is to come (E3), else the rest, later."""
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
                self._storage.set_aside(name, layout.quarantine("replaced", f"{work.head}/{name}"))
            else:
                work.tenure.storage.remove(name, version)
        except FileNotFoundError:
            return
        except wal.ChangedError as error:
            for known in list(work.versions):
                if name == known or name.startswith(known + "/"):
                    work.versions.pop(known, None)
            work.outcome.failed[join(path)] = error
        except OSError as error:
            work.outcome.failed.setdefault(join(path), error)
        else:
            work.outcome.removed += 1
            self._known.pop(name, None)

    # --- after a tenure was lost --------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """What a lost tenure created after its successor had dropped it goes again: nothing else could have slipped by
        the versions that its steps named. First the object, then the log: what is put again later is another version.
        """
        for made in self._unsure:
            names = sorted(made)
            there = wal.spread(self._version, names)
            batches = [
                (batch.lsn, [header_of(record).changes for record in batch.records])
                for batch in self._log.read(min(made.values(), default=self._log.known()))
            ]
            for name, version in zip(names, there, strict=True):
                since = made[name]
                changes = (each for lsn, several in batches if lsn > since for each in several)
                if version is not None and is_gone(name, changes):
                    self._remove_ghost(name, version)

    def _version(self, name: str) -> str | None:
        return self._storage.versions(name).get(name)

    def _remove_ghost(self, name: str, version: str) -> None:
        try:
            if self._storage.attribute(name) is not None:
                self._storage.remove(name, version)
        except (FileNotFoundError, wal.ChangedError):
            return  # it is somebody else's now
