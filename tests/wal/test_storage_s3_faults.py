"""What networks and servers do to requests and replies: lost, refused, cut, late. And what an answer then means."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest
from serve_s3 import Server

from tests.wal.s3_proxy import Proxy, Request, proxied
from wal.clock import Clock
from wal.storage.base import ChangedError, Staged
from wal.storage.s3 import S3Storage
from wal.storage.s3_errors import Reply, S3Error, translate

_numbers = itertools.count()


class Patient(Clock):
    """Waits for nothing, and remembers how long it should have."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture(params=["seaweedfs", "moto"])
def upstream(request: pytest.FixtureRequest) -> Server:
    server: Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def proxy(upstream: Server) -> Iterator[Proxy]:
    with proxied(upstream) as proxy:
        yield proxy


@pytest.fixture
def clock() -> Patient:
    return Patient()


@pytest.fixture
def make(proxy: Proxy, clock: Patient) -> Iterator[Callable[..., S3Storage]]:
    """Storages on one prefix, reached through the proxy."""
    url = f"s3://{proxy.server.bucket}/faults/{os.getpid()}-{next(_numbers)}"
    made = []

    def open_one(**options: object) -> S3Storage:
        made.append(S3Storage(url, {**proxy.server.options, **options}, clock=clock))
        return made[-1]

    yield open_one
    proxy.plan = lambda request: None
    for storage in made:
        storage.close()


@pytest.fixture
def storage(make: Callable[..., S3Storage]) -> S3Storage:
    return make()


@pytest.mark.parametrize(("what", "unknown"), [("read", False), ("list", False), ("open", False), ("publish", True)])
def test_only_a_write_without_an_answer_is_of_unknown_effect(what: str, unknown: bool) -> None:
    for lost in (ConnectionResetError(), TimeoutError()):
        error = translate(S3Error(Reply(0, "", ""), lost), what, "s3://bucket/x")
        assert f"{what}: no answer from the server" in str(error)
        assert ("is unknown" in str(error)) is unknown


