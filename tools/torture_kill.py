"""Kills writers of a tree again and again (SIGKILL), and verifies that nothing that was acknowledged is ever lost.

    python tools/torture_kill.py ROOT [--kills 200] [--writers 4] [--seed S] [--check-every 50] [--json]

ROOT is a new or empty folder, on the filesystem that is to be trusted. Each writer works through a list of changes
that follows from the seed: put, update, unset, delete, move, copy, transactions, checkpoints; it notes the beginning
of each change in a journal outside the tree, and its acknowledgement after the call has returned. Whenever one is
killed, another one takes its place while the rest goes on; now and then all are killed at once, so that the next to
open the tree has to recover it, or one is killed while it opens. Verified, now and then and at the end:

  - what a killed writer left is exactly the state after its last acknowledged change, or after the one that it had
    begun: nothing is lost, nothing is half done;
  - two nodes that only transactions write always agree; a counter that all increment has counted each acknowledgement;
  - `check(deep=True)` is clean, and the folders, read without the library, are what the library shows.

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
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from metatree import ConflictError, Metatree, MetatreeError
from metatree import Transaction as Txn

LEVELS = ("writer", "version")
SHARED = "shared"
PAIR = ("shared/left", "shared/right")
TALLY = "shared/tally"
SIZES = (0, 17, 900, 20_000, 70_000)  # bytes of a blob; the last is staged, not inline
KEEP = 1_000  # verified writers whose nodes stay in the tree
AHEAD = 50  # changes worked out in advance
PATIENCE = 120.0  # seconds for a writer to open the tree before that is a finding

# the journal, one byte an event
READY, BEGUN, DONE, CHECKPOINT, CHECKPOINTED = b"R", b"B", b"A", b"C", b"c"

Change = tuple[Any, ...]


# --- the changes of one writer, and what they amount to -------------------------------------------------------------


@dataclass
class Version:
    """What one node of the lower level should hold."""

    keys: dict[str, Any] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def copy(self) -> Version:
        return Version(dict(self.keys), dict(self.blobs))


@dataclass
class State:
    """What one writer's node should hold, and how often it should have counted."""

    exists: bool = False
    keys: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)  # in the order of their creation
    tallied: int = 0

    def make(self, change: Change) -> None:
        """Make a change, as the tree should."""
        match change:
            case ("put", version, name, content):
                self.exists = True
                self.versions.setdefault(version, Version()).blobs[name] = content
            case ("update", None, values):
                self.keys.update(values)
            case ("update", version, values):
                self.versions[version].keys.update(values)
            case ("unset", version, key):
                self.versions[version].keys.pop(key, None)
            case ("delete", version):
                del self.versions[version]
            case ("delete blob", version, name):
                del self.versions[version].blobs[name]
            case ("move", version, target):
                self.versions[target] = self.versions.pop(version)
            case ("copy", version, target):
                self.versions[target] = self.versions[version].copy()
            case ("transaction", _, changes):
                for inner in changes:
                    self.make(inner)
            case ("tally",):
                self.tallied += 1
            case ("checkpoint",):
                pass


def make(tree: Metatree, node: str, change: Change) -> None:
    """Make a change in the tree."""
    match change:
        case ("put", version, name, content):
            tree.put(f"{node}/{version}", content, name=name, force=True)
        case ("update", version, values):
            tree.update(f"{node}/{version}" if version else node, values)
        case ("unset", version, key):
            tree.unset(f"{node}/{version}", key)
        case ("delete", version):
            tree.delete(f"{node}/{version}", recursive=True)
        case ("delete blob", version, name):
            tree.delete(f"{node}/{version}/{name}")
        case ("move", version, target):
            tree.move(f"{node}/{version}", f"{node}/{target}")
        case ("copy", version, target):
            tree.copy(f"{node}/{version}", f"{node}/{target}")
        case ("transaction", token, changes):
            tree.run(lambda _: make_together(tree, node, token, changes), attempts=100)
        case ("tally",):
            tree.run(lambda _: count(tree), attempts=100)
        case ("checkpoint",):
            tree.checkpoint()


