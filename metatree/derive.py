"""Turns a draft's changes into the facts of its record: effective, decided at the record's own position. Pure over a
view.

A small node is logged whole whenever it changes, so that recovery can overwrite its file without trusting it; of a
large one, the changed keys and children are logged. A change without an effect yields no fact.
"""

from __future__ import annotations

from typing import Any

from .facts import BlobGone, Changes, ChildFact, Fact, KeysFact, NodeFact, NodeGone
from .fold import Effect
from .location import Path, join
from .values import check_size, same_value
from .view import View

SMALL = 16 << 10  # bytes of metadata.json up to which a node is logged whole


def derive(delta: Effect, view: View) -> tuple[list[Fact], Changes]:
    """The facts that turn the state of `view` into the same state with `delta` applied, and what they touch.

    Raises CorruptionError for a node whose file was edited by hand, InvalidMetadataError for one that grew too large.
    """
    derivation = _Derivation(view)
    derivation.node((), delta, view.metadata(()))
    return derivation.facts, derivation.changes


_Old = tuple[dict[str, Any], int, bool]  # of a node that exists in the view: see `View.metadata`


class _Derivation:
    def __init__(self, view: View) -> None:
        self._view = view
        self.facts: list[Fact] = []
        self.changes: Changes = {}

    def node(self, path: Path, delta: Effect, old: _Old | None) -> None:
        """`old`: of the node, if it exists in the view and neither it nor an ancestor was dropped."""
        if delta.exists is False or (old is None and not delta.exists):
            return
        change: dict[str, list[str]] = {}
        created, dropped = self._children(path, delta, change, stays=old is not None) if delta.below else ([], [])
        self._blobs(path, delta, change, stays=old is not None)
        if old is None:
            self._new(path, delta, change, created)
        elif delta.keys or delta.unset or created or dropped:
            self._metadata(path, delta, change, created, dropped, old)
        if change:
            self.changes[join(path)] = change

    def _blobs(self, path: Path, delta: Effect, change: dict[str, list[str]], *, stays: bool) -> None:
        for name, fact in delta.blobs.items():
            if fact is not None:
                if stays and name in delta.cleared and self._view.blob_files(path, name):
                    self.facts.append(BlobGone(path, name))  # a file replaces a directory blob
                self.facts.append(fact)
                change.setdefault("put", []).append(name)
            elif stays:
                self.facts.append(BlobGone(path, name))
                change.setdefault("del", []).append(name)

    def _children(
        self, path: Path, delta: Effect, change: dict[str, list[str]], *, stays: bool
    ) -> tuple[list[str], list[str]]:
        """Derive the nodes below; returns (names added to this node's children, names removed)."""
        created, dropped = [], []
        for name, below in delta.below.items():
            child = (*path, name)
            old = None
            if below.reset:
                if stays and self._view.stands(child):
                    self.facts.append(NodeGone(child))
                    dropped.append(name)
            elif stays:
                old = self._view.metadata(child)
            self.node(child, below, old)
            if below.exists and old is None:
                created.append(name)
        if dropped:
            change["gone"] = dropped
        if created:
            if len(created) > 1:
                order = {name: place for place, name in enumerate(delta.children)}
                created.sort(key=lambda name: order.get(name, -1))
            change["new"] = created
        return created, dropped

    def _new(self, path: Path, delta: Effect, change: dict[str, list[str]], created: list[str]) -> None:
        if delta.keys:
            change["set"] = list(delta.keys)
            if _weight(delta.keys) > SMALL:
                check_size(delta.keys)
        self.facts.append(NodeFact(path, delta.keys, tuple(created)))

    def _metadata(
        self,
        path: Path,
        delta: Effect,
        change: dict[str, list[str]],
        created: list[str],
        dropped: list[str],
        old: _Old,
    ) -> None:
        keys, weight, edited = old
        values = {k: v for k, v in delta.keys.items() if k not in keys or not same_value(keys[k], v)}
        unset = [key for key in delta.unset if key in keys]
        if not (values or unset or created or dropped):
            return
        if edited:
            self._view.require_unedited(path)
        if values:
            change["set"] = list(values)
            weight += _weight(values)
        if unset:
            change["unset"] = unset
            keys = {name: value for name, value in keys.items() if name not in delta.unset}
        keys = {**keys, **values} if values else keys
        if weight > SMALL and values:
            check_size(keys)
        if weight > SMALL:
            self._changed(path, values, unset, created, dropped)
            return
        children = self._view.children(path)
        if dropped:
            gone = frozenset(dropped)
            children = {name: True for name in children if name not in gone}
        self.facts.append(NodeFact(path, keys, (*children, *created)))

    def _changed(
        self, path: Path, values: dict[str, object], unset: list[str], created: list[str], dropped: list[str]
    ) -> None:
        if values or unset:
            self.facts.append(KeysFact(path, values, tuple(unset)))
        self.facts.extend(ChildFact(path, name, False) for name in dropped)
        self.facts.extend(ChildFact(path, name, True) for name in created)


def _weight(values: dict[str, Any]) -> int:
    return sum([len(str(value)) for value in values.values()])
