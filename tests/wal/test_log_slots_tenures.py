"""Interleavings of committers of one log: holders, successors, zombies, an expiring lease, call by call.

Each holder does what a committer does: reads a file, adds its own line, publishes it through its tenure, and keeps as a
mark how many lines there are. Checked: a line whose publishing succeeded is never lost, no line is there that was
refused, marks never say more than is there, and epochs do not come twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.figures import Layer
from tests.wal.schedules import SEED, PointedDisk, Run, explore, one_thread, wander
from wal import (
    ChangedError,
    LockBusyError,
    MemoryPosix,
    MemoryStorage,
    RightLostError,
    Storage,
    WriteAheadLog,
    open_log,
)
from wal.claim import Claim
from wal.names import Names
from wal.testing.hosts import ManualClock, watched
from wal.testing.objects import Bucket, MemoryObjects

TTL = 10.0
FILE = "m/lines"
FENCED = (ChangedError, FileNotFoundError, NotADirectoryError)
PREEMPTIONS = 2
PAIRS, WANDERED, NIGHT = {"lease": 3_300, "epochs": 8_500}, 2_000, 500_000  # schedules


@dataclass(slots=True)
class World:
    """One storage, one time."""

    kind: str
    run: Run
    disk: MemoryPosix = field(init=False)
    bucket: Bucket = field(default_factory=Bucket)
    clock: ManualClock = field(init=False)
    done: list[str] = field(default_factory=list)  # lines whose publishing succeeded
    refused: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    claims: set[tuple[int, str]] = field(default_factory=set)
    names: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    failing: list[WriteAheadLog] = field(default_factory=list)  # handles whose storage fails now and then
    lost: bool = False  # the lease was removed by an administrator

    def __post_init__(self) -> None:
        self.disk, self.clock = PointedDisk(self.run), ManualClock(3)

    def plain(self) -> Storage:
        return MemoryStorage(self.disk) if self.kind == "epochs" else MemoryObjects(self.bucket)

    def storage(self, how: str = "") -> Storage:
        """A host's; one that "dies" does so when it has claimed an epoch and is about to clear away; with "flaky" any
        call may fail, with or without effect."""
        if self.kind == "epochs":
            return watched(self.plain(), lambda method, arguments, run: self._step(run, method, how))
        return watched(self.plain(), lambda method, arguments, run: self._step(run, "read", how))

    def _step(self, run: Callable[[], Any], method: str, how: str) -> Any:
        if method in ("read", "list", "entry"):  # the others have points in them
            self.run.point()
        if how == "dies" and method == "retire":
            raise ConnectionAbortedError
        fault = self.run.fault(0.1) if how == "flaky" else ""
        if fault == "before":
            raise ConnectionAbortedError
        result = run()
        if fault:
            raise ConnectionAbortedError
        return result

    def host(self, how: str = "") -> WriteAheadLog:
        log = open_log(self.storage(how), kind="slots", create=True, clock=self.clock, ttl=TTL, lock_timeout=0.0)
        if how:
            self.failing.append(log)
        return log

    # --- actors ----------------------------------------------------------------------------------------------------

    def commit(self, log: WriteAheadLog, lines: int, tenures: int = 1) -> None:
        """What a committer does, so often."""
        for _ in range(tenures):
            try:
                with log.right() as tenure:
                    for _ in range(lines):
                        self._add(log, tenure)
                        tenure.check()
            except (LockBusyError, RightLostError):
                continue
            except OSError:
                if log not in self.failing:
                    raise

    def _add(self, log: WriteAheadLog, tenure: Any) -> None:
        name = f"line {next(self.names)}"
        mark = log.load_mark(0)
        try:
            stored = self.plain_read(tenure.storage)
            there = stored.data.decode().splitlines() if stored is not None else []
            assert len(there) >= mark, "a mark says more than is there"
            content = "\n".join([*there, name]).encode()
            version = "" if stored is None else stored.version
            tenure.storage.publish(FILE, content, b"", durable=True, expect=version)
        except FENCED:
            self.refused.append(name)
            tenure.check()
            raise RightLostError(name) from None
        except ConnectionAbortedError:
            self.unknown.append(name)
            raise
        self.done.append(name)
        log.store_mark(0, len(there) + 1)

    def plain_read(self, storage: Storage) -> Any:
        try:
            return storage.read(FILE)
        except FileNotFoundError:
            return None

    def overtake(self, log: WriteAheadLog, lines: int) -> None:
        """Watches a holder until it counts as dead, and takes over."""
        try:
            with log.right(timeout=0):
                pass
        except (LockBusyError, RightLostError):
            self.clock.now += TTL + 1
        except OSError:
            if log not in self.failing:
                raise
        self.commit(log, lines)

    def remove_lease(self) -> None:
        """E23: an administrator, or an old client, removes the lease."""
        self.run.point()
        self.lost = True
        self.plain().erase(Names(".wal").apply)

    # --- what must hold ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        stored = self.plain_read(self.plain())
        there = stored.data.decode().splitlines() if stored is not None else []
        assert len(there) == len(set(there))
        assert set(self.done) <= set(there), "a line that was published is lost: somebody was overtaken, and wrote on"
        assert not set(self.refused) & set(there), "a refused step was done"
        assert set(there) <= {*self.done, *self.unknown}
        log = open_log(self.plain(), kind="slots", clock=self.clock, ttl=TTL, lock_timeout=0.0)
        self.clock.now += 1
        for _ in range(2):
            try:
                with log.right():
                    assert log.load_mark(0) <= len(there), "a mark says more than is there"
                    break
            except LockBusyError:
                self.clock.now += TTL + 1
        else:
            pytest.fail("the right can be had no more")
        assert log.verify().problems == ()
        if self.kind == "lease":
            claim = Claim.decode(self.plain().read(".wal/apply").data)
            assert claim is not None and claim.epoch <= log.head()
        log.close()


Actor = Callable[[World], Callable[[], None]]
ACTORS: dict[str, Actor] = {
    "commit": lambda w: (log := w.host()) and (lambda: w.commit(log, 1)),
    "commit twice": lambda w: (log := w.host()) and (lambda: w.commit(log, 1, tenures=2)),
    "commit two lines": lambda w: (log := w.host()) and (lambda: w.commit(log, 2)),
    "overtake": lambda w: (log := w.host()) and (lambda: w.overtake(log, 1)),
    "overtake, two lines": lambda w: (log := w.host()) and (lambda: w.overtake(log, 2)),
    "overtake, and die": lambda w: (log := w.host("dies")) and (lambda: w.overtake(log, 1)),
    "remove the lease": lambda w: w.remove_lease,
}
DRAWN: dict[str, Actor] = {
    **ACTORS,
    "flaky": lambda w: (log := w.host("flaky")) and (lambda: w.commit(log, 2, tenures=3)),
    "flaky, overtakes": lambda w: (log := w.host("flaky")) and (lambda: (w.overtake(log, 1), w.commit(log, 1))[0]),
}


def scenario(kind: str, *names: str) -> Callable[[Run], None]:
    def play(run: Run) -> None:
        world = World(kind, run)
        world.host().close()
        run.play([DRAWN[name](world) for name in names])
        world.check()

    return play


@pytest.fixture(autouse=True)
def inline() -> Iterator[None]:
    with one_thread():
        yield


def actors(kind: str, among: dict[str, Actor]) -> list[str]:
    return [name for name in among if (("die" not in name) if kind == "lease" else ("lease" not in name))]


def report(layer: Layer, kind: str, done: int, *, floor: int, night: int = 0, note: str = "") -> None:
    layer.report(f"schedules of committers, {kind}", done, floor=floor, night=night, unit="schedules", note=note)


@pytest.mark.parametrize("kind", ["lease", "epochs"])
def test_every_pair_of_committers_with_up_to_two_preemptions(kind: str, layer: Layer) -> None:
    total = 0
    for pair in itertools.combinations_with_replacement(actors(kind, ACTORS), 2):
        total += explore(f"scenario({kind!r}, *{pair})", scenario(kind, *pair), PREEMPTIONS)
    report(layer, kind, total, floor=PAIRS[kind], note=f"pairs: all with up to {PREEMPTIONS} preemptions")


@pytest.mark.parametrize("kind", ["lease", "epochs"])
def test_three_committers_in_schedules_drawn_from_a_seed(kind: str, layer: Layer) -> None:
    triples = {
        f"scenario({kind!r}, *{names})": scenario(kind, *names)
        for names in itertools.combinations(actors(kind, DRAWN), 3)
    }
    aims = {"floor": WANDERED, "night": NIGHT}
    total = wander(triples, SEED, lambda done: layer.more(f"schedules of committers, {kind}", done, **aims))
    report(layer, kind, total, **aims, note=f"METATREE_SCHEDULES_SEED={SEED}")
