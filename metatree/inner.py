"""Names of files in directory blobs, such as 'd/sub/file', by the folders above them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

_NONE: frozenset[str] = frozenset()


class InnerNames:
    """A set of names. Those below a folder are found without a look at the others."""

    __slots__ = ("_below",)

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._below: dict[str, set[str]] = {}  # folder -> the names below it, at any depth; none is empty
        folders: dict[str, list[str]] = {}
        for name in names:
            folders.setdefault(name.rpartition("/")[0], []).append(name)
        for folder, inside in folders.items():
            for above in prefixes(f"{folder}/" if folder else ""):
                self._below.setdefault(above, set()).update(inside)

    def below(self, folder: str) -> Set[str]:
        """The names below a folder, at any depth."""
        return self._below.get(folder, _NONE)

    def add(self, name: str) -> None:
        """Add a name; without '/' it is below no folder, and forgotten."""
        for folder in prefixes(name):
            self._below.setdefault(folder, set()).add(name)

    def discard(self, name: str) -> None:
        """Remove a name if it is there."""
        for folder in prefixes(name):
            names = self._below.get(folder)
            if names is not None:
                names.discard(name)
                if not names:
                    del self._below[folder]


def prefixes(name: str) -> Iterator[str]:
    """The names of all folders, so to speak, that contain a file or an object; the uppermost first."""
    at = name.find("/")
    while at >= 0:
        yield name[:at]
        at = name.find("/", at + 1)
