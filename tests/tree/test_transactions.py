"""Transactions: one record each, all or nothing, their own writes readable, an outcome that can always be learned."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

import wal
from metatree import (
    BlobExistsError,
    BlobNotFoundError,
    CommitUnknownError,
    ConflictError,
    InvalidLocationError,
    InvalidMetadataError,
    Metatree,
    NodeExistsError,
    NodeNotFoundError,
    TransactionError,
    UnavailableError,
)
from metatree.clock import Clock
from tests.tree.conftest import LEVELS, assert_clean
from tests.tree.model import empty_disk, open_tree
from tests.tree.shared import KINDS, Host, HostClock
from tests.tree.storages import again, at, records
from wal import MemoryStorage
from wal.testing import Failing, FaultyStorage

MakeTree = Callable[..., Metatree]


def content(tree: Metatree, location: str) -> bytes:
    return b"".join(tree.get(location))


def staged(tree: Metatree) -> list[str]:
    return [folder.name for folder in at(tree, ".wal", "staged").iterdir()]


def state(tree: Metatree) -> dict[str, Any]:
    """All of a tree, as the library shows it; of directory blobs the name only."""

    def blob(location: str) -> bytes | None:
        try:
            return content(tree, location)
        except BlobNotFoundError as error:
            assert "is a folder" in str(error)
            return None

    return {
        node.path: (dict(node.metadata), node.children, {name: blob(f"{node.path}/{name}") for name in node.list()})
        for node in tree.walk("")
    }


@pytest.fixture
def filled(tree: Metatree) -> Metatree:
    tree.put("m/v1", b"one", name="blob")
    tree.put("m/v2", b"two", name="blob")
    tree.update("m", active="v1", n=1)
    return tree


# --- one record, or none --------------------------------------------------------------------------------------------


def test_a_transaction_is_one_record_with_its_message(filled: Metatree) -> None:
    before = filled.lsn
    with filled.transaction("nightly build") as txn:
        filled.put("m/v3", b"three", name="blob")
        filled.put("m/v3", b"x" * 100_000, name="large")
        filled.update("m/v3", auc=0.94)
        filled.update("m", active="v3")
        filled.delete("m/v1", recursive=True)
        assert filled.lsn == before and txn.lsn is None
    assert filled.lsn == txn.lsn == before + 1
    header = records(filled)[-1]
    assert (header.message, header.txid) == ("nightly build", txn.txid)
    assert header.changes["m"] == {"set": ["active"], "new": ["v3"], "gone": ["v1"]}
    assert content(filled, "m/<active>/blob") == b"three"


def test_a_transaction_in_which_nothing_happens_commits_nothing(filled: Metatree) -> None:
    before = filled.lsn
    with filled.transaction("nothing") as txn:
        pass
    with filled.transaction("only looking") as looking:
        assert filled.find("m").metadata["n"] == 1
    assert (txn.lsn, looking.lsn) == (None, None)
    assert (txn.replayed, looking.replayed) == (False, False)
    assert filled.lsn == before


def test_a_transaction_that_is_never_entered_commits_nothing(filled: Metatree) -> None:
    before = filled.lsn
    filled.transaction("unused")
    assert filled.lsn == before and staged(filled) == []
    filled.update("m", n=2)  # and keeps nobody from anything
    assert filled.lsn == before + 1


# --- its own writes -------------------------------------------------------------------------------------------------


def put(tree: Metatree) -> None:
    tree.put("m/v3", b"three", name="blob")
    assert tree.children("m") == ["v1", "v2", "v3"] and tree.list("m/v3") == ["blob"]
    assert content(tree, "m/v3/blob") == b"three" and tree.open("m/v3/blob").read() == b"three"


def put_force(tree: Metatree) -> None:
    tree.put("m/v1", b"other", name="blob", force=True)
    assert content(tree, "m/v1/blob") == b"other"


def put_large(tree: Metatree) -> None:
    tree.put("m/v1", b"x" * 200_000, name="large")
    assert content(tree, "m/v1/large") == b"x" * 200_000


def put_packed(tree: Metatree) -> None:
    blobs = {f"b{number}": bytes([number]) * 60_000 for number in range(8)}  # the last ones wait in a pack
    for name, data in blobs.items():
        tree.put("m/v1", data, name=name)
    assert {name: content(tree, f"m/v1/{name}") for name in blobs} == blobs
    tree.delete("m/v1/b7")
    tree.copy("m/v1/b6", "m/v2/copied")
    assert content(tree, "m/v2/copied") == blobs["b6"]


def put_folder(tree: Metatree) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "source"), Path(folder, "out")
        (source / "inner").mkdir(parents=True)
        (source / "inner" / "file").write_bytes(b"inside")
        tree.put("m/v1", source, recursive=True)
        assert content(tree, "m/v1/source/inner/file") == b"inside" and tree.list("m/v1") == ["blob", "source"]
        tree.get("m/v1/source", out, recursive=True)
        assert (out / "inner" / "file").read_bytes() == b"inside"


def update(tree: Metatree) -> None:
    node = tree.find("m")
    tree.update(active="v2")
    assert node.metadata["active"] == tree.metadata["active"] == "v2" and content(tree, "m/<active>/blob") == b"two"


def unset(tree: Metatree) -> None:
    tree.unset("m", "n", "never")
    assert dict(tree.find("m").metadata) == {"active": "v1"}


def compare_and_set(tree: Metatree) -> None:
    tree.compare_and_set("m", "n", 1, 2)
    tree.compare_and_set("m", "n", 2, 3)
    assert tree.find("m").metadata["n"] == 3


def delete_blob(tree: Metatree) -> None:
    tree.delete("m/v1/blob")
    assert not tree.exists("m/v1/blob") and tree.list("m/v1") == []
    with pytest.raises(BlobNotFoundError):
        tree.get("m/v1/blob")


def delete_node(tree: Metatree) -> None:
    tree.delete("m", recursive=True)
    assert tree.children("") == [] and [node.path for node in tree.walk("")] == [""]
    assert not tree.exists("m")
    with pytest.raises(NodeNotFoundError):
        tree.find("m/v1")


def delete_and_create(tree: Metatree) -> None:
    tree.delete("m/v1", recursive=True)
    tree.put("m/v1", b"anew", name="other")
    assert tree.list("m/v1") == ["other"] and tree.children("m") == ["v2", "v1"]


def move(tree: Metatree) -> None:
    tree.move("m/v1", "other/v9")
    assert content(tree, "other/v9/blob") == b"one" and tree.children("m") == ["v2"]
    tree.move("other/v9/blob", "m/v2/moved")
    assert tree.list("other/v9") == [] and content(tree, "m/v2/moved") == b"one"


def copy(tree: Metatree) -> None:
    tree.copy("m", "m2")
    tree.put("m2/v1", b"changed", name="blob", force=True)
    assert content(tree, "m/v1/blob") == b"one" and content(tree, "m2/<active>/blob") == b"changed"


VERBS = [
    put, put_force, put_large, put_packed, put_folder, update, unset, compare_and_set, delete_blob,
    delete_node, delete_and_create, move, copy,
]  # fmt: skip
by_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)


@by_verb
@pytest.mark.everywhere
def test_a_transaction_reads_its_own_writes_and_nobody_else_does_before_its_end(
    filled: Metatree, make_tree: MakeTree, verb: Callable[[Metatree], None]
) -> None:
    other = make_tree(keys=None)
    before = state(other)
    with filled.transaction() as txn:
        verb(filled)
        inside = state(filled)
        assert inside != before
        assert state(other) == before
    assert txn.lsn is not None
    assert state(other) == state(filled) == inside
    filled.flush()
    with again(filled, read_only=True) as reader:
        assert state(reader) == inside


@by_verb
@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, GeneratorExit], ids=lambda kind: kind.__name__)
@pytest.mark.everywhere
def test_an_exception_in_the_block_discards_everything(
    filled: Metatree, verb: Callable[[Metatree], None], failure: type[BaseException]
) -> None:
    before, lsn, count = state(filled), filled.lsn, len(records(filled))
    with pytest.raises(failure, match=r"^the block's own$"), filled.transaction() as txn:
        verb(filled)
        raise failure("the block's own")
    assert (filled.lsn, txn.lsn, state(filled)) == (lsn, None, before)
    assert len(records(filled)) == count
    assert [name for name in staged(filled) if name == txn.txid] == []


def test_a_deleted_node_is_gone_at_once_and_its_name_is_free_for_a_blob(filled: Metatree) -> None:
    with filled.transaction():
        filled.delete("m/v1", recursive=True)
        assert not filled.exists("m/v1") and not filled.exists("m/v1/blob")
        with pytest.raises(BlobNotFoundError, match="no"):
            filled.get("m/v1")
        with pytest.raises(BlobNotFoundError):
            filled.delete("m/v1")
        filled.put("m", b"a blob now", name="v1")
        assert content(filled, "m/v1") == b"a blob now" and filled.list("m") == ["v1"]
    assert content(filled, "m/v1") == b"a blob now" and filled.children("m") == ["v2"]
    filled.delete("m/v1")
    filled.put("m/v1", b"a node again", name="blob")
    assert filled.list("m") == [] and content(filled, "m/v1/blob") == b"a node again"


def test_a_folder_that_is_put_again_is_whole_though_one_of_its_files_was_deleted_before_it(
    filled: Metatree, tmp_path: Path
) -> None:
    (source := tmp_path / "d").mkdir()
    for name in ("a", "b"):
        (source / name).write_bytes(b"inside")
    filled.put("m/v1", source, recursive=True)
    with filled.transaction():
        filled.delete("m/v1/d/a")
        filled.delete("m/v1/d", recursive=True)
        filled.put("m/v1", source, recursive=True)
    assert [content(filled, f"m/v1/d/{name}") for name in ("a", "b")] == [b"inside"] * 2


def test_a_node_deleted_by_a_single_call_is_gone_at_once(filled: Metatree) -> None:
    filled.flush()
    filled.delete("m/v1", recursive=True)
    assert not filled.exists("m/v1")
    with pytest.raises(BlobNotFoundError):
        filled.delete("m/v1", recursive=True)
    with pytest.raises((NodeNotFoundError, BlobNotFoundError)):
        filled.copy("m/v1", "m/v3")
    filled.put("m", b"a blob now", name="v1")
    assert content(filled, "m/v1") == b"a blob now"


def test_nothing_staged_is_left_after_a_roll_back(tree: Metatree) -> None:
    class Stop(Exception):
        pass

    with pytest.raises(Stop), tree.transaction():
        tree.put("m/v", b"x" * 100_000, name="staged")
        for number in range(10):  # beyond 256 KiB these go into a pack, which is still open when the block ends
            tree.put("m/v", b"y" * 60_000, name=f"packed{number}")
        assert len(staged(tree)) == 1
        raise Stop
    assert staged(tree) == []
    assert at(tree, ".wal", "tmp").iterdir() == []
    assert tree.check().notes == []


@pytest.mark.everywhere
def test_nothing_staged_is_left_after_a_conflict(filled: Metatree, make_tree: MakeTree) -> None:
    other = make_tree(keys=None)
    with pytest.raises(ConflictError), filled.transaction():
        filled.update("m", n=filled.find("m").metadata["n"] + 1)
        filled.put("m/v3", b"x" * 100_000, name="large")
        other.update("m", n=5)
    assert staged(filled) == []
    assert filled.find("m").metadata["n"] == 5 and not filled.exists("m/v3")


@pytest.mark.parametrize(
    ("verb", "error"),
    [
        (lambda tree: tree.put("m/v1", b"", name="blob"), BlobExistsError),
        (lambda tree: tree.put("m", b"", name="v1"), NodeExistsError),
        (lambda tree: tree.put("m/v1", b"x" * 100_000, name="blob"), BlobExistsError),
        (lambda tree: tree.put("m/v1/x", b"", name="deep"), InvalidLocationError),
        (lambda tree: tree.put("m/v1", Path("/there/is/no/such/file")), FileNotFoundError),
        (lambda tree: tree.update("m/v9", n=1), NodeNotFoundError),
        (lambda tree: tree.update("m", n=float("nan")), InvalidMetadataError),
        (lambda tree: tree.unset("m/v9", "n"), NodeNotFoundError),
        (lambda tree: tree.compare_and_set("m", "n", 7, 8), ConflictError),
        (lambda tree: tree.delete("m"), NodeExistsError),
        (lambda tree: tree.delete("m/v1/none"), BlobNotFoundError),
        (lambda tree: tree.move("m/v1", "m/v2"), NodeExistsError),
        (lambda tree: tree.copy("m/v9", "m/v8"), (NodeNotFoundError, BlobNotFoundError)),
        (lambda tree: tree.get("m/v1/none"), BlobNotFoundError),
        (lambda tree: tree.find("m/v9"), NodeNotFoundError),
    ],
)
def test_a_verb_that_fails_changes_nothing_and_leaves_the_transaction_usable(
    filled: Metatree, verb: Callable[[Metatree], object], error: type[Exception] | tuple[type[Exception], ...]
) -> None:
    with filled.transaction() as txn:
        filled.update("m", before=1)
        seen = state(filled)
        with pytest.raises(error):
            verb(filled)
        assert state(filled) == seen
        filled.update("m", after=2)
    assert txn.lsn is not None
    assert dict(filled.find("m").metadata) == {"active": "v1", "n": 1, "before": 1, "after": 2}
    assert set(state(filled)) == {"", "m", "m/v1", "m/v2"}
    filled.checkpoint()
    assert staged(filled) == []  # what the failing verb had staged went with the transaction's own, at the latest


# --- how it may be used ---------------------------------------------------------------------------------------------


def test_transactions_do_not_nest_and_the_outer_one_goes_on(filled: Metatree) -> None:
    with filled.transaction() as outer:
        filled.update("m", n=2)
        with pytest.raises(TransactionError, match="nest"), filled.transaction():
            raise AssertionError("must not get here")
        with pytest.raises(TransactionError, match="nest"):
            filled.run(lambda txn: None)
        filled.update("m", k=3)
    assert outer.lsn is not None and dict(filled.find("m").metadata) == {"active": "v1", "n": 2, "k": 3}


def test_transactions_of_two_trees_do_not_mix(filled: Metatree, make_tree: MakeTree) -> None:
    other = make_tree("other")
    other.put("m/v", b"", name="blob")
    with filled.transaction() as one, other.transaction() as two:
        filled.update("m", n=2)
        other.update("m", n=3)
    assert one.lsn is not None and two.lsn is not None
    assert (filled.find("m").metadata["n"], other.find("m").metadata["n"]) == (2, 3)


@pytest.mark.parametrize("end", ["commit", "roll back"])
def test_a_transaction_is_used_once(filled: Metatree, end: str) -> None:
    txn = filled.transaction()
    try:
        with txn:
            filled.update("m", n=2)
            if end == "roll back":
                raise ValueError
    except ValueError:
        pass
    lsn = filled.lsn
    with pytest.raises(TransactionError, match="once"), txn:
        raise AssertionError("must not get here")
    filled.update("m", n=3)  # outside again
    assert filled.lsn == lsn + 1


def test_a_tree_cannot_be_closed_inside_its_transaction(filled: Metatree) -> None:
    with filled.transaction() as txn:
        filled.update("m", n=2)
        with pytest.raises(TransactionError):
            filled.close()
    assert txn.lsn is not None and filled.find("m").metadata["n"] == 2


def test_a_thread_started_inside_takes_no_part(filled: Metatree) -> None:
    seen: list[Any] = []

    def work() -> None:
        seen.append(dict(filled.find("m").metadata))
        filled.update("m", thread=True)  # a commit of its own, and no conflict: another key
        with filled.transaction() as txn:  # nor is it nested
            filled.update("m", again=True)
        seen.append(txn.lsn)

    with filled.transaction() as txn:
        filled.update("m", inside=True)
        before = filled.lsn
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert filled.lsn == before + 2
    assert seen == [{"active": "v1", "n": 1}, before + 2]
    assert txn.lsn == before + 3
    assert set(filled.find("m").metadata) == {"active", "n", "inside", "thread", "again"}


def test_each_asyncio_task_has_its_own_transaction(filled: Metatree) -> None:
    async def work(name: str, start: asyncio.Barrier | None = None) -> int | None:
        with filled.transaction(name) as txn:
            filled.put(f"{name}/v", name.encode(), name="blob")
            await asyncio.sleep(0)
            mine = filled.children("")
            assert mine == ["m", name]  # its own, and not yet that of the other task
            await asyncio.sleep(0.01)
        return txn.lsn

    async def all_at_once() -> list[int | None]:
        # A list read by both would be a real conflict: so the two do not overlap in what they read after a commit.
        return [await asyncio.create_task(work("a")), None]

    async def interleaved() -> list[int | None]:
        async def quiet(name: str) -> int | None:
            with filled.transaction(name) as txn:
                filled.put(f"{name}/v", name.encode(), name="blob")
                await asyncio.sleep(0.01)
                assert content(filled, f"{name}/v/blob") == name.encode()
            return txn.lsn

        return list(await asyncio.gather(quiet("b"), quiet("c"), quiet("d")))

    before = filled.lsn
    assert asyncio.run(all_at_once())[0] == before + 1
    assert sorted(lsn or 0 for lsn in asyncio.run(interleaved())) == [before + 2, before + 3, before + 4]
    assert sorted(header.message for header in records(filled)[-4:]) == ["a", "b", "c", "d"]


# --- run ------------------------------------------------------------------------------------------------------------


def test_run_tries_again_after_a_conflict_and_returns_what_the_function_returned(
    filled: Metatree, make_tree: MakeTree
) -> None:
    other = make_tree(keys=None)
    calls: list[int] = []

    def increment(txn: object) -> str:
        n = filled.find("m").metadata["n"]
        calls.append(n)
        if len(calls) < 4:
            other.update("m", n=n + 10)
        filled.update("m", n=n + 1)
        return f"was {n}"

    assert filled.run(increment) == "was 31"
    assert calls == [1, 11, 21, 31] and other.find("m").metadata["n"] == 32


def test_run_gives_up_after_its_attempts_with_the_conflict(filled: Metatree, make_tree: MakeTree) -> None:
    other = make_tree(keys=None)
    calls: list[int] = []

    def lose(txn: object) -> None:
        n = filled.find("m").metadata["n"]
        calls.append(n)
        other.update("m", n=n + 1)
        filled.update("m", n=0)

    with pytest.raises(ConflictError, match="'n' of m"):
        filled.run(lose, attempts=3)
    assert calls == [1, 2, 3] and filled.find("m").metadata["n"] == 4


class Stepping(Clock):
    """Time that passes only by sleeping, and by what a test says."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Losing:
    """A tree on a disk in memory with a clock of its own, and a function that always meets a conflict."""

    def __init__(self) -> None:
        class Tuned(Metatree):
            _tuning: ClassVar = {"clock": Stepping()}

        self.clock = Tuned._tuning["clock"]
        disk = empty_disk()
        self.tree = Tuned(MemoryStorage(disk), LEVELS)
        self._other = open_tree(disk)
        self.tree.put("m", b"", name="b")
        self.calls = 0

    def __call__(self, txn: object) -> int:
        n = int(self.tree.find("m").metadata.get("n", 0))
        self.calls += 1
        self._other.update("m", n=n + 1)
        self.tree.update("m", n=n + 1)
        return n


