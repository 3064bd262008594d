"""A storage whose every call is told to a test before it is made, so that something can happen between any two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import wal

READING = frozenset({"read", "open", "attribute", "list", "entry", "versions"})
WRITING = frozenset(
    {
        *("create", "publish", "publish_folder", "set_aside", "make_folder", "stage", "stage_existing"),
        *("sync_folder", "sync", "erase", "remove", "retire"),
    }
)


class Stepping:
    """`wal.Storage` over another one; so are the views that `fenced` gives."""

    def __init__(
        self,
        inner: wal.Storage,
        before: Callable[[str, tuple[Any, ...]], None],
        created: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`before` is called with a method's name and its positional arguments, `created` with what `create` won."""
        self._inner = inner
        self._before = before
        self._created = created

    def fenced(self, folder: str) -> Stepping:
        return Stepping(self._inner.fenced(folder), self._before, self._created)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name not in READING | WRITING:
            return value

        def call(*arguments: Any, **more: Any) -> Any:
            self._before(name, arguments)
            result = value(*arguments, **more)
            if name == "create" and result:
                self._created(arguments[0])
            return result

        return call
