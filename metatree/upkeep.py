"""Maintenance of an open tree: check, repair, gc, recover, flush, checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import wal

from .errors import TransactionError
from .reading import Reading
from .recovery import Recovered
from .staging import GRACE

if TYPE_CHECKING:
    from .check import Progress
    from .findings import Report
    from .gc import Collected
    from .repair_plan import Repaired


class Upkeep(Reading):
    """The maintenance methods of a tree. Their modules are imported on first use: most programs need none."""

    def check(self, *, deep: bool = False, progress: Progress | None = None) -> Report:
        """Verify every invariant, log against folders and folders against log; `deep` also reads every blob.

        A blob is missing if a commit put it and none has removed it since; those that metatreedb 0.2.3 put are known
        once a repair has adopted them. `get` of a missing one raises BlobNotFoundError.

        `progress(report, done)` is called now and then with the findings so far and the fraction done, 0 to 1.
        """
        from .check import check

        with self._engine.translated:
            self._engine.require_usable()
            return check(self._engine, deep=deep, progress=progress)

    def repair(
        self, *, edits: str | None = None, paths: Sequence[str] = (), deep: bool = False, dry_run: bool = False
    ) -> Repaired:
        """Repair what `check(deep=deep)` finds. What the log since the last checkpoint holds is rewritten. Hand edits
        are left alone, or with `edits` "adopt" committed in one commit, or "revert" undone. A changed blob is adopted,
        and a missing one that the log does not hold is given up, only if `paths` names it or a folder above it. Nothing
        is adopted in the place of a missing one that is not given up.

        `paths`: only these files and folders and what is below them; "" is the root. What the engine did not write
        (in a tree without its attributes: every blob) is left alone by "revert" too, unless it is itself one of
        `paths`: then it goes to the quarantine. `dry_run`: only the plan; also for a tree opened for reading.
        Nothing is deleted, and what cannot be repaired is named. Raises InvalidLocationError if one of `paths` matches
        no finding although there are findings, ConflictError (try again).
        """
        from .findings import ADOPT, REVERT
        from .repair import repair

        if edits not in (None, ADOPT, REVERT):
            raise ValueError(f"edits is 'adopt', 'revert' or None, not {edits!r}")
        if isinstance(paths, (str, bytes)):
            raise TypeError(f"paths is a list of files and folders: give [{paths!r}], not {paths!r}")
        with self._engine.translated:
            self._engine.require_usable()
            if self._engine.active.get() is not None:
                raise TransactionError("a repair makes a commit of its own: call it outside of the transaction")
            return repair(self._engine, edits=edits, paths=paths, deep=deep, dry_run=dry_run)

    def gc(self, older_than: float = GRACE, *, dry_run: bool = False) -> Collected:
        """Remove the staged blobs of transactions that never committed and showed no sign of life for `older_than`
        seconds, by the storage's clock. Each is aborted first: a writer that was only slow gets ConflictError.

        They are moved to the quarantine; in a bucket they are deleted. `older_than=0`: all, also those whose age is
        unknown. `dry_run`: only the plan, by this machine's clock; also for a tree opened for reading.
        """
        from .gc import collect

        with self._engine.translated:
            self._engine.require_usable()
            return collect(self._engine, older_than=older_than, dry_run=dry_run)

    def recover(self, dry_run: bool = False) -> Recovered:
        """What recovery did when this handle, as the first opener, opened the tree. Where hosts share the storage there
        is no first opener, and this call replays. Files are then up to date except those named in `failed`.
        `dry_run`: what a replay from the redo mark would do; nothing is changed."""
        with self._engine.translated:
            return self._engine.recover(dry_run=dry_run)

    def flush(self) -> None:
        """Wait until the files show every commit. Raises UnavailableError naming those that cannot."""
        with wal.DeferredInterrupt(), self._engine.translated:
            self._engine.require_writable()
            self._engine.committer.flush()

    def checkpoint(self) -> int:
        """Apply every commit, make the files durable and trim the log; returns the LSN up to which that is done."""
        with wal.DeferredInterrupt(), self._engine.translated:
            self._engine.require_writable()
            self._engine.log.head(fresh=True)  # the committer applies what is known
            return self._engine.checkpointer.run()
