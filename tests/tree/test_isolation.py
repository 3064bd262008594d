"""Isolation, one scenario for each anomaly: short scripts of two or three actors, then whole histories.

In the scripts `t1`, `t2` are handles of two processes on one tree (the engine shares nothing between handles), and each
`Actor` does its steps in the order in which they are written here.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

import wal
from metatree import (
    BlobExistsError,
    ConflictError,
    InvalidLocationError,
    Metatree,
    MetatreeError,
    NodeExistsError,
    NodeNotFoundError,
    UnavailableError,
)
from metatree.engine import Engine
from tests.tree.storages import again, repeats
from tests.tree.test_readers import Meanwhile
from tests.trust.histories import NEVER, Done, Graph, assert_serializable, draw, final_lists, one_transaction
from tests.wal.queued import waiting
from wal.testing import Call

REPOSITORY = Path(__file__).resolve().parents[2]
MakeTree = Callable[..., Metatree]
T = TypeVar("T")


@pytest.fixture
def t1(make_tree: MakeTree, apply: str) -> Metatree:
    tree = make_tree(apply=apply)
    tree.put("m/v1", b"one", name="blob")
    tree.put("m/v2", b"two", name="blob")
    tree.update("m", x=0, y=0, active="v1")
    return tree


@pytest.fixture
def t2(t1: Metatree, make_tree: MakeTree, apply: str) -> Metatree:
    return make_tree(keys=None, apply=apply)


def read(tree: Metatree, key: str, node: str = "m") -> Any:
    return tree.find(node).metadata[key]


def keys(tree: Metatree, node: str = "m") -> dict[str, Any]:
    return dict(tree.find(node).metadata)


# --- the classics ---------------------------------------------------------------------------------------------------


def test_dirty_write_of_two_transactions_on_the_same_keys_leaves_one_of_them_whole(t1: Metatree, t2: Metatree) -> None:
    with t1.transaction() as first:
        t1.update("m", x=1)
        with t2.transaction() as second:
            t2.update("m", x=2)
            t2.update("m", y=2)
        t1.update("m", y=1)
    assert first.lsn == second.lsn + 1  # blind writes: both commit, one after the other
    assert keys(t1) == keys(t2) == {"x": 1, "y": 1, "active": "v1"}


def test_dirty_read_of_an_uncommitted_or_rolled_back_value_is_impossible(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ValueError, match="roll back"), t1.transaction():
        t1.update("m", x=1)
        t1.put("m/v3", b"x" * 100_000, name="blob")
        assert read(t2, "x") == 0 and not t2.exists("m/v3")
        with t2.transaction():
            assert read(t2, "x") == 0 and t2.children("m") == ["v1", "v2"]
        raise ValueError("roll back")
    assert read(t2, "x") == 0 and t2.children("m") == ["v1", "v2"]


def test_intermediate_read_of_a_value_that_the_transaction_replaced_is_impossible(t1: Metatree, t2: Metatree) -> None:
    with t1.transaction():
        t1.update("m", x=1)
        assert read(t2, "x") == 0
        t1.update("m", x=2)
    assert read(t2, "x") == 2
    with again(t1, read_only=True) as reader:
        assert read(reader, "x") == 2


@pytest.mark.everywhere
def test_lost_update_of_a_counter_is_refused(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        x = read(t1, "x")
        t2.update("m", x=10)
        t1.update("m", x=x + 1)
    assert keys(t1) == {"x": 10, "y": 0, "active": "v1"}


def test_lost_update_of_a_blob_is_refused(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        old = b"".join(t1.get("m/v1/blob"))
        t2.put("m/v1", b"other", name="blob", force=True)
        t1.put("m/v1", old + b" and more", name="blob", force=True)
    assert b"".join(t1.get("m/v1/blob")) == b"other"


def test_non_repeatable_read_is_refused(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        assert read(t1, "x") == 0
        t2.update("m", x=1)
        read(t1, "x")


def test_read_skew_between_two_keys_is_refused(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        assert read(t1, "x") == 0
        t2.update("m", x=1, y=1)
        read(t1, "y")  # 1 would belong to another state than x = 0


@pytest.mark.everywhere
def test_read_skew_between_two_nodes_and_a_blob_is_refused(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        assert read(t1, "active") == "v1"
        with t2.transaction():
            t2.put("m/v3", b"three", name="blob")
            t2.update("m", active="v3")
            t2.delete("m/v1", recursive=True)
        t1.get("m/v2/blob")


def test_a_snapshot_is_that_of_the_blocks_beginning(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        assert read(t1, "x") == 0
        t2.update("m", y=7)
        assert read(t1, "y") == 0
        t1.update("m", x=1)
    assert keys(t2) == {"x": 0, "y": 7, "active": "v1"}


@pytest.mark.local("elsewhere a handle may still have in its log what another has put into a file")
def test_a_snapshot_moves_forward_with_a_file_that_is_read_while_nothing_that_was_read_changes(
    t1: Metatree, t2: Metatree
) -> None:
    t2.checkpoint()
    with t1.transaction() as txn:
        assert read(t1, "x") == 0
        t2.update("m", y=7)
        assert b"".join(t1.get("m/v1/blob"))
        assert read(t1, "y") == 7
        t1.update("m", x=1)
    assert txn.lsn is not None and keys(t2) == {"x": 1, "y": 7, "active": "v1"}


@pytest.mark.local("it stands between the reader and the files of this machine")
@pytest.mark.parametrize("look", ["key", "absent key", "all keys"])
def test_a_key_that_is_looked_at_when_the_snapshot_has_moved_past_its_change_is_refused(
    t1: Metatree, t2: Metatree, look: str
) -> None:
    """`metadata` hands all keys out at once; which of them the block relies on is known when it looks at them."""
    t2.checkpoint()
    with pytest.raises(ConflictError), t1.transaction():
        held = t1.find("m").metadata
        t2.update("m", x=10, z=10)
        assert b"".join(t1.get("m/v1/blob"))
        assert t1.exists("m/v1")  # nothing that was read has changed: the snapshot is now behind the update
        value = {"key": lambda: held["x"], "absent key": lambda: held.get("z", 0), "all keys": lambda: len(held)}[
            look
        ]()
        t1.update("m", x=value + 1)
    assert keys(t2) == {"x": 10, "y": 0, "z": 10, "active": "v1"}


def test_other_keys_of_metadata_may_be_looked_at_when_the_snapshot_has_moved(t1: Metatree, t2: Metatree) -> None:
    t2.checkpoint()
    with t1.transaction():
        held = t1.find("m").metadata
        t2.update("m", x=10)
        assert b"".join(t1.get("m/v1/blob"))
        assert t1.exists("m/v1")
        t1.update("m", y=held["y"] + 1)
    assert keys(t2) == {"x": 10, "y": 1, "active": "v1"}
    assert held["x"] == 0  # after the block it is what it was, and nothing rests on it


@pytest.mark.local("it stands between the reader and the files of this machine")
def test_a_snapshot_does_not_go_back_when_a_staged_blob_has_come_into_its_place(make_tree: MakeTree) -> None:
    """Else what was committed before the block began would be taken for a change of what it read."""
    writer = make_tree(apply="background")
    writer._engine.committer.stop()  # it applies when it is told to
    writer.put("m/v1", b"x" * 100_000, name="blob")
    reader = make_tree(keys=None, apply="background")
    reader._engine.committer.stop()
    assert len(b"".join(reader.get("m/v1/blob"))) == 100_000  # from the staging area
    writer.checkpoint()  # the staged file goes
    writer.update("m", x=1)
    writer.update("m", y=1)
    with reader.transaction() as txn:
        assert read(reader, "x") == 1
        assert len(b"".join(reader.get("m/v1/blob"))) == 100_000
        reader.update("m", z=1)
    assert txn.lsn == 4


VERBS: dict[str, Callable[[Metatree], object]] = {
    "put": lambda tree: tree.put("m/v1", b"new", name="new"),
    "delete": lambda tree: tree.delete("m/v2", recursive=True),
    "compare and set": lambda tree: tree.compare_and_set("m", "x", 0, 1),
    "move": lambda tree: tree.move("m/v1/blob", "m/v1/moved"),
}


@pytest.mark.local("it stands between the reader and the files of this machine")
@pytest.mark.parametrize("verb", VERBS, ids=str)
def test_a_verb_happens_once_though_the_log_is_trimmed_past_the_snapshot_meanwhile(
    t1: Metatree, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Engine.__init__.__kwdefaults__, "segment_size", 4096)
    writer = Metatree(t1.root)  # its segments are small, so that trimming frees them
    writer.update("m", filler="f" * 5000)
    writer.checkpoint()
    looker = Meanwhile(after=0)
    tree = Metatree(wal.LocalStorage(t1.root, looker))

    def change() -> None:
        for number in range(3):
            writer.put("other", bytes([number]) * 4000, name="blob", force=True)
            writer.checkpoint()

    with tree.transaction() as txn:
        looker.happen = change
        VERBS[verb](tree)
        assert looker.happen is None, "nothing was interleaved"
    assert txn.lsn is not None
    tree.close()
    writer.close()


class _LogFails(Meanwhile):
    """The log cannot be read once, after what happens meanwhile."""

    failing = False

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if self.failing and call.method == "pread" and call.path.endswith(".log"):
            self.failing = False
            raise OSError(errno.EIO, os.strerror(errno.EIO), call.path)
        return super().around(call, run, tear)


@pytest.mark.local("it stands between the reader and the files of this machine")
def test_a_verb_whose_snapshot_could_not_be_confirmed_is_not_committed(t1: Metatree, t2: Metatree) -> None:
    t2.checkpoint()
    looker = _LogFails(after=0)
    tree = Metatree(wal.LocalStorage(t1.root, looker))

    def change() -> None:
        t2.update("m", y=1)
        looker.failing = True

    with pytest.raises(UnavailableError), tree.transaction():
        looker.happen = change
        with pytest.raises(UnavailableError):
            tree.put("m/v1", b"new", name="new")
        assert not looker.failing, "nothing failed"
    assert not tree.exists("m/v1/new") and tree.lsn == t2.lsn
    tree.close()


def test_a_transaction_that_only_reads_is_refused_a_mixed_state_too(t1: Metatree, t2: Metatree) -> None:
    with again(t1, read_only=True) as reader:
        t2.update("m", x=5)
        assert read(reader, "x") == 5
    with t1.transaction() as txn:
        seen = read(t1, "x"), read(t1, "y")
    assert seen == (5, 0) and txn.lsn is None


@pytest.mark.parametrize("order", ["first commits first", "second commits first"])
@pytest.mark.everywhere
def test_write_skew_between_two_keys_is_refused(t1: Metatree, t2: Metatree, order: str) -> None:
    """Both may take one of the two only if the other is still 0; serial execution lets one of them."""

    def take(tree: Metatree, mine: str, other: str, between: Callable[[], None] = lambda: None) -> None:
        with tree.transaction():
            if read(tree, other) == 0:
                between()
                tree.update("m", {mine: 1})

    with pytest.raises(ConflictError):
        if order == "second commits first":
            take(t1, "x", "y", lambda: take(t2, "y", "x"))
        else:
            take(t2, "y", "x", lambda: take(t1, "x", "y"))
    assert sorted([read(t1, "x"), read(t1, "y")]) == [0, 1]


def test_write_skew_through_a_reference_is_refused(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError, match="active"), t1.transaction():
        t1.update("m/<active>", served=True)  # relies on active = v1
        t2.update("m", active="v2")
    assert keys(t1, "m/v1") == keys(t1, "m/v2") == {}


# --- phantoms -------------------------------------------------------------------------------------------------------


@pytest.mark.everywhere
def test_phantom_child_is_refused(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError, match="children"), t1.transaction():
        t1.update("m", count=len(t1.children("m")))
        t2.put("m/v3", b"", name="blob")
    assert "count" not in keys(t1)


def test_phantom_blob_in_list_is_refused(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        t1.update("m/v1", files=len(t1.list("m/v1")))
        t2.put("m/v1", b"", name="another")
    assert keys(t1, "m/v1") == {}


def test_phantom_key_of_metadata_that_was_iterated_is_refused(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError, match="metadata"), t1.transaction():
        t1.update("m/v1", summary=sorted(t1.find("m").metadata))
        t2.update("m", z=1)


def test_phantom_in_the_absence_of_a_node_is_refused(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        if not t1.exists("m/v3"):
            t2.put("m/v3", b"", name="blob")
            t1.update("m", last="v2")
    assert "last" not in keys(t1)


def test_phantom_in_the_absence_of_a_key_is_refused(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        if t1.find("m").metadata.get("owner") is None:
            t2.update("m", owner="t2")
            t1.update("m", owner="t1")
    assert read(t1, "owner") == "t2"


def test_phantom_below_a_tree_that_was_walked_is_refused(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        t1.update("m", nodes=len(list(t1.walk("m"))))
        t2.put("m/v3", b"", name="blob")


def test_a_key_of_another_node_is_no_phantom(t1: Metatree, t2: Metatree) -> None:
    with t1.transaction() as txn:
        t1.update("m", count=len(t1.children("m")))
        t2.update("m/v1", n=1)
    assert txn.lsn is not None


# --- what commutes does not conflict --------------------------------------------------------------------------------


@pytest.mark.everywhere
def test_different_children_of_one_parent_commute(t1: Metatree, t2: Metatree) -> None:
    with t1.transaction() as txn:
        t1.put("m/v3", b"three", name="blob")
        t2.put("m/v4", b"four", name="blob")
        t2.delete("m/v2", recursive=True)
        t1.put("m/v5", b"five", name="blob")
    assert txn.lsn is not None
    assert t1.children("m") == t2.children("m") == ["v1", "v4", "v3", "v5"]  # in the order of their commits


def test_different_keys_of_one_node_commute(t1: Metatree, t2: Metatree) -> None:
    with t1.transaction():
        t1.update("m", x=read(t1, "x") + 1)
        t2.update("m", y=read(t2, "y") + 1)
        t2.unset("m", "active")
    assert keys(t1) == keys(t2) == {"x": 1, "y": 1}


def test_different_blobs_of_one_node_commute(t1: Metatree, t2: Metatree) -> None:
    with t1.transaction():
        t1.put("m/v1", b"a", name="a")
        t2.put("m/v1", b"b", name="b")
        t2.delete("m/v1/blob")
    assert t1.list("m/v1") == ["a", "b"]


def test_children_and_keys_of_one_node_commute(t1: Metatree, t2: Metatree) -> None:
    with t1.transaction():
        t1.update("m", x=1)
        t2.put("m/v3", b"", name="blob")
    assert read(t2, "x") == 1 and t2.children("m") == ["v1", "v2", "v3"]


def test_creating_below_a_node_that_both_create_commutes(t1: Metatree, t2: Metatree) -> None:
    with t1.transaction() as txn:
        t1.put("new/v1", b"", name="blob")
        t2.put("new/v2", b"", name="blob")
        t2.update("new", by="t2")
    assert txn.lsn == t1.lsn
    assert t1.children("new") == t2.children("new") == ["v2", "v1"]
    assert t1.children("").count("new") == 1 and keys(t1, "new") == {"by": "t2"}


# --- reads that leave no fact ---------------------------------------------------------------------------------------


def test_an_update_to_the_same_value_stays_in_the_read_set(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError, match="'x' of m"), t1.transaction():
        t1.update("m", x=0)  # is 0: no fact, but the caller relies on it
        t1.update("m/v1", confirmed=True)
        t2.update("m", x=1)
    assert read(t1, "x") == 1 and keys(t1, "m/v1") == {}


def test_an_update_to_the_same_value_alone_commits_nothing(t1: Metatree, t2: Metatree) -> None:
    lsn = t1.lsn
    t1.update("m", x=0)
    assert t1.lsn == lsn
    t1.update("m", x=0.0)  # another JSON value
    assert t1.lsn == lsn + 1 and json.dumps(read(t2, "x")) == "0.0"


def test_compare_and_set_in_a_transaction_relies_on_its_value_until_the_end(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        t1.compare_and_set("m", "x", 0, 1)
        t2.update("m", x=5)
    assert read(t1, "x") == 5
    with pytest.raises(ConflictError):
        t1.compare_and_set("m", "x", 0, 1)
    t1.compare_and_set("m", "x", 5, 6)
    assert read(t2, "x") == 6


# --- twins (E16) ----------------------------------------------------------------------------------------------------

TWINS = [("Foo", "foo"), ("stra\u00dfe", "STRASSE"), ("\u00e9t\u00e9", "\u00c9T\u00c9")]


@pytest.mark.parametrize(("one", "other"), TWINS)
@pytest.mark.everywhere
def test_twins_that_differ_in_case_conflict_in_a_transaction(t1: Metatree, t2: Metatree, one: str, other: str) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        t1.put(f"m/{one}", b"", name="blob")
        t2.put(f"m/{other}", b"", name="blob")
    assert t1.children("m") == ["v1", "v2", other]


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_twins_that_differ_in_case_are_refused_in_single_calls(
    t1: Metatree, t2: Metatree, one: str, other: str
) -> None:
    t2.put(f"m/{other}", b"", name="blob")
    t2.put("m/v1", b"", name=other)
    with pytest.raises((NodeExistsError, BlobExistsError)):
        t1.put(f"m/{one}", b"", name="blob")
    with pytest.raises(BlobExistsError):
        t1.put("m/v1", b"", name=one)
    with pytest.raises(BlobExistsError):
        t1.put("m/v1", b"", name=one, force=True)
    assert t1.children("m") == ["v1", "v2", other] and t1.list("m/v1") == sorted(["blob", other])


def test_a_node_that_changed_in_a_transaction_keeps_its_name_from_its_twin(t1: Metatree) -> None:
    with t1.transaction():
        t1.update("m/v1", n=1)
        with pytest.raises(NodeExistsError):
            t1.put("m/V1", b"", name="blob")
        with pytest.raises(BlobExistsError):
            t1.put("m", b"", name="V1")
    assert t1.children("m") == ["v1", "v2"]


def test_twins_that_differ_in_unicode_form_cannot_be_named(t1: Metatree) -> None:
    t1.put("m/\u00e9", b"", name="blob")
    lsn = t1.lsn
    with pytest.raises(InvalidLocationError):
        t1.put("m/e\u0301", b"", name="blob")
    with pytest.raises(InvalidLocationError):
        t1.put("m/v1", b"", name="e\u0301")
    assert t1.lsn == lsn


@pytest.mark.parametrize("first", ["blob", "node"])
def test_twins_of_a_blob_and_a_node_conflict_in_a_transaction(t1: Metatree, t2: Metatree, first: str) -> None:
    def blob(tree: Metatree) -> None:
        tree.put("m", b"", name="X")

    def node(tree: Metatree) -> None:
        tree.put("m/x", b"", name="blob")

    one, other = (blob, node) if first == "blob" else (node, blob)
    with pytest.raises(ConflictError), t1.transaction():
        one(t1)
        other(t2)
    with pytest.raises((NodeExistsError, BlobExistsError)):
        one(t1)
    assert (t1.list("m"), "x" in t1.children("m")) == (([], True) if first == "blob" else (["X"], False))


@pytest.mark.parametrize("recursive", [True, False])
@pytest.mark.everywhere
def test_delete_of_a_node_and_put_below_it_conflict_in_both_orders(t1: Metatree, t2: Metatree, recursive: bool) -> None:
    t1.put("e", b"", name="only")
    t1.delete("e/only")
    where = "m" if recursive else "e"
    with pytest.raises(ConflictError), t1.transaction():
        t1.delete(where, recursive=recursive)
        t2.put(f"{where}/v9", b"nine", name="blob")
    assert b"".join(t1.get(f"{where}/v9/blob")) == b"nine"
    t1.delete(f"{where}/v9", recursive=True)
    with pytest.raises(ConflictError), t1.transaction():
        t1.put(f"{where}/v9", b"nine", name="blob")
        t2.delete(where, recursive=recursive)
    assert not t1.exists(where)


def test_deletes_of_twins_and_their_neighbours_commute(t1: Metatree, t2: Metatree) -> None:
    with t1.transaction():
        t1.delete("m/v1", recursive=True)
        t2.delete("m/v2", recursive=True)
    assert t1.children("m") == []


# --- deleting and moving against the rest ---------------------------------------------------------------------------


def test_delete_against_update_in_a_transaction_is_a_conflict(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        t1.update("m/v1", n=1)  # blind: yet it relies on the node
        t2.delete("m/v1", recursive=True)
    assert t1.children("m") == ["v2"]
    with pytest.raises(ConflictError), t1.transaction():
        t1.delete("m/v2", recursive=True)
        t2.update("m/v2", n=1)
    assert keys(t1, "m/v2") == {"n": 1}


def test_delete_against_update_in_a_single_call_is_node_not_found(t1: Metatree, t2: Metatree) -> None:
    t1.find("m/v1")
    t2.delete("m/v1", recursive=True)
    with pytest.raises(NodeNotFoundError):
        t1.update(n=1)
    with pytest.raises(NodeNotFoundError):
        t1.update("m/v1", n=1)
    assert not t1.exists("m/v1")


def test_delete_and_creation_anew_against_update_is_a_conflict(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        t1.update("m/v1", n=1)  # meant for the node that was there
        t2.delete("m/v1", recursive=True)
        t2.put("m/v1", b"another", name="blob")
    assert keys(t1, "m/v1") == {}


@pytest.mark.everywhere
def test_move_against_put_into_the_moved_node_is_a_conflict(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        t1.move("m/v1", "m/moved")
        t2.put("m/v1", b"late", name="late")
    assert t1.list("m/v1") == ["blob", "late"] and not t1.exists("m/moved")
    with pytest.raises(ConflictError), t1.transaction():
        t1.put("m/v1", b"later", name="later")
        t2.move("m/v1", "m/moved")
    assert t1.list("m/moved") == ["blob", "late"] and not t1.exists("m/v1")


def test_move_against_update_below_the_moved_node_is_a_conflict(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        t1.move("m", "n")
        t2.update("m/v2", n=1)
    assert keys(t1, "m/v2") == {"n": 1} and not t1.exists("n")


def test_copy_against_a_change_of_its_source_is_a_conflict(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        t1.copy("m/v1", "m/copied")
        t2.put("m/v1", b"changed", name="blob", force=True)
    assert not t1.exists("m/copied")


def test_two_moves_of_one_node_leave_one_of_them(t1: Metatree, t2: Metatree) -> None:
    with pytest.raises(ConflictError), t1.transaction():
        t1.move("m/v1", "m/a")
        t2.move("m/v1", "m/b")
    assert t1.children("m") == ["v2", "b"]
    with pytest.raises((NodeNotFoundError, MetatreeError)):
        t1.move("m/v1", "m/a")


# --- mates of one batch (E9c) ---------------------------------------------------------------------------------------


class HeldAppend:
    """Leads the queue of those who append, so that the transactions of several threads meet in one batch afterwards."""

    def __init__(self, tree: Metatree) -> None:
        self._log = tree._engine.log
        self._go = threading.Event()
        self._inside = threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def _hold(self) -> None:
        def prepare(_: int, mates: object) -> None:
            self._inside.set()
            self._go.wait()

        self._log.append(prepare)

    def wait_for(self, others: int) -> None:
        """Until so many wait for the leader."""
        while waiting(self._log) < others:
            time.sleep(0.001)

    def __enter__(self) -> HeldAppend:
        self._thread.start()
        self._inside.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._go.set()
        self._thread.join()


def at_once(tree: Metatree, *blocks: Callable[[], None]) -> list[BaseException | None]:
    """Run transactions in threads whose commits wait for each other's company; what each raised."""
    raised: list[BaseException | None] = [None] * len(blocks)
    ends: queue.Queue[int] = queue.Queue()

    def run(index: int) -> None:
        try:
            with tree.transaction():
                blocks[index]()
                ends.put(index)
                everybody.wait()
        except MetatreeError as error:
            raised[index] = error

    everybody = threading.Barrier(len(blocks))
    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(blocks))]
    with HeldAppend(tree) as held:
        for thread in threads:
            thread.start()
        for _ in threads:
            ends.get()
        held.wait_for(len(blocks))
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.parametrize("round_", range(5))
def test_write_skew_through_a_batch_mate_is_refused(t1: Metatree, round_: int) -> None:
    def take(mine: str, other: str) -> Callable[[], None]:
        def block() -> None:
            assert read(t1, other) == 0
            t1.update("m", {mine: 1})

        return block

    raised = at_once(t1, take("x", "y"), take("y", "x"))
    assert sorted([read(t1, "x"), read(t1, "y")]) == [0, 1]
    assert [type(error) for error in raised if error is not None] == [ConflictError]


