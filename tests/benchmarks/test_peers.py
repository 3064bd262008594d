"""Everybody does the same work: what each peer put can be found in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.measure import run
from benchmarks.peers import PEERS
from benchmarks.peers.base import BLOB, BLOB_NAME, NotInstalled, Peer, optional
from benchmarks.table import table
from benchmarks.workloads import workloads
from benchmarks.workloads.sizes import TINY
from tests.benchmarks.test_workloads import NEEDS_EXTRAS, alone

KEEPERS = [
    name for name in PEERS if name not in NEEDS_EXTRAS and not name.startswith("floor")
]  # floors know nothing, so that nothing can be asked


@pytest.mark.parametrize("name", KEEPERS)
def test_what_was_put_is_found(tmp_path: Path, name: str) -> None:
    with PEERS[name].open(tmp_path) as store:
        store.put("m", "v1", BLOB)
        store.put("m", "v2", BLOB + BLOB)
        store.update("m", "v2", {"auc": 0.9})
        store.update("m", "", {"active": "v2"})
        store.rest()
        assert store.versions("m") == {"v1", "v2"}
        assert store.find_active("m") == {"auc": 0.9}
        assert store.get("m", "v2") == 2048
    with PEERS[name].open(tmp_path) as store:
        assert store.versions("m") == {"v1", "v2"}, "opened again"


@pytest.mark.parametrize("name", KEEPERS)
def test_large_content_and_many_versions_are_found(tmp_path: Path, name: str) -> None:
    source = tmp_path / BLOB_NAME
    source.write_bytes(bytes(3_000_000))
    with PEERS[name].open(tmp_path) as store:
        store.fill("many", [f"v{number}" for number in range(5)])
        store.put_file("large", "v", source)
        assert store.versions("many") == {f"v{number}" for number in range(5)}
        assert store.get("large", "v") == 3_000_000


def test_a_peer_that_is_not_installed_is_a_row_that_says_how_it_is_had(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled):
        optional("no_such_module_anywhere")
    absent = Peer("lmdb", lambda folder: optional("no_such_module_anywhere"))
    (workload,) = [each for each in workloads(TINY) if each.name == "W1"]
    workload = alone(workload, absent, "sqlite fresh")
    results = run(workload, tmp_path, rounds=1, settle=lambda: None)
    assert any("lmdb" in line and "pip install '.[bench]'" in line for line in table(workload, results))
    assert [bool(result.rounds) for result in results] == [False, True]
