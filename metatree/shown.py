"""Whether a node that was made again is in place already, as an earlier pass over the same window has left it.

A window counts as applied once all of it is: if one node fails, the next pass applies the others once more, and so does
a committer for one that died. A node that is complete is then left alone. Moving it to the trash and building it again
would make it vanish for a moment each time, and would need its staged content.
"""

from __future__ import annotations

from collections.abc import Iterator

import wal

from . import folders, layout
from .fold import Effect
from .location import Path


def is_shown(storage: wal.Storage, path: Path, effect: Effect, since: int) -> bool:
    """Whether the node's folder is what the engine makes of `effect`, which is all of the node, and was made from
    records after `since`. Judged by the attributes: False where the storage keeps none.

    Foreign content does not count. It was put into this folder, not into that of the node which the window dropped.
    """
    expected = dict(_files(path, effect))
    marked = {layout.blob(path, name) for path, name in _directory_blobs(path, effect)}
    top = layout.metadata(path)
    try:
        if not _is_ours(storage, top, expected[top][1], since):
            return False  # the usual case: the old node
        for name, entry in _walk(storage, layout.folder(path)):
            size, sha256 = expected.pop(name, (0, ""))
            if sha256:
                if entry.kind is not wal.Kind.FILE or entry.size != size or not _is_ours(storage, name, sha256, since):
                    return False
            elif entry.kind is not wal.Kind.OTHER and (storage.attribute(name) is not None) is not (name in marked):
                return False
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not expected


def _is_ours(storage: wal.Storage, name: str, sha256: str, since: int) -> bool:
    attribute = folders.Attribute.decode(storage.attribute(name))
    return attribute is not None and attribute.sha256 == sha256 and attribute.lsn > since


def _files(path: Path, effect: Effect) -> Iterator[tuple[str, tuple[int, str]]]:
    """The files of the node and of all below it: name, (size, sha256)."""
    data = folders.render(effect.keys, list(effect.children))
    yield layout.metadata(path), (len(data), folders.digest(data))
    for fact in effect.blobs.values():
        if fact is not None:
            yield layout.blob(path, fact.name), (fact.size, fact.sha256)
    for name, below in effect.below.items():
        if below.exists is not False:
            yield from _files((*path, name), below)


def _directory_blobs(path: Path, effect: Effect) -> Iterator[tuple[Path, str]]:
    for at, inner in effect.walk(path):
        yield from ((at, fact.name.partition("/")[0]) for fact in inner.blobs.values() if fact and "/" in fact.name)


def _walk(storage: wal.Storage, folder: str) -> Iterator[tuple[str, wal.Entry]]:
    for entry in storage.list(folder):
        name = f"{folder}/{entry.name}"
        yield name, entry
        if entry.kind is wal.Kind.FOLDER:
            yield from _walk(storage, name)
