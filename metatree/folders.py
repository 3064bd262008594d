"""Reads node folders and metadata.json on the storage. (apply.py writes them.)"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import wal

from . import jsontext, layout
from .errors import CorruptionError
from .location import Path, check_name, join
from .values import CHILDREN, check_values


class Attribute(NamedTuple):
    """The attribute that the engine attaches to each file it publishes."""

    lsn: int  # of the record that brought it
    sha256: str  # of the content, 64 hex digits

    def encode(self) -> bytes:
        return jsontext.dump({"lsn": self.lsn, "sha256": self.sha256})

    @staticmethod
    def decode(data: bytes | None) -> Attribute | None:
        """The attribute; None if it is absent or foreign, which means 'unknown' and is never an error."""
        if data is None:
            return None
        try:
            value = jsontext.load(data)
            return Attribute(int(value["lsn"]), str(value["sha256"]))
        except (ValueError, KeyError, TypeError):
            return None


def attribute_of(storage: wal.Storage, file: str, handle: BinaryIO) -> Attribute | None:
    """The attribute of an open file; where reading it costs a request, the handle has it already."""
    return Attribute.decode(handle.attribute if hasattr(handle, "attribute") else storage.attribute(file))


class NodeFile(NamedTuple):
    """A metadata.json, parsed."""

    keys: dict[str, Any]
    children: tuple[str, ...]
    size: int  # bytes
    edited: bool  # its content is not what the engine published


def digest(data: bytes | memoryview) -> str:
    """sha256, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(storage: wal.Storage, name: str, tell: Callable[[int], object] = lambda _: None) -> str:
    """The same of a file's content, however large; `tell` is called with the size of each part that was read."""
    hasher = hashlib.sha256()
    with storage.open(name) as stream:
        while chunk := stream.read(1 << 20):
            hasher.update(chunk)
            tell(len(chunk))
    return hasher.hexdigest()


def render(keys: dict[str, Any], children: list[str]) -> bytes:
    """The text of a metadata.json: `children` first if there are any, then the keys."""
    return jsontext.dump_readable({CHILDREN: children, **keys} if children else keys)


def is_edited(stored: wal.Stored) -> bool:
    """Whether a file that the engine published was edited by hand; False if that is unknown."""
    attribute = Attribute.decode(stored.attribute)
    return attribute is not None and attribute.sha256 != digest(stored.data)


def is_unmarked(storage: wal.Storage, stored: wal.Stored) -> bool:
    """Whether a metadata.json lacks the engine's attribute: another program replaced it, or the tree was copied without
    attributes. The empty one of a new root has none either, but has no content to lose."""
    marked = Attribute.decode(stored.attribute) is not None
    return storage.capabilities.attributes and not marked and stored.data != render({}, [])


def read_node(storage: wal.Storage, path: Path) -> NodeFile:
    """A node's metadata.json. Raises FileNotFoundError, CorruptionError naming the file."""
    name = layout.metadata(path)
    try:
        stored = storage.read(name)
    except IsADirectoryError as error:
        raise not_a_file(name) from error
    return parse_node(name, stored)


def read_nodes(storage: wal.Storage, paths: Sequence[Path]) -> dict[Path, NodeFile | None]:
    """Several metadata.json files, read in parallel; None for one that cannot be read."""

    def read(path: Path) -> NodeFile | None:
        try:
            return read_node(storage, path)
        except (OSError, CorruptionError):
            return None

    return dict(zip(paths, wal.spread(read, paths), strict=True))


def parse_node(name: str, stored: wal.Stored) -> NodeFile:
    """Parse a metadata.json. Raises CorruptionError naming the file."""
    edited = is_edited(stored)
    known = Attribute.decode(stored.attribute) is not None and not edited
    try:
        value = (jsontext.load if known else jsontext.load_strict)(stored.data)
        if not isinstance(value, dict):
            raise ValueError(f"it holds {type(value).__name__}, not an object")
        children = value.pop(CHILDREN, [])
        if not isinstance(children, list) or len(set(children)) != len(children):
            raise ValueError("'children' is not a list of different names")
        if not known:
            check_values(value)
            for child in children:
                check_name(child)
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptionError(f"{name} cannot be read as a node's metadata: {error}; {_way_out(name)}") from error
    return NodeFile(value, tuple(children), len(stored.data), edited)


NO_NODE_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, TypeError, RecursionError)
"""The causes of the CorruptionError for a metadata.json that is missing or cannot be parsed."""


RESTORING = "restore it, from a backup if repair() cannot"
"""In a message about a file; a plan that cannot repair it says it otherwise."""


def _way_out(name: str) -> str:
    """What to do about a metadata.json that cannot be parsed, for the end of a message."""
    folder = name.rpartition("/")[0]
    if not folder or folder.startswith(layout.QUARANTINE):
        return RESTORING
    return f"{RESTORING}, or give the node up with delete({folder!r}, recursive=True)"


def not_a_file(name: str) -> CorruptionError:
    """The error for a metadata.json that is a folder."""
    return CorruptionError(f"{name} is a folder, not a file: move it away and {_way_out(name)}")


