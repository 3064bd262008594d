"""Lets one allocation fail in a process that uses a tree: Python's own hook, `_testcapi.set_nomemory`.

    python -B -m tests.trust.starved NAME [--only N] [--points P] [--most M --seconds T] [--seed S]

Without `--only` P points, drawn from all, and up to M within the time. Prints one line of JSON. The child is forked
when the program is warm, so that N counts what the tree allocates and not how Python starts. Python itself may die of
it: that is counted apart, and to the tree it is a kill.
"""

from __future__ import annotations

import _testcapi
import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from metatree import Metatree, MetatreeError
from tests.tree.model import BIG, LEVELS, OPERATIONS, Operation, State, dump
from tests.trust.leftovers import Left, recovered
from tests.trust.lives import Ending, Notes, copy_folder, go_on, make_start, wrong

ROW = 50
BOUND = 20  # seconds; an operation takes a thousandth of it: longer is a hang
HANGS = "died: SIGALRM"
MOST = 1 << 22  # allocations of one operation, at most


def look(tree: Metatree) -> None:
    """What a reader does; a wrong answer is an AssertionError."""
    if tree.find("m/v1").metadata != {"auc": 0.93, "stage": "old"} or b"".join(tree.get("m/v1/big")) != BIG:
        raise AssertionError("a wrong answer")


OPENING = "open"  # of a tree that has to be recovered; the others act on an open tree
STARVED: dict[str, Operation] = {
    "put": OPERATIONS["put into a new version"],
    "staged put": OPERATIONS["put of a staged blob"],
    "update": OPERATIONS["update"],
    "delete": OPERATIONS["delete of a node"],
    "transaction": OPERATIONS["transaction of 20"],
    "find": Operation(look),
    "checkpoint": OPERATIONS["checkpoint"],
    OPENING: Operation(lambda tree: None),
}


@dataclass
class Summary:
    """What was done."""

    name: str
    seed: str
    allocations: int = 0  # of the operation
    points: int = 0  # tried
    endings: dict[str, int] = field(default_factory=dict)  # done, raised, or how the interpreter died
    findings: list[str] = field(default_factory=list)


class Watch:
    """Runs one operation again and again, each time on the same tree."""

    def __init__(self, name: str, folder: str) -> None:
        self._operation, self._name, self._folder = STARVED[name], name, folder
        self._start, self._root = f"{folder}/start", f"{folder}/tree"
        make_start("killed" if name == OPENING else "populated", self._start)
        copy_folder(self._start, self._root)
        self.states = self._warm_up()

    def _warm_up(self) -> list[State]:
        with Metatree(self._root, LEVELS) as tree:
            if self._operation.before is not None:
                self._operation.before(tree)
            states = [dump(tree)]
            self._operation.act(tree)
            return [*states, dump(tree)]

    def run(self, first: int, count: int = 1) -> tuple[Notes, str]:
        """One life in which `count` allocations fail, from the `first` on; how it ended."""
        shutil.rmtree(self._root)
        copy_folder(self._start, self._root)
        notes = Notes()
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a dying interpreter says so at length
                signal.alarm(BOUND)
                warnings.simplefilter("ignore")
                notes.tell(self._live(notes, first, first + count))
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            return notes, "done" if notes.counts[1] else "raised"
        return notes, f"died: {signal.Signals(os.WTERMSIG(status)).name}"

    def _live(self, notes: Notes, first: int, last: int) -> Ending:
        tree = None
        try:
            if self._name != OPENING:
                tree = Metatree(self._root, LEVELS)
                if self._operation.before is not None:
                    self._operation.before(tree)
            notes.begin(1)
            act = self._operation.act
            try:
                _testcapi.set_nomemory(first, last)
                try:
                    if tree is None:
                        tree = Metatree(self._root, LEVELS)
                    else:
                        act(tree)
                finally:
                    _testcapi.remove_mem_hooks()
            except Exception as error:  # noqa: BLE001  judged by who watches
                if last - first > 1:  # after so much not even a lock may have been freed
                    return Ending("counted")
                return go_on(tree or Metatree(self._root, LEVELS), error, exhausted=exhausted(error))
            notes.acknowledge(1)
            tree.close()
            return Ending()
        except Exception as error:  # noqa: BLE001  of the closing, or of opening once more
            return Ending(traceback.format_exc(), isinstance(error, MetatreeError), True)

    def allocations(self) -> int:
        """How many the operation makes, about: it comes to its end when a row of them fails that begins after them.
        (Where all that follow fail, Python itself may never end.)"""
        low, high = 0, 1
        while high < MOST and self.run(high, ROW)[1] != "done":
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.run(middle, ROW)[1] == "done" else (middle, high)
        return low

    def strike(self, at: int, summary: Summary) -> None:
        notes, ending = self.run(at)
        summary.points += 1
        summary.endings[ending] = summary.endings.get(ending, 0) + 1
        problem = "it hangs" if ending == HANGS else wrong(self.states, notes, self._root, usable)
        if problem is not None:
            again = f"python -B -m tests.trust.starved {self._name!r} --only {at}"
            summary.findings.append(f"{ending}: {problem}\nagain: {again}")


def exhausted(error: Exception) -> bool:
    """Whether it is Python's word for "no memory left": some of its own C code forgets to say it as it should."""
    told = str(error)
    return isinstance(error, MemoryError | SystemError) or "can't allocate" in told or "MemoryError" in told


def usable(root: str) -> Left:
    """`recovered`, and then the next put works."""
    left = recovered(root)
    with Metatree(root, LEVELS) as tree:
        tree.put("after/v1", b"after", name="b")
        if b"".join(tree.get("after/v1/b")) != b"after" or not (report := tree.check()).ok:
            return Left(left.state, f"after the next put: {report}")
    return left


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=STARVED)
    parser.add_argument("--only", type=int)
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--most", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--seed", default=os.urandom(4).hex())
    given = parser.parse_args(argv)
    summary, end = Summary(given.name, given.seed), time.monotonic() + given.seconds
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="metatree-starved-", dir=base) as folder:
        watch = Watch(given.name, folder)
        summary.allocations = watch.allocations()
        every = range(1, summary.allocations + 1)
        chosen = random.Random(given.seed).sample(every, min(max(given.points, given.most), len(every)))
        for at in [given.only] if given.only else chosen:
            if summary.points >= given.points and time.monotonic() >= end:
                break
            watch.strike(at, summary)
    print(json.dumps(asdict(summary)))
    return 1 if summary.findings else 0


if __name__ == "__main__":
    sys.exit(main())
