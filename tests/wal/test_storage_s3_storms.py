"""Every request of every operation meets every fault, up to three times in a row.

Nobody else writes here. So an operation ends done, or with an OSError that leaves it done or not done; it never says
that somebody else was there, it never ends half done, and asked again in quiet it is done.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from serve_s3 import Server

from tests.figures import Layer
from tests.wal.s3_proxy import Proxy, Request, proxied
from wal.clock import Clock
from wal.storage.base import ChangedError, Staged
from wal.storage.s3 import S3Storage

FAULTS = [
    *("reset", "bodiless", "lost", "cut", "500 InternalError", "503 SlowDown", "409 ConditionalRequestConflict"),
    *("after 500 InternalError", "after 503 SlowDown"),
]
IN_A_ROW = (1, 2, 3)  # requests that meet it
OLD, NEW, LARGE = b"old content", b"new content", bytes(9 << 20)
State = dict[str, bytes]
_numbers = itertools.count()


class Hasty(Clock):
    def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True)
class Operation:
    """`run` turns the objects `before` into the objects `after`; its result is `result`, if that can be known."""

    run: Callable[[S3Storage], object]
    before: State
    after: State
    result: object = None


def version_of(storage: S3Storage, name: str) -> str:
    """Its version, known before the fault."""
    return _versions[storage.url, name]


_versions: dict[tuple[str, str], str] = {}


def stage(storage: S3Storage, data: bytes) -> None:
    with storage.stage("st/1") as staged:
        staged.write(data)
        staged.finish(b"att")


OPERATIONS = {
    "create": Operation(lambda s: s.create("x", NEW), {}, {"x": NEW}, True),
    "create nothing": Operation(lambda s: s.create("x", b""), {}, {"x": b""}, True),
    "create twice": Operation(lambda s: s.create("x", NEW), {"x": OLD}, {"x": OLD}, False),
    "publish": Operation(lambda s: bool(s.publish("x", NEW, b"att", durable=True)), {"x": OLD}, {"x": NEW}, True),
    "publish new": Operation(
        lambda s: bool(s.publish("x", NEW, b"att", durable=True, expect="")), {}, {"x": NEW}, True
    ),
    "publish over": Operation(
        lambda s: bool(s.publish("x", NEW, b"att", durable=True, expect=version_of(s, "x"))),
        {"x": OLD},
        {"x": NEW},
        True,
    ),
    "publish staged new": Operation(
        lambda s: bool(s.publish("x", Staged("s"), b"att", durable=True, expect="")),
        {"s": NEW},
        {"s": NEW, "x": NEW},
        True,
    ),
    "publish staged over": Operation(
        lambda s: bool(s.publish("x", Staged("s"), b"att", durable=True, expect=version_of(s, "x"))),
        {"s": NEW, "x": OLD},
        {"s": NEW, "x": NEW},
        True,
    ),
    "publish staged nothing": Operation(
        lambda s: bool(s.publish("x", Staged("s"), b"att", durable=True, expect="")),
        {"s": b""},
        {"s": b"", "x": b""},
        True,
    ),
    "stage": Operation(lambda s: stage(s, NEW), {}, {"st/1": NEW}),
    "stage in parts": Operation(lambda s: stage(s, LARGE), {}, {"st/1": LARGE}),
    "stage existing": Operation(
        lambda s: s.stage_existing("x", "st/1", share=False), {"x": OLD}, {"x": OLD, "st/1": OLD}
    ),
    "remove": Operation(lambda s: s.remove("x", version_of(s, "x")), {"x": OLD, "y": NEW}, {"y": NEW}),
    "read": Operation(lambda s: s.read("x").data, {"x": OLD}, {"x": OLD}, OLD),
    "open": Operation(lambda s: s.open("x").read() == LARGE, {"x": LARGE}, {"x": LARGE}, True),
    "attribute": Operation(lambda s: s.attribute("m"), {"m/x": OLD}, {"m/x": OLD}, b"att"),
    "entry": Operation(lambda s: s.entry("x"), {}, {}, None),
    "list": Operation(lambda s: [entry.name for entry in s.list("m")], {"m/x": OLD}, {"m/x": OLD}, ["x"]),
    "versions": Operation(lambda s: list(s.versions("m")), {"m/x": OLD}, {"m/x": OLD}, ["m/x"]),
}


@pytest.fixture
def proxy(seaweedfs: Server) -> Iterator[Proxy]:
    with proxied(seaweedfs) as proxy:
        yield proxy


class Stage:
    """A fresh prefix with the objects that an operation needs, seen through the proxy and directly."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        # one handle, so that connections are kept, as they are in use
        self.url = f"s3://{proxy.server.bucket}/storms/{os.getpid()}-{next(_numbers)}"
        self.storage = S3Storage(self.url, proxy.server.options, clock=Hasty())

    def set(self, before: State, there: State | None) -> None:
        """Make it so; `there`: what is known to be there."""
        if there == before:
            self._proxy.requests.clear()
            return
        self._proxy.plan = lambda request: None
        for name in self.storage.versions(""):
            self.storage.erase(name)
        for name, data in before.items():
            _versions[self.url, name] = self.storage.publish(name, data, b"att", durable=True)
        self._proxy.requests.clear()

    def state(self) -> State:
        self._proxy.plan = lambda request: None
        return {name: self.storage.read(name).data for name in self.storage.versions("")}


