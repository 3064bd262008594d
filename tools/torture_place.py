"""Where a tree is that processes are let loose on: a path or URL, its storage options, and how it is opened."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any

import wal
from metatree import Metatree
from wal.testing import Mounted


@dataclass(frozen=True)
class Place:
    """A root, as it can be told to another process."""

    root: str
    options: dict[str, Any] = field(default_factory=dict)
    mount: bool = False  # a local folder, opened as if it were a mount that hosts share
    ttl: float | None = None  # seconds without a sign of life after which a committer is overtaken; None: the usual

    def open(self, keys: Sequence[str] | None = None, **arguments: Any) -> Metatree:
        """The tree, opened by this process."""
        return self.open_on(self.root if not self.mount else self.storage(), keys, **arguments)

    def open_on(self, root: Any, keys: Sequence[str] | None = None, **arguments: Any) -> Metatree:
        """The same on a storage of the caller's."""
        tuning = {} if self.ttl is None else {"ttl": self.ttl}
        kind = type("Metatree", (Metatree,), {"_tuning": tuning})
        options = self.options if isinstance(root, str) else {}
        tree: Metatree = kind(root, None if keys is None else tuple(keys), storage_options=options, **arguments)
        return tree

    def storage(self) -> wal.Storage:
        """The storage below; its root is made if it is missing."""
        if self.mount:
            os.makedirs(self.root, exist_ok=True)
            return wal.LocalStorage(self.root, posix=Mounted())
        wal.make_root(self.root, self.options)
        return wal.open_storage(self.root, self.options)

    def load(self) -> None:
        """Import what opening it takes, for whoever forks: the children then need not. Connects to nothing."""
        taken = {"s3": "s3fs", "webhdfs": "fsspec.implementations.webhdfs"}.get(self.root.partition("://")[0])
        if taken is not None:
            import_module(taken)

    @property
    def is_local(self) -> bool:
        """Whether its files can be read as files of this machine."""
        return wal.local_path(self.root) is not None

    def encode(self) -> str:
        """For a command line of one's own process; shows the options."""
        return json.dumps(asdict(self))

    @staticmethod
    def decode(text: str) -> Place:
        return Place(**json.loads(text))
