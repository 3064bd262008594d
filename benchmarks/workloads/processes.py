"""W7: four processes put into one model at the same time; afterwards every acknowledged put is looked for."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from time import perf_counter

from benchmarks.measure import Contestant, Outcome, Ready, Workload
from benchmarks.peers import PEERS
from benchmarks.peers.base import BLOB, Measured, Peer, Store
from benchmarks.workloads.sizes import Sizes

PROCESSES = 4
PATIENCE = 120  # seconds until a dead worker breaks the barrier
TURN = 4.0  # seconds after which a worker stops early; metatreedb waits three for its lock, again and again
EVERYBODY = (
    "metatree",
    "metatree background",
    "sqlite fresh",
    "sqlite steady",
    "lmdb",
    "diskcache",
    "deltalake",
    "icechunk",
    "metatreedb 0.2.3",
)
FLOOR = "floor: shared raw log"  # keeps nothing that could be looked for

Report = tuple[list[str], int, float]
"""Of one worker: what was acknowledged, how many puts raised, when it was done."""


def worker(
    peer: Peer, folder: Path, model: str, prefix: str, puts: int, barrier: Barrier, reports: SimpleQueue[Report]
) -> None:
    with peer.open(folder) as store:
        barrier.wait(PATIENCE)  # opening is not what is measured
        acknowledged, refused = [], 0
        end = perf_counter() + TURN
        for number in range(puts):
            version = f"{prefix}-{number}"
            try:
                store.put(model, version, BLOB)
                acknowledged.append(version)
            except Exception:  # noqa: BLE001 (each peer has its own; a put that raised was not acknowledged)
                refused += 1
            if perf_counter() > end:
                break
        reports.put((acknowledged, refused, perf_counter()))
        barrier.wait(PATIENCE)


@dataclass(slots=True)
class Race:
    """Rounds of one peer, and what became of its puts."""

    peer: Peer
    folder: Path
    puts: int  # of each process
    counted: bool = True
    acknowledged: dict[str, set[str]] = field(default_factory=dict)  # by model
    refused: int = 0
    missing: int = 0

    def prepare(self, model: str) -> None:
        """The model exists before the race: creating it is another workload."""
        self.acknowledged[model] = set()
        with self.peer.open(self.folder) as store:
            try:
                store.put(model, "first", BLOB)
                self.acknowledged[model].add("first")
            except Exception:  # noqa: BLE001 (what earlier rounds left behind may refuse it)
                self.refused += 1

    def run(self, number: int) -> Measured:
        """One round; the time of one acknowledged put, all processes together."""
        model = f"m{number}"
        self.prepare(model)
        spawn = multiprocessing.get_context("spawn")
        barrier, reports = spawn.Barrier(PROCESSES + 1), spawn.SimpleQueue()
        workers = [
            spawn.Process(target=worker, args=(self.peer, self.folder, model, f"p{each}", self.puts, barrier, reports))
            for each in range(PROCESSES)
        ]
        for each in workers:
            each.start()
        barrier.wait(PATIENCE)
        begin = perf_counter()
        done: list[Report] = [reports.get() for _ in workers]
        barrier.wait(PATIENCE)
        for each in workers:
            each.join()
        names = {name for acknowledged, _, _ in done for name in acknowledged}
        self.acknowledged[model] |= names
        self.refused += sum(refused for _, refused, _ in done)
        return Measured((max(end for _, _, end in done) - begin) / max(1, len(names)) * 1e6)

    def count(self) -> None:
        """Look for everything that was acknowledged, as somebody who comes later."""
        if self.counted:
            with self.peer.open(self.folder) as store:
                self.missing = sum(len(names - found(store, model)) for model, names in self.acknowledged.items())
                store.rest()

    def outcome(self) -> Outcome:
        self.count()
        acknowledged = sum(map(len, self.acknowledged.values()))
        return Outcome(self.missing / max(1, acknowledged), self.refused / max(1, acknowledged + self.refused))


def found(store: Store, model: str) -> set[str]:
    """What a reader finds; nothing, if the peer cannot even say what is there."""
    try:
        return store.versions(model)
    except Exception:  # noqa: BLE001 (each peer has its own)
        return set()


def contestant(peer: Peer, puts: int) -> Contestant:
    @contextmanager
    def opened(folder: Path) -> Iterator[Ready]:
        race = Race(peer, folder, puts, counted=peer.name != FLOOR)
        with ExitStack() as stack:
            stack.enter_context(peer.open(folder))  # the store exists before the race
            if not peer.hold:
                stack.close()
            yield Ready(race.run, race.count, race.outcome)

    return Contestant(peer.name, opened)


def workloads(sizes: Sizes) -> list[Workload]:
    everybody = [contestant(PEERS[name], sizes.puts) for name in (*EVERYBODY, FLOOR)]
    title = f"{PROCESSES} processes, {sizes.puts} durable puts each, one model"
    return [Workload("W7", title, everybody, steps=1, verb="put", rounds=3)]
