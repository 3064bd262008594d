"""The committer's right where folders are real and renames are atomic (HDFS, mounts): an epoch is a folder.

Epoch e is claimed by creating the folder `epoch/<e>`, which succeeds for exactly one caller. Everything its holder
changes in the tree is a rename out of or into `epoch/<e>/work`, and so is each claim that it publishes. A successor
claims e + 1 and moves the working folders of all earlier epochs away before it reads their claims or anything else:
from then on every step of an overtaken holder fails, and the marks in its claim are its last. Epoch folders are never
removed, so no epoch is claimed twice.
"""

from __future__ import annotations

from dataclasses import replace

from wal.claim import Claim
from wal.names import Names, epoch_numbers
from wal.process import whoami
from wal.storage.base import Publication, Storage


class Epochs:
    """The epoch folders of one handle's log; see `host_right.Fencing`."""

    def __init__(self, storage: Storage, names: Names, log: str, token: str, marks: list[int]) -> None:
        """`marks`: the handle's list of marks, which is handed on with the right."""
        self._storage = storage
        self._names = names
        self._marks = marks
        self._claim = Claim.of_nobody(log, token, marks)
        self._ours = 0  # the epoch that this handle claimed last
        self._newest: int  # epoch, as `look` saw it
        self._interrupted: bool  # by the last `take`

    def look(self) -> Claim | None:
        names, storage = self._names, self._storage
        if self._ours and storage.entry(names.epoch(self._ours + 1)) is None:
            return self._claim
        self._ours = 0
        try:
            numbers = epoch_numbers(storage.list(names.epochs))
        except FileNotFoundError:
            numbers = []
        self._newest = numbers[-1] if numbers else 0
        return self._owner(self._newest) if numbers else None

    def _owner(self, epoch: int) -> Claim | None:
        try:
            return Claim.decode(self._storage.read(f"{self._names.epoch(epoch)}/owner").data)
        except FileNotFoundError:
            return None

    def is_own(self, claim: Claim) -> bool:
        return claim.token == self._claim.token

    def take(self, seen: Claim | None) -> bool:
        self._interrupted = False
        if self._ours:
            return self._say()
        epoch = self._newest + 1
        claim = replace(self._claim, holder=whoami(), epoch=epoch, held=True, clean=False)
        folder = self._names.epoch(epoch)
        owner = Publication(f"{folder}/owner", claim.encode(), b"")
        if not self._storage.publish_folder(folder, [owner, Publication(f"{folder}/work/here", b"", b"")]):
            return False
        self._storage.sync_folder(folder)
        self._claim = claim
        owners = self._move_away(self._newest)
        self._ours = epoch  # only now: if the moving fails, the next try claims another epoch and moves again
        self._interrupted = any(owner is None or (owner.held and not self.is_own(owner)) for owner in owners)
        return self._say(clean=True)

    def interrupted(self) -> bool:
        return self._interrupted

    def _say(self, *, clean: bool | None = None) -> bool:
        """Write into our epoch's claim that we hold it; False if a successor has taken over."""
        try:
            self._publish(held=True, clean=clean)
        except (FileNotFoundError, NotADirectoryError):
            self._ours = 0
            return False
        return True

    def _move_away(self, newest: int) -> list[Claim | None]:
        """Move away the working folders of this epoch and of earlier ones, down to a `clean` one: its holder did so
        for all before it. Returns their claims.

        Each claim is read once its folder is gone. Until then its holder, should it wake up, can still begin a change,
        or say that it has applied more, and then trim the log up to there.
        """
        owners: list[Claim | None] = []
        for epoch in range(newest, 0, -1):
            aside = self._names.moved_away(epoch)
            self._storage.retire(f"{self._names.epoch(epoch)}/work", aside)
            self._storage.sync_folder(self._names.epoch(epoch))
            self._forget(aside)
            owners.append(owner := self._owner(epoch))
            if owner is not None:
                self._marks[:] = map(max, self._marks, owner.marks)
                if owner.clean:
                    break
        return owners

    def _forget(self, aside: str) -> None:
        """Erase a moved working folder that holds only its first file: the usual case."""
        try:
            names = {entry.name for entry in self._storage.list(aside)}
        except FileNotFoundError:
            return
        if names <= {"here"}:
            self._storage.erase(aside)

    def renew(self) -> None:
        self._publish(held=True)

    def release(self) -> None:
        self._publish(held=False)

    def storage(self) -> Storage:
        return self._storage.fenced(self._work())

    def _work(self) -> str:
        return f"{self._names.epoch(self._ours)}/work"

    def _publish(self, *, held: bool, clean: bool | None = None) -> None:
        claim = replace(
            self._claim,
            counter=self._claim.counter + 1,
            held=held,
            clean=self._claim.clean if clean is None else clean,
            marks=tuple(self._marks),
        )
        name = f"{self._names.epoch(self._ours)}/owner"
        self._storage.fenced(self._work()).publish(name, claim.encode(), b"", durable=True)
        self._claim = claim
