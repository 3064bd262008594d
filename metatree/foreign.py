"""What is not the engine's own in a node's folder: it carries no attribute. Found, and given back after a replay."""

from __future__ import annotations

import wal

from . import layout
from .folders import Attribute


def holds_foreign(storage: wal.Storage, name: str) -> bool:
    """Whether a file, or a file anywhere in a folder, carries no attribute of the engine."""
    entry = storage.entry(name)
    if entry is None or entry.kind is wal.Kind.OTHER:
        return entry is not None
    if entry.kind is wal.Kind.FILE:
        return storage.attribute(name) is None
    return any(holds_foreign(storage, f"{name}/{inner.name}") for inner in storage.list(name))


def is_foreign(storage: wal.Storage, name: str) -> bool:
    """Whether neither a file nor anything in a folder, nor the folder itself, carries an attribute of the engine."""
    entry = storage.entry(name)
    if entry is None or entry.kind is wal.Kind.OTHER:
        return entry is not None
    if storage.attribute(name) is not None:
        return False
    inner = storage.list(name) if entry.kind is wal.Kind.FOLDER else []
    return all(is_foreign(storage, f"{name}/{below.name}") for below in inner)


def keep(storage: wal.Storage, lsn: int, name: str, content: wal.Content) -> str:
    """Put a copy of a file that somebody changed into the quarantine; its name there. The file itself stays until it is
    replaced, so that nobody misses it meanwhile."""
    kept, number = layout.quarantine("edited", f"{lsn}/{name}"), 0
    while storage.entry(kept if not number else f"{kept}.{number}") is not None:
        number += 1
    kept = kept if not number else f"{kept}.{number}"
    storage.publish(kept, content, b"", durable=True, expect="")
    return kept


def give_back(storage: wal.Storage, aside: str, folder: str, since: int | None, ours: frozenset[str]) -> None:
    """A node that is made once more keeps what is foreign in the one that stood there, which was moved to `aside`.

    Only if that one was published for records after `since`, the beginning of the window that is applied: what was in
    a node from before, which the window dropped, went with it. None: the window dropped nothing there. (If the window
    made and dropped a node of this name before, this one may be meant: then too much is given back, never too little.)
    `ours`: files, by their names in the node, that are not foreign even if they carry no attribute.
    """
    if not storage.capabilities.attributes or not (since is None or _is_made_since(storage, aside, since)):
        return
    for entry in storage.list(aside):
        old, new = f"{aside}/{entry.name}", f"{folder}/{entry.name}"
        there = storage.entry(new)
        below = frozenset(name.partition("/")[2] for name in ours if name.partition("/")[0] == entry.name)
        if there is None and not below and is_foreign(storage, old):
            storage.set_aside(old, new)
        elif there is not None and there.kind is entry.kind is wal.Kind.FOLDER and "" not in below:
            give_back(storage, old, new, since, below)


def _is_made_since(storage: wal.Storage, folder: str, since: int) -> bool:
    """Whether it is a node's folder (that of a directory blob is marked) that the window made."""
    entry = storage.entry(folder)
    if entry is None or entry.kind is not wal.Kind.FOLDER or storage.attribute(folder) is not None:
        return False
    metadata = f"{folder}/{layout.METADATA}"
    entry = storage.entry(metadata)
    if entry is None or entry.kind is not wal.Kind.FILE:
        return False
    attribute = Attribute.decode(storage.attribute(metadata))
    return attribute is not None and attribute.lsn > since
