"""W2 and W5 by weight: how far the peak of a process's memory rises while it works."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.children import ask
from benchmarks.measure import Contestant, Ready, Workload
from benchmarks.peers import PEERS
from benchmarks.peers.base import BLOB, BLOB_NAME, Measured, Store, optional
from benchmarks.workloads.blobs import make
from benchmarks.workloads.sizes import MIB, Sizes

BATCHING = ("metatree", "metatree background", "sqlite fresh")
LARGE = ("metatree", "icechunk")
STREAM = 100  # puts in a transaction, where the whole is not to be held
EXTRAS = {"icechunk": "icechunk"}


def peak() -> int:
    """The most bytes that this process has had in memory."""
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    # not ru_maxrss: on Linux a child begins with its parent's
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def work(store: Store, what: str, size: int, folder: Path) -> None:
    if what == "file":
        store.put_file("m", "large", folder / "source" / BLOB_NAME)
        return
    group = size if what == "batch" else STREAM
    for first in range(0, size, group):
        store.put_many("m", [f"v{number}" for number in range(first, min(first + group, size))], BLOB)


def main() -> None:
    """In the child: prints the rise in bytes."""
    name, what, size, folder = sys.argv[1:]
    with PEERS[name].open(Path(folder)) as store:
        store.put("m", "first", BLOB)  # everything is imported and made once
        store.rest()
        before = peak()
        work(store, what, int(size), Path(folder))
        store.rest()
        print(json.dumps(peak() - before))


def contestant(name: str, what: str, size: int, variant: str = "") -> Contestant:
    @contextmanager
    def opened(folder: Path) -> Iterator[Ready]:
        if name in EXTRAS:
            optional(EXTRAS[name])
        if what == "file":
            make(folder, size)
        yield Ready(partial(weigh, folder))

    def weigh(folder: Path, number: int) -> Measured:
        return Measured(ask("benchmarks.workloads.memory", name, what, size, folder) / MIB)

    return Contestant(name, opened, variant)


def workloads(sizes: Sizes) -> list[Workload]:
    batches = [contestant(name, "batch", sizes.batch, "one transaction") for name in BATCHING]
    streams = [contestant(name, "stream", sizes.batch, f"transactions of {STREAM}") for name in BATCHING]
    files = [contestant(name, "file", sizes.blobs[1]) for name in LARGE]
    title = f"memory for {sizes.batch:,} puts, {sizes.batch * len(BLOB) / MIB:,.1f} MiB"
    large = f"memory for a put of {sizes.blobs[1] / MIB:,.4g} MiB"
    return [
        Workload("W2 memory", title, [*batches, *streams], steps=1, unit="MiB", rounds=1),
        Workload("W5 memory", large, files, steps=1, unit="MiB", rounds=1),
    ]
