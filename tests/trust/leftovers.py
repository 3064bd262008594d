"""The tree in a folder that somebody left: what opening it again finds, asked once of equal folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from metatree import Metatree
from tests.tree.model import LEVELS, State, dump, plain
from wal.storage.posix import Posix


@dataclass(frozen=True)
class Left:
    """A tree that somebody left, after it was opened again."""

    state: State
    problem: str | None  # that is one whatever was acknowledged


def recovered(root: str) -> Left:
    """Open what is left twice, and check all of it. Raises what opening it raises."""
    first: State | None = None
    for attempt in ("first", "second"):
        with Metatree(root, LEVELS) as tree:
            found = dump(tree)
            report = tree.check(deep=first is None)
        first = first or found
        if found != first:
            return Left(found, "the second opening finds another state than the first")
        if not report.ok:
            return Left(found, f"{attempt} opening: {report}")
        if plain(Posix(), root) != found:
            return Left(found, f"{attempt} opening: the folders are not what the library shows")
    return Left(found, None)


class Recovered:
    """`recover`, which is asked once of equal folders."""

    def __init__(self, recover: Callable[[str], Left] = recovered) -> None:
        self._recover = recover
        self._known: dict[bytes, Left] = {}

    @property
    def distinct(self) -> int:
        """How many different folders there were."""
        return len(self._known)

    def __call__(self, root: str) -> Left:
        mark = content(root)
        if mark not in self._known:
            self._known[mark] = self._recover(root)
        return self._known[mark]


def content(root: str) -> bytes:
    """The same for folders with the same names, contents, modes, attributes and numbers of links."""
    found = sha256()
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in [*folders, *sorted(names)]:
            path = f"{folder}/{name}"
            status = os.lstat(path)
            attributes = [(kind, os.getxattr(path, kind)) for kind in os.listxattr(path)]
            found.update(repr((path[len(root) :], status.st_mode, status.st_size, attributes)).encode())
            if name not in folders:
                found.update(b"%d" % status.st_nlink)
                found.update(Path(path).read_bytes())
    return found.digest()
