"""`fold`: facts -> their net effect. Pure; commit, read and recovery all use this one.

An `Effect` is a tree of net effects shaped like the tree of nodes. Laid over any state of the files inside its window
it gives the state at the window's end: a whole node replaces, changed keys and children merge, and of `children` every
name the window touched is removed from the file's list, then those that end present are appended in the order of their
last creation, which gives the same list from any state in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import Any

from .facts import BlobFact, BlobGone, ChildFact, Fact, KeysFact, NodeFact, NodeGone
from .layout import METADATA
from .location import Path, fold_name

_NONE: frozenset[str] = frozenset()  # what the sets of an effect begin as: most stay empty, and there are three a node


class Effect:
    """The net effect of a window on one node, and in `below` on the nodes under it."""

    __slots__ = (
        "_deep",
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
        self.reset = False  # all that was here or below before the window is gone
        self.left: Set[str] = _NONE  # files that the window had put here before it dropped the node
        self.exists: bool | None = None  # at the window's end; None: the window does not say
        self.whole = False  # `keys` and `children` are everything, not changes
        self.keys: dict[str, Any] = {}
        self.unset: Set[str] = _NONE
        self.children: dict[str, bool] = {}  # name -> created (True) or dropped, in the order of the last event
        self.blobs: dict[str, BlobFact | None] = {}  # None: gone, with all below it
        self.cleared: Set[str] = _NONE  # blobs that went, also if they came again
        self.below: dict[str, Effect] = {}
        self._deep = False  # some blob's name leads into a directory blob
        self._inner = False  # or did: it may have gone
        self._names: dict[str, str | None] | None = None  # folded -> actual name, None: free again

    # --- finding ----------------------------------------------------------------------------------------------------

    def at(self, path: Path) -> Effect:
        """The effect on a node, made if there is none yet."""
        effect = self
        for name in path:
            below = effect.below.get(name)
            if below is None:
                below = effect.below[name] = Effect()
            effect = below
        return effect

    def find(self, path: Path) -> tuple[Effect | None, bool]:
        """The effect on a node if there is one, and whether the node's earlier state is gone (reset here or above)."""
        effect, covered = self, self.reset
        for name in path:
            covered = covered or name in effect.blobs  # the name was, or is, a blob's: nothing of a node was there
            below = effect.below.get(name)
            if below is None:
                return None, covered
            effect = below
            covered = covered or effect.reset
        return effect, covered

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, Effect]]:
        """This effect and all below, parents first."""
        yield path, self
        for name, below in self.below.items():
            yield from below.walk((*path, name))

    def is_all(self) -> bool:
        """Whether this says all of the node, and of each that is there below: nothing need be known of the files."""
        if not self.whole:
            return False
        for below in self.below.values():  # noqa: SIM110  half the calls of `all`, and there are thousands
            if below.exists is not False and not below.is_all():
                return False
        return True

    def files_put(self) -> frozenset[str]:
        """The files that the window put here or below, by their names from here; also those that are gone again."""
        return frozenset(self.left).union(self._files_now())

    def _files_now(self) -> Iterator[str]:
        """The same since the window last dropped the node."""
        yield from self.blobs
        yield from (f"{name}/{file}" for name, below in self.below.items() for file in below.files_put())
        if self.exists:
            yield METADATA

    # --- changing ---------------------------------------------------------------------------------------------------

    def set_whole(self, keys: dict[str, Any], children: tuple[str, ...]) -> None:
        """The node exists and this is all of its metadata."""
        if self.whole and tuple(self.children) == children[: len(self.children)]:  # most often one more came
            for name in children[len(self.children) :]:
                self.add_child(name)
        else:
            self.children, self._names = dict.fromkeys(children, True), None
        self.exists, self.whole = True, True
        self.keys, self.unset = dict(keys), _NONE

    def set_keys(self, values: dict[str, Any]) -> None:
        """Keys get values; a key that had one keeps its place."""
        self.keys.update(values)
        if self.unset:
            _changeable(self.unset).difference_update(values)

    def unset_keys(self, names: Iterable[str]) -> None:
        """Keys go."""
        for name in names:
            self.keys.pop(name, None)
            if not self.whole:
                self.unset = unset = _changeable(self.unset)
                unset.add(name)

    def add_child(self, name: str) -> None:
        """A child was created: it becomes the last one."""
        self._note(name, name)
        self.children.pop(name, None)
        self.children[name] = True  # last: interrupted before it, a whole node that is met again still brings it

    def drop_child(self, name: str) -> None:
        """A child was dropped."""
        self.children.pop(name, None)
        if not self.whole:
            self.children[name] = False
        self._note(name, None)

    def drop_node(self, name: str) -> None:
        """The node below, and all below that, is gone."""
        before, gone = self.below.get(name), Effect()
        gone.reset, gone.exists = True, False
        if before is not None:
            left = _changeable(before.left)  # handed on, for a name may come and go as often as there are records
            left.update(before._files_now())
            gone.left = left
        self.below[name] = gone
        self._note(name, None)

    def put_blob(self, fact: BlobFact) -> None:
        """A blob got this content."""
        if self._deep and "/" not in fact.name:
            self.drop_blob(fact.name)
        self._deep = self._deep or "/" in fact.name
        self._inner = self._inner or self._deep
        self.blobs.pop(fact.name, None)
        self.blobs[fact.name] = fact
        top = fact.name.partition("/")[0]
        self._note(top, top)

    def drop_blob(self, name: str) -> None:
        """A blob, or a directory blob with all below it, is gone."""
        if self._deep:
            for inner in [other for other in self.blobs if other.startswith(name + "/")]:
                del self.blobs[inner]
        self.blobs.pop(name, None)
        self.blobs[name] = None
        self.cleared = cleared = _changeable(self.cleared)
        cleared.add(name)
        if "/" not in name:
            self._note(name, None)
        else:
            self._inner = True

    def apply(self, fact: Fact) -> None:
        """Fold one more fact in; `self` is the root's effect."""
        if isinstance(fact, NodeGone):
            self.at(fact.path[:-1]).drop_node(fact.path[-1])
            return
        effect = self.at(fact.path)
        match fact:
            case NodeFact():
                effect.set_whole(fact.keys, fact.children)
            case KeysFact():
                effect.set_keys(fact.set)
                effect.unset_keys(fact.unset)
            case ChildFact():
                (effect.add_child if fact.created else effect.drop_child)(fact.name)
            case BlobFact():
                effect.put_blob(fact)
            case BlobGone():
                effect.drop_blob(fact.name)

    # --- laying over --------------------------------------------------------------------------------------------------

    def over_keys(self, keys: dict[str, Any]) -> dict[str, Any]:
        """The node's keys at the window's end, from those of any state inside it."""
        if self.whole:
            return dict(self.keys)
        if not self.keys and not self.unset:
            return keys
        return {**{name: value for name, value in keys.items() if name not in self.unset}, **self.keys}

    def over_children(self, children: Iterable[str]) -> dict[str, bool]:
        """The node's children at the window's end, in order, from those of any state inside it."""
        if self.whole:
            return dict(self.children)
        result = {name: True for name in children if name not in self.children}
        result.update((name, True) for name, created in self.children.items() if created)
        return result

    def over_names(self, names: set[str]) -> set[str]:
        """The names of the node's top-level blobs at the window's end."""
        # what a dropped node left may be there still, and where there are no folders it looks like a directory blob
        result = {name for name in names if name not in self.below or self.below[name].exists is not False}
        for name, fact in self.blobs.items():
            if fact is not None:
                result.add(name.partition("/")[0])
            elif "/" not in name:
                result.discard(name)
        return result

    def over_blob_files(self, name: str, files: set[str]) -> set[str]:
        """The files of the directory blob `name` at the window's end, as blob names."""
        result = set() if self.blob(name)[1] else set(files)
        for other, fact in self.blobs.items() if self._inner else ():
            if fact is not None and other.startswith(name + "/"):
                result.add(other)
            elif fact is None and other.startswith(name + "/"):
                result -= {file for file in result if file == other or file.startswith(other + "/")}
        return result

    def blob(self, name: str) -> tuple[BlobFact | None, bool]:
        """What the window says of a blob: its content if it ends present; True if what was there before is gone."""
        if name in self.blobs:
            return self.blobs[name], True
        node = self.below.get(name.partition("/")[0])
        if node is not None and node.reset:
            return None, True  # what stands there was, or is, a node
        parent = name.rpartition("/")[0]
        while parent:
            if parent in self.blobs:
                return None, True
            parent = parent.rpartition("/")[0]
        return None, False

    def blob_below(self, name: str) -> bool:
        """Whether the window puts a file into the directory blob `name`."""
        return self._deep and any(f is not None and n.startswith(name + "/") for n, f in self.blobs.items())

    def name_taken(self, folded: str) -> tuple[str | None, bool]:
        """The child or top-level blob whose folded name is `folded`, and whether the window says anything about it."""
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
        """A name came, or went: unless it changed its kind and is there as the other, or a twin of it is there."""
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
    """The set, or a new one in place of the empty one that it began as."""
    return names if isinstance(names, set) else set()


def fold(facts: Iterable[Fact], effect: Effect | None = None) -> Effect:
    """The net effect of facts in order, on top of `effect` (changed in place) if given; the result is the root's."""
    effect = Effect() if effect is None else effect
    for fact in facts:
        effect.apply(fact)
    return effect
