"""Interleavings of writers, readers, trims and openers of one log of slots, call by call.

Checked after each: every acknowledged record is in the log exactly once, where its caller was told and where it was
decided; all readers saw one order; what was reported as void never appears, even when late requests land at last.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.figures import Layer
from tests.wal.schedules import SEED, Run, explore, one_thread, wander
from wal import InDoubtError, LogMissingError, PoisonedError, Record, Storage, WriteAheadLog, open_log
from wal.checkpoint import Checkpoint
from wal.testing.hosts import ManualClock, watched
from wal.testing.objects import Bucket, MemoryObjects

FILLED = 3  # batches that are there already
PREEMPTIONS = 3  # of pairs; the bar is 2
PAIRS, CREATORS, WANDERED, NIGHT = 55_000, 1_200, 28_000, 4_000_000  # schedules; the floors of all are 100,000


@dataclass(slots=True)
class World:
    """One bucket, what was done to it, and what was said of that."""

    run: Run
    bucket: Bucket
    acknowledged: dict[bytes, int] = field(default_factory=dict)  # header -> LSN
    void: set[bytes] = field(default_factory=set)  # said to be never
    unknown: set[bytes] = field(default_factory=set)
    seen: list[list[tuple[int, tuple[bytes, ...]]]] = field(default_factory=list)  # by readers
    late: list[Callable[[], Any]] = field(default_factory=list)
    trimmed: int = 0  # up to where somebody may have trimmed
    handles: list[WriteAheadLog] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def storage(self, faults: tuple[str, ...] = ()) -> Storage:
        """A host's; `faults` are for its first creations, the last one stays if it ends in +."""
        waiting = list(faults)

        def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
            self.run.point()
            if "flaky" in faults:
                return self._flaky(run)
            if method != "create" or not waiting:
                return run()
            fault = waiting[0] if waiting[0].endswith("+") else waiting.pop(0)
            if fault.startswith("after"):
                run()
                self.run.point()
            elif fault.startswith("late"):
                self.late.append(run)
            elif fault.startswith("refused"):
                raise OSError(errno.ENOSPC, "full")
            raise OSError(errno.ETIMEDOUT, fault)

        return watched(MemoryObjects(self.bucket), around)

    def host(self, *faults: str, create: bool = False, read_only: bool = False) -> WriteAheadLog:
        clock = ManualClock(next(self._numbers), on_sleep=lambda _: self.run.point())
        patience = 0.0 if any(fault.endswith("+") for fault in faults) else 60.0
        log = open_log(self.storage(faults), create=create, read_only=read_only, clock=clock, lock_timeout=patience)
        self.handles.append(log)
        return log

    def _flaky(self, run: Callable[[], Any]) -> Any:
        """Any call may fail, with or without effect."""
        fault = self.run.fault(0.15)
        if fault == "before":
            raise OSError(errno.ETIMEDOUT, "flaky")
        result = run()
        if fault:
            raise OSError(errno.ETIMEDOUT, "flaky")
        return result

    def flaky(self, log: WriteAheadLog) -> None:
        """All that a host does, over a storage that fails now and then."""
        for work in (lambda: self.append(log, 2), lambda: self.look(log, 1), lambda: self.trim(log, 3)):
            with suppress(OSError, InDoubtError):
                work()
        with suppress(OSError, InDoubtError):
            self.settle(log)
        self.append(log)

    # --- actors ----------------------------------------------------------------------------------------------------

    def append(self, log: WriteAheadLog, count: int = 1) -> None:
        for _ in range(count):
            name = b"record %d" % next(self._numbers)
            before = max(self.acknowledged.values(), default=0)
            try:
                position = log.append(lambda head, mates, name=name: Record(name, b"%d" % (head + len(mates))))
            except InDoubtError:
                self.unknown.add(name)
            except (OSError, PoisonedError):
                self.void.add(name)
            else:
                assert position is not None
                assert position.lsn > before, "it stands before a record that was acknowledged before it began"
                self.acknowledged[name] = position.lsn

    def nothing(self, log: WriteAheadLog) -> None:
        """A question that appends nothing: its answer must be as of a moment within the call."""
        before = max(self.acknowledged.values(), default=0)
        heads: list[int] = []
        assert log.append(lambda head, mates: heads.append(head)) is None
        assert heads[-1] >= before, "'nothing to do' was said of a log that had grown before"

    def look(self, log: WriteAheadLog, count: int = 2) -> None:
        for _ in range(count):
            before = max(self.acknowledged.values(), default=0)
            head = log.head()
            assert head >= before, "an acknowledged record is not seen"
            self.seen.append([(b.lsn, tuple(r.header for r in b.records)) for b in log.read(0, head)])
            assert [lsn for lsn, _ in self.seen[-1]] == list(range(1, head + 1))

    def trim(self, log: WriteAheadLog, upto: int) -> None:
        self.trimmed = max(self.trimmed, upto)
        log.trim(upto)
        assert log.trimmed() >= upto

    def settle(self, log: WriteAheadLog) -> None:
        """After it, what was in doubt before is decided for good."""
        unknown = set(self.unknown)
        log.settle()
        there = {record.header for batch in log.read(0) for record in batch.records}
        self.void |= unknown - there
        self.unknown -= unknown - there

    def land(self) -> None:
        """The network delivers what is still on its way."""
        for _ in range(2):
            self.run.point()
            while self.late:
                self.late.pop(0)()

    # --- what must hold ---------------------------------------------------------------------------------------------

    def outcome(self) -> Hashable:
        """All that `check` looks at: worlds with the same outcome are right or wrong together."""
        self.land()
        stored = frozenset((name, found.data, found.attribute) for name, found in self.bucket.objects.items())
        told = frozenset(self.acknowledged.items()), frozenset(self.void), frozenset(self.unknown)
        return stored, told, tuple(map(tuple, self.seen)), self.trimmed

    def check(self) -> None:
        self.land()
        log = open_log(MemoryObjects(self.bucket), read_only=True)
        batches = list(log.read(0))
        final = [(batch.lsn, tuple(record.header for record in batch.records)) for batch in batches]
        assert [lsn for lsn, _ in final] == list(range(1, len(final) + 1))
        where = [(name, lsn) for lsn, names in final for name in names]
        assert len(where) == len(dict(where)), "a record is there twice"
        for name, lsn in self.acknowledged.items():
            assert dict(where).get(name) == lsn, "an acknowledged record is not where its caller was told"
        assert not self.void & dict(where).keys(), "a record that was reported void appeared"
        assert dict(where).keys() <= {*self.acknowledged, *self.unknown, *(b"filled %d" % n for n in range(FILLED))}
        for seen in self.seen:
            assert seen == final[: len(seen)], "two orders"
        for batch in batches:
            for index, record in enumerate(batch.records):
                assert record.body is not None or batch.lsn <= self.trimmed, "a body is lost"
                assert record.body is None or int(record.body) == batch.lsn - 1 + index, "decided on another head"
        assert log.verify().problems == ()
        log.close()