@pytest.mark.local("time is the test's own")
def test_run_waits_longer_each_time_and_gives_up_with_the_number_of_its_attempts() -> None:
    lose = Losing()
    with pytest.raises(ConflictError, match="'n' of m") as caught:
        lose.tree.run(lose)
    assert lose.calls == 10
    longest = sum(0.005 * 2**n for n in range(8)) + 1
    assert longest / 5 <= lose.clock.time <= longest
    assert caught.value.__notes__ == ["run() gave up after attempt 10, which met a conflict as all before it did"]
    for attempts in (1, 3):
        lose.calls = 0
        with pytest.raises(ConflictError):
            lose.tree.run(lose, attempts=attempts)
        assert lose.calls == attempts
    for refused in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            lose.tree.run(lose, attempts=refused)


def test_a_pause_is_short_however_often_a_transaction_was_tried() -> None:
    for attempt in (0, 8, 9, 5_000):
        assert 0 < Clock().jitter(attempt) <= 1


def test_run_does_not_repeat_after_any_other_error(filled: Metatree) -> None:
    calls: list[int] = []

    def fail(txn: object) -> None:
        calls.append(1)
        filled.update("m", n=99)
        raise NodeNotFoundError("the function's own")

    with pytest.raises(NodeNotFoundError):
        filled.run(fail)
    assert calls == [1] and filled.find("m").metadata["n"] == 1