def make_together(tree: Metatree, node: str, token: str, changes: Sequence[Change]) -> None:
    first, second = PAIR
    tree.update(first, token=token)
    tree.put(first, token.encode(), name="token", force=True)
    for change in changes:
        make(tree, node, change)
    tree.update(second, token=token)
    tree.put(second, token.encode(), name="token", force=True)


def count(tree: Metatree) -> None:
    tree.update(TALLY, n=tree.find(TALLY).metadata["n"] + 1)


def plan(seed: str, node: str) -> Iterator[Change]:
    """Every change of one writer, without end; the same for the same seed."""
    choose = random.Random(f"{seed}/{node}")  # noqa: S311  no secret
    state = State()
    first: Change = ("put", "v0", "born", b"born")
    state.make(first)
    yield first
    number = 0
    while True:
        number += 1
        change = _change(choose, state, f"{node}#{number}", number)
        state.make(change)
        yield change


def _change(choose: random.Random, state: State, token: str, number: int) -> Change:
    kind = choose.randrange(100)
    if kind < 2:
        return ("checkpoint",)
    if kind < 15:
        return ("tally",)
    if kind < 45:
        trial = State(True, {}, {name: version.copy() for name, version in state.versions.items()})
        changes: list[Change] = []
        for index in range(choose.randrange(2, 5)):
            change = _simple(choose, trial, f"{token}.{index}", number * 10 + index)
            trial.make(change)
            changes.append(change)
        return ("transaction", token, changes)
    return _simple(choose, state, token, number * 10)


