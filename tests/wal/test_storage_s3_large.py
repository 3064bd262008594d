"""Large objects: in parts, with bounded memory, read as one version; and what is not shown to the world."""

from __future__ import annotations

import hashlib
import itertools
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import traceback
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from serve_s3 import Server

from tests.wal.s3_proxy import Proxy, proxied
from wal.errors import UnsupportedError
from wal.storage import open_storage
from wal.storage.base import ChangedError, Staged
from wal.storage.s3 import S3Storage
from wal.storage.s3_multipart import part_size
from wal.storage.s3_names import parse_url

MIB = 1 << 20
_numbers = itertools.count()


@pytest.fixture
def proxy(seaweedfs: Server) -> Iterator[Proxy]:
    with proxied(seaweedfs) as proxy:
        yield proxy


def opened(server: Server) -> S3Storage:
    return S3Storage(f"s3://{server.bucket}/large/{os.getpid()}-{next(_numbers)}", server.options)


@pytest.fixture
def storage(proxy: Proxy) -> Iterator[S3Storage]:
    storage = opened(proxy.server)
    yield storage
    storage.close()


@pytest.fixture
def direct(seaweedfs: Server) -> Iterator[S3Storage]:
    storage = opened(seaweedfs)
    yield storage
    storage.close()


def blocks(count: int, seed: int = 1) -> Iterator[bytes]:
    """`count` blocks of 1 MiB, the same for the same seed."""
    source = random.Random(seed)
    return (source.randbytes(MIB) for _ in range(count))


def digest(pieces: Iterator[bytes]) -> str:
    hasher = hashlib.sha256()
    for piece in pieces:
        hasher.update(piece)
    return hasher.hexdigest()


