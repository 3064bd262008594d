"""Whether a peer keeps the promise, looked at and not believed: does every call wait for a flush before it returns?

A short separate run under strace: the operations are told apart by harmless calls with names that are looked for.
What it cannot tell: whether the right file was flushed. (Writing through O_SYNC would not be noticed; no peer does.)
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.children import CHECKOUT, environment
from benchmarks.peers.base import BLOB, BLOB_NAME, NotInstalled, Peer, Store

STEPS = 5
WARMUP = 2
BATCH = 10
LARGE = 1 << 20
MARK = "/benchmark-step"
CALLS = "trace=?fsync,?fdatasync,?syncfs,?sync,?msync,?access,?faccessat,?faccessat2"
SYNC = re.compile(r"\b(?:fsync|fdatasync|syncfs|sync|msync)(?:\((?!.*MS_ASYNC)| resumed>).*= 0$")


class Proofs:
    """What was found out so far, each once."""

    def __init__(self, folder: Path, registry: str = "benchmarks.peers") -> None:
        """`registry`: a module with the peers by name in `PEERS`."""
        self._folder = folder
        self._registry = registry
        self._found: dict[tuple[str, str], str] = {}

    def __call__(self, peer: str, verb: str) -> str:
        """ "yes", "no: ..." or "not looked at: ..."."""
        if (peer, verb) not in self._found:
            place = self._folder / f"proof-{len(self._found)}"
            place.mkdir(parents=True)
            self._found[peer, verb] = look(self._registry, peer, verb, place)
        return self._found[peer, verb]


def look(registry: str, peer: str, verb: str, folder: Path) -> str:
    """Run it under strace, and read what strace saw."""
    strace = shutil.which("strace")
    if strace is None:
        return "not looked at: no strace"
    trace = folder / "trace"
    (folder / "store").mkdir()
    command = [strace, "-f", "-qq", "-o", str(trace), "-e", CALLS]
    command += [sys.executable, "-m", "benchmarks.durable", registry, peer, verb, str(folder / "store")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, env=environment())
    counts = flushes(trace.read_text().splitlines()) if trace.exists() else []
    if done.returncode or len(counts) != STEPS:
        return f"not looked at: {(done.stderr.splitlines() or ['strace saw nothing'])[-1][:60]}"
    return verdict(counts)


def flushes(trace: Sequence[str]) -> list[int]:
    """How many flushes ended during each operation."""
    counts: list[int] = []
    for line in trace:
        if f'"{MARK}' in line:
            counts.append(0)
        elif counts and SYNC.search(line):
            counts[-1] += 1
    return counts[:-1]  # after the last mark nothing is measured


def verdict(counts: Sequence[int]) -> str:
    without = counts.count(0)
    if without == len(counts):
        return "no: never syncs"
    return f"no: {without} of {len(counts)} calls without a sync" if without else "yes"


# --- under strace ---------------------------------------------------------------------------------------------------


def operation(store: Store, verb: str, folder: Path) -> Callable[[int], object]:
    """One call of the verb, on what is there."""
    if verb == "put":
        return lambda number: store.put("m", f"v{number}", BLOB)
    if verb == "put_many":
        return lambda number: store.put_many("m", [f"v{number}-{each}" for each in range(BATCH)], BLOB)
    if verb == "put_file":
        source = folder / BLOB_NAME
        source.write_bytes(bytes(LARGE))
        return lambda number: store.put_file("m", f"v{number}", source)
    assert verb == "update"
    store.put("m", "v", BLOB)
    return lambda number: store.update("m", "v", {"step": number})


def main() -> None:
    registry, name, verb, folder = sys.argv[1:]
    peer: Peer = importlib.import_module(registry).PEERS[name]
    try:
        with peer.open(Path(folder)) as store:
            step = operation(store, verb, Path(folder).parent)
            for number in range(WARMUP):
                step(number)
            store.rest()
            for number in range(WARMUP, WARMUP + STEPS):
                os.access(f"{MARK}-{number}", os.F_OK)
                step(number)
            os.access(f"{MARK}-end", os.F_OK)
    except NotInstalled as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