@pytest.mark.everywhere
def test_commuting_mates_commit_in_one_batch(t1: Metatree) -> None:
    before = t1.lsn
    raised = at_once(t1, *(lambda n=n: t1.put(f"m/new{n}", b"", name="blob") for n in range(4)))
    assert raised == [None] * 4
    assert t1.lsn == before + 1, "four transactions, one batch"
    assert sorted(t1.children("m")[2:]) == [f"new{n}" for n in range(4)]


def test_a_mate_that_creates_the_same_child_is_refused_not_merged(t1: Metatree) -> None:
    raised = at_once(
        t1,
        lambda: t1.put("m/new", b"one", name="one") and None,
        lambda: t1.put("m/NEW", b"two", name="two") and None,
    )
    assert [type(error) for error in raised if error is not None] == [ConflictError]
    assert len(t1.children("m")) == 3


def test_single_calls_meet_in_one_batch_and_each_sees_those_before_it(t1: Metatree) -> None:
    before = t1.lsn
    raised: list[BlobExistsError] = []

    def put(content: bytes) -> None:
        try:
            t1.put("m/new", content, name="same")
        except BlobExistsError as error:
            raised.append(error)

    threads = [threading.Thread(target=put, args=(content,)) for content in (b"1", b"2", b"3")]
    with HeldAppend(t1) as held:
        for thread in threads:
            thread.start()
        held.wait_for(len(threads))
    for thread in threads:
        thread.join()
    assert len(raised) == 2 and t1.lsn == before + 1
    assert t1.list("m/new") == ["same"]