def test_the_error_of_a_conflict_names_what_changed_and_who_did_it(filled: Metatree, make_tree: MakeTree) -> None:
    other = make_tree(keys=None)
    named = rf"key 'n' of m .*:{os.getpid()} .*nothing was committed"
    with pytest.raises(ConflictError, match=named), filled.transaction():
        filled.update("m", n=filled.find("m").metadata["n"] + 1)
        other.update("m", n=7)


# --- idempotency keys and status ------------------------------------------------------------------------------------


def use_key(tree: Metatree, key: str, value: int) -> tuple[int | None, bool]:
    with tree.transaction(idempotency_key=key) as txn:
        tree.update("m", {f"by {key}": value})
    return txn.lsn, txn.replayed


@pytest.mark.parametrize("between", ["nothing", "commits", "checkpoint", "reopen", "checkpoint and reopen"])
@pytest.mark.everywhere
def test_a_used_idempotency_key_commits_nothing_and_tells_the_first_lsn(
    filled: Metatree, make_tree: MakeTree, between: str
) -> None:
    first, replayed = use_key(filled, "job-1", 1)
    assert not replayed and first == filled.lsn
    tree = filled
    if between == "commits":
        for n in range(20):
            tree.update("m", n=n)
    if "checkpoint" in between:
        assert tree.checkpoint() == tree.lsn  # the record's body is trimmed now: its header is the memory (E12)
    if "reopen" in between:
        tree.close()
        tree = make_tree(keys=None)
    lsn = tree.lsn
    assert use_key(tree, "job-1", 2) == (first, True)
    assert tree.lsn == lsn and tree.find("m").metadata["by job-1"] == 1
    assert use_key(tree, "job-2", 3) == (lsn + 1, False)


