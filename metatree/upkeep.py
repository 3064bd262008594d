"""What an operator does with an open tree: check it, repair it, recover it, bring its files up to date."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .errors import TransactionError, translated
from .reading import Reading
from .recovery import Recovered
from .staging import GRACE

if TYPE_CHECKING:
    from .check import Progress
    from .findings import Report
    from .gc import Collected
    from .repair import Repaired


class Upkeep(Reading):
    """The part of a tree that is for its upkeep. What it takes is imported by who asks: most programs do not."""

    def check(self, *, deep: bool = False, progress: Progress | None = None) -> Report:
        """Verify every invariant, log against folders and folders against log; `deep` reads every blob as well.

        `progress(report, done)` is called now and then with what is found so far and the part that is done, 0 to 1.
        """
        from .check import check

        with translated():
            self._engine.require_usable()
            return check(self._engine, deep=deep, progress=progress)

    def repair(
        self, *, edits: str | None = None, paths: Sequence[str] = (), deep: bool = False, dry_run: bool = False
    ) -> Repaired:
        """Mend what `check(deep=deep)` finds: write again what the log since the last checkpoint holds, and with
        `edits` "adopt" what was changed by hand, in one commit, or "revert" it; without, edits are left alone.

        `paths`: only these files and folders, and what is below them; "" is the root. What the engine did not put
        there, which a tree without its marks is full of, is left alone by "revert" too, but for what is one of
        `paths` itself: that goes to the quarantine. `dry_run`: the plan, also of a tree that is open for reading.
        Nothing is deleted, and what cannot be mended is named. Raises InvalidLocationError for a path at which nothing
        is found though something is elsewhere, ConflictError (try again).
        """
        from .findings import ADOPT, REVERT
        from .mending import repair

        if edits not in (None, ADOPT, REVERT):
            raise ValueError(f"edits is 'adopt', 'revert' or None, not {edits!r}")
        with translated():
            self._engine.require_usable()
            if self._engine.active.get() is not None:
                raise TransactionError("a repair makes a commit of its own: call it outside of the transaction")
            return repair(self._engine, edits=edits, paths=paths, deep=deep, dry_run=dry_run)

    def gc(self, older_than: float = GRACE, *, dry_run: bool = True) -> Collected:
        """Take away staged blobs of transactions that never committed and show no sign of life for `older_than`
        seconds, by the storage's clock. Each is aborted first: a writer that was only slow gets ConflictError.

        They go to the quarantine; in a bucket they are deleted. `dry_run`: the plan, by this machine's clock, also of
        a tree that is open for reading. 0 means all. What does not tell its age stays otherwise.
        """
        from .gc import collect

        with translated():
            self._engine.require_usable()
            return collect(self._engine, older_than=older_than, dry_run=dry_run)

    def recover(self, dry_run: bool = False) -> Recovered:
        """What recovery did when this tree was opened, if it was the first to open it; where hosts share the storage,
        and nobody can tell who is the first, it replays now. The files are up to date but for what its `failed` names.
        `dry_run`: what a replay from the redo mark would do; nothing is changed."""
        with translated():
            return self._engine.recover(dry_run=dry_run)

    def flush(self) -> None:
        """Wait until the files show every commit. Raises UnavailableError saying which cannot."""
        with translated():
            self._engine.require_writable()
            self._engine.committer.flush()

    def checkpoint(self) -> int:
        """Make the files durable and trim the log; the LSN up to which that is done."""
        with translated():
            self._engine.require_writable()
            return self._engine.checkpointer.run()
