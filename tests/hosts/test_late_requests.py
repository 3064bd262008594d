"""A host falls asleep in the middle of a request: it reaches the server when another host has long taken over.

A proxy holds the k-th request after a commit back, until the other host has undone, or done over again, what the slow
one was about to put into the files. On HDFS a storage call is many requests, so this looks between those as well. For
one k in a few; for all of them with `METATREE_TORTURE`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from torture_place import Place

from tests.figures import PATIENCE
from tests.hosts.conftest import LEVELS, TORTURE, Shared
from tests.hosts.sleeper import CHANGES
from tests.hosts.stepping import Stepping
from tests.hosts.test_sleeping_committer import CASES, MOST, TTL, assert_equal
from tests.servers.proxy import before
from tests.wal.s3_proxy import proxied

STEP = {"seaweedfs": 1 if TORTURE else 10, "hdfs": 1 if TORTURE else 100}


class Late:
    """Lets requests pass, and before one of them does something else first."""

    def __init__(self) -> None:
        self.at, self.count, self.committed = 0, 0, False
        self.act: Callable[[], object] = lambda: None

    def arm(self, at: int, act: Callable[[], object]) -> None:
        self.at, self.count, self.committed, self.act = at, 0, False, act

    def created(self, name: str) -> None:
        self.committed = self.committed or name.endswith(".rec")

    def __call__(self, _: Any) -> None:
        if self.committed:
            self.count += 1
            if self.count == self.at:
                self.act()


@pytest.fixture
def slow(remote: Shared, request: pytest.FixtureRequest) -> Iterator[tuple[Place, Late]]:
    """The same place through a proxy."""
    late = Late()
    if remote.kind == "seaweedfs":
        with proxied(request.getfixturevalue("seaweedfs")) as proxy:
            proxy.plan = late
            yield replace(remote.place, options={**remote.place.options, "endpoint_url": proxy.server.endpoint}), late
    else:
        hdfs = request.getfixturevalue("hdfs")
        with before(hdfs.host, hdfs.port) as hdfs_proxy:

            def plan(exchange: Any) -> str:
                late(exchange)
                return "pass"

            hdfs_proxy.plan = plan
            yield replace(remote.place, options={**remote.place.options, "port": hdfs_proxy.port}), late


@pytest.mark.slow
@pytest.mark.timeout(3600 if TORTURE else PATIENCE)
@pytest.mark.parametrize("case", CASES)
def test_a_request_that_comes_late_changes_nothing_that_stays(
    case: str, remote: Shared, slow: tuple[Place, Late]
) -> None:
    change, exists, meanwhile = CASES[case]
    place, late = slow
    remote.open(LEVELS).close()
    step = STEP[remote.kind]
    with replace(remote.place, ttl=TTL).open() as other:
        other.put("m/kept", b"kept", name="weights")
        with place.open_on(Stepping(place.storage(), lambda *_: None, late.created)) as tree:
            for call in range(random.randint(1, step), MOST, step):
                node = f"m/v{call}"
                if exists:
                    other.put(node, b"first", name="weights")
                    other.update(node, x=0)
                late.arm(call, lambda: meanwhile(other, node))  # noqa: B023  called at once
                CHANGES[change](tree, node)
                if late.count < call:
                    break
                late.committed = False
                assert_equal(remote, other, call)
                if other.exists(node):
                    other.delete(node, recursive=True)
    print(f"{remote.kind}: {case}: late was one in {step} of about {call} requests")
    remote.assert_clean()
