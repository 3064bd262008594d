"""A commit on a real S3 server whose every request, and every reply, meets every fault: never a lie, never a double."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_s3 import Server

from metatree import CommitUnknownError, Metatree, UnavailableError
from tests.figures import Layer
from tests.tree import storages
from tests.tree.storages import Swift
from tests.wal.s3_proxy import Proxy, Request, proxied
from wal.storage.s3 import S3Storage

LEVELS = ("model", "version")
FAULTS = (
    *("reset", "bodiless", "lost", "cut"),
    *("503 SlowDown", "500 InternalError", "after 500 InternalError", "after 503 SlowDown"),
)

REQUESTS = 8  # of one commit and of what brings it into place


class Hosted(Metatree):
    _tuning = {"clock": Swift(), "lock_timeout": 2.0}  # noqa: RUF012  as in the class above it


@pytest.fixture(scope="module")
def proxy(seaweedfs: Server) -> Iterator[Proxy]:
    with proxied(seaweedfs) as proxy:
        yield proxy


@pytest.fixture
def opened(
    proxy: Proxy, seaweedfs: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Metatree]]:
    """Handles on one tree: through the proxy, or (`quiet`) past it."""
    monkeypatch.setenv(storages.CACHE, str(tmp_path))
    prefix = f"storms-of-commits/{os.getpid()}-{next(storages._numbers)}"
    trees: list[Metatree] = []

    def open_one(*, quiet: bool = False, **options: Any) -> Metatree:
        server = seaweedfs if quiet else proxy.server
        storage = S3Storage(f"s3://{server.bucket}/{prefix}", server.options, clock=Swift())
        trees.append(Hosted(storage, LEVELS, **options))
        return trees[-1]

    yield open_one
    proxy.plan = lambda request: None
    for tree in trees:
        tree.close()


def doing(what: str, at: int, times: int = 1) -> Callable[[Request], str | None]:
    """Does `what` to the requests from number `at` on, `times` of them."""
    seen = [0]

    def plan(request: Request) -> str | None:
        seen[0] += 1
        return what if at <= seen[0] < at + times else None

    return plan


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.filterwarnings("ignore::metatree.ApplyPendingWarning")
def test_a_commit_in_a_storm_is_done_or_not_done_or_settled_by_status(
    layer: Layer, fault: str, times: int, proxy: Proxy, opened: Callable[..., Metatree]
) -> None:
    other = opened(quiet=True)
    other.put("m/v1", b"1", name="b")
    outcomes = Counter[str]()
    expected = 0
    tree = opened()
    tree.find("m/v1")
    for at in range(1, REQUESTS + 1):
        name = f"n{at}"
        proxy.plan = doing(fault, at, times)
        try:
            with tree.transaction() as txn:
                tree.put(f"m/{name}", b"new", name="b")
                tree.update("m", count=at)
            outcome = "committed"
        except CommitUnknownError as error:
            proxy.plan = lambda request: None
            outcome = "unknown"
            lsn = other.status(error.txid)
            assert (lsn is not None) == other.exists(f"m/{name}/b")  # and it stays so
            committed = lsn is not None
        except (UnavailableError, OSError):
            outcome = "not committed"
        proxy.plan = lambda request: None
        outcomes[outcome] += 1
        if outcome != "unknown":
            committed = outcome == "committed"
        expected += committed
        assert other.exists(f"m/{name}/b") is committed
        assert other.children("m").count(name) == int(committed)
        if committed:
            assert txn.lsn is None or txn.lsn <= other.lsn
            assert other.find("m").metadata["count"] == at
    tree.update("m", after=True)  # the handle goes on
    tree.flush()
    assert len(other.children("m")) == expected + 1
    assert other.check(deep=True).ok
    assert outcomes["committed"] > 0, outcomes
    layer.report("storms on S3", outcomes.total(), floor=REQUESTS, night=REQUESTS, unit="commits")
