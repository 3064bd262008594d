"""A node's metadata as callers get it: read-only all the way down, and watched where a transaction reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from .location import Path
from .reads import Watch


class Metadata(Mapping[str, Any]):
    """The keys of a node at one moment. Lists and dicts in it are copies: changing them changes nothing.

    Inside a transaction each key that is looked at goes into the read set, so that changes of other keys commute.
    """

    __slots__ = ("_keys", "_path", "_watch")

    def __init__(self, keys: dict[str, Any], path: Path, watch: Watch | None = None) -> None:
        """`watch`: inside a transaction, is told what is looked at."""
        self._keys = keys
        self._path = path
        self._watch = watch

    def __getitem__(self, key: str) -> Any:
        if self._watch is not None:
            self._watch(lambda reads: reads.key(self._path, key))
        value = self._keys[key]
        return deepcopy(value) if isinstance(value, (dict, list)) else value

    def __iter__(self) -> Iterator[str]:
        self._look_at_all()
        return iter(self._keys)

    def __len__(self) -> int:
        self._look_at_all()
        return len(self._keys)

    def __repr__(self) -> str:
        self._look_at_all()
        return repr(self._keys)

    def _look_at_all(self) -> None:
        if self._watch is not None:
            self._watch(lambda reads: reads.all_keys(self._path))
