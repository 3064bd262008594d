"""Processes that make transactions and keep a journal: what each was going to do, and what came of it.

The journal lies outside the tree and outlives its writer: a transaction that was begun and has no outcome there may
have committed, as a whole, or not.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from time import monotonic_ns, sleep
from typing import Any

from torture_place import Place

from metatree import BlobExistsError, ConflictError, Metatree
from tests.hosts.conftest import environment
from tests.trust.histories import NEVER, Done, Plan, appends, draw, one_transaction

ROUND = 25  # transactions of one writer, after which it goes on to other nodes: lists stay short


def nodes_of(number: int) -> tuple[str, str]:
    """The nodes that all writers use in one round."""
    return f"h{number}", f"h{number}/v"


def enough(journals: Path) -> Path:
    """The file that says that the writers may end."""
    return journals.with_name(f"{journals.name}-enough")


def transactions(journals: Path) -> int:
    """How many the journals tell of that were not refused."""
    outcomes = (outcome for journal in journals.iterdir() for outcome in journal.read_bytes().splitlines()[1::2])
    return sum(outcome != b"null" for outcome in outcomes)


def write(place: Place, name: str, seed: int, count: int, apply: str, journal: Path) -> None:
    """In the writer's process: so many transactions, and more until there was enough trouble."""
    choose = random.Random(f"{seed} {name}")
    with place.open(apply=apply) as tree, journal.open("a") as kept:
        for number in itertools.count():
            if number >= count and enough(journal.parent).exists():
                break
            nodes = nodes_of(number // ROUND)
            if number % ROUND == 0:
                with suppress(BlobExistsError, ConflictError):
                    tree.put(nodes[1], b"", name="born")
            plan, value = draw(choose, nodes), f"{name}-{number}"
            print(json.dumps([monotonic_ns(), plan, value]), file=kept, flush=True)
            done = one_transaction(tree, plan, value)
            print(json.dumps(None if done is None else asdict(done)), file=kept, flush=True)


def read(place: Place, seed: int, name: str, journal: Path) -> None:
    """Only reads, each time a few lists in one transaction, until it is killed."""
    choose = random.Random(f"{seed} {name}")
    with place.open(apply="background") as tree, journal.open("a") as kept:
        while True:
            known = [node for node in tree.children(()) if node[0] == "h"][-3:]
            if not known:
                continue
            nodes = [path for node in known for path in (node, f"{node}/v") if tree.exists(path)]
            plan: Plan = [("read", choose.choice(nodes), f"l{choose.randrange(4)}") for _ in range(4)]
            done = one_transaction(tree, plan, name)
            if done is not None:
                print(json.dumps([done.began, [], name]), json.dumps(asdict(done)), sep="\n", file=kept, flush=True)


def keep_house(place: Place) -> None:
    """One checkpoint after another, until it is killed."""
    with place.open(apply="background") as tree:
        while True:
            tree.checkpoint()
            sleep(0.2)


def start(place: Place, job: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.trust.historian", job, place.encode(), *map(str, arguments)]
    return subprocess.Popen(command, env=environment(), cwd=Path(__file__).resolve().parents[2], text=True)


def history(journals: Sequence[Path], final: Mapping[str, Sequence[str]]) -> tuple[list[Done], int]:
    """What the journals tell, and how many outcomes they do not; of these, the ones of which something is there."""
    there = {value for values in final.values() for value in values}
    known, unknown = [], 0
    for begun, outcome in (pair for journal in journals for pair in _pairs(journal)):
        began, plan, value = begun
        if outcome is _MISSING:
            unknown += 1
            done = Done(began, NEVER, appends(plan, value))
        elif outcome is None:
            continue
        else:
            done = Done(**{**outcome, "operations": [_operation(*each) for each in outcome["operations"]]})
        if done.returned < NEVER or any(found in there for _, _, found in done.operations):
            known.append(done)
    return known, unknown


_MISSING = object()


def _operation(kind: str, name: str, found: Any) -> tuple[str, str, Any]:
    return kind, name, tuple(found) if kind == "read" else found


def _pairs(journal: Path) -> Iterator[tuple[Any, Any]]:
    lines = journal.read_text().split("\n") if journal.exists() else []
    whole = [json.loads(line) for line in lines[:-1]]  # the last one is empty, or cut short by a kill
    for at in range(0, len(whole), 2):
        yield whole[at], whole[at + 1] if at + 1 < len(whole) else _MISSING


class Trouble:
    """Kills a writer in a transaction and puts another in its place; stops and continues one; in turn."""

    def __init__(self, choose: random.Random, place: Place, seed: int, apply: str, folder: Path) -> None:
        self._choose, self._place, self._seed, self._apply, self._folder = choose, place, seed, apply, folder
        self._number = 0
        self._journals: dict[int, Path] = {}
        self.killed = self.stopped = 0

    def writer(self, count: int) -> subprocess.Popen[str]:
        self._number += 1
        journal = self._folder / f"w{self._number}"
        writer = start(self._place, "write", journal.name, self._seed, count, self._apply, journal)
        self._journals[writer.pid] = journal
        return writer

    def _is_at_work(self, writer: subprocess.Popen[str]) -> bool:
        """It has opened the tree, and begun."""
        journal = self._journals[writer.pid]
        return journal.exists() and journal.stat().st_size > 0

    def _is_in_a_transaction(self, writer: subprocess.Popen[str]) -> bool:
        """Of one that is stopped: its journal says what it was going to do, and not yet what came of it."""
        return self._journals[writer.pid].read_bytes().count(b"\n") % 2 == 1

    def make(self, writers: list[subprocess.Popen[str]], count: int) -> None:
        """To one of the writers that are still at work."""
        busy = [at for at, writer in enumerate(writers) if writer.poll() is None and self._is_at_work(writer)]
        if not busy:
            return
        at = self._choose.choice(busy)
        os.kill(writers[at].pid, signal.SIGSTOP)
        if self.killed <= self.stopped and self._is_in_a_transaction(writers[at]):
            self.killed += 1
            writers[at].kill()
            writers[at].wait()
            writers[at] = self.writer(count)
        else:
            self.stopped += 1
            sleep(self._choose.uniform(0.01, 0.3))
            os.kill(writers[at].pid, signal.SIGCONT)


def main() -> None:
    job, place, *rest = sys.argv[1:]
    there = Place.decode(place)
    if job == "write":
        name, seed, count, apply, journal = rest
        write(there, name, int(seed), int(count), apply, Path(journal))
    elif job == "read":
        seed, name, journal = rest
        read(there, int(seed), name, Path(journal))
    else:
        keep_house(there)


__all__ = ["Metatree", "Trouble", "history", "start"]


if __name__ == "__main__":
    main()
