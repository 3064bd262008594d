"""What another process does between two calls of one that has the tree open: a whole life, which trims the log.

Each verb ends as if the other's life had come before it or after it, and so does the tree; or in the error that the
verb may raise for it. Nothing is found damaged. Of many calls that a verb makes, not each is tried (in a night it is).
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

import wal
from metatree import ConflictError, Metatree, MetatreeError, recover_command
from metatree.findings import Report
from tests.figures import Layer
from tests.tree.meanwhile import CHANGES, Before, Disk, Files, Impatient, Life, Mount, Objects, Short
from tests.tree.model import LEVELS, OPERATIONS, State, dump, populate, put_directory

TRIED = 4  # calls of one verb
TRUE = {"not-recovered"}  # of the tree that each try begins with, while nobody has it open
KINDS: list[type[Disk]] = [Files, Mount, Objects]
Verb = Callable[[Metatree], object]


def download(tree: Metatree) -> object:
    with tempfile.TemporaryDirectory(prefix="metatree-test-") as folder:
        list(tree.get("m/v1/dir", Path(folder, "out"), recursive=True))
        return {str(file.relative_to(folder)): file.read_bytes() for file in Path(folder).rglob("*") if file.is_file()}


def kinds(report: Report) -> set[str]:
    """What was found that is not true."""
    return {finding.kind for finding in (*report.problems, *report.notes)} - TRUE


READS: dict[str, Verb] = {
    "find": lambda tree: tree.find("m/<active>").path,
    "metadata": lambda tree: dict(tree.find("m").metadata),
    "children": lambda tree: tree.children(""),
    "list": lambda tree: tree.list("m/v1"),
    "exists": lambda tree: tree.exists("m/v1/dir"),
    "walk": lambda tree: {node.path for node in tree.walk("")},
    "get": lambda tree: b"".join(tree.get("m/v2/b")),
    "get of a large one": lambda tree: b"".join(tree.get("m/v1/big")),
    "open": lambda tree: tree.open("other/v1/x").read(),
    "download": download,
}
CARES: dict[str, Verb] = {
    "check": lambda tree: kinds(tree.check()),
    "deep check": lambda tree: kinds(tree.check(deep=True)),
    "plan of a repair": lambda tree: {step.kind for step in tree.repair(dry_run=True).steps} - TRUE,
    "plan of a collection": lambda tree: tree.gc(0, dry_run=True).clean,
    "verify": lambda tree: tree._engine.log.verify().problems,
    "plan of a recovery": lambda tree: tree.recover(dry_run=True).failed,
}
CHANGE: dict[str, Verb] = {
    **{name: operation.act for name, operation in OPERATIONS.items() if name not in ("checkpoint", "close")},
    "collection": lambda tree: tree.gc(0, dry_run=False).clean,
    "repair": lambda tree: tree.repair().clean,
    "flush": lambda tree: tree.flush(),
    "checkpoint": lambda tree: tree.checkpoint() > 0,
    "lsn": lambda tree: tree.lsn > 0,
    "close": lambda tree: tree.close(),
}
HANDLES = ("reader", "warm reader", "writer")
NAME = "another's life"
TESTS = len(KINDS) * (len(HANDLES) * len({**READS, **CARES}) + len(CHANGE))


def start(disk: Disk) -> None:
    """The tree that each try begins with: most of it is trimmed, the last commits are not."""
    with Short(disk.storage(), LEVELS) as tree:
        populate(tree)
        put_directory(tree)
        tree.checkpoint()
        tree._engine.checkpointer.run = lambda: 0  # type: ignore[method-assign]  no more when it is closed
        tree.put("m/v2", b"small two, changed", name="b", force=True)
        tree.update("m/v1", stage="new")


def ended(verb: Verb, tree: Metatree) -> object:
    """What the verb returns, or the name of the error that it may raise."""
    try:
        return verb(tree)
    except MetatreeError as error:
        return type(error).__name__


@pytest.fixture(scope="module")
def started() -> Iterator[dict[type[Disk], Disk]]:
    """A disk of each kind with the tree that each try begins with."""
    with tempfile.TemporaryDirectory(prefix="metatree-test-") as folder:
        disks: dict[type[Disk], Disk] = {kind: kind(Path(folder)) for kind in KINDS}
        for disk in disks.values():
            start(disk)
        yield disks


class Tries:
    """A verb, once for each call at which the other's life is tried, on a fresh copy of one tree."""

    _expected: ClassVar[dict[tuple[Verb, tuple[int, ...], bool], tuple[object, State]]] = {}  # the same on every kind

    def __init__(
        self, disks: dict[type[Disk], Disk], kind: type[Disk], folder: Path, *, read_only: bool, warm: bool = False
    ) -> None:
        self._disk, self._plain = disks[kind], disks[Files]
        self._folder = folder
        self._read_only, self._warm = read_only, warm
        self._number = 0

    def _new(self) -> Path:
        self._number += 1
        return self._folder / str(self._number)

    def calls(self, verb: Verb) -> int:
        """How many calls the verb makes."""
        before = Before()
        self._run(verb, self._disk.copy(self._new()), before)
        return before.count

    def _run(self, verb: Verb, disk: Disk, before: Before) -> object:
        at, before.at = before.at, 0
        levels = None if self._read_only else LEVELS
        with Short(disk.storage(before), levels, read_only=self._read_only) as tree:
            if self._warm:
                dump(tree)
            before.count, before.at = 0, at
            answer = ended(verb, tree)
            before.at = 0
            count = before.count
        before.count = count
        return answer

    def expected(self, verb: Verb, done: tuple[int, ...], *, first: bool) -> tuple[object, State]:
        """(what the verb answers, what the tree then holds) if it comes `first`, or after the other's changes."""
        key = verb, done, first
        if key not in self._expected:
            disk = self._plain.copy(self._folder)
            answer: object = None
            for changes in (not first, first):
                with Impatient(disk.storage(), LEVELS) as tree:
                    if changes:
                        for number in done:
                            CHANGES[number](tree)
                    else:
                        answer = ended(verb, tree)
            with Short(disk.storage(), read_only=True) as tree:
                self._expected[key] = answer, dump(tree)
        return self._expected[key]

    def one(self, verb: Verb, at: int) -> bool:
        """Try it with the other's life before call `at`; returns whether the other got to do anything."""
        disk, before, life = self._disk.copy(self._new()), Before(), Life()
        before.at, before.happen = at, lambda: life.live(disk.storage)
        answer = self._run(verb, disk, before)
        with Short(disk.storage(), LEVELS) as tree:
            report = tree.check(deep=True)
            assert report.clean, f"another's life before call {at}: {report}"
            state = dump(tree)
        done = tuple(life.done)
        may = [self.expected(verb, done, first=first) for first in (True, False)]
        if answer == ConflictError.__name__:
            assert state == self.expected(nothing, done, first=True)[1], f"another's life before call {at}"
        elif isinstance(answer, set):  # each step of a walk reads its own state
            one, other = (each[0] for each in may)
            assert one & other <= answer <= one | other, f"another's life before call {at}"  # type: ignore[operator]
        else:
            assert (answer, state) in may, f"another's life before call {at}: {answer!r:.300}"
        return bool(done)

    def all(self, name: str, verb: Verb, layer: Layer) -> None:
        """At some calls, spread evenly; in a night at all, those first."""
        calls = self.calls(verb)
        step = max(1, calls // TRIED)
        some = sorted({1, *range(1 + zlib.crc32(name.encode()) % step, calls + 1, step)})
        met = tried = 0
        for number in dict.fromkeys((*some, *range(1, calls + 1))):
            if not layer.more(NAME, tried, floor=len(some), night=calls, among=TESTS):
                break
            met += self.one(verb, number)
            tried += 1
        assert met, f"the other was kept out at all of {tried} calls"
        layer.report(NAME, tried, floor=len(some), night=calls, unit="calls", note="in a night before every call")


def nothing(tree: Metatree) -> None:
    """No verb at all."""


@pytest.mark.parametrize("name", [*READS, *CARES])
@pytest.mark.parametrize("handle", HANDLES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_look_is_at_the_tree_before_or_after_whatever_another_process_does_meanwhile(
    kind: type[Disk], handle: str, name: str, fast_path: Path, layer: Layer, started: dict[type[Disk], Disk]
) -> None:
    tries = Tries(started, kind, fast_path, read_only="reader" in handle, warm="warm" in handle)
    tries.all(f"{kind} {handle} {name}", {**READS, **CARES}[name], layer)


@pytest.mark.parametrize("name", CHANGE)
@pytest.mark.parametrize("kind", KINDS)
def test_a_change_comes_before_or_after_whatever_another_process_does_meanwhile(
    kind: type[Disk], name: str, fast_path: Path, layer: Layer, started: dict[type[Disk], Disk]
) -> None:
    Tries(started, kind, fast_path, read_only=False).all(f"{kind} {name}", CHANGE[name], layer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recovery_by_command_finds_no_damage_whatever_another_process_does_meanwhile(
    kind: type[Disk],
    fast_path: Path,
    started: dict[type[Disk], Disk],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tried = calls = 0
    at = 1
    while at == 1 or at <= calls:
        disk, before, life = started[kind].copy(fast_path / str(at)), Before(), Life()
        before.at, before.happen = at, lambda disk=disk, life=life: life.live(disk.storage)  # type: ignore[misc]

        def opened(
            root: str, *, read_only: bool = False, disk: Disk = disk, before: Before = before, **_: Any
        ) -> Short:
            return Short(disk.storage(before), None if read_only else LEVELS, read_only=read_only)

        monkeypatch.setattr(recover_command, "Metatree", opened)
        assert recover_command.main(["tree"]) == 0, f"another's life before call {at}: {capsys.readouterr()}"
        with Short(disk.storage(), LEVELS) as tree:
            assert tree.check(deep=True).clean
        calls, tried, at = before.count, tried + 1, at + 23
    print(f"{tried} of {calls} calls")


# --- damage ---------------------------------------------------------------------------------------------------------


def lose(storage: wal.Storage) -> None:
    for entry in storage.list(".wal"):
        if entry.name.endswith((".log", ".rec")):
            storage.erase(f".wal/{entry.name}")


def spoil(storage: wal.Storage) -> None:
    for entry in storage.list(".wal"):
        if entry.name.endswith((".log", ".rec")):
            storage.publish(f".wal/{entry.name}", b"no log", b"", durable=True)


def spoil_the_mark(storage: wal.Storage) -> None:
    storage.publish(".wal/checkpoint.json", b"no mark", b"", durable=True)


@pytest.mark.parametrize("damage", [lose, spoil, spoil_the_mark])
@pytest.mark.parametrize("handle", ["reader", "writer"])
@pytest.mark.parametrize("kind", [Files, Objects])
def test_a_log_that_is_damaged_after_commits_and_a_trim_while_a_check_looks_is_a_finding(
    kind: type[Disk],
    handle: str,
    damage: Callable[[wal.Storage], None],
    fast_path: Path,
    started: dict[type[Disk], Disk],
) -> None:
    found, calls, at = 0, 1, 1
    while at <= calls:
        disk, before, life = started[kind].copy(fast_path / str(at)), Before(), Life()

        def happen(disk: Disk = disk, life: Life = life) -> None:
            life.live(disk.storage)
            damage(disk.storage())

        tree = Short(disk.storage(before), None if handle == "reader" else LEVELS, read_only=handle == "reader")
        before.count, before.at, before.happen = 0, at, happen
        report = tree.check()
        assert {each.path for each in report.problems} <= {".wal"}, f"damage before call {at}: {report}"
        found += any(each.kind == "log" for each in report.problems)
        calls, at = before.count, at + 19
        with suppress(MetatreeError):
            tree.close()
    assert found, "the damage came always too late"
