"""A transaction that was aborted from elsewhere is never committed; one that is committed is never aborted (E17)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from metatree import ConflictError, CorruptionError, Metatree
from metatree.facts import Header, decode_header, encode_header
from tests.tree.test_isolation import HeldAppend

LARGE = b"x" * (65 << 10)


@pytest.mark.everywhere
def test_a_transaction_that_was_aborted_meanwhile_conflicts_and_nothing_of_it_is_there(
    make_tree: Callable[..., Metatree],
) -> None:
    tree, other = make_tree(), make_tree(keys=None)
    with pytest.raises(ConflictError, match="was aborted"), tree.transaction() as txn:
        tree.put("m/v1", LARGE, name="b")
        assert other._engine.committing.abort([txn.txid]) == (txn.txid,)
        other.checkpoint()  # its body is trimmed, its header is not
    assert not tree.exists("m")
    assert tree.status(txn.txid) is None
    lsn = tree.lsn
    assert other._engine.committing.abort([txn.txid]) == (txn.txid,)
    assert tree.lsn == lsn  # an abort is recorded once


@pytest.mark.everywhere
def test_a_committed_transaction_is_not_aborted(make_tree: Callable[..., Metatree]) -> None:
    tree, other = make_tree(), make_tree(keys=None)
    with tree.transaction() as txn:
        tree.put("m/v1", LARGE, name="b")
    lsn = tree.lsn
    for each in (other, tree):  # the other one has not read that
        assert each._engine.committing.abort([txn.txid]) == ()
    assert tree.lsn == lsn
    assert b"".join(tree.get("m/v1/b")) == LARGE


@pytest.mark.everywhere
def test_an_abort_that_is_not_durable_yet_is_seen_by_the_commit_behind_it_in_its_batch(
    make_tree: Callable[..., Metatree],
) -> None:
    tree = make_tree()
    staged, go = threading.Event(), threading.Event()
    txids: list[str] = []
    aborted: list[str] = []
    raised: list[ConflictError] = []

    def commit() -> None:
        try:
            with tree.transaction() as txn:
                tree.put("m/v1", LARGE, name="b")
                txids.append(txn.txid)
                staged.set()
                go.wait()
        except ConflictError as error:
            raised.append(error)

    committing = threading.Thread(target=commit)
    committing.start()
    staged.wait()
    aborting = threading.Thread(target=lambda: aborted.extend(tree._engine.committing.abort(txids)))
    with HeldAppend(tree) as held:
        aborting.start()
        held.wait_for(1)
        go.set()
        held.wait_for(2)
    committing.join()
    aborting.join()
    assert aborted == txids
    assert [str(error).partition(" by ")[0] for error in raised] == [f"transaction {txids[0]} was aborted"]
    assert not tree.exists("m")
    assert tree.status(txids[0]) is None


def test_a_record_that_aborts_has_a_format_that_older_versions_refuse() -> None:
    header = Header("0-0000000000000000", "2025-01-02T03:04:05.678901+00:00", "ana@lab:1", aborts=("1-aa",))
    assert encode_header(header).startswith(b'{"v":2,')
    assert decode_header(encode_header(header)) == header


@pytest.mark.parametrize("aborts", [None, "0-00112233445566aa", [1], [None], {}, 1, [["x"]]])
def test_an_abort_that_names_no_transactions_is_damage(aborts: object) -> None:
    value = {"v": 2, "txid": "t", "at": "now", "who": "me", "changes": {}, "aborts": aborts}
    with pytest.raises(CorruptionError):
        decode_header(json.dumps(value).encode())
    del value["aborts"]
    with pytest.raises(CorruptionError):
        decode_header(json.dumps(value).encode())
