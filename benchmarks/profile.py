"""python -m benchmarks.profile [--only W1,W10] [--seconds N] [--folder DIR]

Where the time of one operation goes: how much of it is the flush, other system calls, and each part of the library;
and beside it the time of the floor, the least that any program of this shape must do. A timer interrupts the program
about a thousand times a second and notes which part is at work, so that the operations run as fast as always.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from time import perf_counter
from types import FrameType

from benchmarks.children import CHECKOUT, start
from benchmarks.machine import machine
from benchmarks.measure import Contestant, Ready, contestant
from benchmarks.peers import PEERS
from benchmarks.peers.base import BLOB
from benchmarks.profile_import import profile_import
from benchmarks.workloads import blobs
from benchmarks.workloads.batches import GROUPS, batch
from benchmarks.workloads.finds import find, look
from benchmarks.workloads.opening import build
from benchmarks.workloads.processes import PROCESSES
from benchmarks.workloads.puts import put, update
from benchmarks.workloads.recovery import Reach, killed, records_parsed, tree_readable, write_records
from benchmarks.workloads.sizes import MIB, USUAL, Sizes
from wal import interrupts

EVERY = 0.00097  # seconds between two samples: no multiple of anything that the library waits for
ROW = 50  # single operations in a row, which has to take longer than a sample
RESULTS = Path(__file__).resolve().parent / "results"
FLUSHES = {"fsync", "fdatasync", "syncfs"}
READER = ("reader", "asking", "window", "view", "nodes", "metadata")
FILES = ("committer", "apply", "folders", "checkpoint", "marks", "outcome", "discard")
PARTS = {
    "the flush": (),
    "other system calls": ("wal/storage/posix.py",),
    "storage: names, files, locks": ("wal/storage/",),
    "log: records to bytes and back": ("wal/frame.py", "wal/segment.py", "wal/format.py"),
    "log: right, queue, head, chain": ("wal/",),
    "facts: to bytes and back": ("metatree/facts.py", "metatree/jsontext.py", "metatree/parts.py"),
    "net effect of facts": ("metatree/fold.py",),
    "locations, values, names": ("metatree/location.py", "metatree/values.py", "metatree/layout.py"),
    "reader": tuple(f"metatree/{name}.py" for name in READER),
    "committer: the files": tuple(f"metatree/{name}.py" for name in FILES),
    "transaction": ("metatree/",),
    "this program": ("benchmarks/",),
}
"""The parts of the library, by the beginnings of their files; the first that fits."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is looked into: steps of `each` operations, `row` of them between two rests."""

    name: str
    title: str
    subject: Contestant
    floor: Contestant | None = None
    each: int = 1
    row: int = 1


def part_of(frame: FrameType | None) -> str:
    """The part of the library that is at work in a frame; what it calls outside counts as its own."""
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(CHECKOUT):
            inner = file.relative_to(CHECKOUT).as_posix()
            part = next((part for part, files in PARTS.items() if inner.startswith(files)), None)
            if part == "other system calls" and frame.f_code.co_name in FLUSHES:
                return "the flush"
            if part is not None:
                return part
        frame = frame.f_back
    return "this program"


