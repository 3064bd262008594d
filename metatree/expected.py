"""What a check compares the files with: the log up to a mark that is read before them, and what was committed while
they were read. A file is right if it shows any state from the mark to the log's head *afterwards* (E10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import wal

from .facts import Fact, facts_of
from .fold import Effect
from .location import Path
from .window import fold_log

Excuse = Callable[[Effect], bool]  # whether a finding would be correct in this state


class Expected:
    """The oldest state that the files may show, and the later ones."""

    def __init__(self, log: wal.WriteAheadLog, redo: int, noted: int) -> None:
        """`noted`: the LSN that the files showed before any was read. Raises CorruptionError, LogCorruptionError."""
        self._log = log
        self._redo = redo
        self.noted = noted
        self.shown = fold_log(log, redo, noted)

    def overtaken(self) -> bool:
        """Whether records after the mark were trimmed, so that `excused` does not see all states since."""
        return self._log.trimmed(fresh=True) > self.noted

    def excused(self, path: Path, excuses: Sequence[Excuse]) -> set[int]:
        """The indexes of the excuses that hold in some state since the mark; all concern the node `path`."""
        holding: set[int] = set()
        head = self._log.head(fresh=True)
        if head <= self.noted or not excuses:
            return holding
        effect = fold_log(self._log, self._redo, self.noted)
        for batch in self._log.read(self.noted, head):
            for record in batch.records:
                for fact in facts_of(record) if record.body is not None else ():
                    effect.apply(fact)
                    if _touches(fact, path):
                        holding.update(n for n, excuse in enumerate(excuses) if n not in holding and excuse(effect))
        return holding


def _touches(fact: Fact, path: Path) -> bool:
    """Whether a fact may change the folder of a node: a fact about the node, a child or an ancestor."""
    return len(fact.path) <= len(path) + 1 and all(a == b for a, b in zip(fact.path, path, strict=False))


# --- excuses ----------------------------------------------------------------------------------------------------------


def agrees(effect: Effect | None, keys: dict[str, object], children: Sequence[str]) -> bool:
    """Whether a metadata.json with these keys and children agrees with the log."""
    if effect is None:
        return True
    if effect.whole and len(effect.children) != len(children):
        return False
    last = next((name for name, created in reversed(effect.children.items()) if created), None)
    if last is not None and [*children[-1:]] != [last]:
        return False  # a cheap check first: the lists may be long
    return effect.over_keys(keys) == keys and [*effect.over_children(children)] == [*children]


def is_gone(window: Effect, path: Path) -> bool:
    """Whether, according to the log, there is no node at `path`."""
    for depth in range(1, len(path) + 1):
        above, _ = window.find(path[: depth - 1])
        if above is not None and not above.children.get(path[depth - 1], not above.whole):
            return True
        effect, covered = window.find(path[:depth])
        if covered if effect is None or effect.exists is None else not effect.exists:
            return True
    return False


def may_stand(window: Effect, path: Path, name: str) -> bool:
    """Whether, according to the log, something may have this name in a node's folder: it was put, or not dropped."""
    effect, covered = window.find(path)
    if effect is None:
        return not covered
    below = effect.below.get(name)
    return below is None or below.exists is not False or is_blob(effect, name)


def is_removed(window: Effect, path: Path, name: str) -> bool:
    """Whether, according to the log, a blob that was in a node's folder has been removed from there."""
    effect, covered = window.find(path)
    if effect is None:
        return covered
    fact, said = effect.blob(name)
    return fact is None and (said or covered or effect.blob_below(name))


def is_blob(effect: Effect, name: str) -> bool:
    """Whether, according to the log, a blob or a directory blob has this name."""
    return effect.blob(name)[0] is not None or effect.blob_below(name)


def is_known(window: Effect, path: Path, name: str) -> bool:
    """Whether the log holds that something of this name in a node's folder was created or dropped."""
    effect, covered = window.find(path)
    if effect is None:
        return covered
    return covered or name in effect.below or is_blob(effect, name) or effect.blob(name)[1]