def _simple(choose: random.Random, state: State, token: str, number: int) -> Change:
    versions = list(state.versions)
    kind = choose.choice(("put", "put", "put", "update", "update", "unset", "delete", "delete blob", "move", "copy"))
    if not versions or kind == "put" or (kind == "copy" and len(versions) > 6):
        known = bool(versions) and choose.random() < 0.4
        content = (token.encode() + b"\n") * (1 + choose.choice(SIZES) // (len(token) + 1))
        return ("put", choose.choice(versions) if known else f"v{number}", f"blob{choose.randrange(3)}", content)
    version = choose.choice(versions)
    if kind == "update":
        return ("update", choose.choice((None, version)), {f"k{choose.randrange(4)}": token, "number": number})
    if kind == "unset":
        return ("unset", version, f"k{choose.randrange(4)}")
    if kind == "delete" and len(versions) > 2:
        return ("delete", version)
    if kind == "delete blob" and state.versions[version].blobs:
        return ("delete blob", version, choose.choice(sorted(state.versions[version].blobs)))
    if kind == "move":
        return ("move", version, f"m{number}")
    if kind == "copy":
        return ("copy", version, f"c{number}")
    return ("update", version, {"number": number})


# --- a writer -------------------------------------------------------------------------------------------------------


def write(root: str, node: str, seed: str, journal: str) -> None:
    """Work until killed."""
    warnings.simplefilter("error")
    file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    apply = random.Random(f"{seed}/{node}/apply").choice(("sync", "background"))  # noqa: S311
    tree = Metatree(root, apply=apply)
    changes = plan(seed, node)
    ahead = list(islice(changes, AHEAD))  # so that almost all of its time is spent in calls, and kills hit these
    os.write(file, READY)
    while True:
        for change in ahead:
            carry_out(tree, node, change, file)
        ahead = list(islice(changes, AHEAD))


def carry_out(tree: Metatree, node: str, change: Change, journal: int) -> None:
    """Make a change; note its beginning, and that its call has returned."""
    quiet = change[0] == "checkpoint"
    os.write(journal, CHECKPOINT if quiet else BEGUN)
    try:
        make(tree, node, change)
    except ConflictError:
        if change[0] not in ("transaction", "tally"):
            raise
        os._exit(0)  # a hundred times another one was faster; one change in doubt, as after a kill
    os.write(journal, CHECKPOINTED if quiet else DONE)


def forked(work: Callable[[], None], report: str) -> int:
    """Run `work` in a forked child; whatever it raises is written to the file `report`. The child's id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException:  # noqa: BLE001  a child must never return into its parent's code
        Path(report).write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


# --- what is expected, what is there --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Journal:
    """What a writer noted."""

    ready: bool
    acknowledged: int  # changes whose call returned
    begun: int  # changes begun; one more than acknowledged if it died in a call
    in_flight: bool  # died with a transaction in flight

    @staticmethod
    def read(path: str) -> Journal:
        data = Path(path).read_bytes() if os.path.exists(path) else b""
        acknowledged = data.count(DONE) + data.count(CHECKPOINTED)
        begun = data.count(BEGUN) + data.count(CHECKPOINT)
        return Journal(data[:1] == READY, acknowledged, begun, data[-1:] == BEGUN)


def expected(seed: str, node: str, journal: Journal) -> list[State]:
    """The states that a writer may have left: after its last acknowledged change, or after the one it had begun."""
    states = []
    for upto in {journal.acknowledged, journal.begun}:
        state = State()
        changes = plan(seed, node)
        for _ in range(upto):
            state.make(next(changes))
        states.append(state)
    return sorted(states, key=lambda state: state.tallied)


def shown(tree: Metatree, node: str) -> dict[str, Any] | None:
    """A writer's node as the library shows it."""
    if not tree.exists(node):
        return None
    found = tree.find(node)
    return {
        "keys": dict(found.metadata),
        "blobs": tree.list(node),
        "versions": {name: shown_version(tree, f"{node}/{name}") for name in found.children},
        "order": found.children,
    }


def shown_version(tree: Metatree, path: str) -> dict[str, Any]:
    blobs = {name: b"".join(tree.get(f"{path}/{name}")) for name in tree.list(path)}
    return {"keys": dict(tree.find(path).metadata), "blobs": blobs}


def wanted(state: State) -> dict[str, Any] | None:
    if not state.exists:
        return None
    versions = {name: asdict(version) for name, version in state.versions.items()}
    return {"keys": state.keys, "blobs": [], "versions": versions, "order": list(state.versions)}


def on_disk(folder: Path) -> dict[str, Any] | None:
    """A writer's node as the folders show it, read without the library."""
    if not folder.exists():
        return None
    keys, order, blobs = read_folder(folder)
    versions = {}
    for name in order:
        below, children, contents = read_folder(folder / name)
        versions[name] = {"keys": {**below, **({"children": children} if children else {})}, "blobs": contents}
    inside = sorted(set(blobs) - set(order))
    return {"keys": keys, "blobs": inside, "versions": versions, "order": order}


def read_folder(folder: Path) -> tuple[dict[str, Any], list[str], dict[str, bytes]]:
    metadata = json.loads((folder / "metadata.json").read_bytes())
    children = metadata.pop("children", [])
    entries = [entry for entry in folder.iterdir() if entry.name != "metadata.json"]
    return metadata, children, {e.name: b"" if e.is_dir() else e.read_bytes() for e in entries}


def differences(found: dict[str, Any] | None, states: Sequence[State]) -> str | None:
    """None if what was found is one of the states; else what is wrong, in words."""
    if any(found == wanted(state) for state in states):
        return None
    last = wanted(states[0])
    if found is None or last is None:
        return f"the node is {'missing' if found is None else 'there'}"
    if found["order"] != last["order"]:
        return f"its versions are {found['order']}, after its last acknowledged change they were {last['order']}"
    for name, version in last["versions"].items():
        there = found["versions"][name]
        if there != version:
            wrong = [
                b for b in {*version["blobs"], *there["blobs"]} if version["blobs"].get(b) != there["blobs"].get(b)
            ]
            return f"version {name}: keys {there['keys']}, not {version['keys']}; blobs that differ: {wrong}"
    return f"keys {found['keys']}, not {last['keys']}"


# --- the run --------------------------------------------------------------------------------------------------------


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

    def __init__(self, root: str, journals: str, writers: int, seed: str) -> None:
        self._root = root
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
        self._prepare()
        self._running = [self._start() for _ in range(self._writers)]
        next_check = check_every
        while self.summary.kills < kills and not self.summary.findings:
            self._kill_some(kills)
            if self.summary.kills >= next_check:
                next_check += check_every
                self._verify(final=False)
        for writer in self._running:
            os.kill(writer.pid, signal.SIGKILL)
            self._bury(writer)
        self._verify(final=True)
        self.summary.seconds = round(time.monotonic() - started, 1)
        return self.summary

    def _prepare(self) -> None:
        with Metatree(self._root, LEVELS) as tree, tree.transaction():
            for node in PAIR:
                tree.put(node, b"", name="token")
                tree.update(node, token="")
            tree.put(TALLY, b"", name="born")
            tree.update(TALLY, n=0)

    def _start(self) -> Writer:
        self._number += 1
        node = f"w{self._number}"
        journal, report = f"{self._journals}/{node}", f"{self._journals}/{node}.error"
        pid = forked(lambda: write(self._root, node, self.summary.seed, journal), report)
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
            self._wait_ready(writer)
        time.sleep(choose.uniform(0.005, 0.05))
        for writer in chosen:
            os.kill(writer.pid, signal.SIGKILL)
        for writer in chosen:
            journal = self._bury(writer)
            self.summary.kills += 1
            self.summary.in_flight += journal.in_flight
        for writer in chosen:
            self._running[self._running.index(writer)] = self._start()

    def _wait_ready(self, writer: Writer) -> None:
        deadline = time.monotonic() + PATIENCE
        while not Journal.read(writer.journal).ready:
            if os.path.exists(writer.report):
                return
            if time.monotonic() > deadline:
                self.summary.findings.append(f"writer {writer.node} could not open the tree within {PATIENCE} s")
                return
            time.sleep(0.001)

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
        with Metatree(self._root) as tree:
            found = [f"{node}: {wrong}" for node in nodes if (wrong := self._wrong(tree, node))]
            found += self._wrong_shared(tree, final=final)
            report = tree.check(deep=final)
            if not report.ok:
                found.append(str(report))
            if final:
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
        found, there = on_disk(Path(self._root) / node), shown(tree, node)
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
    parser.add_argument("root", metavar="ROOT", help="a new or empty folder")
    parser.add_argument("--kills", type=int, default=200, metavar="N")
    parser.add_argument("--writers", type=int, default=4, metavar="N")
    parser.add_argument("--seed", default=None, help="repeats the choices of an earlier run, though not its timing")
    parser.add_argument("--check-every", type=int, default=50, metavar="KILLS")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    given = parser.parse_args(argv)
    if min(given.kills, given.writers, given.check_every) < 1:
        parser.error("--kills, --writers and --check-every are at least 1")
    if os.path.exists(given.root) and not (os.path.isdir(given.root) and not os.listdir(given.root)):
        parser.error(f"{given.root} is no empty folder")
    seed = given.seed if given.seed is not None else os.urandom(4).hex()
    with tempfile.TemporaryDirectory(prefix="torture-kill-") as journals:
        try:
            summary = Torture(given.root, journals, given.writers, seed).run(given.kills, given.check_every)
        except (MetatreeError, OSError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 2
    print(json.dumps(asdict(summary)) if given.json else describe(summary))
    for finding in summary.findings:
        print(finding, file=sys.stderr)
    if summary.findings:
        size = f"--kills {given.kills} --writers {given.writers} --check-every {given.check_every}"
        print(f"again, in an empty folder: {parser.prog} {given.root} {size} --seed {seed}", file=sys.stderr)
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