def filled() -> dict[str, Any]:
    bucket = Bucket()
    log = open_log(MemoryObjects(bucket), create=True, clock=ManualClock(77))
    for number in range(FILLED):
        log.append(lambda head, mates, number=number: Record(b"filled %d" % number, b"%d" % head))
    log.close()
    return dict(bucket.objects)


def zombie(world: World) -> None:
    """A trim that was paused before its last step, and puts an older redo mark back at last."""
    log = world.handles[0]
    world.run.point()
    storage = world.storage()
    storage.publish(".wal/checkpoint.json", Checkpoint(log.id, 1).encode(), b"", durable=True)


def late_opener(world: World) -> None:
    """Opens only now, wherever checkpoint.json may send it."""
    log = world.host()
    world.append(log)
    world.look(log, 1)


Actor = Callable[[World], Callable[[], None]]
ACTORS: dict[str, Actor] = {
    "append": lambda w: (log := w.host()) and (lambda: w.append(log)),
    "append twice": lambda w: (log := w.host()) and (lambda: w.append(log, 2)),
    "append, reply lost": lambda w: (log := w.host("after")) and (lambda: w.append(log, 2)),
    "append, request late": lambda w: (log := w.host("late", "late")) and (lambda: w.append(log, 2)),
    "append, refused": lambda w: (log := w.host("refused")) and (lambda: w.append(log, 2)),
    "append, given up": lambda w: (log := w.host("late", "late+")) and (lambda: w.append(log, 2)),
    "ask": lambda w: (log := w.host()) and (lambda: w.nothing(log)),
    "read": lambda w: (log := w.host(read_only=True)) and (lambda: w.look(log)),
    "trim": lambda w: (log := w.host()) and log.head() and (lambda: w.trim(log, 2)),
    "trim more": lambda w: (log := w.host()) and log.head() and (lambda: w.trim(log, 3)),
    "stale mark": lambda w: lambda: zombie(w),
    "settle": lambda w: (log := w.host()) and (lambda: w.settle(log)),
    "open late": lambda w: lambda: late_opener(w),
    "network": lambda w: w.land,
}
DRAWN: dict[str, Actor] = {
    **ACTORS,
    "flaky": lambda w: (log := w.host("flaky")) and (lambda: w.flaky(log)),
    "flaky too": lambda w: (log := w.host("flaky")) and (lambda: w.flaky(log)),
}


