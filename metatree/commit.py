"""Commit: validate, then append; the append is the commit point. Nothing is applied here.

`prepare` runs under the append right (in a slot log its answer counts only if no slot came in between). So the reader
and the records accepted before it in the same batch give the state at the record's own position: there it validates
what a transaction read, or makes the change of a single call, and turns the outcome into facts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import wal

from .clock import Clock, base_of
from .committer import Committer
from .derive import derive
from .draft import Draft
from .errors import CommitUnknownError, ConflictError, MetatreeError
from .facts import Changes, Fact, Header, encode, facts_of, header_of
from .fold import Effect, fold
from .reader import Reader
from .staging import Staging
from .used_keys import UsedKeys
from .view import View

T = TypeVar("T")


class Outcome(NamedTuple, Generic[T]):
    """How a commit ended."""

    position: wal.Position | None  # None: there was nothing to commit
    replayed: bool  # the idempotency key was used before; `position` is that commit's
    value: T


class Committing:
    """Commits for one open tree."""

    def __init__(
        self, log: wal.WriteAheadLog, reader: Reader, committer: Committer, levels: Sequence[str], clock: Clock
    ) -> None:
        self._log = log
        self._reader = reader
        self._committer = committer
        self._levels = levels
        self._clock = clock
        self._keys = UsedKeys(reader.since)
        self._mates: tuple[wal.Record, int, Effect] | None = None  # first record of the batch, number folded, effect

    def single(self, change: Callable[[Draft], T], staging: Staging) -> Outcome[T]:
        """Commit what `change` does to a draft at the record's own position. Raises what `change` raises."""
        value: list[T] = []

        def make(view: View) -> tuple[Sequence[Fact], Changes]:
            draft = Draft(view, self._levels, None)
            value[:] = [change(draft)]
            return derive(draft.delta, view)

        position, replayed = self._append(make, staging, None, None, None)
        return Outcome(position, replayed, value[0])

    def transaction(
        self, draft: Draft, base: int, staging: Staging, message: str | None, key: str | None
    ) -> Outcome[None]:
        """Commit a draft made at `base`. Raises ConflictError if what it read was changed since."""

        def make(view: View) -> tuple[Sequence[Fact], Changes]:
            self._validate(draft, base)
            return derive(draft.delta, view)

        position, replayed = self._append(make, staging, draft, message, key)
        return Outcome(position, replayed, None)

    def adopt(
        self, facts: Sequence[Fact], changes: Changes, draft: Draft, base: int, staging: Staging, message: str
    ) -> Outcome[None]:
        """Commit what was found in the files at `base`, although the log says otherwise. Raises ConflictError if what
        `draft` read was changed since."""

        def make(_: View) -> tuple[Sequence[Fact], Changes]:
            self._validate(draft, base)
            return facts, changes

        position, replayed = self._append(make, staging, draft, message, None)
        return Outcome(position, replayed, None)

    def _append(
        self,
        make: Callable[[View], tuple[Sequence[Fact], Changes]],
        staging: Staging,
        draft: Draft | None,
        message: str | None,
        key: str | None,
    ) -> tuple[wal.Position | None, bool]:
        replay: list[wal.Position] = []

        def prepare(head: int, mates: Sequence[wal.Record]) -> wal.Record | None:
            with self._reader.lock:
                self._reader.refresh(head)
                if staging.used:
                    self._refuse_aborted(staging.txid, mates)
                if key is not None and self._used(key, mates, replay):
                    return None
                layers = (self._fold_mates(mates),) if mates else ()
                if draft is not None and mates:
                    self._check_mates(draft, mates)
                view = View(self._reader, layers)
                facts, changes = make(view)
            if not facts and key is None:
                return None
            header = Header(staging.txid, self._clock.now(), wal.whoami(), changes, message, key, staging.used)
            return encode(header, facts)

        try:
            staging.seal()
            position = self._log.append(prepare)
        except wal.InDoubtError as error:
            self._committer.fault()
            raise CommitUnknownError(
                f"the flush of commit {staging.txid} failed ({error.__cause__ or error}): it is unknown whether it is "
                "durable. Reopen the tree and ask tree.status(txid) before you repeat it",
                staging.txid,
            ) from error
        except (MetatreeError, wal.WalError, OSError) as error:
            # Only what the log and `prepare` raise. Anything else, such as an interrupt or a program's own time-out,
            # may have been raised just after the commit point; recovery finds the staged files that then remain.
            if not isinstance(error, TimeoutError) or isinstance(error, wal.LockBusyError):
                staging.discard()
            raise
        if replay:
            staging.discard()
            return replay[0], True
        if position is None:
            staging.discard()
        return position, False

    def _validate(self, draft: Draft, base: int) -> None:
        for _, header in self._reader.since(base):
            found = draft.reads.conflict(header.changes)
            if found:
                raise conflict(found, header)

    def _refuse_aborted(self, txid: str, mates: Sequence[wal.Record]) -> None:
        headers = [header for _, header in self._reader.since(base_of(txid))]
        for header in headers + [header_of(mate) for mate in mates]:
            if txid in header.aborts:
                raise ConflictError(
                    f"transaction {txid} was aborted by {header.who}, which took its staged blobs for those of a dead "
                    "process; nothing was committed, run it again"
                )

    def require_not_aborted(self, txid: str) -> None:
        """Called when staged files are missing. Raises ConflictError if another process aborted the transaction."""
        with self._reader.lock:
            self._reader.refresh()
            self._refuse_aborted(txid, ())

    def abort(self, txids: Sequence[str]) -> tuple[str, ...]:
        """Make sure that those of these transactions, one or more, that are not committed never will be; returns them.

        Their staged files may be removed once this has returned. Raises what an append raises.
        """
        aborted: tuple[str, ...] = ()
        own = self._clock.txid(self._log.known())

        def prepare(_: int, mates: Sequence[wal.Record]) -> wal.Record | None:
            nonlocal aborted
            if mates:  # a record that is not durable yet decides nothing
                raise wal.Deferred
            with self._reader.lock:
                self._reader.refresh()
                headers = [header for _, header in self._reader.since(min(map(base_of, txids)))]
            committed = {header.txid for header in headers}
            known = {txid for header in headers for txid in header.aborts}
            aborted = tuple(txid for txid in txids if txid not in committed)
            new = tuple(txid for txid in aborted if txid not in known)
            return encode(Header(own, self._clock.now(), wal.whoami(), aborts=new), []) if new else None

        self._log.append(prepare)
        return aborted

    def _check_mates(self, draft: Draft, mates: Sequence[wal.Record]) -> None:
        for mate in mates:
            if draft.reads.conflict(header_of(mate).changes):
                raise wal.Deferred

    def _fold_mates(self, mates: Sequence[wal.Record]) -> Effect:
        """The net effect of the batch so far, extended from call to call; only the leader's thread calls it."""
        if self._mates is None or self._mates[0] is not mates[0]:
            self._mates = (mates[0], 0, Effect())
        first, count, effect = self._mates
        for mate in mates[count:]:
            fold(facts_of(mate), effect)
        self._mates = (first, len(mates), effect)
        return effect

    # --- idempotency keys, transaction ids --------------------------------------------------------------------------

    def _used(self, key: str, mates: Sequence[wal.Record], replay: list[wal.Position]) -> bool:
        if any(header_of(mate).key == key for mate in mates):
            raise wal.Deferred
        position = self.used(key)
        replay[:] = [] if position is None else [position]
        return position is not None

    def used(self, key: str) -> wal.Position | None:
        """Where an idempotency key was first used, up to the reader's head; the caller holds the reader's lock."""
        return self._keys.find(key, self._reader.head)

    def find(self, txid: str, base: int) -> wal.Position | None:
        """Where a transaction was committed, once the log's end is settled; None: it is not, and never will be."""
        found: list[wal.Position] = []

        def prepare(_: int, mates: Sequence[wal.Record]) -> None:
            if mates:
                raise wal.Deferred
            with self._reader.lock:
                self._reader.refresh()
                found[:] = [position for position, header in self._reader.since(base) if header.txid == txid]

        self._log.append(prepare)
        if not found:  # make that final: an append in flight must find its slot taken
            self._log.settle()
            self._log.append(prepare)
        return found[0] if found else None


def conflict(found: str, header: Header) -> ConflictError:
    """The error of a transaction that read `found`, which the commit of `header` changed."""
    return ConflictError(
        f"{found} was changed meanwhile by {header.who} (transaction {header.txid}); nothing was committed, run it "
        "again"
    )
