"""Hosts that share a storage, played in one process: time that the test moves, and a word in every storage call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from hashlib import sha256
from typing import Any, cast

from wal.clock import Clock
from wal.storage.base import Storage

Around = Callable[[str, tuple[Any, ...], Callable[[], Any]], Any]
"""`around(method, arguments, run)`: makes the call, or not, or raises, or makes it later; returns its result."""

CALLS = frozenset(
    {
        "read",
        "open",
        "attribute",
        "list",
        "entry",
        "create",
        "publish",
        "publish_folder",
        "set_aside",
        "make_folder",
        "stage",
        "stage_existing",
        "sync_folder",
        "sync",
        "erase",
        "versions",
        "remove",
        "retire",
    }
)


class ManualClock(Clock):
    """Time stands still but for `now` and for those who sleep; tokens follow from the seed, and none comes twice."""

    def __init__(self, seed: int = 0, on_sleep: Callable[[float], None] | None = None) -> None:
        self.now = 0.0  # seconds
        self._seed = seed
        self._drawn = 0
        self._on_sleep = on_sleep

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self._on_sleep is not None:
            self._on_sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """At once, as if `event` had come: no thread works by itself under this clock."""
        return True

    def token(self, size: int) -> bytes:
        self._drawn += 1
        return sha256(b"%d/%d" % (self._seed, self._drawn)).digest()[:size]


class _Calls:
    """See `watched`."""

    def __init__(self, inner: Storage, around: Around) -> None:
        self._inner = inner
        self._around = around

    @property
    def url(self) -> str:
        return self._inner.url

    def fenced(self, folder: str) -> Storage:
        return watched(self._inner.fenced(folder), self._around)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in CALLS:
            return method
        return lambda *args, **options: self._around(name, args, lambda: method(*args, **options))


def watched(storage: Storage, around: Around) -> Storage:
    """`storage`, with each of its calls, also through a fence, handed to `around`."""
    return cast(Storage, _Calls(storage, around))
