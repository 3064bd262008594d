"""What a net effect requires of an object store: objects to publish and objects to remove. Pure.

There are no folders: a node is the objects whose names begin with its path. Every step names the version that it
replaces, so a committer that was paused and overtaken changes nothing that its successor published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import wal

from . import folders, layout
from .errors import CorruptionError
from .facts import BlobFact
from .fold import Effect
from .location import Path, join

ABSENT = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object that must exist, and its content."""

    name: str
    path: Path  # of its node
    blob: BlobFact | None  # None: the node's metadata.json
    effect: Effect  # the node's, for its metadata


@dataclass(slots=True)
class Plan:
    """The objects a net effect touches."""

    blobs: list[Wanted] = field(default_factory=list)
    nodes: list[Wanted] = field(default_factory=list)  # parents first
    gone: list[tuple[str, Path]] = field(default_factory=list)  # (name: it and everything below it; its node)


def plan(effect: Effect) -> Plan:
    """The plan for the root's effect."""
    found = Plan()
    _plan(effect, (), found)
    return found


def _plan(effect: Effect, path: Path, found: Plan) -> None:
    if effect.has_metadata():
        found.nodes.append(Wanted(layout.metadata(path), path, None, effect))
    cleared = set(effect.cleared)
    for name, fact in effect.blobs.items():
        if fact is None:
            cleared.add(name)
        else:
            found.blobs.append(Wanted(layout.blob(path, name), path, fact, effect))
    for name, below in effect.below.items():
        if below.reset:
            cleared.add(name)
        if below.exists is not False:
            _plan(below, (*path, name), found)
    found.gone += [(layout.blob(path, name), path) for name in sorted(cleared)]


def metadata(wanted: Wanted, old: wal.Stored | None, lsn: int) -> bytes:
    """The content of a node's metadata.json, based on the stored one. Raises CorruptionError if that is needed but
    missing. It ends with `stamp(lsn)`, so that equal texts of two LSNs are two versions (an ETag is of the content)."""
    effect = wanted.effect
    if effect.whole:
        keys, children = effect.keys, list(effect.children)
    else:
        if old is None:
            raise CorruptionError(f"{wanted.name} is missing, and the log holds only its changes")
        file = folders.parse_node(wanted.name, old)
        keys, children = effect.over_keys(file.keys), list(effect.over_children(file.children))
    return folders.render(keys, children) + stamp(lsn)


def stamp(lsn: int) -> bytes:
    """`lsn` in binary, 0 as a space and 1 as a tab."""
    return f"{lsn:b}".translate({48: " ", 49: "\t"}).encode()


def same_text(one: bytes, other: bytes) -> bool:
    """Whether two metadata.json differ in their stamps at most."""
    return one.rstrip() == other.rstrip()


def by_depth(nodes: list[Wanted]) -> Iterator[list[Wanted]]:
    """Nodes grouped by depth, deepest first: a node is complete before its parent lists it."""
    for depth in sorted({len(wanted.path) for wanted in nodes}, reverse=True):
        yield [wanted for wanted in nodes if len(wanted.path) == depth]


def is_gone(name: str, headers: Iterable[Mapping[str, Mapping[str, list[str]]]]) -> bool:
    """Whether records with these changes drop the object `name`, given that it existed before them."""
    parts = name.split("/")
    gone = False
    for changes in headers:
        above = [(below, change) for below, change in _around(parts, changes)]
        # a record drops before it puts, whatever the order of nodes in its header
        for below, change in above:
            inner, dropped = "/".join(below), [*change.get("gone", ()), *change.get("del", ())]
            gone = gone or any(inner == out or inner.startswith(out + "/") for out in dropped)
        for below, change in above:
            made = below[-1] == layout.METADATA and "/".join(below[:-1]) in change.get("new", ())
            if made or "/".join(below) in change.get("put", ()):
                gone = False
    return gone


def _around(
    parts: list[str], changes: Mapping[str, Mapping[str, list[str]]]
) -> Iterator[tuple[list[str], Mapping[str, list[str]]]]:
    """For each changed node that contains the object: (the object's name relative to it, its changes)."""
    for text, change in changes.items():
        node = text.split("/") if text else []
        below = parts[len(node) :]
        if parts[: len(node)] == node and below:
            yield below, change


def failed_below(path: Path, failed: Mapping[str, Exception]) -> bool:
    """Whether something at or below a node failed, so that it must not be listed yet."""
    prefix = join(path)
    return any(not prefix or other == prefix or other.startswith(prefix + "/") for other in failed)
