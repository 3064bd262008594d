"""An HDFS that checks rights, keeps no attributes, and can be put into safe mode."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from serve_hdfs import Hdfs, running

from tests.servers.hdfs import Raw
from wal.storage import Publication
from wal.storage.webhdfs import WebHdfsStorage

SETTINGS = {"dfs.permissions.enabled": "true", "dfs.namenode.xattrs.enabled": "false"}


@pytest.fixture(scope="module")
def strict(hdfs: Hdfs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    """`hdfs` is asked for because it knows what to do where no HDFS can be had."""
    with running(tmp_path_factory.mktemp("strict"), SETTINGS) as server:
        raw = Raw(server.host, server.port, "/tree")
        raw.write("open/x", b"1")
        raw.write("closed/x", b"1")
        raw.call("PUT", "SETPERMISSION", raw.path("closed"), permission="700")
        yield server


def opened(server: Hdfs, user: str) -> WebHdfsStorage:
    return WebHdfsStorage(f"webhdfs://{server.host}:{server.port}/tree", {"user": user})


def test_without_attributes_everything_else_works(strict: Hdfs) -> None:
    storage = opened(strict, "root")
    assert storage.capabilities.attributes is False
    storage.publish("own/x", b"data", b"att", durable=True)
    assert storage.publish_folder("own/v", [Publication("own/v/y", b"y", b"att")])
    storage.make_folder("own/made", b"att")
    assert storage.create("own/c", b"c") and not storage.create("own/c", b"c")
    assert (storage.read("own/x").data, storage.read("own/x").attribute) == (b"data", None)
    assert storage.attribute("own/x") is None
    with storage.stage("own/s") as staged:
        staged.write(b"s")
        staged.finish(b"att")
    storage.stage_existing("own/s", "own/t", share=True)
    assert storage.read("own/t").data == b"s"
    with pytest.raises(FileNotFoundError):
        storage.attribute("none")
    storage.close()


def test_another_user_reads_what_is_open_and_gets_the_systems_error_for_the_rest(strict: Hdfs) -> None:
    storage = opened(strict, "ann")
    assert storage.read("open/x").data == b"1"
    with storage.open("open/x") as file:
        assert file.read() == b"1"
    for call in (
        lambda: storage.read("closed/x"),
        lambda: storage.list("closed"),
        lambda: storage.entry("closed/x"),
        lambda: storage.create("open/y", b""),
        lambda: storage.publish("open/x", b"2", b"", durable=True),
        lambda: storage.make_folder("new"),
        lambda: storage.set_aside("open/x", "open/y"),
        lambda: storage.erase("open/x"),
    ):
        with pytest.raises(PermissionError) as caught:
            call()
        assert caught.value.errno == errno.EACCES
    assert storage.read("open/x").data == b"1"
    storage.close()


def test_a_namenode_in_safe_mode_says_so_and_can_be_read(strict: Hdfs) -> None:
    strict.administer("-safemode", "enter")
    try:
        storage = opened(strict, "root")
        assert storage.read("open/x").data == b"1"
        for call in (
            lambda: storage.create("open/y", b""),
            lambda: storage.make_folder("new"),
            lambda: storage.erase("open/x"),
            lambda: storage.set_aside("open/x", "open/z"),
        ):
            with pytest.raises(OSError, match="safe mode"):
                call()
        assert {entry.name for entry in storage.list("open")} == {"x"}
        storage.close()
    finally:
        strict.administer("-safemode", "leave")
