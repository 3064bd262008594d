"""Kills writers of a tree again and again (SIGKILL), and verifies that nothing that was acknowledged is ever lost.

    python tools/torture_kill.py ROOT [--kills 200] [--writers 4] [--seed S] [--check-every 50] [--json]
    python tools/torture_kill.py s3://bucket/new -o endpoint_url=http://127.0.0.1:8333 -o key=K -o secret=S [--ttl 2]
    python tools/torture_kill.py webhdfs:///new -o host=127.0.0.1 -o port=9870 -o user=root [--ttl 2]

ROOT is a new or empty folder, on the filesystem that is to be trusted, or the URL of one; `--as-mount` opens a local
folder as if other hosts shared it. `--ttl`: a killed committer is overtaken after so many seconds (15). Each writer
works through a list of changes that follows from the seed: put, update, unset, delete, move, copy, transactions,
checkpoints; it notes the beginning of each change in a journal outside the tree, and its acknowledgement after the call
has returned. Whenever one is killed, another one takes its place while the rest goes on; now and then all are killed at
once, so that the next to open the tree has to recover it, or one is killed while it opens.

Verified, now and then and at the end:

  - what a killed writer left is exactly the state after its last acknowledged change, or after the one that it had
    begun: nothing is lost, nothing is half done;
  - two nodes that only transactions write always agree; a counter that all increment has counted each acknowledgement;
  - `check(deep=True)` is clean, and the folders of a local root, read without the library, are what the library shows.

What it does not show: power loss. Uses fork, so it runs on Linux and macOS.

Exit status: 0 nothing found, 1 findings (printed, with the command that repeats the run), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from storage_options import add_option, parse_options
from torture_place import Place
from torture_verify import Journal, differences, expected, on_disk, shown
from torture_work import KEEP, LEVELS, PAIR, PATIENCE, TALLY, forked, write

from metatree import Metatree, MetatreeError
from metatree import Transaction as Txn


@dataclass
class Summary:
    """What the run did and found."""

    seed: str
    kills: int = 0  # of writers that had opened the tree
    in_flight: int = 0  # of these, with a transaction in flight
    kills_opening: int = 0  # of writers that were opening it
    rounds: int = 0  # all killed at once: the next opener recovers
    acknowledged: int = 0  # changes
    checks: int = 0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)


@dataclass
class Writer:
    """A running writer."""

    node: str
    pid: int
    journal: str
    report: str


class Torture:
    """One run."""

    def __init__(self, place: Place, journals: str, writers: int, seed: str) -> None:
        self._place = place
        self._journals = journals
        self._choose = random.Random(seed)  # noqa: S311
        self._number = 0
        self._dead: dict[str, Journal] = {}
        self._unverified: list[str] = []
        self._verified: list[str] = []
        self._writers = writers
        self._running: list[Writer] = []
        self.summary = Summary(seed)

    def run(self, kills: int, check_every: int) -> Summary:
        started = time.monotonic()
        self._place.load()
        self._prepare()
        self._running = [self._start() for _ in range(self._writers)]
        self._wait(self._running, lambda journal: journal.acknowledged > 0, "acknowledge a change")
        next_check = check_every
        while self.summary.kills < kills and not self.summary.findings:
            self._kill_some(kills)
            if next_check <= self.summary.kills < kills:  # at the end there is the final one
                next_check += check_every
                self._verify(final=False)
        for writer in self._running:
            os.kill(writer.pid, signal.SIGKILL)
            self._bury(writer)
        self._verify(final=True)
        self.summary.seconds = round(time.monotonic() - started, 1)
        return self.summary

    def _prepare(self) -> None:
        """In a process of its own: what is forked later must not inherit a connection. Raises OSError."""
        report = f"{self._journals}/prepare"
        _, status = os.waitpid(forked(self._prepare_forked, report), 0)
        if status:
            raise OSError(f"the tree could not be made:\n{Path(report).read_text()}")

    def _prepare_forked(self) -> None:
        with self._place.open(LEVELS) as tree, tree.transaction():
            for node in PAIR:
                tree.put(node, b"", name="token")
                tree.update(node, token="")
            tree.put(TALLY, b"", name="born")
            tree.update(TALLY, n=0)

    def _start(self) -> Writer:
        self._number += 1
        node = f"w{self._number}"
        journal, report = f"{self._journals}/{node}", f"{self._journals}/{node}.error"
        pid = forked(lambda: write(self._place, node, self.summary.seed, journal), report)
        return Writer(node, pid, journal, report)

    def _kill_some(self, kills: int) -> None:
        """One kill; every now and then all at once, or one more that has not opened the tree yet."""
        choose = self._choose
        if choose.random() < 0.15:  # does not count: it holds no transaction
            extra = self._start()
            time.sleep(choose.uniform(0, 0.02))
            os.kill(extra.pid, signal.SIGKILL)
            self._bury(extra, opening=True)
        together = choose.random() < 0.1
        self.summary.rounds += together
        chosen = list(self._running) if together else [choose.choice(self._running)]
        for writer in chosen:
            self._wait([writer], lambda journal: journal.ready, "open the tree")
        time.sleep(choose.uniform(0, 0.01))
        for writer in chosen:
            self._stop_in_flight(writer)
        for writer in chosen:
            os.kill(writer.pid, signal.SIGKILL)
        for writer in chosen:
            journal = self._bury(writer)
            self.summary.kills += 1
            self.summary.in_flight += journal.in_flight
        for writer in chosen:
            self._running[self._running.index(writer)] = self._start()

    def _wait(self, writers: Sequence[Writer], what: Callable[[Journal], bool], name: str) -> None:
        """Until the journal of one of them shows it, or one has failed."""
        deadline = time.monotonic() + PATIENCE
        while not any(what(Journal.read(writer.journal)) or os.path.exists(writer.report) for writer in writers):
            if time.monotonic() > deadline:
                nodes = " or ".join(writer.node for writer in writers)
                self.summary.findings.append(f"writer {nodes} could not {name} within {PATIENCE} s")
                return
            time.sleep(0.001)

    def _stop_in_flight(self, writer: Writer) -> None:
        """Stop the writer where it is; if that is between two changes, let it go on a little, up to 20 times."""
        for _ in range(20):
            os.kill(writer.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if Journal.read(writer.journal).in_flight:
                return
            os.kill(writer.pid, signal.SIGCONT)
            time.sleep(self._choose.uniform(0, 0.005))

    def _bury(self, writer: Writer, *, opening: bool = False) -> Journal:
        os.waitpid(writer.pid, 0)
        journal = Journal.read(writer.journal)
        if os.path.exists(writer.report):
            self.summary.findings.append(f"writer {writer.node} failed:\n{Path(writer.report).read_text()}")
        self.summary.kills_opening += opening and not journal.ready
        self.summary.acknowledged += journal.acknowledged
        self._dead[writer.node] = journal
        self._unverified.append(writer.node)
        return journal

    # --- verifying ----------------------------------------------------------------------------------------------------

    def _verify(self, *, final: bool) -> None:
        """In a process of its own, as any program that opens the tree next; the writers go on unless it is the end."""
        self.summary.checks += 1
        report = f"{self._journals}/findings"
        nodes = [*self._verified, *self._unverified] if final else list(self._unverified)
        stale = self._verified[:-KEEP] if len(self._verified) > KEEP else []
        pid = forked(lambda: self._verify_forked(nodes, [] if final else stale, final=final), report)
        os.waitpid(pid, 0)
        if os.path.exists(report):
            self.summary.findings.append(Path(report).read_text())
        self._verified = [node for node in self._verified if node not in set(stale)] + self._unverified
        self._unverified = []

    def _verify_forked(self, nodes: Sequence[str], stale: Sequence[str], *, final: bool) -> None:
        warnings.simplefilter("error")
        with self._place.open() as tree:
            found = [f"{node}: {wrong}" for node in nodes if (wrong := self._wrong(tree, node))]
            found += self._wrong_shared(tree, final=final)
            report = tree.check(deep=final)
            if not report.ok:
                found.append(str(report))
            if final and self._place.is_local:
                tree.flush()
                found += [f"{node} on disk: {wrong}" for node in nodes if (wrong := self._wrong_on_disk(tree, node))]
            for node in stale:
                if tree.exists(node):
                    tree.delete(node, recursive=True)
        if found:
            raise AssertionError("\n".join(found))

    def _wrong(self, tree: Metatree, node: str) -> str | None:
        states = expected(self.summary.seed, node, self._dead[node])
        return differences(shown(tree, node), states)

    def _wrong_on_disk(self, tree: Metatree, node: str) -> str | None:
        found, there = on_disk(Path(self._place.root) / node), shown(tree, node)
        return None if found == there else f"{found} is not what the library shows: {there}"

    def _wrong_shared(self, tree: Metatree, *, final: bool) -> Iterator[str]:
        def look(_: Txn) -> tuple[set[str], int]:
            tokens = {str(tree.find(node).metadata["token"]) for node in PAIR}
            tokens |= {b"".join(tree.get(f"{node}/token")).decode() for node in PAIR}
            return tokens, int(tree.find(TALLY).metadata["n"])

        tokens, tallied = tree.run(look, attempts=1_000)
        if len(tokens) != 1:
            yield f"half a transaction: {' and '.join(PAIR)} disagree: {sorted(tokens)}"
        least = most = 0
        for node, journal in self._dead.items():
            states = expected(self.summary.seed, node, journal)
            least, most = least + states[0].tallied, most + states[-1].tallied
        if tallied < least or (final and tallied > most):
            yield f"{TALLY} counts {tallied}; acknowledged were {least}, begun {most}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", metavar="ROOT", help="a new or empty folder, or the URL of one")
    add_option(parser)
    parser.add_argument("--as-mount", action="store_true", help="a local folder: as if hosts shared it")
    parser.add_argument("--ttl", type=float, metavar="SECONDS", help="after which a silent committer is overtaken")
    parser.add_argument("--kills", type=int, default=200, metavar="N")
    parser.add_argument("--writers", type=int, default=4, metavar="N")
    parser.add_argument("--seed", default=None, help="repeats the choices of an earlier run, though not its timing")
    parser.add_argument("--check-every", type=int, default=50, metavar="KILLS")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    given = parser.parse_args(argv)
    if min(given.kills, given.writers, given.check_every) < 1:
        parser.error("--kills, --writers and --check-every are at least 1")
    try:
        place = Place(given.root, parse_options(given.option), given.as_mount, given.ttl)
    except ValueError as error:
        parser.error(str(error))
    if place.is_local and os.path.exists(place.root) and not (os.path.isdir(place.root) and not os.listdir(place.root)):
        parser.error(f"{place.root} is no empty folder")
    seed = given.seed if given.seed is not None else os.urandom(4).hex()
    with tempfile.TemporaryDirectory(prefix="torture-kill-") as journals:
        try:
            summary = Torture(place, journals, given.writers, seed).run(given.kills, given.check_every)
        except (MetatreeError, OSError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 2
    print(json.dumps(asdict(summary)) if given.json else describe(summary))
    for finding in summary.findings:
        print(finding, file=sys.stderr)
    if summary.findings:
        size = f"--kills {given.kills} --writers {given.writers} --check-every {given.check_every}"
        print(
            f"again, in an empty folder: {parser.prog} {given.root} {size} --seed {seed}, same options", file=sys.stderr
        )
    return 1 if summary.findings else 0


def describe(summary: Summary) -> str:
    return (
        f"{summary.kills} kills, {summary.in_flight} of them with a transaction in flight "
        f"({100 * summary.in_flight // max(1, summary.kills)} %), {summary.kills_opening} more of writers that were "
        f"opening the tree, {summary.rounds} times all at once; {summary.acknowledged} acknowledged changes, "
        f"{summary.checks} checks, {summary.seconds} s, seed {summary.seed}: "
        f"{'FINDINGS' if summary.findings else 'nothing was lost'}"
    )


if __name__ == "__main__":
    sys.exit(main())
