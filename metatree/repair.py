"""`repair`: plans and carries it out. Each part may be interrupted and run again.

What the log supplies is written again under the right to apply, as in recovery. What is set aside is renamed into the
quarantine. What is adopted becomes one commit, so that log, files and readers agree; it is applied like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import wal

from . import config, folders, layout
from .check import check
from .draft import Draft
from .errors import CorruptionError, InvalidLocationError
from .facts import BlobFact, BlobGone, Changes, Fact, NodeFact
from .findings import ADOPT, ASIDE, REBUILD, REVERT
from .fold import Effect
from .location import Path, check_name, fold_name, join
from .reads import ReadSet
from .repair_plan import DOING, Planner, Repaired, Step
from .staging import Staging
from .supply import is_node, is_unlisted, node_of, supplies
from .unlisted import Unlisted
from .values import check_size
from .view import View

if TYPE_CHECKING:
    from .engine import Engine

_UNREAD = (FileNotFoundError, PermissionError, wal.UnsafePathError)  # of one file; others may be adopted all the same
_ROUNDS = 10  # once a node is rebuilt, the next check may find problems below it


def repair(engine: Engine, *, edits: str | None, paths: Sequence[str], deep: bool, dry_run: bool) -> Repaired:
    """See `Metatree.repair`."""
    report = check(engine, deep=deep)
    planner = Planner(engine, report, edits, paths)
    result = Repaired(engine.log.known(), steps=planner.steps())
    planner.require_found(result.steps)
    if engine.recovered is not None:
        result.kept += engine.recovered.edited
    if dry_run:
        return result
    engine.require_writable()
    result.done = True
    engine.checkpointer.spare_edits()
    steps = result.steps
    for _ in range(_ROUNDS):
        _Repair(engine, result).run(steps)
        result.remains = report = check(engine, deep=deep)
        before = {(step.path, step.kind) for step in result.steps}
        steps = [s for s in Planner(engine, report, edits, paths).steps() if (s.path, s.kind) not in before]
        if not any(step.action in DOING for step in steps):
            break
        result.steps += steps
    return result


class _Repair:
    def __init__(self, engine: Engine, result: Repaired) -> None:
        self._engine = engine
        self._storage = engine.storage
        self._result = result

    def run(self, steps: Sequence[Step]) -> None:
        doing = [step for step in steps if step.action in DOING]
        restored = [step for step in doing if step.action in (REBUILD, REVERT, ASIDE)]
        if restored:
            self._engine.committer.holding(lambda tenure: self._restore(tenure, restored))
            self._engine.reader.restart()
        adopted = [step for step in doing if step.action == ADOPT]
        if adopted:
            self._adopt(adopted)

    # --- from the log, or into the quarantine -------------------------------------------------------------------------

    def _restore(self, tenure: wal.Tenure, steps: Sequence[Step]) -> None:
        committer, log = self._engine.committer, self._engine.log
        committer.pass_held(tenure)
        supplied: list[Step] = []

        def choose(window: Effect) -> Effect:
            supplied[:] = [step for step in steps if supplies(window, step) is not None]
            return _only(window, supplied)

        outcome = committer.rewrite_held(tenure, log.trimmed(fresh=True), log.known(), choose)
        self._result.kept += outcome.edits
        self._result.failed.update((path, str(error)) for path, error in outcome.failed.items())
        done = frozenset(supplied)
        for step in steps:
            if step in done:
                continue
            if step.action == ASIDE:
                went = tenure.storage.set_aside(step.path, layout.quarantine("repaired", step.path))
                self._result.kept += [went] if went is not None else []
            else:
                self._result.failed[step.path] = "another checkpoint was made: the log no longer holds its content"

    # --- by a commit --------------------------------------------------------------------------------------------------

    def _adopt(self, steps: Sequence[Step]) -> None:
        engine = self._engine
        staging = engine.staging()
        with engine.reader.lock:
            engine.reader.refresh()
            base = engine.reader.head
        draft = Draft(View(engine.reader), engine.levels, ReadSet())
        facts: list[Fact] = []
        changes: Changes = {}
        written: set[Path] = set()  # nodes
        try:
            for step in steps:
                try:
                    if is_node(step) or is_unlisted(step):
                        path = node_of(step.path)
                        facts += [self._node(path, step.source, draft, changes)] if path not in written else []
                        written.add(path)
                    elif step.kind == "blob-missing":
                        facts.append(self._given_up(step, draft, changes))
                    else:
                        facts.append(self._blob(step, draft, staging, changes))
                except (CorruptionError, *_UNREAD, ValueError) as error:
                    self._result.failed[step.path] = str(error)
        except BaseException:
            staging.discard()
            raise
        if not facts:
            staging.discard()
            return
        outcome = engine.committing.adopt(facts, changes, draft, base, staging, "repair: adopt edits by hand")
        engine.committed(outcome.position)
        engine.committer.flush()
        self._result.lsn = None if outcome.position is None else outcome.position.lsn

    def _blob(self, step: Step, draft: Draft, staging: Staging, changes: Changes) -> BlobFact:
        """The fact that adopts an edit; also records the change in `changes`, and what the commit relies on."""
        source = step.source or step.path
        segments = step.path.split("/")
        path, name = self._engine.reader.ask(lambda _: draft.resolve_blob(segments))
        if not name:
            raise CorruptionError(f"{step.path} is now a node")
        draft.reads.name(path, name)
        size, sha256, place = staging.add_existing(source, share=False)
        changes.setdefault(join(path), {}).setdefault("put", []).append(name)
        return BlobFact(path, name, size, sha256, place)

    def _given_up(self, step: Step, draft: Draft, changes: Changes) -> BlobGone:
        """The fact that removes a blob whose file is missing; also records the change in `changes`."""
        segments = step.path.split("/")
        path, name = self._engine.reader.ask(lambda _: draft.resolve_blob(segments, damaged=True))
        if not name or self._storage.entry(step.path) is not None:
            raise CorruptionError(f"{step.path} is there again, or something in its place: run check")
        draft.reads.name(path, name)
        changes.setdefault(join(path), {}).setdefault("del", []).append(name)
        return BlobGone(path, name)

    def _node(self, path: Path, source: str, draft: Draft, changes: Changes) -> NodeFact:
        """A node with the keys in its file, and its listed children: a list entry makes no node, a missing one drops
        none, and a missing folder, which is damage, gives none up. `source`: the file, if it is not in place."""
        name = source or layout.metadata(path)
        file = folders.parse_node(name, self._storage.read(name))
        check_size(file.keys)
        view = draft.view
        keys, listed, blobs = self._engine.reader.ask(
            lambda _: (dict(view.keys(path)), list(view.children(path)), view.blobs(path))
        )
        draft.reads.all_keys(path)
        draft.reads.names(path)
        children = self._children(path, file.children, listed, blobs)
        change = changes.setdefault(join(path), {})
        for word, names in (
            ("set", list(file.keys)),
            ("unset", [key for key in keys if key not in file.keys]),
            ("new", [name for name in children if name not in listed]),
            ("gone", [name for name in listed if name not in children]),
        ):
            if names:
                change[word] = names
        return NodeFact(path, file.keys, children)

    def _children(
        self, path: Path, wanted: Sequence[str], committed: Sequence[str], blobs: Sequence[str]
    ) -> tuple[str, ...]:
        """`wanted`: in the file. A listed node that the log has made stays, even if its folder is missing: that is
        damage of its own. Any other needs a folder, and a name that can stand beside the others and the `blobs`."""
        if len(path) >= len(self._engine.levels):
            return ()
        there = [
            entry.name
            for entry in sorted(self._storage.list(layout.folder(path)))
            if entry.kind is wal.Kind.FOLDER and self._storage.entry(layout.metadata((*path, entry.name))) is not None
        ]
        unlisted, adopted = Unlisted(self._storage, self._engine.log), config.is_adopted(self._storage)
        asked, listed, present = frozenset(wanted), frozenset(committed), frozenset(there)
        names = [name for name in dict.fromkeys((*wanted, *there)) if _is_valid(name)]
        crowd = Counter(fold_name(name) for name in (*names, *blobs))

        def stays(name: str) -> bool:
            if name in present and crowd[fold_name(name)] == 1:
                return name in asked or name in listed or unlisted.is_node(path, name)
            made = unlisted.made(path, name)
            return made or (made is None and adopted and name in listed)

        return tuple(filter(stays, names))


def _is_valid(name: str) -> bool:
    try:
        return bool(check_name(name))
    except InvalidLocationError:
        return False


def _only(window: Effect, steps: Sequence[Step]) -> Effect:
    """The part of a window's effect that concerns the steps; a missing node comes back with everything below it."""
    chosen = Effect()
    for step in steps:
        path, name = supplies(window, step) or ((), "")
        effect, _ = window.find(path)
        if effect is None:
            continue
        if name:
            fact = effect.blobs[name]
            assert fact is not None  # noqa: S101  it is supplied
            chosen.at(path).put_blob(fact)
        elif step.kind == "node-missing" and path:
            chosen.at(path[:-1]).below[path[-1]] = effect
        else:
            _copy_metadata(effect, chosen.at(path))
    return chosen


def _copy_metadata(effect: Effect, chosen: Effect) -> None:
    if effect.whole:
        chosen.set_whole(effect.keys, tuple(effect.children))
        return
    chosen.set_keys(effect.keys)
    chosen.unset_keys(effect.unset)
    chosen.children.update(effect.children)
