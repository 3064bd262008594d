"""The file `head`: the state that all processes on a host share, in 16-byte words {value, complement}.

The file has 4 KiB, is created with the log and never replaced, truncated or removed, so that a process that has it
open sees every change. A word is written by one `pwrite` and read by one `pread`. There is no memory mapping, since
truncating a mapped file raises SIGBUS, and no sequence lock, since a writer that dies inside it stops every reader.

Nothing here is durable. A word that does not match its complement after three tries is unknown (None); the log itself
then supplies the value. Layout: docs/log_format.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from wal.errors import LogClosedError
from wal.format import FORMAT, HEAD_FIELDS, HEAD_MAGIC, HEAD_SIZE, MASK, WORD, WORDS
from wal.log import LSN
from wal.storage.base import RandomFile

MARKS = 8
_TRIES = 3
_DURABLE, _INTENT, _HOLDER, _FIRST_MARK = range(4)
_TRIMMED = _FIRST_MARK + MARKS
_WORD_AT = tuple(HEAD_FIELDS.size + index * WORD.size for index in range(_TRIMMED + 1))
_WORD_SIZE, _DURABLE_AT = WORD.size, _WORD_AT[_DURABLE]  # of the look that every read of a tree takes


def new_head(log_id: bytes, durable: LSN = 0, holder: int = 0, trimmed: LSN = 0) -> bytes:
    """The content of a head file with these words; all marks are 0."""
    words = [durable, durable, holder] + [0] * MARKS + [trimmed]
    data = HEAD_FIELDS.pack(HEAD_MAGIC, FORMAT, log_id) + b"".join(WORD.pack(word, word ^ MASK) for word in words)
    return data.ljust(HEAD_SIZE, b"\x00")


class HeadFile:
    """The words of one log's head file."""

    def __init__(self, file: RandomFile) -> None:
        self._file = file
        self._pread: Callable[[int, int], bytes] = file.pread
        self._pwrite: Callable[[bytes, int], None] = file.pwrite
        self._seen: tuple[bytes | None, LSN] = None, 0  # the last durable word that was read, and its value
        self._floor = 0  # see `raise_floor`

    def belongs_to(self, log_id: bytes) -> bool:
        """Whether the file has the header of this log's head; if not, none of its words is valid."""
        return self._pread(HEAD_FIELDS.size, 0) == HEAD_FIELDS.pack(HEAD_MAGIC, FORMAT, log_id)

    def durable(self) -> LSN | None:
        """The last batch that was flushed; None if unknown. Written under the append right only."""
        data = self._pread(_WORD_SIZE, _DURABLE_AT)
        word, lsn = self._seen
        if data != word:
            found = _value(data)
            if found is None:
                found = self._load(_DURABLE)  # it may have been read during a write: try again
                return None if found is None else max(found, self._floor)
            self._seen, lsn = (data, found), found
        return lsn if lsn > self._floor else self._floor

    def raise_floor(self, lsn: LSN) -> None:
        """This handle has found batch `lsn` beyond the word and made it durable: what `durable` returns is no less."""
        self._floor = max(self._floor, lsn)

    def state(self) -> tuple[LSN, LSN] | None:
        """(durable, intent), equal unless an append is in progress or was interrupted; None if unknown."""
        for _ in range(_TRIES):
            data = self._pread(WORDS.size, _WORD_AT[_DURABLE])
            if len(data) == WORDS.size:
                durable, durable_check, intent, intent_check = WORDS.unpack(data)
                if durable ^ durable_check == MASK and intent ^ intent_check == MASK:
                    return durable, intent
        return None

    def announce(self, lsn: LSN) -> None:
        """Called before a batch is written: an opener or appender that finds intent != durable examines every byte
        behind the last frame."""
        self._store(_INTENT, lsn)

    def publish(self, lsn: LSN) -> None:
        """Called after a batch was flushed."""
        self._store(_DURABLE, lsn)

    def take(self) -> bool:
        """Record that the right is held; True if the previous holder did not release it, or that is unknown."""
        before = self._load(_HOLDER)
        self._store(_HOLDER, 1)
        return before != 0

    def release(self) -> None:
        """Record that the right is free."""
        self._store(_HOLDER, 0)

    def load_mark(self, index: int) -> int:
        """A consumer's mark; 0 if it cannot be read, which is safe, since a mark is a lower bound."""
        return self._load(_mark(index)) or 0

    def store_mark(self, index: int, value: int) -> None:
        """Set a consumer's mark. Raises ValueError unless 0 <= value < 2**63."""
        if not 0 <= value < 2**63:
            raise ValueError(f"a mark is 0 to 2**63 - 1, not {value}")
        self._store(_mark(index), value)

    def trimmed(self) -> LSN | None:
        """The redo mark of the checkpoint; None if unknown, as while it is being raised: then read the checkpoint."""
        return self._load(_TRIMMED)

    def forget_trimmed(self) -> None:
        """Make the redo mark unknown: called before it is raised."""
        self._pwrite(bytes(WORD.size), _WORD_AT[_TRIMMED])

    def store_trimmed(self, redo: LSN) -> None:
        """Called after the redo mark was raised durably, under the append right only."""
        self._store(_TRIMMED, redo)

    def rebuild(self, log_id: bytes, durable: LSN, trimmed: LSN) -> None:
        """Called by a first opener: write all words anew, in place, except whether the right is held: the next
        holder must learn that the last one died."""
        holder = self._load(_HOLDER)
        self._pwrite(new_head(log_id, durable, 1 if holder is None else holder, trimmed), 0)

    def close(self) -> None:
        """Close the file. Whoever still works with it learns that, by LogClosedError."""
        self._pread = self._pwrite = _closed
        self._file.close()

    def _load(self, word: int) -> int | None:
        for _ in range(_TRIES):
            value = _value(self._pread(WORD.size, _WORD_AT[word]))
            if value is not None:
                return value
        return None

    def _store(self, word: int, value: int) -> None:
        self._pwrite(WORD.pack(value, value ^ MASK), _WORD_AT[word])


def _closed(_what: object, _offset: int) -> NoReturn:
    raise LogClosedError("the log was closed")


def _value(word: bytes) -> int | None:
    """The value of a word; None for a short read, or if value and complement do not match."""
    if len(word) != WORD.size:
        return None
    value, complement = WORD.unpack(word)
    return int(value) if value ^ complement == MASK else None


def _mark(index: int) -> int:
    if not 0 <= index < MARKS:
        raise ValueError(f"a mark's index is 0 to {MARKS - 1}, not {index}")
    return _FIRST_MARK + index
