"""Parsed nodes at a reader's head: every record that the reader reads updates them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from sys import getsizeof
from typing import Any

from .facts import BlobFact, BlobGone, ChildFact, Fact, KeysFact, NodeFact, NodeGone
from .location import Path, Reference, Segment, fold_name, parse_string, substitute
from .metadata import Metadata

CACHE_BYTES = 64 << 20  # of memory for parsed nodes, as counted here: right within a factor of two
NODE_BYTES = 440  # of a node itself: its object, its path, its places in the cache
_EMPTY = getsizeof("")
MAX_RESOLVED = 1024  # locations

Where = str | tuple[Segment, ...]  # a location, parsed or not
Found = tuple[Path, Metadata]  # a node: its path, its keys


class NodeState:
    """A node's metadata at the reader's head. Its methods change it in place, and count what they bring and take: to
    count anew would take longer the more children there are."""

    __slots__ = ("blobs", "children", "contents", "counted", "edited", "keys", "names", "weight")

    def __init__(
        self,
        keys: dict[str, Any],
        children: dict[str, bool],
        weight: int,
        edited: bool = False,
        contents: int | None = None,
    ) -> None:
        self.keys = keys  # never changed in place: callers hold it
        self.children = children  # in order; changed in place
        self.weight = weight  # roughly the bytes of its metadata.json
        self.edited = edited  # the file was changed by hand
        self.blobs: set[str] | None = None  # top-level blob names, once they were needed
        self.names: dict[str, str] = {}  # folded -> actual, of children and blobs; filled before `blobs`
        # bytes of memory for all strings and values in these tables
        self.contents = _contents(keys) + _bytes(children) if contents is None else contents
        self.counted = 0  # bytes of memory that the cache has counted for this node

    @staticmethod
    def of(keys: dict[str, Any], children: Iterable[str]) -> NodeState:
        """A node whose metadata comes from a record instead of its file."""
        node = NodeState(keys, dict.fromkeys(children, True), 0)
        node.weight = 64 + _weight(keys) + sum(map(len, node.children)) + 8 * len(node.children)
        return node

    def memory(self) -> int:
        """The bytes of memory that it takes, whatever the number of children at the same cost."""
        tables = getsizeof(self.keys) + getsizeof(self.children) + getsizeof(self.blobs) + getsizeof(self.names)
        return NODE_BYTES + tables + self.contents

    def set_names(self, blobs: set[str], names: dict[str, str]) -> None:
        """Keep names from now on: those of the top-level blobs, and folded -> actual names."""
        self.contents += _bytes(blobs) + _bytes(names)
        self.names = names
        self.blobs = blobs  # last: after an interrupt before it, names are read again

    def set_keys(self, keys: dict[str, Any]) -> None:
        """Replace its keys."""
        self.contents += _contents(keys) - _contents(self.keys)
        self.weight += _weight(keys) - _weight(self.keys)
        self.keys = keys

    def add_child(self, name: str) -> None:
        """Add a child. Its folder may have been listed, as a directory blob, before the child was known."""
        if self.blobs is not None:
            self._forget_blob(name)
            self.add_name(name)
        self.contents += getsizeof(name)
        self.weight += len(name) + 8
        self.children[name] = True  # last: after an interrupt before it, `_whole` of the same fact still adds it

    def drop_child(self, name: str) -> None:
        """Drop a child, if there is one of this name."""
        if self.children.pop(name, False):
            self.contents -= getsizeof(name)
        self.drop_name(name)

    def add_blob(self, name: str) -> None:
        """A top-level blob was put; does nothing while names are not kept."""
        if self.blobs is not None:
            if name not in self.blobs:
                self.contents += getsizeof(name)
            self.blobs.add(name)
            self.add_name(name)

    def drop_blob(self, name: str) -> None:
        """A top-level blob was dropped; does nothing while names are not kept."""
        if self.blobs is not None:
            self._forget_blob(name)
            self.drop_name(name)

    def _forget_blob(self, name: str) -> None:
        if self.blobs and name in self.blobs:
            self.blobs.discard(name)
            self.contents -= getsizeof(name)

    def add_name(self, name: str) -> None:
        """A child or top-level blob was created; does nothing while names are not kept."""
        if self.blobs is not None:
            folded = fold_name(name)
            if folded not in self.names:
                self.contents += getsizeof(folded)
            self.names[folded] = name

    def drop_name(self, name: str) -> None:
        """A child or top-level blob was dropped. Its name stays if it exists as the other kind, or if a name that
        differs only in case has replaced it."""
        gone = name not in self.children and not (self.blobs and name in self.blobs)
        if gone and self.names.get(folded := fold_name(name)) == name:
            del self.names[folded]
            self.contents -= getsizeof(folded)


def _weight(keys: dict[str, Any]) -> int:
    return sum(len(key) + len(str(value)) + 8 for key, value in keys.items())


def _bytes(names: Collection[str]) -> int:
    """The bytes of memory that strings take."""
    text = "".join(names)
    return _EMPTY * len(names) + len(text) if text.isascii() else sum(map(getsizeof, names))


def _contents(keys: dict[str, Any]) -> int:
    """The bytes of memory that keys and their values take, without the table itself."""
    return _bytes(keys) + sum(map(_memory, keys.values())) if keys else 0


def _memory(value: Any) -> int:
    kind = type(value)
    if value is None or kind is bool or (kind is int and -5 <= value <= 256):
        return 0  # one for the whole process
    size = getsizeof(value)
    if kind is dict:  # keys count half: those that a file repeats are kept once
        return size + _bytes(value) // 2 + sum(map(_memory, value.values()))
    return size + sum(map(_memory, value)) if kind is list else size


class NodeCache:
    """An LRU cache of nodes by path, of about CACHE_BYTES, or one node. One that is not in it may or may not exist."""

    def __init__(self, *, eager: bool = False) -> None:
        """`eager`: also keep nodes that a record holds whole but nobody has read: where a read is a request."""
        self._eager = eager
        self._nodes: OrderedDict[Path, NodeState] = OrderedDict()
        self._below: dict[Path, set[str]] = {}  # node -> its children with a kept node at or below them
        self._memory = 0
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
        node.counted = 0
        self._nodes[path] = node
        self._count(node)
        self._evict()

    def recount(self, path: Path, node: NodeState) -> None:
        """To be called after a node, which need not be kept, was changed otherwise than by a fact."""
        if self._nodes.get(path) is node:
            self._count(node)
            self._evict()

    def _count(self, node: NodeState) -> None:
        """Count a kept node anew, after a change."""
        before, node.counted = node.counted, node.memory()
        self._memory += node.counted - before

    def _evict(self) -> None:
        while self._memory > CACHE_BYTES and len(self._nodes) > 1:
            self.resolved.clear()
            self._drop(next(iter(self._nodes)))

    def _drop(self, path: Path) -> None:
        old = self._nodes.pop(path, None)
        if old is None:
            return
        self._memory -= old.counted
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
            self._evict()

    def _forward(self, fact: Fact, node: NodeState | None) -> None:
        match fact:
            case NodeGone():
                self._gone(fact.path)
            case NodeFact() if node is not None:
                self._whole(fact, node)
            case NodeFact() if self._eager:
                self.keep(fact.path, NodeState.of(fact.keys, fact.children))
            case KeysFact() if node is not None:
                self._keys(fact, node)
            case ChildFact() if node is not None:
                node.drop_child(fact.name)
                if fact.created:
                    node.add_child(fact.name)
                self._count(node)
            case BlobFact() if node is not None:
                node.add_blob(fact.name.partition("/")[0])
                self._count(node)
            case BlobGone() if node is not None and "/" not in fact.name:
                node.drop_blob(fact.name)
                self._count(node)
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

    def _keys(self, fact: KeysFact, node: NodeState) -> None:
        unset = frozenset(fact.unset)
        kept = {name: value for name, value in node.keys.items() if name not in unset}
        old = {name: node.keys[name] for name in (*fact.unset, *fact.set) if name in node.keys}
        contents = node.contents + _contents(fact.set) - _contents(old)
        grown = NodeState({**kept, **fact.set}, node.children, node.weight, node.edited, contents)
        grown.weight += sum(len(str(value)) for value in fact.set.values())
        grown.blobs, grown.names = node.blobs, node.names
        self.keep(fact.path, grown)

    def _whole(self, fact: NodeFact, old: NodeState) -> None:
        if tuple(old.children) == fact.children[: len(old.children)]:  # usually one more
            for name in fact.children[len(old.children) :]:
                old.add_child(name)
            if fact.keys is not old.keys:
                old.set_keys(fact.keys)
            self._count(old)
            return
        node = NodeState.of(fact.keys, fact.children)
        if old.blobs is not None:
            # the folder of a child may have been listed, as a directory blob, before the child was known
            node.set_names(old.blobs - node.children.keys(), old.names)
            for name in node.children.keys() - old.children.keys():
                node.add_name(name)
            for name in old.children.keys() - node.children.keys():
                node.drop_name(name)
        self.keep(fact.path, node)