def test_a_replayed_block_leaves_nothing_staged(filled: Metatree) -> None:
    for expected in (False, True):
        with filled.transaction(idempotency_key="job") as txn:
            filled.put("m/v1", b"x" * 100_000, name="large", force=True)
        assert txn.replayed is expected
        filled.checkpoint()
        assert staged(filled) == []


def test_a_key_of_a_block_without_changes_is_used_all_the_same(filled: Metatree) -> None:
    with filled.transaction(idempotency_key="empty") as txn:
        pass
    assert txn.lsn is not None and not txn.replayed
    assert use_key(filled, "empty", 1) == (txn.lsn, True)


def test_a_key_of_a_block_that_was_rolled_back_is_free(filled: Metatree) -> None:
    with pytest.raises(ValueError, match="own"), filled.transaction(idempotency_key="job"):
        filled.update("m", n=5)
        raise ValueError("own")
    assert use_key(filled, "job", 1) == (filled.lsn, False)


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.everywhere
def test_status_tells_committed_rolled_back_and_unknown(filled: Metatree, make_tree: MakeTree, reopened: bool) -> None:
    with filled.transaction() as committed:
        filled.update("m", n=2)
    with pytest.raises(ValueError, match="own"), filled.transaction() as rolled_back:
        filled.put("m/v3", b"x" * 100_000, name="large")
        raise ValueError("own")
    tree = filled
    if reopened:
        filled.checkpoint()
        filled.close()
        tree = make_tree(keys=None)
    assert tree.status(committed.txid) == committed.lsn
    assert tree.status(rolled_back.txid) is None
    assert tree.status("0-00112233445566aa") is None
    for nonsense in ("", "nonsense", "1-", "zz-00112233445566aa"):
        with pytest.raises(ValueError):
            tree.status(nonsense)


