"""A node's metadata as callers get it: read-only all the way down, and watched where a transaction reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from .location import Path
from .reads import ReadSet


class Metadata(Mapping[str, Any]):
    """The keys of a node at one moment. Lists and dicts in it are copies: changing them changes nothing.

    Inside a transaction each key that is looked at goes into the read set, so that changes of other keys commute.
    """

    __slots__ = ("_keys", "_path", "_reads", "_still")

    def __init__(
        self, keys: dict[str, Any], reads: ReadSet, path: Path, still: Callable[[ReadSet], None] | None = None
    ) -> None:
        """`still`: inside a transaction, raises ConflictError if what is looked at only now has changed since."""
        self._keys = keys
        self._reads = reads
        self._path = path
        self._still = still

    def __getitem__(self, key: str) -> Any:
        self._look(lambda reads: reads.key(self._path, key))
        value = self._keys[key]
        return deepcopy(value) if isinstance(value, (dict, list)) else value

    def __iter__(self) -> Iterator[str]:
        self._look(lambda reads: reads.all_keys(self._path))
        return iter(self._keys)

    def __len__(self) -> int:
        self._look(lambda reads: reads.all_keys(self._path))
        return len(self._keys)

    def __repr__(self) -> str:
        self._look(lambda reads: reads.all_keys(self._path))
        return repr(self._keys)

    def _look(self, note: Callable[[ReadSet], None]) -> None:
        note(self._reads)
        if self._still is not None:
            looked_at = ReadSet()
            note(looked_at)
            self._still(looked_at)
