"""The server is killed (SIGKILL) in the middle of a commit, and starts again a moment later.

The call ends well, or says UnavailableError (not done) or CommitUnknownError (`status` settles it). Nothing that was
acknowledged is lost, and nothing that was not done is there.
"""

from __future__ import annotations

import json
import random
import secrets
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pytest
from hdfs_install import InstallError
from serve_hdfs import Hdfs, StartError
from serve_s3 import Seaweed, ServerError
from torture_place import Place

import wal
from metatree import CommitUnknownError, Metatree, UnavailableError
from tests.figures import PATIENCE
from tests.hosts.conftest import LEVELS, TORTURE, PlainHdfs
from tests.hosts.stepping import Stepping
from tests.servers.s3 import cannot_start
from wal.storage import Staged
from wal.storage.webhdfs_files import CHUNK


class Killable(Protocol):
    """Both servers."""

    def start(self) -> None: ...

    def kill(self) -> None: ...


class Mortal:
    """A place of its own, whose server may die."""

    def __init__(self, server: Killable, place: Callable[[], Place]) -> None:
        self.server, self._place = server, place
        self._starter = ThreadPoolExecutor(1)  # one thread to the end: HDFS ends with the thread that started it
        self._returning: Future[None] | None = None

    @property
    def place(self) -> Place:
        return self._place()

    def die(self) -> None:
        """The server is gone when this returns, and begins to come back."""
        self.server.kill()
        self._returning = self._starter.submit(self.server.start)

    def wait(self) -> None:
        """Until it is back."""
        if self._returning is not None:
            self._returning.result()

    def close(self) -> None:
        """For good."""
        self.wait()
        self.server.kill()
        self._starter.shutdown()


@pytest.fixture(scope="module", params=["seaweedfs", "hdfs"])
def mortal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    folder: Path = tmp_path_factory.mktemp("mortal")
    try:
        if request.param == "seaweedfs":
            seaweed = Seaweed(folder)
            server: Killable = seaweed
            name = f"s3://{seaweed.server.bucket}/tree-"
            options: Callable[[], dict[str, Any]] = lambda: seaweed.server.options  # noqa: E731
        else:
            hdfs = Hdfs(folder)
            server, name = hdfs, "webhdfs:///tree-"
            options = lambda: {"host": hdfs.host, "port": hdfs.port, "user": "root"}  # noqa: E731
        server.start()
    except (ServerError, InstallError, StartError) as error:
        cannot_start(str(request.param), error)
    mortal = Mortal(server, lambda: Place(name + secrets.token_hex(4), options()))
    yield mortal
    mortal.close()