def peak(run: Callable[[], object]) -> int:
    """Bytes that `run` had allocated at most, beyond what was there."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class TestParts:
    def test_the_parts_of_an_upload_reach_the_largest_object_and_begin_small(self) -> None:
        sizes = [part_size(number) for number in range(1, 10_001)]
        assert sum(sizes) >= 5 << 40
        assert sizes[0] == 8 * MIB and sum(sizes[:1000]) == 8000 * MIB
        assert sizes == sorted(sizes) and max(sizes) <= 5 << 30

    def test_a_large_staged_file_goes_in_parts_and_arrives_whole(self, proxy: Proxy, storage: S3Storage) -> None:
        with storage.stage("st/1") as staged:
            for block in blocks(40):
                staged.write(block)
            assert storage.entry("st/1") is None
            staged.finish(b"att")
        parts = [request for request in proxy.requests if request.method == "PUT"]
        assert len(parts) == 5
        storage.publish("m/x", Staged("st/1"), b"att", durable=True, expect="")
        with storage.open("m/x") as file:
            assert file.attribute == b"att"  # type: ignore[attr-defined]
            assert digest(iter(lambda: file.read(300_001), b"")) == digest(blocks(40))

    @pytest.mark.parametrize("size", [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 16 * MIB])
    def test_a_staged_file_of_any_size_is_exclusive_and_can_be_published(self, direct: S3Storage, size: int) -> None:
        content = random.Random(size).randbytes(size)
        for turn in range(2):
            with direct.stage("st/1") as staged:
                staged.write(content if not turn else content + b"more")
                if turn:
                    with pytest.raises(FileExistsError):
                        staged.finish(b"att")
                else:
                    staged.finish(b"att")
        version = direct.publish("m/x", Staged("st/1"), b"att", durable=True, expect="")
        assert direct.read("m/x").data == content
        assert direct.read("m/x").version == version
        direct.stage_existing("m/x", "st/2", share=True)
        assert direct.read("st/2").data == content and direct.attribute("st/2") == b"att"

    def test_more_than_64_mib_of_bytes_are_published_in_parts_under_their_condition(
        self, proxy: Proxy, storage: S3Storage
    ) -> None:
        content = b"".join(blocks(65))
        version = storage.publish("m/x", content, b"att", durable=True, expect="")
        assert len([request for request in proxy.requests if request.method == "PUT"]) == 9
        with pytest.raises(ChangedError):
            storage.publish("m/x", content, b"att", durable=True, expect="")
        stored = storage.read("m/x")
        assert (stored.version, stored.attribute) == (version, b"att")
        assert stored.data == content

    def test_a_part_whose_reply_was_lost_is_sent_again(self, proxy: Proxy, storage: S3Storage) -> None:
        with storage.stage("st/1") as staged:
            proxy.on("PUT", "lost", times=3)
            for block in blocks(17):
                staged.write(block)
            staged.finish(b"")
        assert digest(iter([storage.read("st/1").data])) == digest(blocks(17))


class TestMemory:
    def test_staging_and_reading_hold_a_few_parts_whatever_the_size(self, direct: S3Storage) -> None:
        def stage() -> None:
            with direct.stage("st/1") as staged:
                for block in blocks(96):
                    staged.write(block)
                staged.finish(b"")

        def read() -> None:
            with direct.open("st/1") as file:
                assert digest(iter(lambda: file.read(MIB), b"")) == digest(blocks(96))

        assert peak(stage) < 56 * MIB
        assert peak(lambda: direct.publish("m/x", Staged("st/1"), b"", durable=True)) < 10 * MIB
        assert peak(read) < 40 * MIB

    def test_one_large_write_is_not_copied_whole(self, direct: S3Storage) -> None:
        content = bytes(64 * MIB)

        def stage() -> None:
            with direct.stage("st/1") as staged:
                staged.write(content)
                staged.finish(b"")

        assert peak(stage) < 56 * MIB


class TestPinnedReads:
    def test_an_object_replaced_or_removed_while_it_is_read_is_an_error_and_never_a_mixture(
        self, direct: S3Storage
    ) -> None:
        old, new = bytes(20 * MIB), b"\x01" * (20 * MIB)
        for change in (
            lambda: direct.publish("m/x", new, b"", durable=True),
            lambda: direct.publish("m/x", b"short", b"", durable=True),
            lambda: direct.erase("m/x"),
        ):
            direct.publish("m/x", old, b"", durable=True)
            with direct.open("m/x") as file:
                assert file.read(9 * MIB) == old[: 9 * MIB]
                change()
                assert file.read(4) == bytes(4)
                with pytest.raises(ChangedError, match="replaced or removed while it was read"):
                    file.read()

    def test_a_small_object_keeps_its_version(self, proxy: Proxy, storage: S3Storage) -> None:
        version = storage.publish("m/x", b"old", b"att", durable=True)
        with storage.open("m/x") as file:
            storage.publish("m/x", b"new", b"", durable=True)
            assert (file.read(), file.version, file.attribute) == (b"old", version, b"att")  # type: ignore[attr-defined]

    def test_seeking_fetches_only_where_it_reads(self, proxy: Proxy, storage: S3Storage) -> None:
        content = b"".join(blocks(30))
        storage.publish("m/x", content, b"", durable=True)
        with storage.open("m/x") as file:
            proxy.requests.clear()
            assert file.seek(-10, 2) == len(content) - 10
            assert file.read() == content[-10:]
            file.seek(15 * MIB)
            assert file.read(5) == content[15 * MIB : 15 * MIB + 5]
            assert len(proxy.requests) == 2
            file.seek(len(content) + 5)
            assert file.read() == b""
        with pytest.raises(ValueError):
            file.read()


class TestSecrets:
    CANARY = "canary-0f3b9"

    def test_no_message_repr_or_pickle_holds_a_secret(self, seaweedfs: Server) -> None:
        wrong = {"key": "who", "secret": f"{self.CANARY}-secret", "token": f"{self.CANARY}-token"}
        told = []
        for options in ({**wrong, "endpoint_url": seaweedfs.endpoint}, {**wrong, "endpoint_url": "http://127.0.0.1:9"}):
            storage = S3Storage(f"s3://{seaweedfs.bucket}/secrets", options, clock=_Hasty())
            told += [repr(storage), str(storage), storage.url, storage.server(), repr(storage._client)]
            for call in (
                lambda storage=storage: storage.read("x"),
                lambda storage=storage: storage.create("x", b"x"),
                lambda storage=storage: storage.list(""),
                lambda storage=storage: storage.entry("x"),
                lambda storage=storage: storage.publish("x", b"x" * 65 * MIB, b"", durable=True),
                lambda storage=storage: storage.remove("x", '"e"'),
            ):
                with pytest.raises(OSError) as caught:
                    call()
                told += [repr(caught.value), pickle.dumps(caught.value).decode("latin-1")]
                told += traceback.format_exception(caught.value)
            with pytest.raises(TypeError) as refused:
                pickle.dumps(storage)
            told.append(str(refused.value))
            storage.close()
        assert not [text for text in told if self.CANARY in text]

    def test_a_wrong_key_is_a_permission_error(self, seaweedfs: Server) -> None:
        storage = S3Storage(f"s3://{seaweedfs.bucket}/x", {**seaweedfs.options, "secret": "wrong"})
        for call in (lambda: storage.read("x"), lambda: storage.create("x", b""), lambda: storage.entry("x")):
            with pytest.raises(PermissionError):
                call()
        storage.close()

    def test_credentials_in_a_url_are_refused_without_repeating_them(self) -> None:
        for url, options in (
            (f"s3://{self.CANARY}:{self.CANARY}@bucket/x", {}),
            ("s3://bucket/x", {"endpoint_url": f"http://user:{self.CANARY}@127.0.0.1:9"}),
        ):
            with pytest.raises(ValueError) as caught:
                S3Storage(url, options)
            assert self.CANARY not in str(caught.value)


class _Hasty:
    """A clock that never waits."""

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None: ...

    def token(self, size: int) -> bytes:
        return os.urandom(size)


class TestOptions:
    @pytest.mark.parametrize(
        ("url", "bucket", "prefix"),
        [
            ("s3://bucket", "bucket", ""),
            ("s3://bucket/", "bucket", ""),
            ("S3://bucket/a/b/", "bucket", "a/b/"),
            ("s3a://my.bucket-1/a", "my.bucket-1", "a/"),
        ],
    )
    def test_a_root_is_a_bucket_or_a_prefix_in_it(self, url: str, bucket: str, prefix: str) -> None:
        place = parse_url(url)
        assert (place.bucket, place.prefix) == (bucket, prefix)
        assert place.url == f"s3://{bucket}/{prefix}".rstrip("/")

    @pytest.mark.parametrize(
        "url", ["s3://", "s3:///a", "s3://b", "s3://bucket/a//b", "s3://bucket/../x", "http://x/y"]
    )
    def test_what_is_no_place_in_a_bucket_is_refused(self, url: str) -> None:
        with pytest.raises(ValueError):
            S3Storage(url)

    def test_an_option_that_s3fs_does_not_know_is_refused_by_name(self) -> None:
        for option in ("endpoint", "asynchronous", "loop", "secret_key"):
            with pytest.raises(TypeError, match=option):
                open_storage("s3://bucket/x", {option: "x"})

    def test_the_settings_of_a_database_are_over_the_users_and_the_rest_is_theirs(self) -> None:
        storage = S3Storage(
            "s3://bucket/x",
            {
                "endpoint_url": "http://127.0.0.1:9",
                "use_listings_cache": True,
                "max_concurrency": 50,
                "config_kwargs": {"read_timeout": 7, "s3": {"payload_signing_enabled": True}},
                "client_kwargs": {"region_name": "eu-central-1"},
            },
        )
        settings = storage._client._settings
        assert (settings["use_listings_cache"], settings["max_concurrency"]) == (False, 1)
        assert settings["skip_instance_cache"] is True
        config = settings["config_kwargs"]
        assert (config["read_timeout"], config["retries"]) == (7, {"total_max_attempts": 1})
        assert config["s3"] == {"addressing_style": "path", "payload_signing_enabled": True}
        assert settings["client_kwargs"] == {"region_name": "eu-central-1"}

    def test_a_whole_bucket_can_be_the_root(self, seaweedfs: Server) -> None:
        client = seaweedfs.client()
        bucket = f"whole-{os.getpid()}-{next(_numbers)}"
        client.create_bucket(Bucket=bucket)
        storage = S3Storage(f"s3://{bucket}", seaweedfs.options)
        assert storage.list("") == []
        assert storage.create("a/b", b"x")
        assert storage.versions("") == storage.versions("a")
        storage.close()
        client.close()

    def test_a_botocore_that_does_not_know_the_conditions_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import botocore.loaders

        from wal.storage.s3_options import check_botocore

        model = botocore.loaders.Loader().load_service_model("s3", "service-2")
        del model["shapes"]["PutObjectRequest"]["members"]["IfMatch"]
        monkeypatch.setattr(botocore.loaders.Loader, "load_service_model", lambda *arguments: model)
        check_botocore.cache_clear()
        try:
            with pytest.raises(UnsupportedError, match=r"IfMatch of PutObject.*newer botocore"):
                S3Storage("s3://bucket/x")
        finally:
            check_botocore.cache_clear()


class TestForks:
    def test_a_forked_child_and_its_parent_both_go_on(self, direct: S3Storage) -> None:
        direct.create("parent/1", b"x")
        stop = threading.Event()

        def work() -> None:
            for number in itertools.count(2):
                if stop.is_set():
                    return
                assert direct.create(f"busy/{number}", b"x")

        thread = threading.Thread(target=work)
        thread.start()
        try:
            children = []
            for number in range(5):
                child = os.fork()
                if not child:
                    signal.alarm(60)
                    code = 1
                    try:
                        code = 0 if direct.create(f"child/{number}", b"x") and direct.read("parent/1").data else 2
                    finally:
                        os._exit(code)
                children.append(child)
                assert direct.create(f"parent/{number + 2}", b"x")
            assert [os.waitpid(child, 0)[1] for child in children] == [0] * 5
        finally:
            stop.set()
            thread.join()
        assert len(direct.list("child")) == 5 and len(direct.list("parent")) == 6

    def test_neither_parent_nor_child_complains_at_its_end(self, seaweedfs: Server) -> None:
        program = f"""
import os, sys
from wal.storage import open_storage
storage = open_storage("s3://{seaweedfs.bucket}/ends-{os.getpid()}", {seaweedfs.options!r})
storage.create("a", b"x")
child = os.fork()
storage.create(str(child), b"x")
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
        done = subprocess.run(
            [sys.executable, "-W", "always", "-c", program], capture_output=True, text=True, timeout=120, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