def test_a_mate_with_the_same_idempotency_key_is_replayed(t1: Metatree) -> None:
    before = t1.lsn
    outcomes: list[tuple[int | None, bool]] = []

    def work() -> None:
        with t1.transaction(idempotency_key="once") as txn:
            t1.update("m", {threading.current_thread().name: 1})
        outcomes.append((txn.lsn, txn.replayed))

    threads = [threading.Thread(target=work) for _ in range(4)]
    with HeldAppend(t1):
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [(before + 1, False)] + [(before + 1, True)] * 3


# --- serializability of whole histories: see tests/trust/histories.py -------------------------------------------------


def test_the_search_for_cycles_finds_write_skew_lost_reads_and_stale_reads() -> None:
    def cycle(history: list[Done], final: dict[str, list[str]]) -> object:
        return Graph(history, final).cycle()

    skew = [
        Done(0, 10, [("read", "y", ()), ("append", "x", "a")]),
        Done(0, 10, [("read", "x", ()), ("append", "y", "b")]),
    ]
    assert cycle(skew, {"x": ["a"], "y": ["b"]})
    stale = [Done(0, 1, [("append", "x", "a")]), Done(2, 3, [("read", "x", ())])]
    assert cycle(stale, {"x": ["a"]})
    late = [Done(0, 1, []), Done(2, 30, []), Done(3, 4, [("read", "x", ("a",))]), Done(5, 6, [("append", "x", "a")])]
    assert cycle(late, {"x": ["a"]}), "it read what was appended after it had returned"
    good = [
        Done(0, 5, [("append", "x", "a")]),
        Done(2, 3, [("read", "x", ())]),
        Done(6, 7, [("read", "x", ("a",))]),
    ]
    assert cycle(good, {"x": ["a"]}) is None
    with pytest.raises(AssertionError, match="lost"):
        cycle([Done(0, 1, [("append", "x", "a")])], {"x": []})
    with pytest.raises(AssertionError, match="half a transaction"):
        cycle([Done(0, NEVER, [("append", "x", "a"), ("append", "y", "b")])], {"x": ["a"]})
    with pytest.raises(AssertionError, match="nobody appended"):
        cycle([], {"x": ["a"]})
    with pytest.raises(AssertionError, match="no prefix"):
        cycle([Done(0, 1, [("append", "x", "a"), ("read", "x", ("b",))])], {"x": ["a"]})
    with pytest.raises(AssertionError, match="at LSN 2, x shows 0 values of 1 to 1"):
        cycle([Done(0, 1, [("append", "x", "a")], 1), Done(0, 1, [("read", "x", ())], 2)], {"x": ["a"]})


@pytest.mark.everywhere
def test_a_history_of_threads_is_serializable_in_real_time(t1: Metatree) -> None:
    seed = random.randrange(10**6)  # follows from the seed of the run, which is printed
    history: list[Done] = []
    each = repeats(t1, 60)

    def work(number: int) -> None:
        choose = random.Random(seed * 10 + number)
        for count in range(each):
            done = one_transaction(t1, draw(choose, ("m", "m/v1")), f"{number}-{count}")
            if done is not None:
                history.append(done)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(history) > each, "almost everything was refused"
    assert_serializable(history, final_lists(t1))
