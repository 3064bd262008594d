"""A server that ignores a condition is found out before anything is written to it, and a good one is asked once."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serve_s3 import Server

from tests.wal.s3_proxy import Proxy, Request, proxied
from wal.clock import Clock
from wal.errors import UnsupportedError
from wal.storage import LocalStorage, MemoryStorage, try_conditions, written_at
from wal.storage.probe import probe
from wal.storage.s3 import S3Storage

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This user's cache, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "metatree" / "probes"


@pytest.fixture
def proxy(seaweedfs: Server) -> Iterator[Proxy]:
    with proxied(seaweedfs) as proxy:
        yield proxy


@pytest.fixture
def careless(moto: Server) -> Iterator[Proxy]:
    """A server that does not look at signatures, so that conditions can be taken off its requests."""
    with proxied(moto) as proxy:
        yield proxy


@pytest.fixture
def make() -> Iterator[Callable[[Server], S3Storage]]:
    made = []

    def open_one(server: Server) -> S3Storage:
        made.append(S3Storage(f"s3://{server.bucket}/probe/{os.getpid()}-{next(_numbers)}", server.options))
        return made[-1]

    yield open_one
    for storage in made:
        storage.close()


def test_a_server_that_keeps_its_word_passes_and_nothing_stays(proxy: Proxy, make: Callable[..., S3Storage]) -> None:
    storage = make(proxy.server)
    probe(storage, Clock())
    assert len(proxy.requests) < 30
    assert storage.versions("") == {}


def test_what_was_learned_costs_the_next_opener_nothing(
    proxy: Proxy, make: Callable[..., S3Storage], cache: Path
) -> None:
    probe(make(proxy.server), Clock())
    proxy.requests.clear()
    probe(make(proxy.server), Clock())
    assert proxy.requests == []
    (verdict,) = cache.iterdir()
    assert json.loads(verdict.read_text())["conditions"] == "honoured"
    assert proxy.server.key not in verdict.read_text() + verdict.name


def test_a_verdict_is_of_one_endpoint_and_one_bucket(
    proxy: Proxy, seaweedfs: Server, make: Callable[..., S3Storage], cache: Path
) -> None:
    probe(make(proxy.server), Clock())
    with proxied(seaweedfs) as other:
        probe(make(other.server), Clock())
        assert other.requests
    client = seaweedfs.client()
    client.create_bucket(Bucket=(bucket := f"probe-{os.getpid()}"))
    client.close()
    proxy.requests.clear()
    elsewhere = S3Storage(f"s3://{bucket}", proxy.server.options)
    probe(elsewhere, Clock())
    elsewhere.close()
    assert proxy.requests
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'{"format": 0, "conditions": "honoured"}', b"\xff"])
def test_a_damaged_verdict_is_no_verdict(
    proxy: Proxy, make: Callable[..., S3Storage], cache: Path, damage: bytes
) -> None:
    probe(make(proxy.server), Clock())
    (verdict,) = cache.iterdir()
    verdict.write_bytes(damage)
    proxy.requests.clear()
    probe(make(proxy.server), Clock())
    assert proxy.requests
    assert json.loads(verdict.read_text())["conditions"] == "honoured"


def test_a_cache_that_cannot_be_written_is_no_error(
    proxy: Proxy, make: Callable[..., S3Storage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    probe(make(proxy.server), Clock())
    assert proxy.requests


@pytest.mark.parametrize(
    ("method", "header", "named"),
    [
        ("PUT", "if-none-match", "PutObject If-None-Match"),
        ("PUT", "if-match", "PutObject If-Match"),
        ("DELETE", "if-match", "DeleteObject If-Match"),
        ("POST", "if-none-match", "CompleteMultipartUpload If-None-Match"),
        ("", "", "CompleteMultipartUpload If-Match"),  # moto as it is
    ],
)
def test_a_server_that_ignores_a_condition_is_refused_by_name(
    careless: Proxy, make: Callable[..., S3Storage], cache: Path, method: str, header: str, named: str
) -> None:
    def plan(request: Request) -> str | None:
        return f"strip {header}" if method and request.method == method else None

    careless.plan = plan
    storage = make(careless.server)
    for _ in range(2):  # nothing is remembered of a bad one: it may be replaced by a better
        with pytest.raises(UnsupportedError, match=named):
            probe(storage, Clock())
    assert not cache.exists()
    assert storage.versions("") == {}


def test_a_server_that_fails_has_not_passed(proxy: Proxy, make: Callable[..., S3Storage], cache: Path) -> None:
    proxy.on("DELETE", "403 AccessDenied", times=1)
    with pytest.raises(PermissionError):
        probe(make(proxy.server), Clock())
    assert not cache.exists()


def test_a_storage_with_folders_is_not_asked() -> None:
    probe(MemoryStorage(), Clock())


def test_each_condition_is_told_by_itself_and_a_bad_verdict_is_forgotten(
    careless: Proxy, make: Callable[..., S3Storage], cache: Path
) -> None:
    storage = make(careless.server)
    told = {condition.name: honoured for condition, honoured in try_conditions(storage, Clock())}
    assert told == {
        "create": True,
        "replace": True,
        "remove": True,
        "create-in-parts": True,
        "replace-in-parts": False,  # moto as it is
    }
    name = hashlib.sha256(storage.server().encode()).hexdigest()
    cache.mkdir(parents=True)
    (cache / f"{name}.json").write_text('{"format": 1, "conditions": "honoured"}')
    assert not all(honoured for _, honoured in try_conditions(storage, Clock()))
    assert list(cache.iterdir()) == []
    assert storage.versions("") == {}


def test_a_storage_without_versions_has_no_conditions() -> None:
    assert list(try_conditions(MemoryStorage(), Clock())) == []


def test_a_bucket_tells_its_own_time(proxy: Proxy, make: Callable[..., S3Storage]) -> None:
    storage = make(proxy.server)
    storage.create("x", b"1")
    told = written_at(storage, "x")
    assert told is not None and told == int(told)
    with pytest.raises(FileNotFoundError):
        written_at(storage, "missing")


def test_a_storage_that_tells_no_time_is_no_error(tmp_path: Path) -> None:
    assert written_at(MemoryStorage(), "x") is None
    local = LocalStorage(str(tmp_path))
    (tmp_path / "x").write_bytes(b"1")
    assert written_at(local, "x") == (tmp_path / "x").stat().st_mtime
    local.close()