def scenario(*names: str, objects: dict[str, Any]) -> Callable[[Run], None]:
    right: set[Hashable] = set()

    def play(run: Run) -> None:
        world = World(run, Bucket(dict(objects), itertools.count(1000)))
        works = [DRAWN[name](world) for name in names]
        if "stale mark" in names and "trim" not in " ".join(names):
            world.host().head()
        world.handles or world.host()
        world.trimmed = 1 if "stale mark" in names else 0
        run.play(works)
        outcome = world.outcome()
        if outcome not in right:
            world.check()
            right.add(outcome)
        for log in world.handles:
            log.close()

    return play


@pytest.fixture(autouse=True)
def inline() -> Iterator[None]:
    with one_thread():
        yield


NAME = "schedules of a log of slots"


def report(layer: Layer, done: int, *, floor: int, night: int = 0, note: str = "") -> None:
    layer.report(NAME, done, floor=floor, night=max(night, floor), unit="schedules", note=note)


def test_every_pair_of_actors_with_up_to_three_preemptions(layer: Layer) -> None:
    objects, total = filled(), 0
    for pair in itertools.combinations_with_replacement(ACTORS, 2):
        total += explore(f"scenario(*{pair}, objects=filled())", scenario(*pair, objects=objects), PREEMPTIONS)
    report(layer, total, floor=PAIRS, note=f"pairs: all with up to {PREEMPTIONS} preemptions")


def test_three_actors_in_schedules_drawn_from_a_seed(layer: Layer) -> None:
    objects = filled()
    triples = {
        f"scenario(*{names}, objects=filled())": scenario(*names, objects=objects)
        for names in itertools.combinations(DRAWN, 3)
    }
    total = wander(triples, SEED, lambda done: layer.more(NAME, done, floor=WANDERED, night=NIGHT))
    report(layer, total, floor=WANDERED, night=NIGHT, note=f"METATREE_SCHEDULES_SEED={SEED}")


def test_creators_of_one_log_agree_on_it_in_every_schedule(layer: Layer) -> None:
    """E20: two creators, one of which may die at any call; a reader that opens meanwhile sees all of it or none."""

    def play(run: Run) -> None:
        world = World(run, Bucket())
        ids: list[str] = []

        def create(*faults: str) -> None:
            log = world.host(*faults, create=True)
            ids.append(log.id)
            world.append(log)

        def dying() -> None:
            try:
                create("after")
            except OSError:  # it died, or gave up, behind its creation
                return

        def reading() -> None:
            try:
                log = world.host(read_only=True)
            except LogMissingError:
                return
            ids.append(log.id)
            world.look(log, 1)

        run.play([create, dying, reading])
        world.check()
        assert len(set(ids)) == 1

    report(layer, explore("play", play, 2), floor=CREATORS)
