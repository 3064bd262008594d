"""Recovery: replay of the log. The first opener does it by itself, `metatree-recover` with a plan and a report.

A replay folds the records since the redo mark and applies the effect, like any other pass. Nothing is deleted: what a
killed process left in the scratch and staging folders is set aside into the quarantine.

Where hosts share the log nobody can know that no other writer is alive, and no first opener is needed: what was
acknowledged is durable. A recovery is then a pass of a committer, under its right, over all records since the redo
mark; unfinished and staged files stay, since they may belong to a living writer elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import wal

from . import apply, layout, marks
from .clock import Clock
from .committer import Committer
from .outcome import Edit, Mode, Outcome
from .staging import names_in, waiting
from .window import fold_counted


@dataclass(slots=True)
class Recovered:
    """What a recovery found, and did or would do."""

    redo: int  # the replay begins after this LSN
    head: int  # and ends with this one
    records: int = 0  # transactions to replay
    tail_bytes: int = 0  # of a torn tail, moved to quarantine
    tail_files: list[str] = field(default_factory=list)
    adopted: int = 0  # batches that were complete in the log but not acknowledged
    nodes: int = 0  # metadata.json files rewritten
    blobs: int = 0  # blobs rewritten
    removed: int = 0  # nodes and blobs removed
    staged: list[str] = field(default_factory=list)  # staged blobs of transactions that never committed, set aside
    scratch: list[str] = field(default_factory=list)  # unfinished files, set aside
    edits: dict[str, Edit] = field(default_factory=dict)  # name of a copy in the quarantine -> the file edited by hand
    errors: dict[str, Exception] = field(default_factory=dict)  # node path -> why it could not be brought up to date

    @property
    def edited(self) -> list[str]:
        """Quarantined copies of files that were edited by hand."""
        return list(self.edits)

    @property
    def failed(self) -> dict[str, str]:
        """The same as text."""
        return {path: f"{type(error).__name__}: {error}" for path, error in self.errors.items()}

    @property
    def clean(self) -> bool:
        """Nothing had to be done."""
        return not (
            self.records or self.tail_bytes or self.adopted or self.staged or self.scratch or self.edits or self.errors
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the names are stable."""
        found = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("edits", "errors")}
        return {"clean": self.clean, **found, "edited": self.edited, "failed": self.failed}


def plan(storage: wal.Storage, log: wal.WriteAheadLog, *, shared: bool) -> Recovered:
    """What a recovery would replay and set aside; changes nothing. `shared`: hosts share the log."""
    redo, head = log.trimmed(), log.head()
    effect, records = fold_counted(log, redo, head)
    recovered = Recovered(redo, head, records, tail_bytes=log.tail_report.quarantined)
    for _, inner in effect.walk():
        recovered.nodes += int(inner.has_metadata())
        recovered.blobs += sum(1 for fact in inner.blobs.values() if fact is not None)
        recovered.removed += int(inner.exists is False) + sum(1 for fact in inner.blobs.values() if fact is None)
    if not shared:
        recovered.staged = orphans(storage, log)
        recovered.scratch = leftovers(storage)
    return recovered


def recover_shared(log: wal.WriteAheadLog, committer: Committer) -> Recovered:
    """Replay where hosts share the log, whoever else reads and writes meanwhile. Raises LockBusyError, OSError."""

    def held(tenure: wal.Tenure) -> Recovered:
        redo, head = log.trimmed(fresh=True), log.known()  # `fresh` also follows the log: others may have committed
        records = sum(len(batch.records) for batch in log.read(redo, head))
        recovered = Recovered(redo, head, records)
        if not recovered.records:
            return recovered
        outcome = committer.pass_held(tenure)
        removed = outcome.removed
        if not outcome.failed:  # new records are applied; now write the others again, whose files may be damaged
            outcome = committer.rewrite_held(tenure, redo, head)
        _note(recovered, outcome)
        recovered.removed += removed
        return recovered

    return committer.holding(held)


def recover(storage: wal.Storage, log: wal.WriteAheadLog, clock: Clock) -> Recovered:
    """Replay, and set leftovers aside. For the log's first opener only, when there is no other writer."""
    tail, redo, head = log.tail_report, log.trimmed(), log.head()
    with log.right():
        effect, records = fold_counted(log, redo, head)
        recovered = Recovered(redo, head, records, tail.quarantined, list(tail.quarantine), tail.adopted)
        for name in leftovers(storage):  # what cannot be replayed is refused before anything is changed
            storage.set_aside(name, layout.quarantine("tmp", name.rpartition("/")[2]))
            recovered.scratch.append(name)
        outcome = apply.apply(storage, effect, redo, head, mode=Mode.REPLAY)
    _note(recovered, outcome)
    if not outcome.failed:
        log.store_mark(marks.APPLIED, head)
    for txid, lsn in waiting(storage, log).items():
        if lsn is None:
            storage.set_aside(layout.staged_folder(txid), layout.quarantine("staged", txid))
            recovered.staged.append(layout.staged_folder(txid))
        elif lsn <= redo:  # a checkpoint died before it erased the folder
            storage.erase(layout.staged_folder(txid))
    return recovered


def _note(recovered: Recovered, outcome: Outcome) -> None:
    recovered.nodes, recovered.blobs, recovered.removed = outcome.nodes, outcome.blobs, outcome.removed
    recovered.edits = outcome.edits
    recovered.errors = outcome.failed


def leftovers(storage: wal.Storage) -> list[str]:
    """Unfinished files and folders in the scratch folder."""
    return [f"{layout.SCRATCH}/{name}" for name in names_in(storage, layout.SCRATCH)]


def orphans(storage: wal.Storage, log: wal.WriteAheadLog) -> list[str]:
    """Staging folders of transactions that the log does not hold."""
    return [layout.staged_folder(txid) for txid, lsn in waiting(storage, log).items() if lsn is None]
