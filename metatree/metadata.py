"""A node's metadata as returned to callers: read-only at every depth, and recorded when a transaction reads it."""

from __future__ import annotations

from collections.abc import Iterator, KeysView, Mapping
from copy import deepcopy
from typing import Any

from .location import Path
from .reads import Watch


class Metadata(Mapping[str, Any]):
    """The keys of a node at one moment. Lists and dicts in it are copies: changing them changes nothing."""

    __slots__ = ("_keys",)

    def __init__(self, keys: dict[str, Any]) -> None:
        self._keys = keys

    def __getitem__(self, key: str) -> Any:
        value = self._keys[key]
        kind = type(value)
        return deepcopy(value) if kind is dict or kind is list else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return repr(self._keys)

    def keys(self) -> KeysView[str]:
        """The names of the keys. Overrides `Mapping.keys`, with which `dict(metadata)` takes three times as long."""
        return self._keys.keys()


class WatchedMetadata(Metadata):
    """In a transaction: each key that is read goes into the read set, so that changes of other keys do not conflict."""

    __slots__ = ("_path", "_watch")

    def __init__(self, keys: dict[str, Any], path: Path, watch: Watch) -> None:
        """`watch` is called for each read."""
        super().__init__(keys)
        self._path = path
        self._watch = watch

    def __getitem__(self, key: str) -> Any:
        self._watch(lambda reads: reads.key(self._path, key))
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[str]:
        self._look_at_all()
        return super().__iter__()

    def __len__(self) -> int:
        self._look_at_all()
        return super().__len__()

    def __repr__(self) -> str:
        self._look_at_all()
        return super().__repr__()

    def keys(self) -> KeysView[str]:
        """A view that records what is read through it."""
        return KeysView(self)

    def _look_at_all(self) -> None:
        self._watch(lambda reads: reads.all_keys(self._path))
