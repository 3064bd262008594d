"""`Metatree`, the public API of a tree. It opens, wires and delegates; the logic is in the modules it imports."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import wal

from . import content
from .clock import base_of
from .draft import Draft
from .engine import Engine
from .errors import ConflictError, MetatreeError, translated
from .location import Location
from .opening import parse_consistency
from .root import name_of, open_root
from .transaction import Transaction
from .upkeep import Upkeep
from .values import check_key, check_value, merge

T = TypeVar("T")


class Metatree(Upkeep):
    """A tree of nodes, each a folder with a metadata.json and blobs, changed in transactions.

    Thread-safe, usable after a fork, and picklable. (The pickle carries `storage_options`, secrets included; the
    engine stores them nowhere.) Use it as a context manager, or call `close()`.
    """

    _tuning: ClassVar[Mapping[str, Any]] = {}  # more arguments for `Engine`, set by a subclass

    def __init__(
        self,
        root: str | os.PathLike[str] | wal.Storage,
        keys: tuple[str, ...] | list[str] | None = None,
        *,
        locking_enabled: bool = True,
        read_only: bool = False,
        apply: str = "sync",
        consistency: str | float = "strong",
        storage_options: Mapping[str, Any] | None = None,
        **fs_kwargs: Any,
    ) -> None:
        """Open the tree at `root`. An absent or empty root becomes a new tree whose levels are `keys`; a tree written
        by metatreedb 0.2.3 is adopted; any other folder is refused.

        `root`: a path, a URL, or an open `wal.Storage`.
        `apply`: "sync" (files are in place when a call returns; a metadata.json above 16 KiB follows within 50 ms) or
        "background" (all follow within 50 ms, or 1 s where hosts share the storage). Readers through this library see
        every commit at once either way.
        `consistency`: "strong", or, where hosts share the storage, the seconds by which a read may be out of date,
        which saves requests.
        `locking_enabled` is accepted for programs of metatreedb 0.2.3 and ignored. Other keywords are storage options
        of the filesystem; a local root and an open storage have none, so an unknown keyword is an error.

        Raises MetatreeError (no tree here, other levels), CorruptionError, FormatError, LockTimeoutError,
        ReadOnlyError, UnsupportedStorageError, TypeError (unknown keyword).
        """
        del locking_enabled
        if apply not in ("sync", "background"):
            raise ValueError(f"apply is 'sync' or 'background', not {apply!r}")
        tuning = {"staleness": parse_consistency(consistency), **self._tuning}
        options = {**(storage_options or {}), **fs_kwargs}
        named = {"read_only": read_only, "apply": apply, "consistency": consistency, "storage_options": options}
        self._arguments = named if isinstance(root, (str, os.PathLike)) else None  # an open storage has no name
        with wal.DeferredInterrupt(), translated(name_of(root)):
            storage, self._root = open_root(root, options, keys, read_only=read_only)
            try:
                self._engine = Engine(storage, keys, read_only=read_only, apply=apply, **tuning)
            except BaseException:
                storage.close()
                raise
            self._finalizer = self._engine.abandoned_with(self)

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the levels."""
        return tuple(self._engine.levels)

    @property
    def lsn(self) -> int:
        """The LSN of the last commit; 0 if the tree was never changed."""
        with self._engine.translated:
            self._engine.require_usable()
            return self._engine.log.head()

    @property
    def unapplied(self) -> int:
        """How many batches of the log the files are behind, as far as this handle knows; 0 when they show all."""
        with self._engine.translated:
            self._engine.require_usable()
            return self._engine.committer.unapplied()

    def __repr__(self) -> str:
        return f"<metatree.Metatree {self._root} ({', '.join(self._engine.levels)})>"

    # --- changing -----------------------------------------------------------------------------------------------------

    def put(
        self, location: Location, source: Any, *, name: str | None = None, force: bool = False, recursive: bool = False
    ) -> bool:
        """Store a blob in a node; the node and missing ancestors are created. Returns True.

        `source`: a path, any fsspec URL, bytes, or a binary file object (the last two need `name`); a directory needs
        `recursive=True`. The source is copied, never linked or renamed. `force` replaces an existing blob.
        Raises BlobExistsError unless `force`, NodeExistsError, InvalidLocationError, and errors of the source.
        """
        segments = self._parse(location)
        blob_name = content.source_name(source, name)
        with self._engine.translated:
            staging = self._engine.staging()
            if not content.is_at_hand(source):
                self._engine.examine(lambda draft: draft.resolve(segments))  # before the copying
            try:
                blobs = content.take_in(source, blob_name, staging, recursive=recursive)
            except BaseException:
                if self._engine.active.get() is None:
                    staging.discard()
                raise
        self._change(lambda draft: draft.put(draft.resolve(segments), blobs, force=force), staging)
        return True

    def update(
        self,
        location: Location | Mapping[str, Any] | None = None,
        values: Mapping[str, Any] | None = None,
        /,
        **more: Any,
    ) -> None:
        """Set keys of a node (default: the node at the cursor). JSON values keep their type.

        `values` is a dict, for keys that are not identifiers. Raises InvalidMetadataError, NodeNotFoundError.
        """
        checked = merge(values, more)
        segments = self._parse_or_cursor(location)
        if not checked:
            self._read(lambda draft: draft.resolve_node(segments))
            return
        self._change(lambda draft: draft.update(draft.resolve(segments), checked))

    def unset(self, location: Location | None, *keys: str) -> None:
        """Remove keys of a node; keys it does not have are ignored. Raises NodeNotFoundError."""
        segments = self._parse_or_cursor(location)
        names = [check_key(key) for key in keys]
        self._change(lambda draft: draft.unset(draft.resolve(segments), names))

    def compare_and_set(self, location: Location, key: str, expect: Any, value: Any) -> None:
        """Set a key only if its value is `expect` (None: absent or null); otherwise raises ConflictError."""
        segments = self._parse(location)
        checked = check_value(key, value)
        self._change(lambda draft: draft.compare_and_set(draft.resolve(segments), key, expect, checked))

    def delete(self, location: Location, *, recursive: bool = False) -> None:
        """Delete a node or a blob. A node with children or blobs, and a directory blob, need `recursive`."""
        segments = self._parse(location)

        def change(draft: Draft) -> None:
            path, name = draft.resolve_blob(segments, damaged=recursive)
            if name:
                draft.delete_blob(path, name, recursive=recursive)
            else:
                draft.delete_node(path, recursive=recursive)

        self._change(change)

    def move(self, src: Location, dst: Location) -> None:
        """Rename a node with its whole subtree, or a blob; `dst` is the full new location and must not exist.

        Raises NodeExistsError, BlobExistsError, NodeNotFoundError, BlobNotFoundError, InvalidLocationError.
        """
        self._copy(src, dst, move=True)

    def copy(self, src: Location, dst: Location) -> None:
        """Copy a node with its whole subtree, or a blob; `dst` is the full new location and must not exist.

        Raises as `move` does.
        """
        self._copy(src, dst, move=False)

    def _copy(self, src: Location, dst: Location, *, move: bool) -> None:
        from .copying import Copying  # imported on first use: few programs copy

        source, target = self._parse(src), self._parse(dst)

        def body(txn: Transaction) -> None:
            storage, depth = self._engine.storage, len(self._engine.levels)
            Copying(storage, txn.run, txn.staging, move=move, depth=depth).run(source, target)

        with self._engine.translated:
            self._engine.require_writable()
            active = self._engine.active.get()
            if active is not None:
                body(active)
            else:
                self.run(body)

    # --- transactions -------------------------------------------------------------------------------------------------

    def transaction(self, message: str | None = None, *, idempotency_key: str | None = None) -> Transaction:
        """A transaction for a `with` block: when the block ends, all its changes are committed or none. It has no
        effect without `with`.

        `message` is kept in the log. `idempotency_key`: a second transaction with the same key commits nothing.
        Raises at the end of the block: ConflictError (something it read was changed; nothing was committed),
        CommitUnknownError (ask `status(error.txid)`), LockTimeoutError, UnavailableError.
        """
        for what, text in (("message", message), ("idempotency_key", idempotency_key)):
            if text is not None and not (isinstance(text, str) and text.isprintable() and len(text) <= 10_000):
                raise ValueError(f"{what} is printable text of at most 10,000 characters, not {text!r:.80}")
        if idempotency_key == "":
            raise ValueError("idempotency_key must not be empty: omit it, or pass one that names the work")
        with self._engine.translated:
            self._engine.require_writable()
        return Transaction(self._engine, message, idempotency_key, self)

    def run(self, fn: Callable[[Transaction], T], *, attempts: int = 10) -> T:
        """Call `fn(txn)` in a transaction and return its result; on ConflictError call it again, in a new transaction,
        after a pause that doubles each time, up to a second, with jitter.

        `fn` is called at most `attempts` times; then the last ConflictError is raised, with a note that says so.
        """
        if attempts < 1:
            raise ValueError(f"attempts is at least 1, not {attempts}")
        clock = self._engine.clock
        for attempt in range(attempts):
            txn = self.transaction()
            try:
                with txn:
                    result = fn(txn)
                return result
            except ConflictError as error:
                if attempt + 1 == attempts:
                    error.add_note(f"run() gave up after attempt {attempts}, which met a conflict as all before it did")
                    raise
            finally:
                txn.leave()
            clock.sleep(clock.jitter(attempt))
        raise AssertionError("unreachable")

    def status(self, txid: str) -> int | None:
        """The LSN at which a transaction was committed, or None: not committed; final once the transaction has ended.

        Resolves a CommitUnknownError: what the failed flush left at the end of the log is settled first. Raises
        ValueError (not a transaction id), UnavailableError (this handle's flush failed: reopen the tree, then ask).
        """
        base = base_of(txid)
        with self._engine.translated:
            self._engine.require_writable()
            position = self._engine.committing.find(txid, base)
        return None if position is None else position.lsn

    # --- closing -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Apply what is pending, make a checkpoint, release all resources. Later calls raise ClosedError."""
        with wal.DeferredInterrupt(), self._engine.translated:
            self._engine.close()
        self._finalizer.detach()

    def __enter__(self) -> Metatree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._arguments is None:
            raise MetatreeError("a tree over a storage object cannot be pickled: open it by path or URL")
        return _reopen, (self._root, self.keys, self._arguments)


def _reopen(root: str, keys: tuple[str, ...], arguments: dict[str, Any]) -> Metatree:
    return Metatree(root, keys, **arguments)
