"""Foreign content: files and folders without the engine's attribute. Finds it, and returns it after a replay."""

from __future__ import annotations

from collections.abc import Set

import wal

from . import config, layout
from .folders import Attribute, is_blob_folder
from .location import Path


def holds_foreign(storage: wal.Storage, name: str) -> bool:
    """Whether the file, or some file in the folder or below it, lacks the engine's attribute."""
    entry = storage.entry(name)
    if entry is None or entry.kind is wal.Kind.OTHER:
        return entry is not None
    if entry.kind is wal.Kind.FILE:
        return storage.attribute(name) is None
    return any(holds_foreign(storage, f"{name}/{inner.name}") for inner in storage.list(name))


def is_foreign(storage: wal.Storage, name: str) -> bool:
    """Whether the file or folder and everything below it lacks the engine's attribute."""
    entry = storage.entry(name)
    if entry is None or entry.kind is wal.Kind.OTHER:
        return entry is not None
    if storage.attribute(name) is not None:
        return False
    inner = storage.list(name) if entry.kind is wal.Kind.FOLDER else []
    return all(is_foreign(storage, f"{name}/{below.name}") for below in inner)


def is_unknown_folder(storage: wal.Storage, path: Path, name: str) -> bool:
    """Whether the log, to which `name` in a node is a blob, does not know the folder there: no directory blob of ours,
    but a foreign folder, or a node that its parent does not list."""
    if "/" in name or not storage.capabilities.attributes or not storage.capabilities.folders:
        return False
    folder = layout.blob(path, name)
    entry = storage.entry(folder)
    if entry is None or entry.kind is not wal.Kind.FOLDER:
        return False
    found = config.read(storage)
    return not is_blob_folder(storage, folder, leaf=found is not None and len(path) >= len(found.keys))


def keep(storage: wal.Storage, lsn: int, name: str, content: wal.Content, why: str = "edited") -> str:
    """Put a copy of a file that was edited by hand, or is not the engine's, into the quarantine; returns its name
    there. The file itself stays in place until it is replaced or removed."""
    kept, number = layout.quarantine(why, f"{lsn}/{name}"), 0
    while storage.entry(kept if not number else f"{kept}.{number}") is not None:
        number += 1
    kept = kept if not number else f"{kept}.{number}"
    storage.publish(kept, content, b"", durable=True, expect="")
    return kept


def restore(storage: wal.Storage, aside: str, folder: str, since: int | None, ours: Set[str]) -> None:
    """Move foreign content from `aside`, the earlier folder of a node, into `folder`, where the node was made again.

    Only if the earlier folder was made for a record after `since`, the beginning of the applied window: foreign
    content of an older node was dropped with it. None: the window dropped no node there. (If the window made and
    dropped a node of this name before, the folder may be that one's: then too much is returned, never too little.)
    `ours`: names, relative to the node, of files that are not foreign even if they lack the attribute.
    """
    if not storage.capabilities.attributes or not (since is None or _is_made_since(storage, aside, since)):
        return
    inside: dict[str, set[str]] = {}
    for name in ours:
        top, _, inner = name.partition("/")
        inside.setdefault(top, set()).add(inner)
    for entry in storage.list(aside):
        old, new = f"{aside}/{entry.name}", f"{folder}/{entry.name}"
        there = storage.entry(new)
        below = inside.get(entry.name, set())
        if there is None and not below and is_foreign(storage, old):
            storage.set_aside(old, new)
        elif there is not None and there.kind is entry.kind is wal.Kind.FOLDER and "" not in below:
            restore(storage, old, new, since, below)


def _is_made_since(storage: wal.Storage, folder: str, since: int) -> bool:
    """Whether it is the folder of a node that the window made. A directory blob's folder has an attribute itself."""
    entry = storage.entry(folder)
    if entry is None or entry.kind is not wal.Kind.FOLDER or storage.attribute(folder) is not None:
        return False
    metadata = f"{folder}/{layout.METADATA}"
    entry = storage.entry(metadata)
    if entry is None or entry.kind is not wal.Kind.FILE:
        return False
    attribute = Attribute.decode(storage.attribute(metadata))
    return attribute is not None and attribute.lsn > since
