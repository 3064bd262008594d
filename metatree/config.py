"""`.metatree`: what kind of tree a folder holds. Created last, by put-if-absent, then immutable.

    {"keys": ["model", "version"], "locking_enabled": true,     what metatreedb 0.2.3 wrote
     "format": 1, "id": "<the log's id>", "log": "append" or "slots", "min_reader": 1, "min_writer": 1,
     "skip_init": true,                                         makes a 0.2.3 client fail, not write past the log
     "adopted": true}                                           only if 0.2.3 made it: its files lack our attribute

Its content depends only on the keys and the log, so two processes that create a tree at once write the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import wal

from . import jsontext, layout
from .errors import CorruptionError, FormatError, InvalidLocationError, MetatreeError
from .location import check_name

FORMAT = 1
LOGS = ("append", "slots")  # for one host; for storage that hosts share
_TRIPWIRE = (
    b"This tree is written by metatree, whose own locks are elsewhere. The file stays: it stops programs of "
    b"metatreedb 0.2.3, which would write past the log. Do not remove it.\n"
)


class Config(NamedTuple):
    """A parsed `.metatree`."""

    keys: tuple[str, ...]  # the levels, from the top
    log_id: str | None  # None: written by metatreedb 0.2.3, not adopted yet
    log: str | None = None  # the kind of the log, see `wal.open_log`
    adopted: bool = False  # made by metatreedb 0.2.3: files without the attribute may be as it left them


def check_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """`keys` as level names. Raises InvalidLocationError if they are not valid ones."""
    if isinstance(keys, str) or not isinstance(keys, Sequence) or not keys:
        raise InvalidLocationError(f"keys name the levels of a tree, such as ('model', 'version'), not {keys!r}")
    result = tuple(check_name(key) for key in keys)
    if len(set(result)) != len(result):
        raise InvalidLocationError(f"two levels have the same name: {', '.join(result)}")
    return result


def read(storage: wal.Storage) -> Config | None:
    """The tree's config; None if there is none. Raises CorruptionError, FormatError."""
    try:
        data = storage.read(layout.CONFIG).data
    except FileNotFoundError:
        return None
    try:
        value = jsontext.load_strict(data)
        if not isinstance(value, dict):
            raise ValueError("not an object")
        return _parse(value)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, MetatreeError) and not isinstance(error, InvalidLocationError):
            raise
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        raise CorruptionError(
            f"{layout.CONFIG} in {storage.url} does not describe a tree: {why}. Restore it from a backup, or write "
            "it again: it holds the level names and the log's id"
        ) from error


def is_adopted(storage: wal.Storage) -> bool:
    """Whether metatreedb 0.2.3 made this tree, so that a file without the attribute may be as that version left it."""
    found = read(storage)
    return found is not None and found.adopted


def _parse(value: dict[str, Any]) -> Config:
    keys = check_keys(value["keys"])
    if "format" not in value:
        return Config(keys, None)
    if value["format"] != FORMAT or value["min_reader"] > FORMAT or value["min_writer"] > FORMAT:
        raise FormatError(
            f"{layout.CONFIG} is of format {value['format']}, unknown to this version: upgrade metatreedb to read it"
        )
    if value["log"] not in LOGS:
        raise FormatError(
            f"{layout.CONFIG} names a log of kind {value['log']!r}, which this version does not know: upgrade"
        )
    if not isinstance(value["id"], str):
        raise ValueError("'id' is not a string")
    return Config(keys, value["id"], value["log"], value.get("adopted") is True)


def render(keys: Sequence[str], log_id: str, log: str, *, adopted: bool = False) -> bytes:
    """The bytes of a tree's `.metatree`."""
    value = {
        "keys": list(keys),
        "locking_enabled": True,
        "format": FORMAT,
        "id": log_id,
        "log": log,
        "min_reader": FORMAT,
        "min_writer": FORMAT,
        "skip_init": True,
    }
    return jsontext.dump_readable({**value, "adopted": True} if adopted else value)


def is_free(storage: wal.Storage) -> bool:
    """Whether a tree can be created here: the place is empty, or holds only what a killed creation may have left."""
    # Probe folders do not count: `metatree doctor` may be running or have been killed, and SeaweedFS lists a folder for
    # a minute after everything in it was removed.
    names = {entry.name for entry in storage.list("") if not entry.name.startswith(layout.PROBE)}
    return not names or (layout.LOG in names and names <= layout.BORN_BEFORE_CONFIG)


def set_tripwire(storage: wal.Storage) -> None:
    """Stop clients of metatreedb 0.2.3 from writing. Raises MetatreeError if one of them holds its lock now."""
    if not storage.create(layout.TRIPWIRE, _TRIPWIRE):
        check_not_locked(storage)


def check_not_locked(storage: wal.Storage) -> None:
    """Raises MetatreeError if a client of metatreedb 0.2.3 holds its lock now."""
    try:
        ours = storage.read(layout.TRIPWIRE).data == _TRIPWIRE
    except FileNotFoundError:
        return
    if not ours:
        raise MetatreeError(
            f"{storage.url}/{layout.TRIPWIRE} is the lock of a program of metatreedb 0.2.3 that is writing or has "
            "died: stop the program, remove the file, and open the tree again"
        )


def keep_tripwire(storage: wal.Storage) -> None:
    """Create the tripwire again if a client of 0.2.3 removed it; a file that is there is left alone."""
    if storage.entry(layout.TRIPWIRE) is None:
        storage.create(layout.TRIPWIRE, _TRIPWIRE)


def found(storage: wal.Storage, keys: Sequence[str], log_id: str, log: str) -> None:
    """Turn a folder with a log into a tree: the last step of creation, and its commit point.

    Raises MetatreeError if another process has created a tree with other levels in it.
    """
    if not storage.create(layout.METADATA, jsontext.dump_readable({})):
        _mend_empty_root(storage)
    set_tripwire(storage)
    if not storage.create(layout.CONFIG, render(keys, log_id, log)):
        check_same_keys(keys, read(storage), storage)


def adopt(storage: wal.Storage, keys: Sequence[str], log_id: str, log: str) -> None:
    """Adopt a tree of metatreedb 0.2.3; its `.metatree` is replaced last."""
    if not storage.create(layout.METADATA, jsontext.dump_readable({})):
        _mend_empty_root(storage)
    storage.publish(layout.CONFIG, render(keys, log_id, log, adopted=True), b"", durable=True)
    storage.sync_folder("")


def _mend_empty_root(storage: wal.Storage) -> None:
    """Write an empty object into an empty metadata.json: metatreedb 0.2.3 leaves it empty until its first write."""
    if not storage.read(layout.METADATA).data:
        storage.publish(layout.METADATA, jsontext.dump_readable({}), b"", durable=True)


def check_same_keys(keys: Sequence[str] | None, config: Config | None, storage: wal.Storage) -> None:
    """Raises MetatreeError if `keys` were given and are not the tree's levels."""
    if keys is not None and config is not None and tuple(keys) != config.keys:
        raise MetatreeError(
            f"{storage.url} is a tree with the levels ({', '.join(config.keys)}), not ({', '.join(keys)}); "
            "omit keys to open it as it is"
        )
