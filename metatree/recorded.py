"""Which files of blobs must be there, by the headers of the log, which stay for ever: those that a commit put and none
has removed since. Of blobs that are older than the log, as in a tree of metatreedb 0.2.3, it knows nothing."""

from __future__ import annotations

from collections.abc import Container, Iterator

import wal

from .errors import CorruptionError
from .facts import Changes, header_of
from .location import Path, check_blob_name, split

_Folder = dict[str, "str | _Folder"]  # name -> the commit that put the file, in words; of a folder, what is in it


class Recorded:
    """As of one LSN; keeps what it has read of the log."""

    def __init__(self, log: wal.WriteAheadLog) -> None:
        self._log = log
        self._lsn = 0
        self._root: _Folder = {}  # nodes and directory blobs alike: a name is one or the other

    def follow(self, lsn: int) -> None:
        """Read the headers up to `lsn`. Raises CorruptionError, FormatError, LogCorruptionError, OSError."""
        if lsn > self._lsn:
            for batch in self._log.read(self._lsn, lsn):
                wal.safe_point()
                for record in batch.records:
                    header = header_of(record)
                    self._note(header.changes, f"commit {batch.lsn} put it ({header.at})")
            self._lsn = lsn

    def forget(self) -> None:
        """Nothing must be there: the headers cannot be read."""
        self._root = {}

    def files(self, path: Path, apart: Container[str]) -> Iterator[tuple[str, str]]:
        """(name, the commit that put it) for each file in a node's folder and below it, but for those in the nodes
        `apart`. A hostile log may give any name: see `checked`."""
        folder: str | _Folder | None = self._root
        for name in path:
            folder = folder.get(name) if isinstance(folder, dict) else None
        pending = [*folder.items()] if isinstance(folder, dict) else []
        pending = [(name, found) for name, found in pending if name not in apart]
        while pending:
            name, found = pending.pop()
            if isinstance(found, dict):
                pending += [(f"{name}/{inner}", below) for inner, below in found.items()]
            else:
                yield name, found

    def _note(self, changes: Changes, put: str) -> None:
        nodes = [(split(path), change) for path, change in changes.items()]
        for path, change in nodes:  # a record removes before it puts, whatever the order of nodes in its header
            for names in (change.get("gone", ()), change.get("del", ())):
                for name in names:
                    self._remove((*path, *name.split("/")))
        for path, change in nodes:
            for name in change.get("put", ()):
                self._add((*path, *name.split("/")), put)

    def _remove(self, file: Path) -> None:
        folder: str | _Folder | None = self._root
        for name in file[:-1]:
            folder = folder.get(name) if isinstance(folder, dict) else None
        if isinstance(folder, dict):
            folder.pop(file[-1], None)

    def _add(self, file: Path, put: str) -> None:
        folder = self._root
        for name in file[:-1]:
            inner = folder.get(name)
            if not isinstance(inner, dict):
                inner = folder[name] = {}
            folder = inner
        folder[file[-1]] = put


def checked(name: str) -> str:
    """`name`, of a blob, as a header gives it. Raises CorruptionError for one that no transaction can have written."""
    try:
        return check_blob_name(name)
    except ValueError as error:
        raise CorruptionError(f"a record's header in the log names a blob that cannot be: {error}") from error
