"""Parsed nodes at a reader's head: every record that the reader reads updates them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from .facts import BlobFact, BlobGone, ChildFact, Fact, KeysFact, NodeFact, NodeGone
from .location import Path, Reference, Segment, fold_name, parse_string, substitute
from .metadata import Metadata

CACHE_BYTES = 64 << 20  # of parsed nodes, as estimated from their text
MAX_RESOLVED = 1024  # locations

Where = str | tuple[Segment, ...]  # a location, parsed or not
Found = tuple[Path, Metadata]  # a node: its path, its keys


class NodeState:
    """A node's metadata at the reader's head."""

    __slots__ = ("blobs", "children", "edited", "keys", "names", "weight")

    def __init__(self, keys: dict[str, Any], children: dict[str, bool], weight: int, edited: bool = False) -> None:
        self.keys = keys  # never changed in place: callers hold it
        self.children = children  # in order; changed in place
        self.weight = weight  # roughly the bytes of its metadata.json
        self.edited = edited  # the file was changed by hand
        self.blobs: set[str] | None = None  # top-level blob names, once they were needed
        self.names: dict[str, str] = {}  # folded -> actual, of children and blobs; filled with `blobs`

    @staticmethod
    def of(keys: dict[str, Any], children: Iterable[str]) -> NodeState:
        """A node whose metadata comes from a record instead of its file."""
        node = NodeState(keys, dict.fromkeys(children, True), 0)
        node.weight = 64 + _weight(keys) + sum(map(len, node.children)) + 8 * len(node.children)
        return node

    def add_name(self, name: str) -> None:
        """A child or top-level blob was created; does nothing while names are not kept."""
        if self.blobs is not None:
            self.names[fold_name(name)] = name

    def drop_name(self, name: str) -> None:
        """A child or top-level blob was dropped. Its name stays if it exists as the other kind, or if a name that
        differs only in case has replaced it."""
        gone = name not in self.children and not (self.blobs and name in self.blobs)
        if gone and self.names.get(fold_name(name)) == name:
            del self.names[fold_name(name)]


def _weight(keys: dict[str, Any]) -> int:
    return sum(len(key) + len(str(value)) + 8 for key, value in keys.items())


class NodeCache:
    """An LRU cache of nodes by path, of about CACHE_BYTES. A node that is not in it may or may not exist."""

    def __init__(self, *, eager: bool = False) -> None:
        """`eager`: also keep nodes that a record holds whole but nobody has read: where a read is a request."""
        self._eager = eager
        self._nodes: OrderedDict[Path, NodeState] = OrderedDict()
        self._below: dict[Path, set[str]] = {}  # node -> its children with a kept node at or below them
        self._weight = 0
        # Resolved locations, cleared before any change here. May be read without the lock: an entry describes one
        # state, and is removed before the cache leaves that state.
        self.resolved: dict[Where, Found] = {}

    def resolve(self, where: Where) -> Found | None:
        """The kept node at a location; None if it, or one that a reference needs, is not kept. Raises
        InvalidLocationError for the location, or the value of a reference."""
        path: Path = ()
        for segment in parse_string(where) if isinstance(where, str) else where:
            if isinstance(segment, Reference):
                node = self.get(path)
                if node is None:
                    return None
                segment = substitute(segment, node.keys, path)
            path = (*path, segment)
        node = self.get(path)
        if node is None:
            return None
        if len(self.resolved) >= MAX_RESOLVED:
            self.resolved.clear()
        found = self.resolved[where] = path, Metadata(node.keys)
        return found

    def get(self, path: Path) -> NodeState | None:
        """The node, if it is kept."""
        if path not in self._nodes:
            return None
        self._nodes.move_to_end(path)
        return self._nodes[path]

    def keep(self, path: Path, node: NodeState) -> None:
        """Keep a node."""
        self.resolved.clear()
        self._drop(path)
        # `_below` first: after an interrupt between the two steps it may lead to a node that is not kept, which is
        # harmless, but every kept node can be found.
        for depth, name in enumerate(path):
            self._below.setdefault(path[:depth], set()).add(name)
        self._weight += node.weight
        self._nodes[path] = node
        while self._weight > CACHE_BYTES and len(self._nodes) > 1:
            self._drop(next(iter(self._nodes)))

    def _drop(self, path: Path) -> None:
        old = self._nodes.pop(path, None)
        if old is None:
            return
        self._weight -= old.weight
        while path and path not in self._nodes and path not in self._below:
            path, name = path[:-1], path[-1]
            self._below[path].discard(name)
            if self._below[path]:
                return
            del self._below[path]

    def forward(self, facts: Iterable[Fact]) -> None:
        """Update the kept nodes to the state after these facts."""
        self.resolved.clear()
        if self._nodes or self._eager:  # otherwise nothing is kept, as while an opener follows the log
            for fact in facts:
                node = self._nodes.get(fact.path)
                if node is not None or self._eager or isinstance(fact, NodeGone):
                    self._forward(fact, node)

    def _forward(self, fact: Fact, node: NodeState | None) -> None:
        match fact:
            case NodeGone():
                self._gone(fact.path)
            case NodeFact() if node is not None:
                self._whole(fact, node)
            case NodeFact() if self._eager:
                self.keep(fact.path, NodeState.of(fact.keys, fact.children))
            case KeysFact() if node is not None:
                unset = frozenset(fact.unset)
                kept = {name: value for name, value in node.keys.items() if name not in unset}
                grown = NodeState({**kept, **fact.set}, node.children, node.weight, node.edited)
                grown.weight += sum(len(str(value)) for value in fact.set.values())
                grown.blobs, grown.names = node.blobs, node.names
                self.keep(fact.path, grown)
            case ChildFact() if node is not None:
                self._child(fact, node)
            case BlobFact() if node is not None and node.blobs is not None:
                top = fact.name.partition("/")[0]
                node.blobs.add(top)
                node.add_name(top)
            case BlobGone() if node is not None and node.blobs is not None and "/" not in fact.name:
                node.blobs.discard(fact.name)
                node.drop_name(fact.name)
            case _:
                pass

    def _gone(self, path: Path) -> None:
        for other in [*self._kept(path)]:
            self._drop(other)

    def _kept(self, path: Path) -> Iterator[Path]:
        """The paths of the kept nodes at and below `path`."""
        if path in self._nodes:
            yield path
        for name in self._below.get(path, ()):
            yield from self._kept((*path, name))

    def _whole(self, fact: NodeFact, old: NodeState) -> None:
        if tuple(old.children) == fact.children[: len(old.children)]:  # usually one more
            for name in fact.children[len(old.children) :]:
                self._come(name, old)
            if fact.keys is not old.keys:
                self._grow(old, _weight(fact.keys) - _weight(old.keys))
                old.keys = fact.keys
            return
        node = NodeState.of(fact.keys, fact.children)
        if old.blobs is not None:
            # the folder of a child may have been listed, as a directory blob, before the child was known
            node.blobs, node.names = old.blobs - node.children.keys(), old.names
            for name in node.children.keys() - old.children.keys():
                node.add_name(name)
            for name in old.children.keys() - node.children.keys():
                node.drop_name(name)
        self.keep(fact.path, node)

    def _child(self, fact: ChildFact, node: NodeState) -> None:
        node.children.pop(fact.name, None)
        node.drop_name(fact.name)
        if fact.created:
            self._come(fact.name, node)

    def _come(self, name: str, node: NodeState) -> None:
        """Add a child. Its folder may have been listed, as a directory blob, before the child was known."""
        if node.blobs is not None:
            node.blobs.discard(name)
        node.add_name(name)
        self._grow(node, len(name) + 8)
        node.children[name] = True  # last: after an interrupt before it, `_whole` of the same fact still adds it

    def _grow(self, node: NodeState, weight: int) -> None:
        node.weight += weight
        self._weight += weight
