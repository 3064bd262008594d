"""What the log since the redo mark can supply of what `check` found."""

from __future__ import annotations

from typing import Protocol

import wal

from .errors import CorruptionError
from .facts import BlobFact, Slice
from .fold import Effect
from .location import Path
from .sources import Sources
from .window import put_at

_NODE_KINDS = frozenset({"node-missing", "node-unreadable", "node-wrong", "node-edited", "node-replaced"})


class Deviation(Protocol):
    """A finding, or the step for one."""

    @property
    def path(self) -> str: ...

    @property
    def kind(self) -> str: ...


def is_node(found: Deviation) -> bool:
    """Whether it concerns a metadata.json."""
    return found.kind in _NODE_KINDS


def is_unlisted(found: Deviation) -> bool:
    """Whether it concerns a node's folder, which its parent does not list."""
    return found.kind == "node-unlisted"


def node_of(path: str) -> Path:
    """The node of a metadata.json; the parent of an unlisted node."""
    return tuple(path.split("/")[:-1])


def supplies(window: Effect, found: Deviation) -> tuple[Path, str] | None:
    """(node, blob name or '') if the records of the window hold its content; None if they do not."""
    if is_node(found):
        path = node_of(found.path)
        effect, _ = window.find(path)
        enough = effect is not None and (effect.whole or found.kind == "node-wrong")
        return (path, "") if enough else None
    if is_unlisted(found):
        path = node_of(found.path)
        effect, _ = window.find(path)
        listed = effect is not None and effect.whole and effect.children.get(found.path.rpartition("/")[2])
        return (path, "") if listed else None
    fact = put_at(window, found.path)
    return None if fact is None else (fact.path, fact.name)


def lacks(storage: wal.Storage, window: Effect, found: Deviation) -> str | None:
    """Why the window cannot supply it; None if it can."""
    supplied = supplies(window, found)
    if supplied is None:
        return "the log holds no content of it since the last checkpoint"
    path, name = supplied
    effect, _ = window.find(path)
    facts: list[BlobFact | None] = []
    if effect is not None and name:
        facts = [effect.blobs[name]]
    elif effect is not None and found.kind == "node-missing":  # comes back with everything below it
        facts = [fact for _, below in effect.walk() for fact in below.blobs.values()]
    if any(fact is not None and lacking(storage, fact) is not None for fact in facts):
        return "the log names its content, but that is missing from the staging area or damaged there, too"
    return None


def lacking(storage: wal.Storage, fact: BlobFact) -> OSError | CorruptionError | None:
    """The error if a fact's staged content is missing or has another size, else None."""
    if not isinstance(fact.source, Slice):
        return None
    try:
        with Sources(storage) as sources:
            content = sources.read(fact)
        if isinstance(content, wal.Staged):
            entry = storage.entry(content.name)
            if entry is None or entry.size != fact.size:
                raise CorruptionError(f"{content.name} is missing or cut short")
    except (OSError, CorruptionError) as error:
        return error
    return None
