"""Roots, names and errors of the WebHDFS storage; no message shows a secret."""

from __future__ import annotations

import errno
import json
import traceback

import pytest
from serve_hdfs import Hdfs, free_ports

from tests.servers.hdfs import Raw
from tests.servers.proxy import before
from wal.errors import UnsupportedError
from wal.storage import Entry, Fence, Kind, open_storage
from wal.storage.webhdfs import WebHdfsStorage
from wal.storage.webhdfs_errors import translate_reply
from wal.storage.webhdfs_url import parse

OPTIONS = {"user": "root"}
SECRET = "s3cr3t-DELEGATION"  # noqa: S105


class TestRoots:
    def test_host_and_port_come_from_the_url_or_from_options(self, hdfs: Hdfs, raw: Raw, hdfs_url: str) -> None:
        raw.write("x", b"1")
        for url, options in (
            (hdfs_url, {}),
            (f"webhdfs://{raw.root}", {"host": hdfs.host, "port": hdfs.port}),
            (f"webhdfs://{raw.root}/", {"host": hdfs.host, "port": str(hdfs.port)}),
            (f"webhdfs://{hdfs.host}{raw.root}", {"port": hdfs.port}),
            (hdfs_url, {"host": hdfs.host, "port": hdfs.port}),
        ):
            storage = open_storage(url, {**OPTIONS, **options})
            assert storage.url == hdfs_url
            assert storage.read("x").data == b"1"
            storage.close()

    def test_the_url_for_messages_holds_no_user_and_no_password(self) -> None:
        address = parse(f"webhdfs://ann:{SECRET}@name.node:9871/a%20b//c/", {})
        assert address.url == "webhdfs://name.node:9871/a b/c"
        assert (address.options["user"], address.secrets()) == ("ann", [SECRET])
        assert parse("webhdfs://[::1]/x", {}).url == "webhdfs://[::1]:9870/x"
        assert parse("webhdfs:///", {"host": "h"}).join("m/x") == "/m/x"

    @pytest.mark.parametrize(
        ("url", "options", "error"),
        [
            ("webhdfs:///x", {}, ValueError),  # no host
            ("webhdfs://h", {}, ValueError),  # no path
            ("webhdfs://h/../x", {}, ValueError),
            ("webhdfs://h/a:b", {}, ValueError),
            ("webhdfs://h/x?op=DELETE", {}, ValueError),
            ("webhdfs://h/x", {"host": "other"}, ValueError),
            ("webhdfs://h/x", {"usr": "ann"}, TypeError),
        ],
    )
    def test_what_can_be_no_root_is_refused_without_a_request(
        self, url: str, options: dict[str, object], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            open_storage(url, options)

    def test_a_root_must_be_a_folder_that_exists_and_can_be_made(self, raw: Raw, hdfs_url: str) -> None:
        raw.write("file", b"")
        with pytest.raises(FileNotFoundError):
            WebHdfsStorage(f"{hdfs_url}/none", OPTIONS)
        for _ in range(2):
            WebHdfsStorage.make_root(f"{hdfs_url}/none/such", OPTIONS)
        WebHdfsStorage(f"{hdfs_url}/none/such", OPTIONS).close()
        with pytest.raises(NotADirectoryError):
            WebHdfsStorage(f"{hdfs_url}/file", OPTIONS)
        for path in ("file", "file/x"):
            with pytest.raises(NotADirectoryError):
                WebHdfsStorage.make_root(f"{hdfs_url}/{path}", OPTIONS)

    def test_it_can_carry_a_slot_log_and_says_why_no_other(self, hdfs_url: str) -> None:
        storage = WebHdfsStorage(hdfs_url, OPTIONS)
        can = storage.capabilities
        assert (can.writable, can.append_log, can.slot_log, can.attributes) == (True, False, True, True)
        assert can.fence is Fence.FOLDER and can.folders and can.reason
        for call in (
            lambda: storage.open_file("x", writable=True),
            lambda: storage.lock("x"),
            lambda: storage.versions("x"),
            lambda: storage.remove("x", ""),
        ):
            with pytest.raises(UnsupportedError):
                call()
        storage.close()


class TestNames:
    @pytest.mark.parametrize("name", ["a:b", "m/12:30/x", ".snapshot/x"])
    def test_a_name_that_hdfs_refuses_is_refused_before_any_request(self, hdfs_url: str, name: str) -> None:
        storage = WebHdfsStorage(hdfs_url, OPTIONS)
        earlier = storage.requests
        for call in (storage.read, storage.list, storage.entry, storage.stage, storage.fenced):
            with pytest.raises(ValueError, match="HDFS"):
                call(name)
        with pytest.raises(ValueError, match="HDFS"):
            storage.create(name, b"")
        assert storage.requests == earlier
        storage.close()

    def test_odd_names_arrive_as_they_are(self, hdfs_url: str, raw: Raw) -> None:
        names = {"a b", "ä€😀", "a%2Fb", "a+b", "a&b=c", "a;b", "a?b", "a#b", "a'b\"", "a\\b", "a\nb", "~", "{x}"}
        storage = WebHdfsStorage(hdfs_url, OPTIONS)
        for name in names:
            assert storage.create(name, name.encode())
            assert storage.read(name).data == raw.read(name) == name.encode()
        assert {entry.name for entry in storage.list("") if entry.kind is Kind.FILE} == names
        storage.publish_folder("f o", [])
        assert storage.set_aside("f o", "g?o/h#o") == "g?o/h#o"
        assert storage.entry("g?o/h#o") == Entry("h#o", Kind.FOLDER, 0)
        storage.close()

    def test_a_name_that_is_too_long_is_an_error_that_says_so(self, hdfs_url: str, raw: Raw) -> None:
        storage = WebHdfsStorage(hdfs_url, OPTIONS)
        for call in (
            lambda: storage.create("x" * 300, b""),
            lambda: storage.make_folder("x" * 300),
            lambda: storage.stage_existing("file", "x" * 300, share=False),
        ):
            raw.write("file", b"1")
            with pytest.raises(OSError, match="name limit") as caught:
                call()
            assert caught.value.errno == errno.ENAMETOOLONG
        assert raw.names(".wal/tmp") == set()
        storage.close()


def reply(exception: str, message: str = "no") -> bytes:
    return json.dumps({"RemoteException": {"exception": exception, "javaClassName": "x", "message": message}}).encode()


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "body", "kind", "says"),
        [
            (404, reply("FileNotFoundException"), FileNotFoundError, "no"),
            (403, reply("FileAlreadyExistsException"), FileExistsError, "no"),
            (403, reply("AlreadyBeingCreatedException"), FileExistsError, "no"),
            (403, reply("ParentNotDirectoryException"), NotADirectoryError, "no"),
            (403, reply("AccessControlException", "/a (is not a directory)"), NotADirectoryError, "not a directory"),
            (403, reply("AccessControlException", "denied: user=x"), PermissionError, "denied"),
            (401, reply("org.apache.hadoop.security.token.SecretManager$InvalidToken"), PermissionError, "no"),
            (403, reply("StandbyException"), OSError, "standby"),
            (403, reply("SafeModeException"), OSError, "safe mode"),
            (403, reply("RetriableException"), OSError, "starting"),
            (403, reply("QuotaExceededException", "full\n\tat org.apache.Stack"), OSError, r"full: '/p'"),
            (500, reply("NullPointerException", "boom"), OSError, "NullPointerException: boom"),
            (401, b"<html>", PermissionError, "not authenticated"),
            (504, b"", TimeoutError, "gateway"),
            (502, b"<html>", OSError, "HTTP 502"),
            (500, b'{"RemoteException": 3}', OSError, "HTTP 500"),
        ],
    )
    def test_what_the_server_says_becomes_an_error_of_the_systems_kind(
        self, status: int, body: bytes, kind: type[OSError], says: str
    ) -> None:
        error = translate_reply(status, body, "/p", [])
        assert isinstance(error, kind) and error.filename == "/p"
        with pytest.raises(kind, match=says):
            raise error

    def test_the_server_can_echo_no_secret(self) -> None:
        error = translate_reply(403, reply("InvalidToken", f"token {SECRET} is odd"), "/p", [SECRET])
        assert SECRET not in str(error) and "token *** is odd" in str(error)

    def test_no_error_shows_a_token_or_password(self, hdfs: Hdfs, raw: Raw) -> None:
        port = free_ports(1)[0]
        texts = []
        for options in ({"token": SECRET}, {"user": "root", "password": SECRET}):
            with pytest.raises(ConnectionError) as refused:  # nobody listens
                WebHdfsStorage(f"webhdfs://127.0.0.1:{port}/x", options)
            texts.append("".join(traceback.format_exception(refused.value)))
            with before(hdfs.host, hdfs.port) as proxy:
                for fate in ("pass", "reset", "error", "cut"):
                    proxy.follow(lambda exchange, fate=fate: fate)  # type: ignore[misc]
                    with pytest.raises(OSError) as failed:
                        storage = WebHdfsStorage(f"webhdfs://{proxy.host}:{proxy.port}{raw.root}/none", options)
                        storage.close()
                    texts.append("".join(traceback.format_exception(failed.value)))
                    seen: BaseException | None = failed.value
                    while seen is not None:
                        texts.append(repr(seen))
                        seen = seen.__cause__ or seen.__context__
        assert len(texts) > 10 and not [text for text in texts if SECRET in text or "delegation=" in text]

    def test_a_refused_connection_is_told_once_though_it_was_tried_twice(self) -> None:
        with pytest.raises(ConnectionError) as refused:
            WebHdfsStorage(f"webhdfs://127.0.0.1:{free_ports(1)[0]}/x", OPTIONS)
        assert refused.value.strerror == "the connection was refused or lost (Connection refused)"
