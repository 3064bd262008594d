"""Trees for tests. Whoever uses a tree has it checked at the end: every invariant, in both directions.

The tests of the API (`API`) run on every kind of storage in `ALWAYS` and on one of `DRAWN`, always the same; those
marked `everywhere`, and in a night (`METATREE_TORTURE`) all of them, on each of `SERVERS`. `--storage=KIND` (or `all`)
runs all of them on that kind alone. A test that looks at what only files of this machine have, or at the append log, is
marked `local`, with the reason; one that opens its own folder is local by itself.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metatree import Metatree
from tests.figures import TORTURE
from tests.tree import storages
from tests.tree.storages import KINDS, Place

LEVELS = ("model", "version")
ALWAYS = ("local", "memory", "mount", "objects")
SERVERS = ("moto", "seaweedfs", "hdfs")  # a request costs more than a file: one variant of a test there
DRAWN = ("seaweedfs", "hdfs")  # moto answers most slowly
LEASED = ("objects", "moto", "seaweedfs")
API = {
    "test_aborts",
    "test_api_changing",
    "test_api_gc",
    "test_api_node",
    "test_api_put",
    "test_api_reading",
    "test_api_repair",
    "test_api_tree",
    "test_check_between_hosts",
    "test_isolation",
    "test_locations",
    "test_lost_blobs",
    "test_transactions",
    "test_values",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--storage", choices=(*KINDS, "all"), help="run the tests of the API on this kind of storage alone"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" in metafunc.fixturenames:
        metafunc.parametrize("place", _kinds(metafunc), indirect=True, scope="function")


def _kinds(metafunc: pytest.Metafunc) -> tuple[str, ...]:
    definition = metafunc.definition
    api = metafunc.module.__name__.rpartition(".")[2] in API
    if not api or definition.get_closest_marker("local"):
        return ("local",)
    one = DRAWN[zlib.crc32(definition.name.encode()) % len(DRAWN)]
    kinds = ALWAYS + (SERVERS if TORTURE or definition.get_closest_marker("everywhere") else (one,))
    chosen = metafunc.config.getoption("--storage")
    if chosen:
        kinds = KINDS if chosen == "all" else (str(chosen),)
    if definition.get_closest_marker("between_hosts"):
        return tuple(kind for kind in kinds if kind not in ("local", "memory"))
    if definition.get_closest_marker("by_url"):
        return tuple(kind for kind in kinds if kind not in ("memory", "mount", "objects"))
    if definition.get_closest_marker("outside"):
        return tuple(kind for kind in kinds if kind not in ("memory", "objects"))
    return kinds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a server a test runs in one of its variants, always the same."""
    variants: dict[tuple[str, str], list[pytest.Item]] = {}
    for item in items:
        params = getattr(item, "callspec", None)
        kind = None if params is None else params.params.get("place")
        if kind in SERVERS:
            variants.setdefault((item.nodeid.partition("[")[0], kind), []).append(item)
    dropped = set()
    for several in variants.values():
        several.sort(key=lambda item: zlib.crc32(item.nodeid.encode()))
        dropped.update(several[1:])
    items[:] = [item for item in items if item not in dropped]


def assert_clean(root: Path | str) -> None:
    """Open the tree once more, as any later process would, and check all of it."""
    with Metatree(str(root)) as tree:
        report = tree.check(deep=True)
    assert report.ok, str(report)


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """An empty folder in memory where the machine has one, unless TMPDIR names another place: for tests that make many
    trees."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) and "TMPDIR" not in os.environ else None
    folder = Path(tempfile.mkdtemp(prefix="metatree-test-", dir=base))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=["sync", "background"])
def apply(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of what was learned about S3 servers that is not the user's."""
    return tmp_path_factory.mktemp("verdicts")


@pytest.fixture
def place(
    request: pytest.FixtureRequest, fast_path: Path, monkeypatch: pytest.MonkeyPatch, verdicts: Path
) -> Iterator[Place]:
    """Where the test's trees lie; its parameter is the kind of storage."""
    kind = str(request.param)
    if kind in ("local", "mount"):
        yield storages.on_disk(kind, fast_path)
    elif kind == "memory":
        yield storages.in_memory()
    elif kind == "objects":
        yield storages.in_objects()
    elif kind == "hdfs":
        server = request.getfixturevalue("hdfs")
        yield storages.in_hdfs(server.host, server.port)
    else:
        server = request.getfixturevalue(kind)
        monkeypatch.setenv(storages.CACHE, str(verdicts))
        if kind == "moto":
            storages.trust(server)
        yield storages.in_bucket(kind, server)


@pytest.fixture
def make_tree(place: Place) -> Iterator[Callable[..., Metatree]]:
    """Opens trees by name (default 'tree'); closes them, then checks each that still is a tree."""
    opened: list[Metatree] = []

    def make(name: str = "tree", keys: tuple[str, ...] | None = LEVELS, **options: object) -> Metatree:
        tree = place.open(name, keys, **options)
        opened.append(tree)
        if place.kind in LEASED and not options.get("read_only"):
            with tree._engine.committer.hold():  # the first tenure takes an LSN, which would come at any moment
                pass
        return tree

    yield make
    for tree in opened:
        tree.close()
    for name in place.names():
        if place.is_tree(name):
            with place.open(name) as tree:
                report = tree.check(deep=True)
            assert report.ok, str(report)


@pytest.fixture
def tree(make_tree: Callable[..., Metatree], apply: str) -> Metatree:
    """An empty tree of two levels, in both ways of applying."""
    return make_tree(apply=apply)