class Outcomes:
    """What became of each commit, by what it wrote."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.not_done: list[str] = []
        self.unknown: dict[str, str] = {}  # token -> transaction id

    def commit(self, tree: Metatree, token: str) -> None:
        try:
            with tree.transaction():
                tree.put(f"m/{token}", token.encode(), name="weights")
                tree.update("m", {token: True})
        except CommitUnknownError as error:
            self.unknown[token] = error.txid
        except UnavailableError:
            self.not_done.append(token)
            time.sleep(0.02)  # it will not be back at once
        else:
            self.done.append(token)

    def settle(self, place: Place) -> None:
        """Ask for what is unknown; then every commit is there whole, or not at all, as was said."""
        with place.open() as tree:
            for token, txid in self.unknown.items():
                (self.not_done if tree.status(txid) is None else self.done).append(token)
            children, keys = tree.children("m"), dict(tree.find("m").metadata)
            assert sorted(children) == sorted(self.done) == sorted(keys)
            for token in self.done:
                assert b"".join(tree.get(f"m/{token}/weights")) == token.encode()
            report = tree.check(deep=True)
            assert report.ok, report


POINTS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "as the slot is to be created": ("create", lambda name: name.endswith(".rec")),
    "when the slot was created": ("after create", lambda name: name.endswith(".rec")),
    "as the new version is published": ("publish", lambda name: name.startswith("m/")),
}
POINTS_HDFS = {**POINTS, "as the new version is published": ("publish_folder", lambda name: name.startswith("m/"))}


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_the_server_dies_at_this_point_of_a_commit(point: str, mortal: Mortal) -> None:
    place = mortal.place
    with place.open(LEVELS) as tree:
        tree.put("m", b"", name="born")
    points = POINTS if place.root.startswith("s3:") else POINTS_HDFS
    method, meant = points[point]
    armed: list[bool] = []

    def at(called: str, name: str) -> None:
        if armed and called == method and meant(name):
            armed.clear()
            mortal.die()

    storage = Stepping(
        place.storage(), lambda called, arguments: at(called, str(arguments[0])), lambda name: at("after create", name)
    )
    outcomes = Outcomes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that files are behind, which is so
        tree = place.open_on(storage)
        outcomes.commit(tree, "before")
        armed.append(True)
        outcomes.commit(tree, "meanwhile")
        assert not armed
        mortal.wait()
        outcomes.commit(tree, "after")
        tree.close()
    assert {"before", "after"} <= set(outcomes.done)
    if point == "when the slot was created":
        assert "meanwhile" in outcomes.done, "what was acknowledged to the engine is acknowledged to the caller"
    outcomes.settle(place)


@pytest.mark.slow
@pytest.mark.timeout(3600 if TORTURE else PATIENCE)
def test_the_server_dies_again_and_again_while_two_hosts_commit(mortal: Mortal) -> None:
    place, deaths = mortal.place, 30 if TORTURE else 2
    with place.open(LEVELS) as tree:
        tree.put("m", b"", name="born")
    stop = threading.Event()
    all_outcomes = [Outcomes(), Outcomes()]

    def host(tree: Metatree, outcomes: Outcomes, number: int) -> None:
        with tree:
            count = 0
            while not stop.is_set():
                outcomes.commit(tree, f"h{number}-{count}")
                count += 1

    def until_committed(which: Callable[[Iterable[bool]], bool]) -> None:
        """Until all of them, or any, have committed once more, however slow the machine is."""
        before = [len(outcomes.done) for outcomes in all_outcomes]
        while not which(len(outcomes.done) > had for outcomes, had in zip(all_outcomes, before, strict=True)):
            assert not any(one.done() for one in hosts), "a host has failed"
            time.sleep(0.01)

    with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("ignore")
        trees = [place.open(apply=mode) for mode in ("sync", "background")]
        hosts = [pool.submit(host, tree, all_outcomes[number], number) for number, tree in enumerate(trees)]
        try:
            until_committed(all)
            for _ in range(deaths):
                until_committed(any)
                time.sleep(random.uniform(0, 0.3))  # anywhere in what they do next
                mortal.die()
                mortal.wait()
            until_committed(any)  # it is found again
        finally:
            stop.set()
        for one in hosts:
            one.result()
    together = Outcomes()
    for outcomes in all_outcomes:
        together.done += outcomes.done
        together.not_done += outcomes.not_done
        together.unknown |= outcomes.unknown
    print(f"{len(together.done)} done, {len(together.not_done)} not done, {len(together.unknown)} unknown")
    together.settle(place)


# --- what a storage says is durable on HDFS ---------------------------------------------------------------------------


@pytest.fixture
def stored(mortal: Mortal) -> Iterator[tuple[wal.Storage, PlainHdfs]]:
    place = mortal.place
    storage = place.storage()
    yield storage, PlainHdfs(place.options["host"], place.options["port"], place.root.removeprefix("webhdfs://"))
    storage.close()


@pytest.mark.parametrize("mortal", ["hdfs"], indirect=True)
def test_what_was_acknowledged_survives_the_death_of_both_servers(
    mortal: Mortal, stored: tuple[wal.Storage, PlainHdfs]
) -> None:
    storage, plain = stored
    for number in range(5):
        assert storage.create(f"log/{number}", b"%d" % number)
        storage.publish("m/x", b"%d" % number, b"att", durable=True)
    mortal.die()
    mortal.wait()
    assert {plain.read(f"log/{number}") for number in range(5)} == {b"%d" % number for number in range(5)}
    assert (storage.read("m/x").data, storage.read("m/x").attribute) == (b"4", b"att")
    assert storage.create("log/4", b"") is False


def fsyncs(server: Killable) -> int:
    assert isinstance(server, Hdfs)
    url = f"http://{server.host}:{server.data_port}/jmx?qry=Hadoop:service=DataNode,name=DataNodeActivity-*"
    with urllib.request.urlopen(url) as reply:
        return int(json.load(reply)["beans"][0]["FsyncCount"])


@pytest.mark.parametrize("mortal", ["hdfs"], indirect=True)
def test_the_data_node_has_flushed_what_is_acknowledged(mortal: Mortal, stored: tuple[wal.Storage, PlainHdfs]) -> None:
    storage, _ = stored
    with storage.stage("large") as staged:
        staged.write(bytes(2 * CHUNK + 1))
        staged.finish(b"")
    for act in (
        lambda: storage.create("x", b"1"),
        lambda: storage.publish("m/x", b"2", b"", durable=False),
        lambda: storage.publish("m/y", Staged("large"), b"", durable=True),
    ):
        earlier = fsyncs(mortal.server)
        act()
        while fsyncs(mortal.server) <= earlier:  # it counts at once and shows it every second
            time.sleep(0.1)