class TestLostReplies:
    def test_a_create_whose_reply_was_lost_knows_its_own_object(self, proxy: Proxy, storage: S3Storage) -> None:
        proxy.on("PUT", "lost")
        assert storage.create("log/1.rec", b"mine") is True
        assert [request.method for request in proxy.requests] == ["PUT", "PUT", "GET"]
        assert storage.read("log/1.rec").data == b"mine"

    def test_a_create_that_lost_says_so_also_when_the_reply_was_lost(
        self, proxy: Proxy, storage: S3Storage, make: Callable[..., S3Storage]
    ) -> None:
        assert make().create("log/1.rec", b"same bytes")
        proxy.on("PUT", "lost")
        assert storage.create("log/1.rec", b"same bytes") is False

    def test_a_request_whose_body_never_came_writes_nothing(self, proxy: Proxy, storage: S3Storage) -> None:
        """SeaweedFS takes that for an object without content, unless the request says what the content is."""
        proxy.on("PUT", "bodiless", times=100)
        for write in (
            lambda: storage.create("log/1.rec", b"mine"),
            lambda: storage.publish("m/x", b"content", b"att", durable=True, expect=""),
            lambda: storage.publish("m/y", b"content", b"att", durable=True),
        ):
            with pytest.raises(OSError, match="is unknown"):
                write()
        proxy.plan = lambda request: None
        assert [storage.entry(name) for name in ("log/1.rec", "m/x", "m/y")] == [None] * 3

    def test_an_empty_create_knows_its_own_object(self, proxy: Proxy, storage: S3Storage) -> None:
        proxy.on("PUT", "lost")
        assert storage.create("empty", b"") is True
        proxy.on("PUT", "lost")
        assert storage.create("empty", b"") is False

    def test_a_publish_whose_reply_was_lost_returns_its_version(self, proxy: Proxy, storage: S3Storage) -> None:
        for expect in (lambda: "", lambda: storage.read("m/x").version):
            expected = expect()
            proxy.on("PUT", "lost")
            version = storage.publish("m/x", os.urandom(8), b"att", durable=True, expect=expected)
            assert [request.method for request in proxy.requests] == ["PUT", "PUT", "HEAD"]
            assert storage.read("m/x").version == version

    def test_a_stale_publish_is_refused_also_when_the_reply_was_lost(self, proxy: Proxy, storage: S3Storage) -> None:
        old = storage.publish("m/x", b"old", b"", durable=True)
        storage.publish("m/x", b"new", b"", durable=True)
        proxy.on("PUT", "lost")
        with pytest.raises(ChangedError):
            storage.publish("m/x", b"stale", b"", durable=True, expect=old)
        assert storage.read("m/x").data == b"new"

    def test_a_remove_whose_reply_was_lost_is_done(self, proxy: Proxy, storage: S3Storage) -> None:
        version = storage.publish("m/x", b"x", b"", durable=True)
        proxy.on("DELETE", "lost")
        storage.remove("m/x", version)
        assert storage.entry("m/x") is None

    def test_a_staged_file_whose_reply_was_lost_is_staged(self, proxy: Proxy, storage: S3Storage) -> None:
        with storage.stage("st/1") as staged:
            staged.write(b"content")
            proxy.on("PUT", "lost")
            staged.finish(b"att")
        assert storage.read("st/1").data == b"content"

    def test_when_no_reply_comes_at_all_the_outcome_is_said_to_be_unknown(
        self, proxy: Proxy, storage: S3Storage
    ) -> None:
        proxy.on("PUT", "lost", times=2)
        with pytest.raises(ConnectionError, match="unknown"):
            storage.create("log/1.rec", b"mine")
        assert storage.read("log/1.rec").data == b"mine"

    def test_a_completion_without_reply_is_unknown_and_not_sent_again(self, proxy: Proxy, storage: S3Storage) -> None:
        storage.publish("st/1", b"content", b"", durable=True)
        proxy.on("POST", "lost", part="uploadId")
        with pytest.raises(ConnectionError, match="unknown"):
            storage.publish("m/x", Staged("st/1"), b"", durable=True, expect="")
        completions = [request for request in proxy.requests if request.method == "POST" and "uploadId" in request.path]
        assert len(completions) == 1
        assert storage.read("m/x").data == b"content"

    def test_an_upload_that_was_completed_by_the_lost_request_is_known(self, proxy: Proxy, storage: S3Storage) -> None:
        """AWS forgets an upload once it is complete: the second request meets "no such upload"."""
        storage.publish("st/1", b"content", b"", durable=True)
        answers = ["after 503 SlowDown", "404 NoSuchUpload"]

        def plan(request: Request) -> str | None:
            return answers.pop(0) if answers and request.method == "POST" and "uploadId" in request.path else None

        proxy.plan = plan
        version = storage.publish("m/x", Staged("st/1"), b"", durable=True, expect="")
        assert answers == []
        assert storage.read("m/x").version == version

    def test_an_upload_that_somebody_aborted_is_an_error(self, proxy: Proxy, storage: S3Storage) -> None:
        storage.publish("st/1", b"content", b"", durable=True)
        proxy.on("POST", "404 NoSuchUpload", part="uploadId")
        with pytest.raises(OSError, match="the upload was aborted") as caught:
            storage.publish("m/x", Staged("st/1"), b"", durable=True, expect="")
        assert not isinstance(caught.value, (ChangedError, FileNotFoundError))
        assert storage.entry("m/x") is None

    def test_a_write_that_failed_after_it_was_done_is_an_error_and_not_sent_again(
        self, proxy: Proxy, storage: S3Storage
    ) -> None:
        proxy.on("PUT", "after 500 InternalError")
        with pytest.raises(OSError, match="500 InternalError"):
            storage.create("log/1.rec", b"mine")
        assert [request.method for request in proxy.requests] == ["PUT"]
        assert storage.read("log/1.rec").data == b"mine"


