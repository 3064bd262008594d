"""What a handle remembers only to save requests and readings of the log: it is bounded, and answers do not rest on it.

The bounds of parsed nodes are in test_node_memory.py, those of idempotency keys in test_used_keys.py.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import wal
from metatree import ApplyPendingWarning, ConflictError, FormatError, Metatree, MetatreeError, commit, objects, window
from metatree.facts import Header, KeysFact, encode, facts_of
from metatree.fold import fold
from metatree.objects import Objects
from metatree.window import Window
from tests.tree.storages import NamedObjects, TextBucket
from tests.tree.test_overtaken import Host, in_order, opened, prepared, shown
from wal.testing.hosts import watched

# --- headers of the last records --------------------------------------------------------------------------------------


class Batches:
    """A log of batches of one to three records."""

    def __init__(self, number: int) -> None:
        self.all = [wal.Batch(lsn, tuple(self._records(lsn))) for lsn in range(1, number + 1)]
        self.read_after: list[int] = []
        self.log = mock.Mock(trimmed=lambda *, fresh=False: 0, read=self._read)

    def _records(self, lsn: int) -> Iterator[wal.Record]:
        for index in range(1 + lsn % 3):
            header = Header(f"{lsn} {index}", "", "", message="x" * (lsn % 50))
            yield encode(header, [KeysFact((), {"n": lsn, f"{lsn} {index}": 0}, ())])

    def _read(self, after: int, upto: int) -> Iterator[wal.Batch]:
        self.read_after.append(after)
        return (batch for batch in self.all if after < batch.lsn <= upto)


BOUNDS = [("RECENT", 10), ("RECENT", 1), ("RECENT_BYTES", 1500), ("RECENT_BYTES", 1)]


@pytest.mark.parametrize(("name", "bound"), BOUNDS)
def test_no_more_headers_are_kept_than_the_bound_and_older_ones_are_read_from_the_log(
    name: str, bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, name, bound)
    batches, count = Batches(100), 0
    kept = Window(batches.log, trust_applied=False, eager=False)
    for head in range(1, 101):
        kept.extend(head)
        count = len(kept._recent)
        size = sum(len(header) for _, header in kept._recent)
        assert kept._recent_bytes == size
        assert count <= bound if name == "RECENT" else size <= bound or count == 1
    assert count == 10 if bound == 10 else 1 <= count < 20
    del batches.read_after[:]
    for base in range(101):
        expected = [(lsn, f"{lsn} {index}") for lsn in range(base + 1, 101) for index in range(1 + lsn % 3)]
        assert [(position.lsn, header.txid) for position, header in kept.since(base)] == expected
    oldest = kept._recent[0][0]
    assert batches.read_after == [*range(oldest.lsn - (oldest.index == 0))]  # only what is no longer kept


@pytest.mark.parametrize(("trusts", "mark"), [(True, 15), (False, 10)])
def test_a_window_begins_where_the_files_certainly_show_the_log(trusts: bool, mark: int) -> None:
    batches = Batches(20)
    batches.log.configure_mock(trimmed=lambda *, fresh=False: 10, load_mark=lambda index: 15)
    kept = Window(batches.log, trust_applied=trusts, eager=False)
    kept.begin()
    assert (kept.floor, kept.head) == (mark, mark)
    kept.extend(20)
    assert batches.read_after == [mark]


def test_a_trimmed_record_leaves_its_header_and_takes_everything_before_it_out_of_the_window() -> None:
    """Its changes are in the files: without them, what was read before would be an older state."""
    batches = Batches(6)
    trimmed = tuple(wal.Record(record.header, None) for record in batches.all[3].records)
    batches.all[3] = wal.Batch(4, trimmed)
    kept = Window(batches.log, trust_applied=False, eager=False)
    kept.extend(6)
    assert kept.floor == 4 and kept.facts(3) is None
    later = kept.facts(4)
    assert later is not None and kept.effect.keys == fold(later).keys and "3 0" not in kept.effect.keys
    assert [position.lsn for position, _ in kept.since(2)] == [3, 4, 4, 5, 5, 5, 6]
    batches.all[3] = wal.Batch(4, tuple(wal.Record(b'{"v":3}', None) for _ in trimmed))
    with pytest.raises(FormatError):
        Window(batches.log, trust_applied=False, eager=False).extend(6)


def test_headers_are_forgotten_when_the_window_begins_anew() -> None:
    batches = Batches(20)
    kept = Window(batches.log, trust_applied=False, eager=False)
    kept.extend(20)
    kept._skip(20)
    assert not kept._recent and kept._recent_bytes == 0
    assert len([*kept.since(0)]) == sum(len(batch.records) for batch in batches.all)


@pytest.mark.parametrize(("name", "bound"), BOUNDS)
def test_a_transaction_is_validated_against_changes_whose_headers_are_no_longer_kept(
    name: str, bound: int, fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, name, bound)
    with Metatree(fast_path / "tree", ("model", "version")) as tree, Metatree(fast_path / "tree") as other:
        tree.put("m/v1", b"", name="b")
        tree.put("quiet", b"", name="b")

        def change() -> None:
            for number in range(40):
                other.update("m", {"n" if number == 5 else "other": number})

        with pytest.raises(ConflictError), tree.transaction():
            seen = tree.find("m").metadata.get("n")
            change()
            tree.update("m", n=(seen or 0) + 1)
        with tree.transaction():
            seen = tree.find("quiet").metadata.get("n")
            change()
            tree.update("quiet", n=(seen or 0) + 1)
        assert (tree.find("m").metadata["n"], tree.find("quiet").metadata["n"]) == (5, 1)


# --- records that are not applied yet ---------------------------------------------------------------------------------


def test_records_leave_the_window_once_most_of_them_are_applied() -> None:
    kept = Window(Batches(9).log, trust_applied=False, eager=False)
    for head, mark, floor in ((1, 1, 1), (5, 1, 1), (5, 2, 1), (5, 4, 4), (9, 9, 9), (9, 9, 9)):
        kept.extend(head)
        assert kept.effect.keys == fold(kept.facts(kept.floor) or ()).keys
        kept.forget(mark)
        assert (kept.floor, kept.head) == (floor, head)
        assert {lsn for lsn, _ in kept._facts} == set(range(floor + 1, head + 1))
        assert kept.effect.keys == fold(kept.facts(floor) or ()).keys


def test_a_long_window_says_so_once_for_each_doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "LONG", 4)
    kept, told = Window(Batches(40).log, trust_applied=False, eager=False), list[int]()
    for head in range(1, 41):
        kept.extend(head)
        told += [len(kept._facts) for _ in range(2) if kept.is_long()]
    assert told == [5, 11, 23, 47]


# --- the effect of a batch that is being made -------------------------------------------------------------------------


def test_each_record_of_a_batch_is_folded_once_however_often_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    folded: list[wal.Record] = []
    monkeypatch.setattr(commit, "facts_of", lambda record: folded.append(record) or facts_of(record))
    committing = commit.Committing(mock.Mock(), mock.Mock(), mock.Mock(), (), mock.Mock())
    records = [encode(Header(f"{n}", "", ""), [KeysFact((), {f"k{n}": n}, ())]) for n in range(8)]
    for mates, counts in ((records[:3], (1, 2, 2, 3)), (records[3:4], (1, 1)), (records[4:], (2, 4))):
        for count in counts:
            effect = committing._fold_mates(mates[:count])
            assert effect.keys == fold(fact for mate in mates[:count] for fact in facts_of(mate)).keys
    assert folded == records


def test_the_facts_after_a_record_are_those_of_later_ones_or_unknown() -> None:
    kept = Window(Batches(3).log, trust_applied=False, eager=False)
    kept._skip(1)
    kept.extend(3)
    assert [[fact.set["n"] for fact in kept.facts(after) or ()] for after in (1, 2, 3)] == [[2, 2, 2, 3], [3], []]
    assert kept.facts(0) is None


# --- versions of objects ----------------------------------------------------------------------------------------------


def remembered(tree: Metatree) -> Objects:
    found = tree._engine.committer._objects
    assert found is not None
    return found


def many(tree: Metatree) -> None:
    for number in range(40):
        tree.put(f"m/w{number}", b"first", name="b", force=True)


def many_again(tree: Metatree) -> None:
    for number in range(0, 39, 3):
        tree.put(f"m/w{number}", b"second", name="b", force=True)
        tree.update(f"m/w{number}", n=number)
        tree.delete(f"m/w{number + 1}", recursive=True)


@pytest.mark.parametrize("bound", [0, 1, 10])
@pytest.mark.parametrize("others", [False, True], ids=["alone", "with another"])
def test_no_more_versions_are_remembered_than_the_bound_and_the_objects_show_every_commit(
    bound: int, others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "REMEMBERED", bound)
    bucket = TextBucket()
    prepared(bucket)
    with opened(Host(bucket)) as tree, opened(Host(bucket)) as other:
        for number, act in enumerate((many, many_again, many)):
            by = other if others and number == 1 else tree
            for each in _steps(act, by):
                each()
                assert len(remembered(by)._known) <= bound
        assert len(remembered(tree)._known) == bound
        assert tree.check(deep=True).ok
    monkeypatch.undo()
    assert shown(bucket) == in_order(many, many_again, many)


def test_the_versions_that_were_published_last_stay_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "REMEMBERED", 3)
    bucket = TextBucket()
    prepared(bucket)
    with opened(Host(bucket)) as tree:
        for number in range(6):
            tree.put("m/v1", f"{number}".encode(), name="b", force=True)
            tree.put("m/v1", b"once", name=f"c{number}")
            assert {"m/v1/b", f"m/v1/c{number}"} <= set(remembered(tree)._known)


def _steps(act: Callable[[Metatree], object], tree: Metatree) -> list[Callable[[], object]]:
    """The calls that `act` makes, one by one."""
    recorder = mock.Mock()
    act(recorder)
    return [
        lambda name=name, args=args, options=options: getattr(tree, name)(*args, **options)  # type: ignore[misc]
        for name, args, options in recorder.method_calls
    ]


def test_a_version_that_another_has_replaced_is_found_out_and_only_its_own_is_believed() -> None:
    bucket = TextBucket()
    prepared(bucket)
    with opened(Host(bucket)) as tree, opened(Host(bucket)) as other:
        for number in range(6):
            by = (tree, other)[number % 2]
            by.put("m/v1", f"{number}".encode(), name="b", force=True)
            by.update("m/v1", n=number)
            assert bucket.objects["m/v1/b"].data == f"{number}".encode()
            assert shown(bucket)["m/v1/metadata.json"]["n"] == number


def test_objects_that_a_pass_found_changed_are_not_remembered_beyond_it() -> None:
    """Each round names an object that was found changed, could not be put then, and was dropped after."""
    bucket, failures = TextBucket(), [OSError(errno.EIO, "no answer"), wal.ChangedError("of another version")]
    prepared(bucket)
    pending: list[OSError] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "publish" and str(arguments[0]).startswith("m/w") and str(arguments[0]).endswith("/b") and pending:
            raise pending.pop()
        return run()

    with Metatree(watched(NamedObjects(bucket, "tree"), around)) as tree:
        sizes = []
        for number in range(20):
            pending[:] = failures
            with pytest.warns(ApplyPendingWarning, match="no answer"):
                tree.put(f"m/w{number}", b"x", name="b")
            assert not pending
            tree.delete(f"m/w{number}", recursive=True)
            held = {name: value for name, value in vars(remembered(tree)).items() if name != "_known"}
            sizes.append(sum(len(value) for value in held.values() if isinstance(value, set | dict | list)))
        assert max(sizes[10:]) <= max(sizes[:3])
        assert tree.children("m") == ["v1", "v2"] and tree.check(deep=True).ok


def test_what_a_tenure_has_created_is_forgotten_when_it_ends_well() -> None:
    bucket = TextBucket()
    prepared(bucket)
    with opened(Host(bucket)) as tree:
        for number in range(3):
            tree.put(f"m/w{number}", b"x", name="b")
            assert not remembered(tree)._made
        tree.checkpoint()
        assert not remembered(tree)._made and not remembered(tree).unsure


def test_passes_that_fail_for_long_leave_no_more_than_what_they_could_not_apply() -> None:
    bucket, failing = TextBucket(), [False]
    prepared(bucket)

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if failing[0] and method == "publish" and arguments[0] == "m/metadata.json":
            raise wal.RightLostError("taken over")
        return run()

    with Metatree(watched(NamedObjects(bucket, "tree"), around), apply="background") as tree:
        tree._engine.committer.stop()
        tree.put("m/w", b"x", name="b")
        sizes = []
        for _ in range(20):
            failing[0] = True
            with pytest.raises(MetatreeError):
                tree.flush()
            sizes.append(len(remembered(tree)._unsure or ()))
        failing[0] = False
        tree.flush()
        assert max(sizes) == sizes[0] and not remembered(tree).unsure
        assert tree.check(deep=True).ok
    assert bucket.objects["m/w/b"].data == b"x"
