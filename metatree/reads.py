"""Read sets: what a transaction read, and whether a commit changed it. Pure.

Granularity: a key of a node, all its keys, its lists of children and blobs, a name in its name space of children and
blobs (compared folded, so that `Foo` and `foo` are one), or a whole subtree. Everything else commutes.
"""

from __future__ import annotations

from collections.abc import Callable

from .facts import Changes
from .location import Path, fold_name, join, split


class ReadSet:
    """Grows while a transaction runs; `conflict` is called for every commit since its base."""

    def __init__(self) -> None:
        self._keys: dict[Path, set[str]] = {}
        self._all_keys: set[Path] = set()
        self._lists: set[Path] = set()
        self._names: dict[Path, str | set[str]] = {}  # a set only for two or more, which is rare
        self._trees: set[Path] = set()
        self._creatable: dict[Path, dict[str, str | None]] = {}  # node -> folded name -> name; None: several

    def key(self, path: Path, key: str) -> None:
        """The value, or the absence, of one key."""
        self._keys.setdefault(path, set()).add(key)

    def all_keys(self, path: Path) -> None:
        """Every key."""
        self._all_keys.add(path)

    def names(self, path: Path) -> None:
        """Which children and blobs the node has."""
        self._lists.add(path)

    def name(self, path: Path, name: str) -> None:
        """Whether a child or blob of this name exists, and the blob's content."""
        folded = fold_name(name.partition("/")[0] if "/" in name else name)
        known = self._names.setdefault(path, folded)
        if known == folded:
            return
        if isinstance(known, set):
            known.add(folded)
        else:
            self._names[path] = {known, folded}

    def creatable(self, path: Path, name: str) -> None:
        """Whether a node of this name can be created. Another commit that creates the node does not conflict; one that
        creates a blob of this name, or a name that differs only in case or form, does."""
        names, folded = self._creatable.setdefault(path, {}), fold_name(name)
        names[folded] = name if names.get(folded, name) == name else None

    def tree(self, path: Path) -> None:
        """Everything at and below the node."""
        self._trees.add(path)

    def conflict(self, changes: Changes) -> str | None:
        """What a commit with these changes touched of this set, in words; None if nothing. The cost is the sum of both
        sizes, not their product: both may be large, and nobody can commit during it."""
        dropped: set[Path] = set()
        for text, change in changes.items():
            path = split(text)
            found = self._in_tree(path) or self._in_node(path, change)
            if found:
                return found
            dropped.update((*path, name) for name in change.get("gone", ()))
        return self._in_dropped(dropped) if dropped else None

    def _in_tree(self, path: Path) -> str | None:
        for depth in range(len(path) + 1):
            if path[:depth] in self._trees:
                return f"something at or below {_show(path[:depth])}"
        return None

    def _in_node(self, path: Path, change: dict[str, list[str]]) -> str | None:
        touched = {*change.get("set", ()), *change.get("unset", ())}
        if touched and path in self._all_keys:
            return f"the metadata of {_show(path)}"
        for key in self._keys.get(path, ()):
            if key in touched:
                return f"key {key!r} of {_show(path)}"
        named = [n for kind in ("new", "gone", "put", "del") for n in change.get(kind, ())]
        if named and path in self._lists:
            return f"the list of children and blobs of {_show(path)}"
        read = self._names.get(path)
        if read is not None:
            read = {read} if isinstance(read, str) else read
            for name in named:
                if fold_name(name.partition("/")[0]) in read:
                    return _show((*path, name))
        return self._in_way(path, change)

    def _in_way(self, path: Path, change: dict[str, list[str]]) -> str | None:
        wanted = self._creatable.get(path)
        if not wanted:
            return None
        for name in change.get("new", ()):
            if wanted.get(fold_name(name), name) != name:
                return _show((*path, name))
        for name in change.get("put", ()):
            if fold_name(name.partition("/")[0]) in wanted:
                return _show((*path, name))
        return None

    def _in_dropped(self, dropped: set[Path]) -> str | None:
        for group in (self._keys, self._all_keys, self._lists, self._names, self._trees):
            for read in group:
                for depth in range(1, len(read) + 1):
                    if read[:depth] in dropped:
                        return f"{_show(read[:depth])}, which was deleted"
        return None


class _Unread(ReadSet):
    """For a state that is fixed: what is read there need not be validated, so nothing is recorded."""

    def key(self, path: Path, key: str) -> None:
        pass

    def all_keys(self, path: Path) -> None:
        pass

    def names(self, path: Path) -> None:
        pass

    def name(self, path: Path, name: str) -> None:
        pass

    def creatable(self, path: Path, name: str) -> None:
        pass

    def tree(self, path: Path) -> None:
        pass


UNREAD = _Unread()

Watch = Callable[[Callable[[ReadSet], None]], None]  # called for each later read, with how to record it


def _show(path: Path) -> str:
    return join(path) or "the root"
