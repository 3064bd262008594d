"""`repair`: plans and carries it out. Each part may be interrupted and run again.

What the log supplies is written again under the right to apply, as in recovery. What is set aside is renamed into the
quarantine. What is adopted becomes one commit, so that log, files and readers agree; it is applied like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import wal

from . import folders, layout
from .check import check
from .edits import Edits
from .errors import CorruptionError
from .findings import ADOPT, ASIDE, REBUILD, REVERT
from .fold import Effect
from .location import Path, join, split
from .repair_plan import DOING, Planner, Repaired, Step
from .supply import supplies
from .view import View

if TYPE_CHECKING:
    from .engine import Engine

_NEEDLESS = "it was gone, or no longer deviated, when it was looked at again: nothing was done"
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
        log.head(fresh=True)  # which `pass_held` applies
        self._result.kept += committer.pass_held(tenure).edits
        supplied: dict[Step, Path] = {}  # step -> its node

        def choose(window: Effect) -> Effect:
            supplied.clear()
            supplied.update((step, found[0]) for step in steps if (found := supplies(window, step)) is not None)
            return _only(window, [*supplied])

        outcome = committer.rewrite_held(tenure, log.trimmed(fresh=True), log.known(), choose)
        self._result.kept += outcome.edits
        for where, error in outcome.failed.items():
            self._failed(split(where), error, supplied)
        others = [step for step in steps if step not in supplied]
        for step in others:
            if step.action != ASIDE:
                self._result.failed[step.path] = "another checkpoint was made: the log no longer holds its content"
        self._set_aside(tenure, [step for step in others if step.action == ASIDE])

    def _failed(self, node: Path, error: Exception, supplied: dict[Step, Path]) -> None:
        """Record that a node's files could not be written, for each step at or below it, or which restores it."""
        failed = [
            step.path
            for step, path in supplied.items()
            if _is_in(path, node) or (step.kind == "node-missing" and _is_in(node, path))
        ]
        self._result.failed.update(dict.fromkeys(failed or [join(node) or "."], _told(error)))

    def _set_aside(self, tenure: wal.Tenure, steps: Sequence[Step]) -> None:
        """Into a folder of the quarantine that is new: what is there must not be in the way."""
        engine, number = self._engine, 0
        with engine.reader.lock:
            engine.reader.refresh()
        lsn = engine.log.known()
        while self._storage.entry(layout.quarantine("repaired", f"{lsn}.{number}" if number else str(lsn))) is not None:
            number += 1
        needless = []
        for step in steps:
            name = f"{lsn}.{number}/{step.path}" if number else f"{lsn}/{step.path}"
            try:
                aside = layout.quarantine("repaired", name)
                went = tenure.storage.set_aside(step.path, aside) if self._is_due(step) else None
                if went is None:
                    needless.append(step)
                else:
                    self._result.kept.append(went)
            except (CorruptionError, OSError) as error:  # perhaps because a successor has moved or replaced something
                with suppress(OSError):
                    tenure.check(now=True)
                self._result.failed[step.path] = _told(error)
        self._needless(needless)

    def _is_due(self, step: Step) -> bool:
        """Whether what is to be set aside is still what was found, not a node or blob that was committed since."""
        *above, name = step.path.split("/")
        view = View(self._engine.reader)
        if len(above) < len(self._engine.levels) and name in self._engine.reader.ask(
            lambda _: view.children((*above,))
        ):
            return False
        try:
            mark = folders.Attribute.decode(self._storage.attribute(step.path))
        except FileNotFoundError:
            return True
        return mark is None or (step.kind == "not-removed" and mark.lsn <= self._result.head)

    def _needless(self, steps: Sequence[Step]) -> None:
        known = frozenset(steps)
        told = [replace(step, detail=_NEEDLESS) if step in known else step for step in self._result.steps]
        self._result.steps[:] = told

    # --- by a commit --------------------------------------------------------------------------------------------------

    def _adopt(self, steps: Sequence[Step]) -> None:
        engine = self._engine
        staging = engine.staging()

        def read(tenure: wal.Tenure) -> Edits:
            edits = Edits(engine, tenure, staging)
            edits.read(steps)
            return edits

        try:
            edits = engine.committer.holding(read)
        except BaseException:
            staging.discard()
            raise
        self._result.kept += edits.kept
        self._result.failed.update(edits.failed)
        self._needless(edits.needless)
        if not edits.facts:
            staging.discard()
            return
        message = "repair: adopt edits by hand"
        outcome = engine.committing.adopt(edits.facts, edits.changes, edits.draft, edits.base, staging, message)
        engine.committed(outcome.position)
        self._result.lsn = None if outcome.position is None else outcome.position.lsn


def _is_in(path: Path, above: Path) -> bool:
    return path[: len(above)] == above


def _told(error: Exception) -> str:
    if isinstance(error, wal.UnsafePathError) and error.filename:
        where = f"{error.filename} is a symbolic link or special file, or lies below one"
        return f"{where}: move it away, then run the repair again"
    return str(error)


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