class TestRefusals:
    def test_a_write_that_was_turned_away_is_sent_again_after_a_growing_pause(
        self, proxy: Proxy, storage: S3Storage, clock: Patient
    ) -> None:
        proxy.on("PUT", "503 SlowDown", times=3)
        assert storage.create("log/1.rec", b"mine") is True
        assert len(proxy.requests) == 4 and len(clock.slept) == 3
        assert 0 < clock.slept[0] < clock.slept[2]

    def test_a_conflict_of_conditional_writes_is_tried_again(self, proxy: Proxy, storage: S3Storage) -> None:
        proxy.on("PUT", "409 ConditionalRequestConflict", times=3)
        assert storage.create("log/1.rec", b"mine") is True
        proxy.on("PUT", "409 ConditionalRequestConflict", times=3)
        storage.publish("log/1.rec", b"next", b"", durable=True, expect=storage.read("log/1.rec").version)
        proxy.on("DELETE", "409 ConditionalRequestConflict", times=3)
        storage.remove("log/1.rec", storage.read("log/1.rec").version)
        assert storage.entry("log/1.rec") is None

    def test_a_conflict_that_stays_ends_as_busy(self, proxy: Proxy, storage: S3Storage) -> None:
        proxy.on("PUT", "409 ConditionalRequestConflict", times=1000)
        with pytest.raises(OSError, match="409 ConditionalRequestConflict"):
            storage.create("log/1.rec", b"mine")
        assert len(proxy.requests) < 20

    def test_another_conflict_is_not_tried_again(self, proxy: Proxy, storage: S3Storage) -> None:
        proxy.on("PUT", "409 InvalidBucketState")
        with pytest.raises(OSError, match="409 InvalidBucketState"):
            storage.create("log/1.rec", b"mine")
        assert len(proxy.requests) == 1

    def test_the_status_decides_and_not_the_code(self, proxy: Proxy, storage: S3Storage) -> None:
        proxy.on("PUT", "412 SomethingNew", times=2)  # nothing stands there: it is asked once more
        with pytest.raises(ChangedError):
            storage.publish("m/x", b"x", b"", durable=True, expect="")

    def test_no_permission_is_a_permission_error(self, proxy: Proxy, storage: S3Storage) -> None:
        proxy.on("PUT", "403 AccessDenied")
        with pytest.raises(PermissionError, match="403 AccessDenied"):
            storage.create("log/1.rec", b"mine")
        proxy.on("GET", "400 ExpiredToken")
        with pytest.raises(PermissionError, match="ExpiredToken"):
            storage.read("log/1.rec")
        proxy.on("HEAD", "403 Forbidden", times=99)  # botocore asks once more, for the region
        with pytest.raises(PermissionError):
            storage.entry("log/1.rec")

    def test_an_upload_that_failed_is_aborted(self, proxy: Proxy, storage: S3Storage) -> None:
        storage.publish("st/1", b"content", b"", durable=True)
        proxy.on("PUT", "403 AccessDenied", part="uploadId")
        with pytest.raises(PermissionError):
            storage.publish("m/x", Staged("st/1"), b"", durable=True)
        assert proxy.requests[-1].method == "DELETE" and "uploadId" in proxy.requests[-1].path
        with storage.stage("st/2") as staged:
            staged.write(bytes(20 << 20))
        assert proxy.requests[-1].method == "DELETE" and "uploadId" in proxy.requests[-1].path
        assert storage.entry("st/2") is None

    def test_a_missing_bucket_is_not_taken_for_a_missing_object(self, proxy: Proxy, storage: S3Storage) -> None:
        for call, method in (
            (lambda: storage.read("x"), "GET"),
            (lambda: storage.list(""), "GET"),
            (lambda: storage.versions("x"), "GET"),
            (lambda: storage.create("x", b""), "PUT"),
            (lambda: storage.publish("x", b"", b"", durable=True, expect='"e"'), "PUT"),
            (lambda: storage.remove("x", '"e"'), "DELETE"),
            (lambda: storage.entry("x"), "GET"),
            (lambda: storage.attribute("x"), "GET"),
        ):
            proxy.on(method, "404 NoSuchBucket", times=99)
            with pytest.raises(OSError, match="the bucket does not exist") as caught:
                call()
            assert not isinstance(caught.value, (FileNotFoundError, ChangedError))
            assert proxy.server.bucket in str(caught.value)


