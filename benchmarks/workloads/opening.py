"""W8: a new process opens a large store and finds its first node; and what importing a peer takes before that.

The page cache is warm: what is cold is the process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter_ns

from benchmarks.children import CHECKOUT, ask, environment
from benchmarks.measure import Contestant, Ready, Workload
from benchmarks.peers import PEERS
from benchmarks.peers.base import Measured, Peer, optional
from benchmarks.workloads.sizes import Sizes

WIDE = 1_000  # versions of a model
OPENING = ("metatree", "sqlite fresh", "lmdb", "metatreedb 0.2.3")
IMPORTING = ("metatree", "sqlite fresh", "lmdb", "diskcache", "deltalake", "icechunk", "metatreedb 0.2.3")
IMPORT = "import time; begin = time.perf_counter_ns(); import {}; print((time.perf_counter_ns() - begin) / 1000)"


def main() -> None:
    """In the child: prints the microseconds from opening to the first answer."""
    name, folder = sys.argv[1:]
    peer = PEERS[name]
    if peer.python is None:
        __import__(peer.imports)
    begin = perf_counter_ns()
    with peer.open(Path(folder)) as store:
        outcome = store.find_active("m0")
        micros = (perf_counter_ns() - begin) / 1000
        if isinstance(outcome, Measured) and store.opening is not None:
            micros = store.opening + outcome.value
        print(json.dumps(micros))


def build(peer: Peer, folder: Path, nodes: int) -> None:
    """A store that was closed in good order."""
    wide = min(WIDE, nodes)
    with peer.open(folder) as store:
        for model in range(nodes // wide):
            store.fill(f"m{model}", [f"v{number}" for number in range(wide)])
        store.update("m0", "", {"active": "v0"})
        store.update("m0", "v0", {"auc": 0.93})
        store.rest()


def opening(peer: Peer, nodes: int, size: str) -> Contestant:
    @contextmanager
    def opened(folder: Path) -> Iterator[Ready]:
        build(peer, folder, nodes)
        yield Ready(lambda number: Measured(ask("benchmarks.workloads.opening", peer.name, folder)))

    return Contestant(peer.name, opened, size)


def importing(peer: Peer) -> Contestant:
    @contextmanager
    def opened(folder: Path) -> Iterator[Ready]:
        if peer.python is None:
            optional(peer.imports)
            yield Ready(partial(import_, [sys.executable], peer.imports))
        else:
            yield Ready(partial(import_, [peer.python(), "-I"], peer.imports))

    return Contestant(peer.name, opened)


def import_(python: list[str], module: str, number: int) -> Measured:
    command = [*python, "-c", IMPORT.format(module)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT, env=environment(), check=True)
    return Measured(float(done.stdout))


def workloads(sizes: Sizes) -> list[Workload]:
    few, many = sizes.nodes
    opens = [opening(PEERS[name], *size) for name in OPENING for size in ((few, "few"), (many, "many"))]
    title = f"a new process opens {few:,} (few) or {many:,} (many) nodes and finds the first"
    imports = [importing(PEERS[name]) for name in IMPORTING]
    return [
        Workload("W8", title, opens, steps=2, warmup=1, rounds=3),
        Workload("W8 import", "importing the library", imports, steps=2, warmup=1, rounds=3),
    ]
