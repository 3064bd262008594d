"""What must hold before a tree of metatreedb 0.2.3 is adopted, which cannot be undone: each node that is listed can be
read. Reads each metadata.json once and writes nothing."""

from __future__ import annotations

import wal

from . import folders, layout
from .errors import CorruptionError
from .location import Path

_SHOWN = 5  # bad files named in a message


def check_adoptable(storage: wal.Storage, depth: int) -> None:
    """`depth`: the number of levels. Raises CorruptionError naming what to change, if nodes would be lost."""
    try:
        listed = bool(storage.read(layout.METADATA).data)
    except FileNotFoundError:
        listed = False
    except (IsADirectoryError, wal.UnsafePathError):
        listed = True  # refused below
    if not listed:
        _refuse_unlisted(storage)
        return
    bad: list[str] = []
    level: list[Path] = [()]
    while level:
        looks = _look_at(storage, level)
        bad += [error for _, error in looks if error]
        level = [(*path, name) for path, (names, _) in zip(level, looks, strict=True) for name in names]
        level = [path for path in level if len(path) <= depth]
    if bad:
        more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise CorruptionError(
            f"{storage.url} is a tree of metatreedb 0.2.3 with nodes that could not be read once it is adopted, which "
            "cannot be undone; nothing was changed. Correct these files, or take the name of the node out of "
            f'"children" in the {layout.METADATA} above it, then open the tree again: ' + "; ".join(bad[:_SHOWN]) + more
        )


def _look_at(storage: wal.Storage, paths: list[Path]) -> list[tuple[tuple[str, ...], str]]:
    """(the children of a node, what is wrong with its file) for each. A file that is missing or empty, as a client that
    died leaves it, has neither: `check` reports it."""

    def look(path: Path) -> tuple[tuple[str, ...], str]:
        name = layout.metadata(path)
        try:
            stored = storage.read(name)
            return (folders.parse_node(name, stored).children if stored.data else ()), ""
        except (FileNotFoundError, NotADirectoryError):
            return (), ""
        except IsADirectoryError:
            return (), f"{name} is a folder, not a file"
        except wal.UnsafePathError as error:
            return (), str(error)
        except CorruptionError as error:
            return (), f"{name}: {error.__cause__}"

    if storage.capabilities.append_log:
        return [look(path) for path in paths]  # a local disk: threads would only cost time
    return wal.spread(look, paths)


def _refuse_unlisted(storage: wal.Storage) -> None:
    """Refuse a tree whose root lists no nodes although there are folders of nodes: all would silently be dropped."""
    names = sorted(
        entry.name
        for entry in storage.list("")
        if entry.kind is wal.Kind.FOLDER and storage.entry(f"{entry.name}/{layout.METADATA}") is not None
    )
    if names:
        shown = ", ".join(f'"{name}"' for name in names[:5]) + (", …" if len(names) > 5 else "")
        raise CorruptionError(
            f"{storage.url}/{layout.METADATA} is missing or empty, so that the {len(names)} nodes below the root would "
            f'be dropped: restore it, or write {{"children": [{shown}]}} into it, then open the tree again'
        )
