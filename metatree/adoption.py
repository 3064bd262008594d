"""Whether a tree of metatreedb 0.2.3 can be adopted, which cannot be undone: its files are read before."""

from __future__ import annotations

import wal

from . import folders, layout
from .errors import CorruptionError
from .location import Path

_SHOWN = 5  # files named in a message


def check(storage: wal.Storage, depth: int) -> None:
    """Raises CorruptionError if nodes would be lost: the root's metadata.json, which alone lists them, is missing or
    empty, or there are files that hold something and cannot be read (a value such as NaN, a child's name that is not
    valid; a link). Nothing is changed. `depth`: the tree's levels."""
    if not _content(storage, layout.METADATA):
        _require_no_nodes(storage)
        return
    faults: list[str] = []
    level: list[Path] = [()]
    while level:
        wal.safe_point()
        files = [layout.metadata(path) for path in level]
        below: list[Path] = []
        for path, found in zip(level, wal.spread(lambda file: _children(storage, file), files), strict=True):
            if isinstance(found, str):
                faults.append(found)
            elif len(path) < depth:
                below += [(*path, child) for child in found]
        level = below
    if faults:
        more = f"; and {len(faults) - _SHOWN} more files" if len(faults) > _SHOWN else ""
        raise CorruptionError(
            f"{storage.url} is a tree of metatreedb 0.2.3 with nodes that could not be read any more: "
            f"{'; '.join(faults[:_SHOWN])}{more}. Nothing was changed: correct each file with 0.2.3 or an editor (a "
            "name in the list, and its folder), then open the tree again"
        )


def _content(storage: wal.Storage, file: str) -> bytes:
    try:
        return storage.read(file).data
    except (FileNotFoundError, NotADirectoryError):
        return b""


def _children(storage: wal.Storage, file: str) -> tuple[str, ...] | str:
    """A node's children, or why its file cannot be read. One that is missing or empty is left for `check` to find."""
    try:
        data = _content(storage, file)
        return folders.parse_node(file, wal.Stored(data, None)).children if data else ()
    except CorruptionError as error:
        return f"{file}: {error.__cause__}"
    except wal.UnsafePathError as error:
        return f"{file}: {error.strerror}"


def _require_no_nodes(storage: wal.Storage) -> None:
    names = sorted(
        entry.name
        for entry in storage.list("")
        if entry.kind is wal.Kind.FOLDER and storage.entry(f"{entry.name}/{layout.METADATA}") is not None
    )
    if names:
        shown = ", ".join(f'"{name}"' for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        raise CorruptionError(
            f"{storage.url}/{layout.METADATA} is missing or empty, so that the {len(names)} nodes below the root would "
            f'be dropped: restore it, or write {{"children": [{shown}]}} into it, then open the tree again'
        )