# --- an outcome that cannot be learned ------------------------------------------------------------------------------

FLUSH_OF_THE_LOG = frozenset({"fdatasync"})


@pytest.mark.parametrize("lost", [False, True], ids=["written", "lost"])
def test_after_a_failed_flush_the_outcome_is_unknown_the_handle_refuses_and_status_settles_it(
    fast_path: Path, lost: bool
) -> None:
    root = fast_path / "tree"
    with Metatree(root, LEVELS) as tree:
        tree.put("m/v", b"", name="blob")
        tree.update("m", n=1)
    faulty = FaultyStorage(Failing(call=10**9, error=errno.EIO), counted=FLUSH_OF_THE_LOG)
    tree = Metatree(wal.LocalStorage(str(root), faulty))
    tree.update("m", warm=True)
    log = max(Path(root, ".wal").glob("*.log"))
    before = log.read_bytes()
    faulty.plan = Failing(call=faulty.count + 1, error=errno.EIO)
    with pytest.raises(CommitUnknownError, match="status") as caught, tree.transaction() as txn:
        tree.update("m", n=2)
    assert caught.value.txid == txn.txid
    assert isinstance(caught.value.__cause__, wal.InDoubtError)

    # reads go on, and serve nothing that was not flushed; writes are refused for good
    assert dict(tree.find("m").metadata) == {"n": 1, "warm": True}
    assert tree.list("m/v") == ["blob"]
    for write in (
        lambda: tree.update("m", n=3),
        lambda: tree.put("m/w", b"", name="x"),
        lambda: tree.delete("m/v", recursive=True),
        lambda: tree.status(txn.txid),
    ):
        with pytest.raises(UnavailableError, match="open"):
            write()
    with pytest.raises(UnavailableError), tree.transaction():
        tree.update("m", n=3)
    with suppress(
        UnavailableError
    ):  # it may say that it could not drain; it must not hang, nor make anything of the commit in doubt
        tree.close()

    if lost:  # the system had dropped the pages: what a power cut after a failed flush leaves
        log.write_bytes(before)
    with Metatree(root) as reopened:
        settled = reopened.status(caught.value.txid)
        assert settled is None if lost else settled == reopened.lsn
        assert reopened.find("m").metadata["n"] == (1 if lost else 2)
        assert reopened.status(caught.value.txid) == settled  # for good
    assert_clean(root)


