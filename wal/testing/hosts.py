"""Simulates hosts that share a storage, in one process: a clock that the test moves, a hook in every storage call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from hashlib import sha256
from typing import Any, cast

from wal.clock import Clock
from wal.storage.base import Storage

Around = Callable[[str, tuple[Any, ...], Callable[[], Any]], Any]
"""`around(method, arguments, run)`: makes the call, now, later or not at all, or raises; returns the call's result."""

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
    """Time moves only when `now` is set or someone sleeps; tokens depend on the seed only, and each differs."""

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
        """Return at once, as if `event` were set: no background thread works under this clock."""
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
    """`storage`, with each of its calls, also those through a fence, passed to `around`."""
    return cast(Storage, _Calls(storage, around))
