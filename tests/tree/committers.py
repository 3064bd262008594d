"""Committers of one tree that hosts share, as actors of `tests.wal.schedules`: what they do, and what must come of it.

Checked after each run: the log holds what was acknowledged, where that was said, and nothing that was refused; files, a
reader and `check` show just that, and so did what was read meanwhile; nobody was told of a failure; every handle goes
on.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import cache
from typing import Any

import wal
from metatree import (
    BlobExistsError,
    BlobNotFoundError,
    CommitUnknownError,
    ConflictError,
    InvalidLocationError,
    Metatree,
    MetatreeError,
    NodeExistsError,
    NodeNotFoundError,
    UnavailableError,
)
from metatree.facts import decode_header
from tests.tree.dictionary import Operation, do, replayed
from tests.tree.lines import Dead
from tests.tree.model import State, dump
from tests.tree.shared import TTL, WINDOW, Host, HostClock, Place, SharedDisk, as_shown, behind, shown
from tests.wal.schedules import NOTHING, PointedDisk, Run, Step

READING = ("read", "open", "attribute", "list", "entry", "versions")
REFUSED = (BlobExistsError, BlobNotFoundError, InvalidLocationError, NodeExistsError, NodeNotFoundError)
_BUSY = "other hosts keep taking over the right to apply"
FENCE = "the folder through which a holder publishes"
Told = list[tuple[Operation, bool]]  # operations of one transaction, and whether each was done


class PointedMount(PointedDisk, SharedDisk):
    """Where staged content and trash vanish as well."""

    def unlink(self, path: str) -> None:
        self._run.point()
        super().unlink(path)


def step(method: str, arguments: tuple[Any, ...]) -> Step:
    """What a call touches."""
    names = tuple(name for name in arguments[:2] if isinstance(name, str))
    if method in ("sync", "sync_folder"):
        return NOTHING
    if method in READING:
        return Step(names[:1], ())
    if method == "retire":
        return Step((), (*names, FENCE))
    files = arguments[1] if method == "publish_folder" else arguments[1:2]
    contents = [file.content if isinstance(file, wal.Publication) else file for file in files]
    reads = tuple(content.name for content in contents if isinstance(content, wal.Staged))
    return Step(reads if names[0].startswith(".wal/") and "/owner" not in names[0] else (*reads, FENCE), names)


@cache
def start(kind: str, commits: int) -> tuple[Place, State, int]:
    """What runs start from, see `behind`; what it is to readers, and its last LSN."""
    place = behind(kind, commits)
    with Host(place.copy().storage()).tree as tree:
        return place, dump(tree), tree.lsn


class World:
    """One storage, its hosts, and what they were told."""

    def __init__(
        self, kind: str, run: Run, *, deep: bool = False, ttl: float = TTL, commits: int = len(WINDOW)
    ) -> None:
        """`deep`: with points inside of the calls of a mount. `commits`: how many are not applied yet."""
        self.kind = kind
        self.run = run
        self._ttl = ttl
        place, self._state, self._begin = start(kind, commits)
        self.place = place.copy(PointedMount(run) if deep and kind == "mount" else None)
        self.hosts: list[Host] = []
        self.flaky: set[Metatree] = set()  # whose storage fails now and then
        self.dead: set[Metatree] = set()
        self._acknowledged: dict[int, Told] = {}  # by LSN
        self._unknown: dict[str, Told] = {}  # by transaction
        self._returned = 0  # the last LSN that a caller was told
        self._seen: list[tuple[int, State]] = []  # (LSN that was told before, what was read then)

    def host(self, *, fault: float = 0.0, mortal: bool = False, apply: str = "sync") -> Host:
        """One more. `fault`: how likely each of its calls fails, if schedules are drawn. `mortal`: once it sleeps, it
        never wakes up."""
        host: Host | None = None

        def around(method: str, arguments: tuple[Any, ...], call: Callable[[], Any]) -> Any:
            slept = self.run.point(step(method, arguments))
            if host is not None and mortal and (slept or host.tree in self.dead):
                self.dead.add(host.tree)
                raise Dead
            failing = self.run.fault(fault) if fault else ""
            if failing == "before":
                raise OSError(errno.ETIMEDOUT, "no connection")
            result = call()
            if failing:
                raise OSError(errno.ETIMEDOUT, "the reply was lost")
            return result

        clock = HostClock(len(self.hosts), lambda: self.run.point(NOTHING))
        host = Host(self.place.storage(), around, clock=clock, ttl=self._ttl, apply=apply)
        self.hosts.append(host)
        if fault:
            self.flaky.add(host.tree)
        return host

    # --- what actors do ---------------------------------------------------------------------------------------------

    def commit(self, host: Host, *operations: Operation) -> None:
        """In one transaction; again as long as that conflicts."""
        while True:
            told: Told = []
            before, host.lsn = self._returned, None
            transaction = host.tree.transaction()
            self._unknown[transaction.txid] = told
            try:
                with transaction:
                    told += ((operation, self._is_done(host.tree, operation)) for operation in operations)
            except CommitUnknownError:
                raise
            except Exception as error:
                del self._unknown[transaction.txid]  # it is not committed, and never will be
                if isinstance(error, ConflictError):
                    continue
                raise
            finally:
                if host.lsn is not None:  # also if something was raised after it
                    assert host.lsn > before, "it stands before a commit that had returned before it began"
                    self._acknowledged[host.lsn] = told
                    self._returned = max(self._returned, host.lsn)
            return

    def _is_done(self, tree: Metatree, operation: Operation) -> bool:
        try:
            do(tree, operation)
        except REFUSED:
            return False
        return True

    def mortal(self, host: Host, *operations: Operation) -> None:
        """The same, if it lives to see it."""
        with suppress(Dead):
            self.commit(host, *operations)

    def look(self, host: Host) -> None:
        """All of the tree in one snapshot, held as long as that takes."""
        before = max(self._returned, self._begin)
        with suppress(ConflictError), host.tree.transaction():
            self._seen.append((before, dump(host.tree)))

    def upkeep(self, work: Callable[[], object]) -> None:
        """Something that needs the right. In drawn schedules others may keep taking it."""
        try:
            work()
        except UnavailableError as error:
            if self.run.draw is None or _BUSY not in str(error):
                raise

    def failing(self, host: Host, *works: Callable[[], object]) -> None:
        """Several things, on a storage that fails now and then."""
        for work in works:
            try:
                work()
            except (MetatreeError, OSError) as error:
                assert host.tree in self.flaky or _BUSY in str(error)

    # --- what must hold ---------------------------------------------------------------------------------------------

    def check(self, right: set[Hashable]) -> None:
        """Ends all handles, and looks. `right`: what came out right before, and need not be looked at again."""
        for tree in self.dead:
            tree._engine._closed = True
        living = [host for host in self.hosts if host.tree not in self.dead and not host.tree._engine._closed]
        for number, host in enumerate(living):
            self.commit(host, ("update", "b", "l", f"{number} goes on"))
        for host in (*living, *living[:-1]):
            host.tree.flush()
        for host in living:
            host.tree.close()
        outcome = (self.place.everything(), repr(self._acknowledged), repr(self._unknown))
        if outcome in right and not self._seen:
            return
        with Host(self.place.storage()).tree as tree:
            states = self._history(tree)
            report = tree.check(deep=True)
            assert report.ok, str(report)
            assert not tree.unapplied
            assert dump(tree) == states[-1][1]
        assert shown(self.place) == as_shown(states[-1][1])
        for before, state in self._seen:
            assert any(state == then for lsn, then in states if lsn >= before), "what was read was never the state"
        right.add(outcome)

    def _history(self, tree: Metatree) -> list[tuple[int, State]]:
        """The states that the log says there were, each with its LSN."""
        states, state, there = [(self._begin, self._state)], self._state, set[int]()
        for batch in tree._engine.log.read(self._begin):
            for record in batch.records:
                header = decode_header(record.header)
                if header.aborts:
                    continue
                told = self._acknowledged.get(batch.lsn) or self._unknown.get(header.txid)
                assert told is not None, f"record {batch.lsn} is of nobody, or was said not to be committed"
                after = replayed(state, told)
                assert after is not None, f"record {batch.lsn}: {told} was said of another state"
                state = after
                there.add(batch.lsn)
            states.append((batch.lsn, state))
        assert self._acknowledged.keys() <= there, "an acknowledged commit is not in the log"
        return states


# --- the actors -------------------------------------------------------------------------------------------------------

Actor = Callable[[World], Callable[[], None]]


def late(world: World) -> None:
    """Opens in the middle, reads, and closes, which makes a checkpoint."""
    host = world.host()
    world.look(host)
    world.upkeep(host.tree.close)


def several(world: World, host: Host) -> None:
    """All that a host does."""
    world.failing(
        host,
        lambda: world.commit(host, ("put", "a/v", "y", "also staged", True)),
        host.tree.checkpoint,
        lambda: world.commit(host, ("delete", "b/w"), ("put", "b/w", "y", "also staged", False)),
        host.tree.flush,
    )


ACTORS: dict[str, Actor] = {
    "checkpoint": lambda w: (h := w.host(apply="background")) and (lambda: w.upkeep(h.tree.checkpoint)),
    "flush": lambda w: (h := w.host(apply="background")) and (lambda: w.upkeep(h.tree.flush)),
    "update": lambda w: (h := w.host()) and (lambda: w.commit(h, ("update", "a/v", "k", 2))),
    "update, checkpoint": lambda w: (
        (h := w.host(apply="background"))
        and (lambda: (w.commit(h, ("update", "a/v", "k", "s")), w.upkeep(h.tree.checkpoint))[0])
    ),
    "make again": lambda w: (
        (h := w.host()) and (lambda: w.commit(h, ("delete", "a/v"), ("put", "a/v", "z", "staged", False)))
    ),
    "drop, checkpoint": lambda w: (
        (h := w.host()) and (lambda: (w.commit(h, ("delete", "a"), ("delete", "b/w")), w.upkeep(h.tree.checkpoint))[0])
    ),
    "move": lambda w: (h := w.host()) and (lambda: w.commit(h, ("move", "a/v", "b/u"))),
    "look": lambda w: (h := w.host()) and (lambda: w.look(h)),
    "update, and die": lambda w: (h := w.host(mortal=True)) and (lambda: w.mortal(h, ("update", "a/v", "k", 3))),
    "open late": lambda w: lambda: late(w),
}
DRAWN: dict[str, Actor] = {
    **ACTORS,
    "recover": lambda w: (h := w.host()) and (lambda: w.upkeep(h.tree.recover)),
    "collect": lambda w: (h := w.host()) and (lambda: w.upkeep(lambda: h.tree.gc(0, dry_run=False))),
    "several": lambda w: (h := w.host()) and (lambda: several(w, h)),
    "flaky": lambda w: (h := w.host(fault=0.03)) and (lambda: several(w, h)),
}