class Sampler:
    """How much time each part takes. For the main thread."""

    def __init__(self) -> None:
        self.parts: defaultdict[str, float] = defaultdict(float)  # seconds
        self._due = 0.0  # when the next sample is taken

    def _sample(self, number: int, frame: FrameType | None) -> None:
        """Stands for all samples that were due: a call into the system is interrupted only when it ends."""
        due = 1 + max(0, int((perf_counter() - self._due) / EVERY))
        self.parts[part_of(frame)] += due * EVERY
        self._due += due * EVERY

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Begins at random: what is shorter than the time between two samples would else show its end alone."""
        before = signal.signal(signal.SIGALRM, self._sample)
        deferred, interrupts.SIGNALS = interrupts.SIGNALS, ()  # each sample when it is due, also within a commit
        first = random.uniform(EVERY / 100, EVERY)
        self._due = perf_counter() + first
        signal.setitimer(signal.ITIMER_REAL, first, EVERY)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            interrupts.SIGNALS = deferred


def repeat(ready: Ready, numbers: Iterator[int], row: int, seconds: float, sampler: Sampler | None = None) -> float:
    """Take steps for so long, three rows at least; the microseconds of one step, without what is put off and done
    between two rows."""
    end, took, rows = perf_counter() + seconds, 0.0, 0
    while rows < 3 or perf_counter() < end:
        with nullcontext() if sampler is None else sampler.sampling():
            begin = perf_counter()
            for number in islice(numbers, row):
                ready.step(number)
            took += perf_counter() - begin
        rows += 1
        ready.rest()
    return took / rows / row * 1e6


def measured(contestant: Contestant, subject: Subject, folder: Path, seconds: float, sampler: Sampler | None) -> float:
    """The microseconds of one operation; then the same again under the sampler."""
    folder.mkdir()
    with contestant.open(folder) as ready:
        numbers = count()
        repeat(ready, numbers, subject.row, seconds / 10)
        took = repeat(ready, numbers, subject.row, seconds)
        if sampler is not None:
            repeat(ready, numbers, subject.row, seconds, sampler)
        return took / subject.each


def profile(subject: Subject, folder: Path, seconds: float) -> list[str]:
    """The lines of one table."""
    folder.mkdir()
    sampler = Sampler()
    took = measured(subject.subject, subject, folder / "subject", seconds, sampler)
    whole = sum(sampler.parts.values()) or 1.0  # none in less than a millisecond
    lines = [f"{subject.name}  {subject.title}: {took:,.1f} us"]
    shares = ((part, sampler.parts[part] / whole) for part in PARTS)
    lines += [f"    {part:32}{share:6.0%}{share * took:10,.1f} us" for part, share in shares if share >= 0.005]
    if subject.floor is not None:
        floor = measured(subject.floor, subject, folder / "floor", seconds, None)
        lines.append(f"    {subject.floor.peer:38}{floor:10,.1f} us")
    return [*lines, ""]


# --- what is looked into --------------------------------------------------------------------------------------------


@contextmanager
def reopened(nodes: int, folder: Path) -> Iterator[Ready]:
    """Opened, asked and closed again and again in one process: without what a new process does only once."""
    peer = PEERS["metatree"]
    build(peer, folder, nodes)

    def step(number: int) -> None:
        with peer.open(folder) as store:
            store.find_active("m0")

    yield Ready(step)


@contextmanager
def reached(leave: Callable[[Path, int], None], reach: Reach, records: int, folder: Path) -> Iterator[Ready]:
    """What somebody left, opened for reading again and again."""
    leave(folder, records)

    def step(number: int) -> None:
        with reach(folder, records):
            pass

    yield Ready(step)


def crowd() -> None:
    """In a child: puts into one model until it is killed."""
    name, folder, prefix = sys.argv[1:]
    with PEERS[name].open(Path(folder)) as store:
        for number in count():
            store.put("m", f"{prefix}-{number}", BLOB)


@contextmanager
def among_others(peer: str, folder: Path) -> Iterator[Ready]:
    """A process that puts into the model into which three others do."""
    with PEERS[peer].open(folder) as store, ExitStack() as stack:
        store.put("m", "first", BLOB)
        for other in range(PROCESSES - 1):
            process = start("benchmarks.profile", "crowd", peer, folder, f"p{other}")
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield Ready(lambda number: store.put("m", f"mine-{number}", BLOB), store.rest)


def subjects(sizes: Sizes) -> list[Subject]:
    everything = []
    singly = min(ROW, sizes.steps)
    for name, title, prepare, each, row in (
        ("W1", "one put", put, 1, singly),
        ("W2", f"a put in a transaction of {sizes.batch:,}", partial(batch, sizes.batch), sizes.batch, 1),
        ("W3", "one update", update, 1, singly),
    ):
        for peer, floor in (("metatree background", "floor: deferred"), ("metatree", "floor: current")):
            own, least = contestant(PEERS[peer], prepare), contestant(PEERS[floor], prepare)
            everything.append(Subject(name, f"{title}, {peer}", own, least, each, row))
    for group in GROUPS:
        own, least = (
            contestant(PEERS[name], partial(batch, group)) for name in ("metatree background", "floor: deferred")
        )
        everything.append(Subject("W11", f"a put in a transaction of {group:,}", own, least, group, row=3))
    left = partial(killed, "metatree background", "held")
    readable = Contestant("metatree", partial(reached, left, tree_readable, sizes.records))
    parsed = Contestant("floor: parse", partial(reached, write_records, records_parsed, sizes.records))
    opening = Contestant("metatree", partial(reopened, sizes.nodes[0]))
    found, looked = contestant(PEERS["metatree"], find), Contestant("floor: one pread", look)
    size = sizes.blobs[0]
    own, plain = (blobs.contestant(PEERS[name], blobs.get, size) for name in ("metatree", "plain files"))
    return [
        *everything,
        Subject("W4", "find and metadata, warm", found, looked, row=10 * sizes.steps),
        Subject("W5", f"read a blob of {size / MIB:g} MiB", own, plain, row=20),
        *(
            Subject(
                "W7",
                f"one put of one of four processes, {name}",
                Contestant(name, partial(among_others, name)),
                row=singly,
            )
            for name in ("metatree background", "metatree")
        ),
        Subject("W8", f"open {sizes.nodes[0]:,} nodes, find the first, close", opening),
        Subject("W10", "a record of a killed writer, until it can be read", readable, parsed, sizes.records),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of workloads, with commas")
    parser.add_argument("--seconds", type=float, default=5, help="for each operation, three times")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the stores are made")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    wanted = [each for each in subjects(USUAL) if given.only is None or each.name in given.only.split(",")]
    print(*(f"{name}: {value}" for name, value in machine(given.folder).items()), "", sep="\n")
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="profile-") as folder:
        for number, subject in enumerate(wanted):
            print(*profile(subject, Path(folder) / str(number), given.seconds), sep="\n", flush=True)
    if given.only is None or "W8" in given.only.split(","):
        print(*profile_import(given.seconds), sep="\n")


if __name__ == "__main__":
    main()
