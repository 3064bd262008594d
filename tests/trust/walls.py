"""A boundary that lets no call leave the root or touch a special file, and a place outside that must stay as it is."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.tree.storages import Elsewhere
from wal.storage.posix import Posix
from wal.testing import Boundary, Call

T = TypeVar("T")
FOLLOWING = {"stat", "listdir", "getxattr", "setxattr"}  # calls that would go through a link at the end of a path
KERNEL = {"kernel_file", "host", "realpath"}


class Walls(Boundary):
    """Notes each call whose path, links followed as the call itself would, lies outside of the root."""

    def __init__(self, root: Path, *, mount: bool) -> None:
        super().__init__(Elsewhere() if mount else Posix())
        self._root = os.path.realpath(root)
        self.escapes: list[str] = []

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.method not in KERNEL:
            for path in {call.path, *(each for each in call.arguments if isinstance(each, str) and each[:1] == "/")}:
                self._look(call, path)
        return run()

    def _look(self, call: Call, path: str) -> None:
        flags = call.arguments[1] if call.method in ("open", "open_read") else os.O_NOFOLLOW
        follows = call.method in FOLLOWING or (isinstance(flags, int) and not flags & os.O_NOFOLLOW)
        above, _, name = path.rpartition("/")
        real = os.path.realpath(path) if follows else f"{os.path.realpath(above)}/{name}"
        if real != self._root and not real.startswith(f"{self._root}/"):
            self.escapes.append(f"{call.method} {path} -> {real}")
        if call.method in ("open", "open_read") and os.path.lexists(path):
            mode = os.lstat(path).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                self.escapes.append(f"{call.method} of a link or special file: {path}")


Picture = dict[str, tuple[object, ...]]


def canary(folder: Path) -> Path:
    """A folder outside that looks like everything the engine might look for."""
    outside = folder / "outside"
    for name in ("metadata.json", ".metatree", "b", "inner", "v1/b", "head", "checkpoint.json", "1", "tmp/x", "owner"):
        file = outside / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b'{"children": ["v1"], "canary": true}')
    return outside


def picture(folder: Path) -> Picture:
    """All that could have changed; not when it was read last, which this very look changes."""
    found: Picture = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        attributes = tuple(os.listxattr(path)) if content is not None else ()
        name = path.relative_to(folder).as_posix()
        found[name] = (status.st_mode, status.st_ino, status.st_nlink, status.st_mtime_ns, content, attributes)
    return found
