"""Turns a draft's changes into the facts of its record: effective, decided at the record's own position. Pure over a
view.

A small node is logged whole whenever it changes, so that recovery can overwrite its file without trusting it; of a
large one, the changed keys and children are logged. A change without an effect yields no fact.
"""

from __future__ import annotations

from .draft import same_value
from .facts import BlobGone, Changes, ChildFact, Fact, KeysFact, NodeFact, NodeGone
from .fold import Effect
from .location import Path, join
from .values import check_size
from .view import View

SMALL = 16 << 10  # bytes of metadata.json up to which a node is logged whole


def derive(delta: Effect, view: View) -> tuple[list[Fact], Changes]:
    """The facts that turn the state of `view` into the same state with `delta` applied, and what they touch.

    Raises CorruptionError for a node whose file was edited by hand, InvalidMetadataError for one that grew too large.
    """
    derivation = _Derivation(view)
    derivation.node((), delta, there=True)
    return derivation.facts, derivation.changes


class _Derivation:
    def __init__(self, view: View) -> None:
        self._view = view
        self.facts: list[Fact] = []
        self.changes: Changes = {}

    def node(self, path: Path, delta: Effect, *, there: bool) -> None:
        """`there`: the node exists in the view, and no ancestor was dropped."""
        if delta.reset and there:
            self.facts.append(NodeGone(path))
        stays = there and not delta.reset
        if delta.exists is False or not (stays or delta.exists):
            return
        change: dict[str, list[str]] = {}
        created, dropped = self._children(path, delta, change, stays=stays)
        self._blobs(path, delta, change, stays=stays)
        self._metadata(path, delta, change, created, dropped, stays=stays)
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
            was = stays and (self._view.stands if below.reset else self._view.exists)((*path, name))
            self.node((*path, name), below, there=was)
            is_now = was if below.exists is None else below.exists
            if was and below.reset:
                dropped.append(name)
            if is_now and (below.reset or not was):
                created.append(name)
        if dropped:
            change["gone"] = dropped
        if created:
            order = {name: place for place, name in enumerate(delta.children)}
            created.sort(key=lambda name: order.get(name, -1))
            change["new"] = created
        return created, dropped

    def _metadata(
        self,
        path: Path,
        delta: Effect,
        change: dict[str, list[str]],
        created: list[str],
        dropped: list[str],
        *,
        stays: bool,
    ) -> None:
        old = self._view.keys(path) if stays else {}
        values = {k: v for k, v in delta.keys.items() if k not in old or not same_value(old[k], v)}
        unset = [key for key in delta.unset if key in old]
        if values:
            change["set"] = list(values)
        if unset:
            change["unset"] = unset
        if stays and not (values or unset or created or dropped):
            return
        if stays:
            self._view.require_unedited(path)
        keys = {**{k: v for k, v in old.items() if k not in delta.unset}, **values}
        weight = (self._view.weight(path) if stays else 0) + sum(len(str(value)) for value in values.values())
        if values and weight > SMALL:
            check_size(keys)
        if stays and weight > SMALL:
            self._changed(path, values, unset, created, dropped)
            return
        children = self._view.children(path) if stays else {}
        if dropped:
            children = {name: True for name in children if name not in dropped}
        self.facts.append(NodeFact(path, keys, (*children, *created)))

    def _changed(
        self, path: Path, values: dict[str, object], unset: list[str], created: list[str], dropped: list[str]
    ) -> None:
        if values or unset:
            self.facts.append(KeysFact(path, values, tuple(unset)))
        self.facts.extend(ChildFact(path, name, False) for name in dropped)
        self.facts.extend(ChildFact(path, name, True) for name in created)
