"""A commit on HDFS whose requests and replies meet every fault in turn: never a lie, never a double."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from serve_hdfs import Hdfs

from metatree import CommitUnknownError, Metatree, UnavailableError
from tests.figures import Layer
from tests.hosts.conftest import LEVELS
from tests.servers.hdfs import Raw
from tests.servers.proxy import Exchange, Proxy, before, passing
from tests.tree.storages import Swift
from wal.storage.webhdfs import WebHdfsStorage

FAULTS = ("reset", "lost", "error", "cut")
STEP = 5  # of the requests that a fault can meet one in so many has to, all of them at night


class Hosted(Metatree):
    _tuning = {"clock": Swift(), "lock_timeout": 2.0}  # noqa: RUF012  as in the class above it


@pytest.fixture
def proxy(hdfs: Hdfs) -> Iterator[Proxy]:
    with before(hdfs.host, hdfs.port) as proxy:
        yield proxy


@pytest.fixture
def opened(hdfs: Hdfs, proxy: Proxy, raw: Raw) -> Iterator[Callable[..., Metatree]]:
    """Handles on one tree: through the proxy, or (`quiet`) past it."""
    trees: list[Metatree] = []

    def open_one(*, quiet: bool = False, **options: Any) -> Metatree:
        host, port = (hdfs.host, hdfs.port) if quiet else (proxy.host, proxy.port)
        storage = WebHdfsStorage(f"webhdfs://{host}:{port}{raw.root}", {"user": "root", "read_timeout": 20})
        trees.append(Hosted(storage, LEVELS, **options))
        return trees[-1]

    yield open_one
    proxy.follow(passing)
    for tree in trees:
        tree.close()


def doing(what: str, at: int, seen: list[int]) -> Callable[[Exchange], str]:
    """Does `what` to the request number `at`; `seen` counts them."""

    def plan(_: Exchange) -> str:
        seen[0] += 1
        return what if seen[0] == at else "pass"

    return plan


def change(tree: Metatree, name: str, number: int) -> None:
    with tree.transaction():
        tree.put(f"m/{name}", b"new", name="b")
        tree.update("m", count=number)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.filterwarnings("ignore::metatree.ApplyPendingWarning")
def test_a_commit_in_a_storm_is_done_or_not_done_or_settled_by_status(
    layer: Layer, fault: str, proxy: Proxy, opened: Callable[..., Metatree]
) -> None:
    other = opened(quiet=True)
    other.put("m/v1", b"1", name="b")
    tree = opened()
    change(tree, "first", 0)
    seen = [0]
    proxy.follow(doing("", 0, seen))
    change(tree, "second", 0)
    expected, outcomes = 3, Counter[str]()
    first = 1 + FAULTS.index(fault) % STEP
    aims = {"floor": len(range(first, seen[0] + 1, STEP)), "night": seen[0]}
    for at in sorted(range(1, seen[0] + 1), key=lambda at: (at - first) % STEP):
        if not layer.more("storms on HDFS", outcomes.total(), **aims, among=len(FAULTS)):
            break
        name = f"n{at}"
        proxy.follow(doing(fault, at, [0]))
        try:
            change(tree, name, at)
            outcome = "committed"
        except CommitUnknownError as error:
            proxy.follow(passing)
            outcome = "unknown" if other.status(error.txid) is None else "unknown, committed"
        except (UnavailableError, OSError):
            outcome = "not committed"
        proxy.follow(passing)
        outcomes[outcome] += 1
        committed = outcome.endswith("committed") and not outcome.startswith("not")
        expected += committed
        assert other.exists(f"m/{name}/b") is committed
        assert other.children("m").count(name) == int(committed)
        if committed:
            assert other.find("m").metadata["count"] == at
    tree.update("m", after=True)  # the handle goes on
    tree.flush()
    assert len(other.children("m")) == expected
    assert other.check(deep=True).ok
    assert outcomes["committed"] > 0, outcomes
    layer.report("storms on HDFS", outcomes.total(), **aims, unit="commits")