def test_other_processes_settle_a_commit_in_doubt_before_they_build_on_it(fast_path: Path) -> None:
    root = fast_path / "tree"
    other = Metatree(root, LEVELS)
    other.put("m/v", b"", name="blob")
    faulty = FaultyStorage(Failing(call=10**9, error=errno.EIO), counted=FLUSH_OF_THE_LOG)
    tree = Metatree(wal.LocalStorage(str(root), faulty))
    faulty.plan = Failing(call=faulty.count + 1, error=errno.EIO)
    with pytest.raises(CommitUnknownError) as caught:
        tree.update("m", n=2)
    assert dict(other.find("m").metadata) == {}  # not flushed, so not served
    lsn = other.status(caught.value.txid)
    assert lsn == other.lsn and dict(other.find("m").metadata) == {"n": 2}
    other.update("m", k=3)
    assert dict(tree.find("m").metadata) == {"n": 2, "k": 3}  # the poisoned handle reads on
    other.close()
    with suppress(UnavailableError):
        tree.close()
    assert_clean(root)


@pytest.mark.parametrize("kind", KINDS)
def test_what_status_calls_not_committed_cannot_arrive_later(kind: str) -> None:
    place = KINDS[kind]()
    held: list[Callable[[], Any]] = []  # requests that are under way
    slow = False

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if slow and method == "create":
            held.append(run)
            raise OSError(errno.ETIMEDOUT, "no reply")
        return run()

    tree, other = Host(place.storage(), around).tree, Host(place.storage(), clock=HostClock(1)).tree
    tree.update("", n=1)
    slow = True
    with pytest.raises(CommitUnknownError) as caught:
        tree.update("", n=2)
    assert other.status(caught.value.txid) is None
    for create in held:
        create()
    assert other.status(caught.value.txid) is None and dict(other.find("").metadata) == {"n": 1}
    with other.transaction() as txn:
        other.update("", n=3)
    before = other.lsn
    assert other.status(txn.txid) == txn.lsn and other.lsn == before, "nothing had to be settled"
    slow = False
    tree.update("", k=4)
    assert dict(tree.find("").metadata) == {"n": 3, "k": 4}
    other.close()
    tree.close()


