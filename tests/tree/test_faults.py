"""The system fails at every call: once or from then on, with every error a disk knows, or by writing only a part.

The promise: an error was raised or the result is right. Before the commit point an error means "not done"; after it
there is none, but a warning, and the files follow once the fault is gone. Only CommitUnknownError says "ask".
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from metatree import ApplyPendingWarning, CommitUnknownError, Metatree, MetatreeError, UnavailableError
from metatree.engine import Engine
from metatree.folders import Attribute, digest
from tests.figures import Layer
from tests.tree.model import (
    BIG,
    LEVELS,
    OPERATIONS,
    ROOT,
    Bench,
    Operation,
    Run,
    State,
    clone,
    dump,
    open_tree,
    plain,
    put_directory,
)
from tests.tree.recoveries import Recoveries, open_steadily
from tests.tree.storages import MemoryFiles
from wal.storage.memory import MemoryPosix, MemoryStorage
from wal.storage.posix import Posix
from wal.testing import ALL_CALLS, MUTATING_CALLS, Boundary, Call, Failing, FaultyStorage

ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE)
SEED = os.environ.get("METATREE_FAULTS_SEED", f"{random.randrange(1 << 32):08x}")

NAME = "errors in memory"
BENCH = Bench()
FAULTED = [name for name in OPERATIONS if name != "close"]  # closing is the end of every one of them


@dataclass(frozen=True)
class Fault:
    """Printed by a failing test."""

    operation: str
    call: int  # of the operation, from 1
    error: int
    lasting: bool
    short: bool = False

    def __str__(self) -> str:
        how = "short write, then " if self.short else ""
        often = "lasting" if self.lasting else "once"
        return f"{self.operation!r}, call {self.call}: {how}{errno.errorcode[self.error]}, {often}"


class SwitchableStorage(FaultyStorage):
    """Fails as planned until `heal`; nothing fails before `plan` is set."""

    def __init__(self, inner: MemoryPosix, counted: frozenset[str]) -> None:
        super().__init__(Failing(0), inner, counted=counted)

    def heal(self) -> None:
        self.plan = Failing(0)


@contextmanager
def noting(where: object) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"at {where}")
        raise


def prepare(posix: Posix, operation: Operation) -> Metatree:
    """As `Bench.prepare`, in a life that draws no chance: where a fault changes nothing the same disk is left."""
    tree = open_steadily(posix, "the one with the faults")
    if operation.before is not None:
        operation.before(tree)
    return tree


def provoke(fault: Fault, run: Run, counted: frozenset[str], recoveries: Recoveries) -> list[Call]:
    """Fail the operation as planned, then look at everything it promises. The calls that failed."""
    disk = BENCH.disk()
    posix = SwitchableStorage(disk, counted)
    operation = OPERATIONS[fault.operation]
    tree = prepare(posix, operation)
    posix.plan = Failing(posix.count + fault.call, fault.error, fault.lasting, fault.short)
    raised: Exception | None = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            operation.act(tree)
        except Exception as error:  # noqa: BLE001  what it is is looked at below
            raised = error
    failed = list(posix.failed)
    posix.heal()
    pending = [w for w in caught if issubclass(w.category, ApplyPendingWarning)]
    assert len(pending) == len(caught), [str(w.message) for w in caught]
    assert raised is None or isinstance(raised, MetatreeError), f"a raw {raised!r}"
    expected = outcome(raised, run)
    if pending:
        assert raised is None or fault.operation == "checkpoint", "a warning says committed, the error says not"
    recoveries.recovered(clone(disk), expected)  # the process dies right after the call: what it was told must hold
    go_on(tree, expected, raised)
    recoveries.recovered(disk, [*expected, *(with_more(state) for state in expected)])
    return failed


def outcome(raised: Exception | None, run: Run) -> list[State]:
    """What may be there."""
    if raised is None:
        return [run.after]
    if isinstance(raised, CommitUnknownError):
        return [run.before, run.after]
    return [run.before]


def assert_recovered(disk: MemoryPosix, expected: list[State]) -> None:
    with open_tree(disk) as tree:
        found = dump(tree)
        assert found in expected
        assert plain(disk) == found
        report = tree.check(deep=True)
        assert report.ok, str(report)


def with_more(state: State) -> State:
    keys, children, blobs = state["other"]
    return {**state, "other": ({**keys, "more": True}, children, blobs)}


def go_on(tree: Metatree, expected: list[State], raised: Exception | None) -> None:
    """The same process, once the fault is gone: it reads and writes rightly, or says that it cannot."""
    try:
        assert dump(tree) in expected
        tree.update("other", more=True)
        assert dump(tree) in [with_more(state) for state in expected]
        tree.flush()
        tree.checkpoint()
        assert tree.unapplied == 0
    except (UnavailableError, CommitUnknownError) as error:
        # After a failed flush nothing may be appended by this handle; it says so, whatever it is asked.
        assert "open" in str(error) or raised is not None, f"refused without a reason to: {error}"
    try:
        tree.close()
    except UnavailableError:
        assert raised is not None


def calls_of(name: str, counted: frozenset[str]) -> tuple[Run, int]:
    run = BENCH.run(OPERATIONS[name], warm=False)
    boundary = Boundary(BENCH.disk(), counted=counted)
    tree = prepare(boundary, OPERATIONS[name])
    start = boundary.count
    OPERATIONS[name].act(tree)
    calls = boundary.count - start
    tree.close()
    return run, calls


def several(
    layer: Layer, name: str, faults: Callable[[int], Iterator[Fault]], counted: frozenset[str], rounds: int = 1
) -> int:
    """Provoke the faults of an operation; `faults` is told how many calls it makes. Of so many rounds of them only the
    first one has to be. How many came to pass: every error, and a short write where something is written."""
    run, calls = calls_of(name, counted)
    recoveries, done, floor, every = Recoveries(), 0, 0, list(faults(calls))
    night = sum(not fault.short for fault in every) or 1
    for tried, fault in enumerate(every):
        if not layer.more(NAME, tried, floor=len(every) // rounds, night=len(every), among=len(FAULTED)):
            break
        with noting(f"{fault}; again: METATREE_FAULTS_SEED={SEED} make test PYTEST_ARGS='{__file__} -k \"{name}\"'"):
            done += bool(provoke(fault, run, counted, recoveries))
        floor += not fault.short and tried < len(every) // rounds
    note = f"all calls; METATREE_FAULTS_SEED={SEED}"
    layer.report(NAME, done, floor=floor or 1, night=night, unit="faults", note=note)
    return done


@pytest.mark.parametrize("name", FAULTED)
def test_an_error_at_any_changing_call_is_raised_or_the_result_is_right(name: str, layer: Layer) -> None:
    def faults(calls: int) -> Iterator[Fault]:
        for call, lasting, further in itertools.product(range(1, calls + 1), (False, True), range(3)):
            yield Fault(name, call, ERRORS[(call + lasting + 2 * further) % len(ERRORS)], lasting)

    assert several(layer, name, faults, MUTATING_CALLS) >= 4 * 12


@pytest.mark.parametrize("name", FAULTED)
def test_a_write_that_takes_only_a_part_changes_nothing(name: str, layer: Layer) -> None:
    """The rest is written, or, the disk being full, the error is raised and the part is taken back."""

    def faults(calls: int) -> Iterator[Fault]:
        return (Fault(name, call, errno.ENOSPC, lasting=False, short=True) for call in range(1, calls + 1))

    assert several(layer, name, faults, MUTATING_CALLS)


@pytest.mark.parametrize("name", FAULTED)
def test_any_error_at_any_call_reading_ones_included(name: str, layer: Layer) -> None:
    """Each call once and from then on, with an error that is drawn; a night has time for each error."""
    chooser = random.Random(f"{SEED} {name}")

    def faults(calls: int) -> Iterator[Fault]:
        points = list(itertools.product(range(1, calls + 1), (False, True)))
        drawn = [chooser.sample(ERRORS, len(ERRORS)) for _ in points]
        for number in range(len(ERRORS)):
            for (call, lasting), errors in zip(points, drawn, strict=True):
                yield Fault(name, call, errors[number], lasting)

    assert several(layer, name, faults, ALL_CALLS, len(ERRORS))


# --- E15: errors after the commit point -------------------------------------------------------------------------------


class Refusing(Boundary):
    """Refuses to rename anything onto paths that `refuse` picks."""

    def __init__(self, inner: MemoryPosix) -> None:
        super().__init__(inner)
        self.refuse: Callable[[str], bool] = lambda path: False

    def rename(self, source: str, target: str) -> None:
        if self.refuse(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)
        super().rename(source, target)


@pytest.mark.parametrize("size", [10, 100_000], ids=["inline", "staged"])
def test_a_commit_whose_files_cannot_follow_returns_with_a_warning(size: int) -> None:
    disk = BENCH.disk()
    posix = Refusing(disk)
    tree = open_tree(posix)
    before = plain(disk)
    posix.refuse = lambda path: path.endswith("/m/v9")
    with pytest.warns(ApplyPendingWarning, match="m/v9"):
        assert tree.put("m/v9", b"9" * size, name="b") is True
    assert tree.unapplied > 0
    assert b"".join(tree.get("m/v9/b")) == b"9" * size, "readers of the library see the commit all the same"
    assert plain(disk)["m"] == before["m"], "m does not list what is not there"
    with pytest.raises(UnavailableError, match="m/v9"):
        tree.flush()
    # A later commit to other nodes goes its way; only the mark waits.
    with pytest.warns(ApplyPendingWarning):
        tree.update("other", later=1)
    assert plain(disk)["other"][0] == {"later": 1}
    # The log must keep what the files do not have.
    with pytest.raises(UnavailableError):
        tree.checkpoint()
    with open_tree(clone(disk)) as survivor:
        assert b"".join(survivor.get("m/v9/b")) == b"9" * size
    posix.refuse = lambda path: False
    tree.flush()
    assert tree.unapplied == 0
    assert plain(disk) == dump(tree)
    tree.close()
    assert_recovered(disk, [plain(disk)])


def again(tree: Metatree) -> None:
    with tree.transaction():
        for name in ("m", "n"):
            tree.delete(name, recursive=True)
        tree.put("m/v1", BIG, name="weights")
        tree.put("m/v1", b"small", name="b")
        put_directory(tree)  # in m/v1
        tree.put("n/v1", b"n", name="b")
        tree.put("refused/v1", b"1", name="b")


@pytest.mark.parametrize("edit", ["", "foreign", "content", "ours", "folder", "gone"])
def test_a_node_made_again_stays_while_another_cannot_be_applied(edit: str) -> None:
    """Other programs would see it vanish with each try, and the trash would grow by a copy of it."""
    disk = MemoryPosix()
    posix = Refusing(disk)
    with open_tree(posix) as tree:
        for node in ("m/v1", "m/v2", "n/v1"):
            tree.put(node, b"old", name="old")
        tree.checkpoint()
        posix.refuse = lambda path: path.endswith("/refused")
        with pytest.warns(ApplyPendingWarning, match="refused"):
            again(tree)
        there = inode(disk, "m"), inode(disk, "n"), inode(disk, "n/v1/b")
        files = MemoryFiles(disk, ROOT)
        if edit == "foreign":
            files.write("m/v1/notes/a.txt", b"by a person")
        elif edit == "content":
            files.write("m/v1/b", b"larger")
        elif edit == "ours":  # as of a committer that knew less of the log
            tree._engine.storage.publish("m/v1/old", b"old", Attribute(99, digest(b"old")).encode(), durable=True)
        elif edit == "folder":
            tree._engine.storage.make_folder("m/v1/old", Attribute(99, "").encode())
        elif edit == "gone":
            disk.unlink(f"{ROOT}/m/v1/b")
        for _ in range(3):
            with pytest.raises(UnavailableError, match="refused"):
                tree.flush()
        stays = edit in ("", "foreign")
        assert (inode(disk, "m") == there[0]) is stays
        assert (inode(disk, "n"), inode(disk, "n/v1/b")) == there[1:]
        assert "old" not in dump(tree)["m/v1"][2] and plain(disk)["m/v1"][2]["weights"] == BIG
        if edit == "foreign":
            assert files.read("m/v1/notes/a.txt") == b"by a person"
        posix.refuse = lambda path: False
        tree.flush()
        assert tree.check(deep=True).ok
    assert plain(disk)["m/v1"][2]["b"] == b"small"


def inode(disk: MemoryPosix, name: str) -> int:
    return disk.lstat(f"{ROOT}/{name}").st_ino


def test_a_held_right_to_apply_delays_the_files_and_not_the_commit() -> None:
    disk = BENCH.disk()
    holder = Engine(MemoryStorage(disk), LEVELS, read_only=False, apply="sync")
    writer = Engine(MemoryStorage(disk), LEVELS, read_only=False, apply="sync", lock_timeout=0.05)
    with holder.log.right():
        with pytest.warns(ApplyPendingWarning, match="LockBusyError"):
            writer.change(lambda draft: draft.update(("m",), {"busy": True}))
        assert writer.committer.unapplied() == 1
        assert "busy" not in plain(disk)["m"][0]
    writer.committer.flush()
    assert writer.committer.unapplied() == 0
    assert plain(disk)["m"][0]["busy"] is True
    writer.close()
    holder.close()
    assert_recovered(disk, [plain(disk)])


def test_an_unknown_outcome_is_answered_by_status_after_reopening() -> None:
    """The flush fails: the same handle refuses to append, a new one knows."""
    disk = BENCH.disk()
    posix = SwitchableStorage(disk, frozenset({"fdatasync"}))
    tree = open_tree(posix)
    posix.plan = Failing(posix.count + 1, errno.EIO)
    with pytest.raises(CommitUnknownError) as raised:
        tree.update("m", n=2)
    with pytest.raises(UnavailableError, match="open"):
        tree.update("m", n=3)
    assert tree.find("m").metadata["n"] in (1, 2), "reads go on"
    with open_tree(disk) as again:
        lsn = again.status(raised.value.txid)
        assert (again.find("m").metadata["n"] == 2) == (lsn is not None)
        again.update("m", n=4)
    tree.close()
    with open_tree(disk) as last:
        assert last.find("m").metadata["n"] == 4
        assert last.check(deep=True).ok
