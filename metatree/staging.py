"""Staging of new blobs: small ones are stored in the record, larger ones in staged files that are durable before the
commit.

Up to 64 KiB a blob is inline, until a transaction's inline bytes reach 256 KiB (4 MiB in a bucket); from then on small
blobs go into one pack file. Larger blobs are staged one by one. Nothing here is visible to readers of the tree.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import wal

from . import layout
from .clock import base_of
from .facts import Inline, Slice, Source, header_of
from .folders import Attribute, digest

INLINE_BLOB = 64 << 10  # bytes: a larger blob is staged
INLINE_RECORD = 256 << 10  # bytes of inline content in one record ...
INLINE_OBJECT = 4 << 20  # ... where each file that is staged costs requests
GRACE = 24 * 3600.0  # seconds for which `gc` leaves a staged file alone by default
CHUNK = 1 << 20
GATHERED = 64 << 10  # bytes of small blobs that are written to a pack together

_TXID = re.compile(r"[0-9a-f]{1,16}-[0-9a-f]{16}").fullmatch  # as `Clock.txid` makes them

Content = tuple[int, str, Source]  # size in bytes, sha256 in hex, where it is


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Staging:
    """The staged files of one transaction. Not thread-safe."""

    def __init__(
        self, storage: wal.Storage, txid: Callable[[], str], missing: Callable[[str], None] = lambda _: None
    ) -> None:
        """`txid` is called once, when the id is first needed. `missing` is called with the id if staged files are gone,
        and raises the error for that."""
        self._storage = storage
        self._make_txid = txid
        self._missing = missing
        self._txid: str | None = None
        self._inline = 0
        capabilities = storage.capabilities
        self._inline_limit = INLINE_RECORD if capabilities.folders else INLINE_OBJECT
        self._count = 0
        self._pack: wal.StagedFile | None = None
        self._pack_size = 0  # bytes written to the pack
        self._unwritten = bytearray()  # content to be written to the pack next
        self._packs = 0  # number of finished packs
        self._is_local = capabilities.append_log  # a file can be read while it is being written
        self._pid = os.getpid()
        self.used = False  # there are staged files

    @property
    def txid(self) -> str:
        """The transaction's id."""
        if self._txid is None:
            self._txid = self._make_txid()
        return self._txid

    @contextmanager
    def _there(self) -> Iterator[None]:
        """Context manager around uses of the staging folder: a process that removed it has aborted the transaction."""
        try:
            yield
        except FileNotFoundError:
            if self.used:
                self._missing(self.txid)
            raise

    def add(self, source: Readable) -> Content:
        """Stage a blob, chunk by chunk. Raises what `source` raises, and OSError of the storage."""
        head = source.read(INLINE_BLOB + 1)
        while 0 < len(head) <= INLINE_BLOB:
            more = source.read(INLINE_BLOB + 1 - len(head))
            if not more:
                break
            head += more
        if len(head) <= INLINE_BLOB:
            return self.add_small(head)
        return self._add_large(head, source)

    def add_small(self, data: bytes) -> Content:
        """Stage content that is in memory."""
        size = len(data)
        if size > INLINE_BLOB:
            return self._add_large(data, None)
        sha256 = digest(data)
        if self._inline + size <= self._inline_limit:
            self._inline += size
            return size, sha256, Inline(data)
        if self._pack is None:
            self.used = True
            with self._there(), wal.DeferredInterrupt():
                self._pack = self._storage.stage(layout.pack(self.txid, self._packs))
        offset = self._pack_size + len(self._unwritten)
        self._unwritten += data
        if len(self._unwritten) >= GATHERED:
            self._write_out()
        return size, sha256, Slice(layout.pack(self.txid, self._packs), offset)

    def _write_out(self) -> None:
        """Write the gathered content to the pack. After an error it is written again, at the same place."""
        if self._pack is not None and self._unwritten:
            with self._there(), wal.DeferredInterrupt():
                self._pack.write(bytes(self._unwritten))
                self._pack_size += len(self._unwritten)
                self._unwritten = bytearray()

    def add_existing(self, file: str, *, share: bool) -> Content:
        """Stage a file of this storage, copied or linked by the storage; its content is read once, for the digest."""
        name = self._next()
        hasher, size = hashlib.sha256(), 0
        with self._there():
            self._storage.stage_existing(file, name, share=share)
        with self._there(), self._storage.open(name) as stream:
            while chunk := stream.read(CHUNK):
                hasher.update(chunk)
                size += len(chunk)
        return size, hasher.hexdigest(), Slice(name)

    def seal(self) -> None:
        """Make everything that is staged durable; to be called before the commit."""
        if self.used:
            with self._there():
                self._finish_pack()
                self._storage.sync_folder(layout.staged_folder(self.txid))

    def let_read(self) -> None:
        """To be called before the transaction reads a blob: an object, or a file on HDFS, cannot be read while it is
        being written."""
        if self._is_local:
            self._write_out()
        else:
            with self._there():
                self._finish_pack()

    def _finish_pack(self) -> None:
        if self._pack is not None:
            self._write_out()
            self._pack.finish(Attribute(0, "").encode())
            self._pack, self._pack_size = None, 0
            self._packs += 1

    def discard(self) -> None:
        """The transaction will not be committed: remove what was staged. Never raises OSError.

        Not in a forked child: the transaction is its parent's, which may commit it yet.
        """
        if self._pid != os.getpid():
            return
        pack, self._pack = self._pack, None
        with suppress(OSError):  # recovery finds what remains
            if pack is not None:
                pack.abandon()
        with suppress(OSError):
            if self.used:
                self._storage.erase(layout.staged_folder(self.txid))

    def _next(self) -> str:
        self.used = True
        self._count += 1
        return layout.staged(self.txid, self._count)

    def _add_large(self, head: bytes, source: Readable | None) -> Content:
        name = self._next()
        hasher = hashlib.sha256()
        size = 0
        file: wal.StagedFile | None = None
        try:
            with self._there(), wal.DeferredInterrupt():  # no interrupt before `file` is stored
                file = self._storage.stage(name)
            chunk = head
            while chunk:
                with self._there():
                    file.write(chunk)
                hasher.update(chunk)
                size += len(chunk)
                chunk = source.read(CHUNK) if source is not None else b""
            with self._there():
                file.finish(Attribute(0, hasher.hexdigest()).encode())
        finally:
            if file is not None:
                file.abandon()  # does nothing to a finished one
        return size, hasher.hexdigest(), Slice(name)


# --- the staging area -------------------------------------------------------------------------------------------------


def waiting(storage: wal.Storage, log: wal.WriteAheadLog, after: int = 0) -> dict[str, int | None]:
    """The transactions that have a staging folder, each with the LSN of its commit; None: not in the log.

    `after`: commits up to this LSN are not searched.
    """
    found: dict[str, int | None] = dict.fromkeys(names_in(storage, layout.STAGED))
    if not found:
        return found
    bases = [base for base in map(_base, found) if base is not None]
    for batch in log.read(max(after, min(bases, default=0))):
        for record in batch.records:
            txid = header_of(record).txid
            if txid in found:
                found[txid] = batch.lsn
    return found


def names_in(storage: wal.Storage, folder: str) -> list[str]:
    """The names in one of the engine's folders; none if it does not exist."""
    try:
        return sorted(entry.name for entry in storage.list(folder))
    except FileNotFoundError:
        return []


def is_transaction(entry: wal.Entry) -> bool:
    """Whether something in the staging area can be the folder of a transaction; if not, it is not the engine's."""
    return entry.kind is wal.Kind.FOLDER and _TXID(entry.name) is not None


def _base(txid: str) -> int | None:
    try:
        return base_of(txid)
    except ValueError:
        return None