# --- bounded memory -------------------------------------------------------------------------------------------------


@pytest.mark.local("a bucket in this process would be counted as well")
def test_a_transaction_of_three_thousand_blobs_needs_little_memory(make_tree: MakeTree) -> None:
    tree = make_tree()
    tree.put("m/v", b"warm", name="warm")
    blob = os.urandom(60 << 10)
    tracemalloc.start()
    try:
        baseline, _ = tracemalloc.get_traced_memory()
        with tree.transaction() as txn:
            for number in range(3_000):
                tree.put("m/v", blob, name=f"b{number}")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 176 MiB of content; what stays in memory is a fact of some hundred bytes for each
    assert peak - baseline < 32 << 20, f"{(peak - baseline) / 2**20:.0f} MiB"
    assert at(tree, ".wal", "staged", txn.txid, "pack").exists()
    assert content(tree, "m/v/b2999") == blob and len(tree.list("m/v")) == 3_001


@pytest.mark.parametrize("text", ["", "x" * 20_000], ids=["a small node", "a large node"])
def test_a_key_that_is_unset_and_set_again_is_there_and_one_that_is_set_and_unset_is_not(
    tree: Metatree, make_tree: MakeTree, text: str
) -> None:
    tree.put("m/v1", b"", name="b")
    tree.update("m", first=1, again=1, gone=1, text=text)
    with tree.transaction():
        tree.unset("m", "again", "new")
        tree.update("m", again=2, new=2, gone=2, short=2)
        tree.unset("m", "gone", "short")
    for each in (tree, make_tree(keys=None)):  # the other one reads it from the log or the files
        assert dict(each.find("m").metadata) == {"first": 1, "again": 2, "text": text, "new": 2}
