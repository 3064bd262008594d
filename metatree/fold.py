"""`fold`: facts -> their net effect. Pure; commit, read and recovery all use it.

An `Effect` is a tree of net effects, shaped like the tree of nodes. Overlaid on any state of the files within its
window, it gives the state at the window's end. A whole node replaces; changed keys merge. From the file's list of
children every name that the window touched is removed, then those present at the end are appended in the order of
their last creation: this gives the same list from any state within the window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import Any

from .facts import BlobFact, BlobGone, ChildFact, Fact, KeysFact, NodeFact, NodeGone
from .inner import InnerNames
from .layout import METADATA
from .location import Path, fold_name

_NONE: frozenset[str] = frozenset()  # initial value of an effect's three sets, most of which stay empty: saves memory


class Effect:
    """The net effect of a window on one node, and in `below` on the nodes under it."""

    __slots__ = (
        "_inner",
        "_names",
        "below",
        "blobs",
        "children",
        "cleared",
        "exists",
        "keys",
        "left",
        "reset",
        "unset",
        "whole",
    )

    def __init__(self) -> None:
        self.reset = False  # the window dropped everything that was here and below before it
        self.left: Set[str] = _NONE  # files that the window put here before it dropped the node
        self.exists: bool | None = None  # at the window's end; None: unchanged by the window
        self.whole = False  # `keys` and `children` are everything, not changes
        self.keys: dict[str, Any] = {}
        self.unset: Set[str] = _NONE
        self.children: dict[str, bool] = {}  # name -> created (True) or dropped, in the order of the last event
        self.blobs: dict[str, BlobFact | None] = {}  # None: dropped, with everything below it
        self.cleared: Set[str] = _NONE  # blobs that were dropped, even if put again later
        self.below: dict[str, Effect] = {}
        self._inner: tuple[InnerNames, InnerNames] | None = None  # names with '/' in `blobs`: put, dropped; none yet
        self._names: dict[str, str | None] | None = None  # folded name -> actual name; None: free again

    # --- finding ----------------------------------------------------------------------------------------------------

    def at(self, path: Path) -> Effect:
        """The effect on a node, created if there is none yet."""
        effect = self
        for name in path:
            below = effect.below.get(name)
            if below is None:
                below = effect.below[name] = Effect()
            effect = below
        return effect

    def find(self, path: Path) -> tuple[Effect | None, bool]:
        """(effect on a node, if any; whether the node's state before the window is gone, by a reset here or above)."""
        effect, covered = self, self.reset
        for name in path:
            covered = covered or name in effect.blobs  # the name is or was a blob: no node was there
            below = effect.below.get(name)
            if below is None:
                return None, covered
            effect = below
            covered = covered or effect.reset
        return effect, covered

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, Effect]]:
        """This effect and all effects below it, parents first."""
        yield path, self
        for name, below in self.below.items():
            yield from below.walk((*path, name))

    def has_metadata(self) -> bool:
        """Whether the window touched the node's metadata.json."""
        return self.whole or bool(self.keys or self.unset or self.children)

    def is_all(self) -> bool:
        """Whether this says all of the node, and of each that is there below: nothing need be known of the files."""
        if not self.whole:
            return False
        for below in self.below.values():  # noqa: SIM110  half the calls of `all`, and there are thousands
            if below.exists is not False and not below.is_all():
                return False
        return True

    def files_put(self) -> frozenset[str]:
        """The files that the window put here or below, by names relative to the node, even if it dropped them later."""
        return frozenset(self.left).union(self._files_now())

    def _files_now(self) -> Iterator[str]:
        """The same, only since the window last dropped the node."""
        yield from self.blobs
        yield from (f"{name}/{file}" for name, below in self.below.items() for file in below.files_put())
        if self.exists:
            yield METADATA

    # --- changing ---------------------------------------------------------------------------------------------------

    def set_whole(self, keys: dict[str, Any], children: tuple[str, ...]) -> None:
        """The node exists, and this is all of its metadata."""
        if self.whole and tuple(self.children) == children[: len(self.children)]:  # usually one more
            for name in children[len(self.children) :]:
                self.add_child(name)
        else:
            self.children, self._names = dict.fromkeys(children, True), None
        self.exists, self.whole = True, True
        self.keys, self.unset = dict(keys), _NONE

    def set_keys(self, values: dict[str, Any]) -> None:
        """Set keys; one that exists keeps its position."""
        self.keys.update(values)
        if self.unset:
            _changeable(self.unset).difference_update(values)

    def unset_keys(self, names: Iterable[str]) -> None:
        """Remove keys."""
        for name in names:
            self.keys.pop(name, None)
            if not self.whole:
                self.unset = unset = _changeable(self.unset)
                unset.add(name)

    def add_child(self, name: str) -> None:
        """A child was created: it becomes the last."""
        if self._names is not None:
            self._note(name, name)
        self.children.pop(name, None)
        self.children[name] = True  # last, so that `set_whole` adds it after an interrupt

    def drop_child(self, name: str) -> None:
        """A child was dropped."""
        self.children.pop(name, None)
        if not self.whole:
            self.children[name] = False
        self._note(name, None)

    def drop_node(self, name: str) -> None:
        """The child node and everything below it was dropped. Its parent is told by `drop_child` or `set_whole`."""
        before, gone = self.below.get(name), Effect()
        gone.reset, gone.exists = True, False
        if before is not None:
            left = _changeable(before.left)  # moved, not copied: a name may be created and dropped in every record
            left.update(before._files_now())
            gone.left = left
        self.below[name] = gone

    def put_blob(self, fact: BlobFact) -> None:
        """A blob was put with this content."""
        if self._inner is not None and self.blob_below(fact.name):
            self.drop_blob(fact.name)
        self.blobs.pop(fact.name, None)  # put last: if its folder was dropped since, it comes after that
        self.blobs[fact.name] = fact
        if "/" in fact.name:
            self._list(fact.name, put=True)
        if self._names is not None:
            top = fact.name.partition("/")[0]
            self._note(top, top)

    def drop_blob(self, name: str) -> None:
        """A blob was dropped, or a directory blob with its files."""
        for names in self._inner or ():
            for inner in [*names.below(name)]:
                self.blobs.pop(inner, None)
                names.discard(inner)
        self.blobs[name] = None
        self.cleared = cleared = _changeable(self.cleared)
        cleared.add(name)
        if "/" not in name:
            self._note(name, None)
        elif self._inner is not None:
            self._list(name, put=False)

    def _list(self, name: str, *, put: bool) -> None:
        """Note that a file of a directory blob is in `blobs`, put or dropped."""
        puts, drops = self._inner = self._inner or (InnerNames(), InnerNames(self.blobs))
        (puts if put else drops).add(name)
        (drops if put else puts).discard(name)

    def apply(self, fact: Fact) -> None:
        """Fold in one more fact; `self` is the root's effect."""
        if isinstance(fact, NodeGone):
            self.at(fact.path[:-1]).drop_node(fact.path[-1])
            return
        effect = self.at(fact.path)
        match fact:
            case NodeFact():
                effect.set_whole(fact.keys, fact.children)
            case BlobFact():
                effect.put_blob(fact)
            case KeysFact():
                effect.set_keys(fact.set)
                effect.unset_keys(fact.unset)
            case ChildFact():
                (effect.add_child if fact.created else effect.drop_child)(fact.name)
            case BlobGone():
                effect.drop_blob(fact.name)

    # --- laying over --------------------------------------------------------------------------------------------------

    def over_keys(self, keys: dict[str, Any]) -> dict[str, Any]:
        """The node's keys at the window's end, given those of any state within it."""
        if self.whole:
            return dict(self.keys)
        return {**{name: value for name, value in keys.items() if name not in self.unset}, **self.keys}

    def over_children(self, children: Iterable[str]) -> dict[str, bool]:
        """The node's children at the window's end, in order, given those of any state within it."""
        if self.whole:
            return dict(self.children)
        result = {name: True for name in children if name not in self.children}
        result.update((name, True) for name, created in self.children.items() if created)
        return result

    def over_names(self, names: set[str]) -> set[str]:
        """The names of the node's top-level blobs at the window's end, given those of any state within it."""
        # files of a dropped node may still be there; on storage without folders they look like a directory blob
        result = {name for name in names if name not in self.below or self.below[name].exists is not False}
        for name, fact in self.blobs.items():
            if fact is not None:
                result.add(name.partition("/")[0])
            elif "/" not in name:
                result.discard(name)
        return result

    def over_blob_files(self, name: str, files: set[str]) -> set[str]:
        """The files of the directory blob `name` at the window's end, as blob names."""
        kept = () if self.blob(name)[1] else (file for file in files if not self.blob(file)[1])
        return {*kept, *(self._inner[0].below(name) if self._inner else ())}

    def blob(self, name: str) -> tuple[BlobFact | None, bool]:
        """(the blob's fact if it is present at the window's end; whether its state before the window is gone)."""
        if name in self.blobs:
            return self.blobs[name], True
        node = self.below.get(name.partition("/")[0])
        if node is not None and node.reset:
            return None, True  # a node is or was there
        parent = name.rpartition("/")[0]
        while parent:
            if parent in self.blobs:
                return None, True
            parent = parent.rpartition("/")[0]
        return None, False

    def blob_below(self, name: str) -> bool:
        """Whether the window puts a file below the directory blob `name`."""
        return self._inner is not None and bool(self._inner[0].below(name))

    def name_taken(self, folded: str) -> tuple[str | None, bool]:
        """(the child or top-level blob whose folded name is `folded`, if any; whether the window decides that)."""
        if self._names is None:
            self._names = {}
            for name in (*self.below, *self.children, *self.blobs):
                top = name.partition("/")[0]
                if self._present(top):
                    self._names[fold_name(top)] = top
                elif self.children.get(top) is False or self.blobs.get(top, "") is None or self._dropped(top):
                    self._names.setdefault(fold_name(top), None)
        if folded in self._names:
            return self._names[folded], True
        return None, False

    def _note(self, name: str, actual: str | None) -> None:
        """Record that a name was taken (`actual`) or freed (None). It is not freed while it exists as the other kind,
        or while a name that differs only in case or form holds its place."""
        if self._names is None:
            return
        folded = fold_name(name)
        if actual is not None or (not self._present(name) and self._names.get(folded) in (None, name)):
            self._names[folded] = actual

    def _dropped(self, name: str) -> bool:
        return name in self.below and self.below[name].exists is False

    def _present(self, name: str) -> bool:
        return self.children.get(name) is True or self.blobs.get(name) is not None or self.blob_below(name)


def _changeable(names: Set[str]) -> set[str]:
    """`names` if it is a mutable set, else a new one."""
    return names if isinstance(names, set) else set()


def fold(facts: Iterable[Fact], effect: Effect | None = None) -> Effect:
    """The net effect on the root of facts in order, added to `effect`, which is changed in place, if given."""
    effect = Effect() if effect is None else effect
    for fact in facts:
        effect.apply(fact)
    return effect
