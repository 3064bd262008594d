"""What the writers of `torture_kill` do: changes that follow from a seed, and what they should amount to."""

from __future__ import annotations

import os
import random
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from torture_place import Place

from metatree import ConflictError, Metatree

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


def write(place: Place, node: str, seed: str, journal: str) -> None:
    """Work until killed."""
    warnings.simplefilter("error")
    file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    apply = random.Random(f"{seed}/{node}/apply").choice(("sync", "background"))  # noqa: S311
    tree = place.open(apply=apply)
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
