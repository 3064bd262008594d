"""What a tree in a bucket costs: requests, counted on the wire by a proxy before the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serve_s3 import Server

from metatree import Metatree
from tests.tree import storages
from tests.tree.storages import Place
from tests.wal.s3_proxy import Proxy, proxied

LEVELS = ("model", "version")
KIB = bytes(1024)


@pytest.fixture
def proxy(moto: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    with proxied(moto) as proxy:
        monkeypatch.setenv(storages.CACHE, str(tmp_path))
        storages.trust(proxy.server)
        yield proxy


@pytest.fixture
def bucket(proxy: Proxy) -> Place:
    return storages.in_bucket("moto", proxy.server)


@pytest.fixture
def count(proxy: Proxy) -> Callable[[Callable[[], object]], int]:
    def counted(run: Callable[[], object]) -> int:
        before = len(proxy.requests)
        run()
        made = [f"{request.method} {request.path}" for request in proxy.requests[before:]]
        print(*made, sep="\n")  # shown if the test fails
        return len(made)

    return counted


@pytest.fixture
def quiet(bucket: Place) -> Iterator[Metatree]:
    """A warm writer in the background mode, whose background thread does nothing: what is counted is the call's own."""
    with bucket.open("tree", LEVELS, apply="background") as tree:
        _warm_up(tree)
        tree._engine.committer.stop()
        yield tree


def _warm_up(tree: Metatree) -> None:
    tree.put("m/v1", KIB, name="b")
    tree.update("m", active="v1")
    tree.put("m/v2", KIB, name="b")
    tree.flush()


Count = Callable[[Callable[[], object]], int]


def test_a_put_in_the_background_makes_one_request_before_it_returns(quiet: Metatree, count: Count) -> None:
    for number in range(3, 6):
        assert count(lambda number=number: quiet.put(f"m/v{number}", KIB, name="b")) == 1  # type: ignore[misc]


def test_a_synchronous_put_makes_six_requests_and_seven_with_its_share_of_upkeep(bucket: Place, count: Count) -> None:
    with bucket.open("tree", LEVELS) as tree:
        _warm_up(tree)
        # slot; lease taken and given back; blob, metadata.json, the parent's metadata.json
        assert count(lambda: tree.put("m/v3", KIB, name="b")) == 6

        def many() -> None:
            for number in range(100, 200):
                tree.put(f"m/v{number}", KIB, name="b")

        assert count(many) <= 700  # with the checkpoint that falls into it: one request for each trimmed slot


def test_a_warm_find_makes_one_request_and_none_while_it_may_be_out_of_date(bucket: Place, count: Count) -> None:
    with bucket.open("tree", LEVELS) as tree:
        _warm_up(tree)
        tree.find("m/<active>")
        assert count(lambda: tree.find("m/<active>")) == 1
        assert count(lambda: tree.children("m")) == 1
    with bucket.open("tree", read_only=True, consistency=60) as reader:
        reader.find("m/<active>")
        assert count(lambda: reader.find("m/<active>")) == 0
        assert count(lambda: dict(reader.metadata)) == 0


@pytest.mark.parametrize("read_only", [False, True])
def test_a_cold_find_makes_one_request_for_each_level_and_two_more(
    read_only: bool, bucket: Place, count: Count
) -> None:
    with bucket.open("tree", LEVELS) as tree:
        _warm_up(tree)
    with bucket.open("tree", read_only=read_only) as tree:
        assert count(lambda: tree.find("m/<active>")) == len(LEVELS) + 2  # the root, and a look at the log's end


def test_a_warm_get_reads_the_blob_and_looks_at_the_logs_end(bucket: Place, count: Count) -> None:
    with bucket.open("tree", LEVELS) as tree:
        _warm_up(tree)
        assert count(lambda: list(tree.get("m/<active>/b"))) == 2


def test_a_transaction_of_a_hundred_puts_makes_two_requests_until_it_is_committed(
    quiet: Metatree, count: Count
) -> None:
    def block() -> None:
        with quiet.transaction():
            for number in range(100):
                quiet.put(f"m/w{number}", KIB, name="b")

    first = count(block)
    assert first <= 2
    assert first + count(quiet.flush) <= 210


def test_opening_makes_six_requests_whatever_the_tree_holds_and_one_for_each_slot_that_is_not_applied(
    bucket: Place, count: Count
) -> None:
    opened: list[Metatree] = []

    def open_it(**options: bool) -> None:
        opened.append(bucket.open("tree", **options))

    with bucket.open("tree", LEVELS) as tree:
        _warm_up(tree)
        with tree.transaction():
            for number in range(100):
                tree.update("m", {f"key{number}": number})
                tree.put(f"m/n{number}", b"", name="b")
        tree.flush()  # applied, but not trimmed
        assert count(open_it) <= 6
        assert count(lambda: open_it(read_only=True)) <= 6
        tree._engine.committer.background = True  # from here on nothing is applied
        tree._engine.committer._stop.set()
        for number in range(5):
            tree.update("m", n=number)
        assert count(open_it) <= 6 + 5
        for other in opened:
            assert other.find("m").metadata["key99"] == 99 and len(other.children("m")) == 102
            assert other.find("m").metadata["n"] == 4
            other.close()
        tree._engine.committer.background = False


def test_a_checkpoint_costs_one_request_for_each_slot_and_eight_more(bucket: Place, count: Count) -> None:
    with bucket.open("tree", LEVELS) as tree:
        _warm_up(tree)
        for number in range(20):
            tree.update("m", n=number)
        assert count(tree.checkpoint) <= tree.lsn + 8


def test_a_check_reads_the_history_with_one_request_for_each_checkpoint(bucket: Place, count: Count) -> None:
    """Beside one for each slot, two for each node, one for each blob, and some for marks and the end of the log."""
    for session in range(3):
        with bucket.open("tree", LEVELS) as tree:
            for number in range(10):
                tree.put("m/v1", KIB, name=f"b{session}-{number}")
    with bucket.open("tree", read_only=True) as tree:
        nodes, blobs, checkpoints = 3, 30, 3
        assert count(tree.check) <= tree.lsn + 1 + 2 * nodes + blobs + checkpoints + 26


def test_deleting_a_node_asks_for_all_below_it_at_once(bucket: Place, count: Count) -> None:
    with bucket.open("tree", LEVELS) as tree:
        _warm_up(tree)
        with tree.transaction():
            for number in range(40):
                tree.put("m/v2", KIB, name=f"b{number}")
        # look and slot, lease, parent, LIST, and for each of 42 objects a question whose it is and its deletion
        assert count(lambda: tree.delete("m/v2", recursive=True)) <= 2 * 42 + 8