def fault_at(number: int, times: int, fault: str) -> Callable[[Request], str | None]:
    return lambda request: fault if number <= request.number < number + times else None


@pytest.fixture
def scene(proxy: Proxy) -> Iterator[Stage]:
    stage = Stage(proxy)
    yield stage
    proxy.plan = lambda request: None
    stage.storage.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_fault_makes_an_operation_lie_or_end_half_done(layer: Layer, proxy: Proxy, scene: Stage, name: str) -> None:
    operation = OPERATIONS[name]
    scene.set(operation.before, None)
    assert operation.run(scene.storage) == operation.result
    requests = len(proxy.requests)
    left = scene.state()
    tried = 0
    for number, times, fault in itertools.product(range(1, requests + 1), IN_A_ROW, FAULTS):
        scene.set(operation.before, left)
        proxy.plan = fault_at(number, times, fault)
        tried += 1
        where = f"{name}: {fault} x {times} at request {number} of {requests}"
        try:
            result = operation.run(scene.storage)
        except (ChangedError, FileExistsError, FileNotFoundError) as error:
            pytest.fail(f"{where}: {error!r}, but nobody else was there")
        except OSError:
            left = scene.state()
            assert left in (operation.before, operation.after), where
        else:
            assert result == operation.result, where
            left = scene.state()
            assert left == operation.after, where
    everything = requests * len(IN_A_ROW) * len(FAULTS)
    layer.report("faults of S3", tried, floor=everything, night=everything, unit="requests × faults, all there are")


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_set_aside_is_never_lost_and_goes_when_asked_again(
    layer: Layer, proxy: Proxy, scene: Stage, fault: str
) -> None:
    before = {"m/x": OLD, "m/y": NEW, "other": NEW}
    scene.set(before, None)
    scene.storage.set_aside("m", "q/m")
    requests = len(proxy.requests)
    for number in range(1, requests + 1):
        scene.set(before, None)
        proxy.plan = fault_at(number, 2, fault)
        try:
            scene.storage.set_aside("m", "q/m")
        except OSError as error:
            assert not isinstance(error, ChangedError)
            kept = scene.state()
            assert {OLD, NEW} <= {data for name, data in kept.items() if name != "other"}
            scene.storage.set_aside("m", "q/m")
        state = scene.state()
        assert not [name for name in state if name.startswith("m")]
        assert {OLD, NEW} <= {data for name, data in state.items() if name != "other"}
    layer.report("faults of S3", requests, floor=requests, night=requests, unit="requests × faults, all there are")
