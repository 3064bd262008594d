"""Collects what dead writers left in the engine's folders (docs/decisions/0036).

Age only selects candidates, since an old writer may be slow rather than dead. So each selected transaction is first
aborted by a record, and only what can never be committed after that is removed. If a collection dies, the next one
completes it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import wal

from . import layout, recovery
from .errors import TransactionError
from .staging import GRACE, is_transaction, names_in

if TYPE_CHECKING:
    from .engine import Engine


@dataclass(slots=True)
class Collected:
    """What a collection found, and what it did or would do. Names are relative to the root."""

    done: bool = False  # carried out, not only planned
    old: list[str] = field(default_factory=list)  # to be collected: staged blobs that were never committed, and ...
    scratch: list[str] = field(default_factory=list)  # ... unfinished files
    young: list[str] = field(default_factory=list)  # left alone: the writer may be running, or the age is unknown
    foreign: list[str] = field(default_factory=list)  # in the staging area, but not the engine's: never touched
    bytes: int = 0  # in `old` and `scratch`
    kept: list[str] = field(default_factory=list)  # new names in the quarantine
    erased: list[str] = field(default_factory=list)  # where the storage has no folders

    @property
    def clean(self) -> bool:
        """Whether there was nothing to collect."""
        return not (self.old or self.scratch)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the names are stable."""
        return {"clean": self.clean, **asdict(self)}


def collect(engine: Engine, *, older_than: float, dry_run: bool) -> Collected:
    """See `Metatree.gc`."""
    if not isinstance(older_than, (int, float)) or not older_than >= 0:
        raise ValueError(f"older_than is a number of seconds (a day: 86400), not {older_than!r}")
    if engine.active.get() is not None:
        raise TransactionError("a collection makes a commit of its own: call it outside of the transaction")
    if not dry_run:
        engine.require_writable()
    found = Collected()
    orphans = recovery.orphans(engine.storage, engine.log)
    leftovers = recovery.leftovers(engine.storage)
    if not (orphans or leftovers):
        found.done = not dry_run
        return found
    now = datetime.fromisoformat(engine.clock.now()).timestamp() if dry_run else _time_there(engine)
    _choose(engine.storage, found, orphans, leftovers, now, older_than)
    if not dry_run:
        _remove(engine, found)
    return found


def _time_there(engine: Engine) -> float | None:
    """The present time in seconds by the storage's clock, by which ages are measured; None if it reports none."""
    name = f"{layout.SCRATCH}/gc-{engine.clock.token(8).hex()}"
    engine.storage.publish(name, b"", b"", durable=False)
    try:
        return wal.written_at(engine.storage, name)
    finally:
        with suppress(OSError):  # if it remains, it is collected later like any unfinished file
            engine.storage.erase(name)


def _choose(
    storage: wal.Storage,
    found: Collected,
    orphans: list[str],
    leftovers: list[str],
    now: float | None,
    older_than: float,
) -> None:
    for folder in orphans:
        entry = storage.entry(folder)
        if entry is None:
            continue  # its transaction has ended
        if not is_transaction(entry):
            found.foreign.append(folder)
            continue
        names = [f"{folder}/{name}" for name in names_in(storage, folder)]
        # 0 means all, even if the age is unknown.
        if older_than == 0 or _age(storage, [folder, *names], now) >= older_than:
            found.old.append(folder)
            found.bytes += sum(_size(storage, name) for name in names)
        else:
            found.young.append(folder)
    for name in leftovers:
        # No record protects their writers: so GRACE seconds at least, and no folders, which a committer may keep long.
        entry = storage.entry(name)
        if entry is None or entry.kind is not wal.Kind.FILE:
            continue
        if _age(storage, [name], now) >= max(older_than, GRACE):
            found.scratch.append(name)
            found.bytes += entry.size


def _age(storage: wal.Storage, names: list[str], now: float | None) -> float:
    """Seconds since any of these was last written; -1 if that is unknown for one of them."""
    if now is None:
        return -1.0
    ages = []
    for name in names:
        with suppress(FileNotFoundError, IsADirectoryError):  # gone, or a folder in a bucket, which has no time
            written = wal.written_at(storage, name)
            ages.append(-1.0 if written is None else now - written)
    return min(ages, default=-1.0)


def _size(storage: wal.Storage, name: str) -> int:
    entry = storage.entry(name)
    return 0 if entry is None else entry.size


def _remove(engine: Engine, found: Collected) -> None:
    txids = [folder.rpartition("/")[2] for folder in found.old]
    aborted = engine.committing.abort(txids) if txids else ()
    found.old = [layout.staged_folder(txid) for txid in aborted]  # the others have been committed
    for name in (*found.old, *found.scratch):
        if engine.storage.capabilities.folders:
            aside = layout.quarantine(name.split("/")[1], name.rpartition("/")[2])
            kept = engine.storage.set_aside(name, aside)
            found.kept += [kept] if kept is not None else []  # None: another collection did it
        else:  # moving would copy every byte, and nobody can commit them any more
            engine.storage.erase(name)
            found.erased.append(name)
    found.done = True
