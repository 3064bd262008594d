"""Reads the content of a blob that a record holds or names: inline, or in the staging area."""

from __future__ import annotations

from types import TracebackType
from typing import BinaryIO

import wal

from .errors import CorruptionError
from .facts import BlobFact, Inline, Slice
from .folders import digest


def told(error: Exception) -> Exception:
    """The error, as CorruptionError if it says that staged content was cut."""
    return CorruptionError(f"{error.filename}: {error.strerror}") if isinstance(error, wal.CutShortError) else error


class Sources:
    """The contents of the blobs of one application. A pack stays open from one blob to the next; use in a `with`
    block."""

    def __init__(self, storage: wal.Storage, *, anew: bool = False) -> None:
        """`anew`: staged content is written again, even where the blob is that file already."""
        self._storage = storage
        self._anew = anew
        self._file = ""
        self._pack: BinaryIO | None = None

    def read(self, fact: BlobFact) -> wal.Content:
        """A fact's bytes, or the staged file that holds them. Raises FileNotFoundError if that was trimmed."""
        match fact.source:
            case Inline(data):
                return data
            case Slice(file, None):
                return wal.Staged(file, fact.size, self._anew)
            case Slice(file, offset):
                pack = self._open(file)
                pack.seek(offset or 0)
                data = pack.read(fact.size)
                if len(data) != fact.size:
                    raise CorruptionError(f"{file} is cut short: {fact.name} needs {fact.size} bytes from {offset}")
                if digest(data) != fact.sha256:
                    raise CorruptionError(f"{file} is damaged: {fact.name} is not what was staged at byte {offset}")
                return data

    def _open(self, file: str) -> BinaryIO:
        if self._pack is None or self._file != file:
            self.close()
            self._pack, self._file = self._storage.open(file), file
        return self._pack

    def close(self) -> None:
        """Close the open pack."""
        pack, self._pack = self._pack, None
        if pack is not None:
            pack.close()

    def __enter__(self) -> Sources:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