class TestQuestions:
    @pytest.mark.parametrize("fault", ["reset", "lost", "cut", "503 SlowDown", "500 InternalError", "502 BadGateway"])
    def test_a_question_is_asked_again(self, proxy: Proxy, storage: S3Storage, fault: str) -> None:
        content = os.urandom(100_000)
        storage.publish("m/x", content, b"att", durable=True)
        for ask in (
            lambda: storage.read("m/x").data == content,
            lambda: storage.open("m/x").read() == content,
            lambda: [entry.name for entry in storage.list("m")] == ["x"],
            lambda: list(storage.versions("m")) == ["m/x"],
        ):
            proxy.on("GET", fault, times=2)
            assert ask()
            assert len(proxy.requests) > 1
        proxy.on("HEAD", fault, times=2)
        assert storage.attribute("m/x") == b"att"

    def test_a_server_that_stays_away_is_an_error_and_not_absence(self, proxy: Proxy, storage: S3Storage) -> None:
        storage.publish("m/x", b"x", b"", durable=True)
        for fault, kind in (("reset", ConnectionError), ("503 SlowDown", OSError), ("cut", ConnectionError)):
            for method, ask in (
                ("GET", lambda: storage.read("m/x")),
                ("HEAD", lambda: storage.entry("m/x")),
                ("GET", lambda: storage.list("m")),
            ):
                if fault == "cut" and method == "HEAD":
                    continue
                proxy.on(method, fault, times=1000)
                with pytest.raises(kind) as caught:
                    ask()
                assert not isinstance(caught.value, FileNotFoundError)
                assert len(proxy.requests) <= 8

    def test_a_server_that_says_nothing_is_a_time_out(self, proxy: Proxy, make: Callable[..., S3Storage]) -> None:
        storage = make(config_kwargs={"read_timeout": 0.2})
        proxy.on("PUT", "hang", times=1000)
        with pytest.raises(TimeoutError, match="unknown"):
            storage.create("log/1.rec", b"mine")
        proxy.on("GET", "hang", times=1000)
        with pytest.raises(TimeoutError):
            storage.read("log/1.rec")

    def test_missing_credentials_are_told_at_once(self, clock: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/none")
        storage = S3Storage("s3://bucket/x", {"endpoint_url": "http://127.0.0.1:9"}, clock=clock)
        with pytest.raises(PermissionError, match="credentials"):
            storage.read("x")
        assert clock.slept == []
        storage.close()

    def test_nobody_there_is_a_connection_error(self, upstream: Server, clock: Patient) -> None:
        storage = S3Storage(
            "s3://bucket/x", {"endpoint_url": "http://127.0.0.1:9", "key": "k", "secret": "s"}, clock=clock
        )
        with pytest.raises(ConnectionError):
            storage.read("x")
        with pytest.raises(ConnectionError):
            storage.create("x", b"")
        storage.close()


class TestCounts:
    """How many requests each call costs: what the budgets of the callers rest on."""

    def test_each_call_costs_what_it_says(self, proxy: Proxy, storage: S3Storage) -> None:
        count = proxy.count
        assert count(lambda: storage.create("log/1.rec", b"x")) == ["PUT"]
        assert count(lambda: storage.create("log/1.rec", b"x")) == ["PUT", "GET"]
        assert count(lambda: storage.publish("m/x", b"x", b"att", durable=True)) == ["PUT"]
        assert count(lambda: storage.read("m/x")) == ["GET"]
        assert count(lambda: storage.open("m/x").read()) == ["GET"]
        assert count(lambda: storage.attribute("m/x")) == ["HEAD"]
        assert count(lambda: storage.entry("m/x")) == ["HEAD"]
        assert count(lambda: storage.entry("m")) == ["HEAD", "GET"]
        assert count(lambda: storage.attribute("m")) == ["HEAD", "GET", "HEAD"]
        assert count(lambda: storage.list("m")) == ["GET"]
        assert count(lambda: storage.versions("m")) == ["GET"]
        version = storage.read("m/x").version
        assert count(lambda: storage.publish("m/x", b"y", b"", durable=True, expect=version)) == ["PUT"]
        assert count(lambda: storage.publish("m/y", Staged("m/x"), b"", durable=True, expect="")) == [
            *("HEAD", "POST", "PUT", "POST")
        ]
        version = storage.read("m/y").version
        assert count(lambda: storage.remove("m/y", version)) == ["DELETE"]
        assert count(lambda: storage.make_folder("n")) == count(lambda: storage.sync(["m"])) == []

    def test_an_empty_file_costs_one_more_to_open(self, proxy: Proxy, storage: S3Storage) -> None:
        storage.publish("m/x", b"", b"att", durable=True)
        assert proxy.count(lambda: storage.open("m/x").read()) == ["GET", "GET"]

    def test_opening_costs_nothing(self, proxy: Proxy, make: Callable[..., S3Storage]) -> None:
        assert proxy.count(lambda: make()) == []