def missing(path: Path) -> CorruptionError:
    """The error for a node whose file, or whole folder, is missing."""
    if not path:
        return CorruptionError(f"the root's {layout.METADATA} is missing; restore it from a backup")
    return CorruptionError(
        f"{layout.metadata(path)} is missing though its parent lists the node {join(path)!r}; restore it from a "
        f"backup, or give the node up with delete({join(path)!r}, recursive=True); check() names what else is missing"
    )


def top_names(storage: wal.Storage, path: Path, children: object, *, leaf: bool) -> set[str]:
    """The names of a node's top-level blobs on the storage: its files, and the folders that are directory blobs.

    A folder is one if the engine made it as one, or if there can be no node below (`leaf`); others are foreign.
    """
    names = set()
    for entry in storage.list(layout.folder(path)):
        if entry.name == layout.METADATA or entry.name in children:  # type: ignore[operator]
            continue
        if not path and entry.name in layout.ENGINE_NAMES:
            continue
        full = layout.blob(path, entry.name)
        if entry.kind is wal.Kind.FILE or (entry.kind is wal.Kind.FOLDER and is_blob_folder(storage, full, leaf=leaf)):
            names.add(entry.name)
    return names


def is_blob_folder(storage: wal.Storage, folder: str, *, leaf: bool) -> bool:
    """Whether a folder that is not a node is a directory blob: the engine made it as one, or there can be no node there
    (`leaf`). False for one that was removed since it was listed; an object store may list it long after."""
    if leaf and storage.capabilities.folders:
        return True
    try:
        return storage.attribute(folder) is not None or leaf
    except (FileNotFoundError, NotADirectoryError):
        return False


def holds_node(storage: wal.Storage, folder: str) -> bool:
    """Whether a folder's metadata.json, another file in it, or a node below it has the engine's attribute. Raises
    nothing if it is removed meanwhile."""
    try:
        entries = {entry.name: entry.kind for entry in storage.list(folder)}
        if not storage.capabilities.attributes or entries.pop(layout.METADATA, None) is not wal.Kind.FILE:
            return False
        files = [layout.METADATA, *(name for name, kind in entries.items() if kind is wal.Kind.FILE)]
        if any(Attribute.decode(storage.attribute(f"{folder}/{name}")) is not None for name in files):
            return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    return any(holds_node(storage, f"{folder}/{name}") for name, kind in entries.items() if kind is wal.Kind.FOLDER)


def files_below(storage: wal.Storage, path: Path, name: str, *, whole: bool = False) -> Iterator[str]:
    """The files of a directory blob, as blob names. Raises as `entries_below`; `whole`: also UnsafePathError for a link
    or special file in it, without which the blob would be incomplete."""
    for inner, kind in entries_below(storage, path, name):
        if kind is wal.Kind.FILE:
            yield inner
        elif whole:
            reason = "a symbolic link or special file in a directory blob, not opened: move it out of the tree first"
            raise wal.UnsafePathError(errno.ELOOP, reason, layout.blob(path, inner))


def entries_below(storage: wal.Storage, path: Path, name: str) -> Iterator[tuple[str, wal.Kind]]:
    """What a directory blob holds besides folders, as blob names ('dir/sub/file') in no order. Folders inside it that
    are removed during the walk are skipped. Raises FileNotFoundError, NotADirectoryError if it is not a folder."""
    pending = [name]
    while pending:
        folder = pending.pop()
        try:
            entries = storage.list(layout.blob(path, folder))
        except (FileNotFoundError, NotADirectoryError):
            if folder == name:
                raise
            continue
        for entry in entries:
            inner = f"{folder}/{entry.name}"
            if entry.kind is wal.Kind.FOLDER:
                pending.append(inner)
            else:
                yield inner, entry.kind


def is_tree(storage: wal.Storage, name: str) -> bool:
    """Whether a folder is the root of a tree. False if its `.metatree` was put, as a file of a directory blob."""
    file = f"{name}/{layout.CONFIG}"
    entry = storage.entry(file)
    return entry is not None and entry.kind is wal.Kind.FILE and Attribute.decode(storage.attribute(file)) is None


def trees_below(storage: wal.Storage, name: str) -> Iterator[str]:
    """The folders at and below `name` that are roots of trees."""
    pending = [name]
    while pending:
        folder = pending.pop()
        try:
            entries = storage.list(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if any(entry.name == layout.CONFIG for entry in entries) and is_tree(storage, folder):
            yield folder
            continue
        pending += [f"{folder}/{entry.name}" for entry in entries if entry.kind is wal.Kind.FOLDER]


def is_headless(storage: wal.Storage, name: str) -> bool:
    """Whether it is a folder with content, but without metadata.json, that is not a directory blob of ours."""
    entry = storage.entry(name)
    if entry is None or entry.kind is not wal.Kind.FOLDER or storage.entry(f"{name}/{layout.METADATA}") is not None:
        return False
    return bool(storage.list(name)) and storage.attribute(name) is None


def is_foreign_file(storage: wal.Storage, name: str) -> bool:
    """Whether there is a file without our attribute. (One with it may be a file that is not removed yet.)"""
    entry = storage.entry(name)
    try:
        return entry is not None and entry.kind is wal.Kind.FILE and storage.attribute(name) is None
    except (FileNotFoundError, NotADirectoryError):
        return False
