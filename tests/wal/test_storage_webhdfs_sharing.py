"""HDFS with many at work: processes, threads, forks, files that are replaced while they are read."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.servers.hdfs import Raw
from wal.storage.webhdfs import WebHdfsStorage
from wal.storage.webhdfs_files import CHUNK

OPTIONS = {"user": "root"}
ROOT = Path(__file__).resolve().parents[2]
CREATOR = """
import sys
from wal.storage.webhdfs import WebHdfsStorage
url, me = sys.argv[1:]
storage = WebHdfsStorage(url, {"user": "root"})
storage.create(f"ready/{me}", b"")
while len(storage.list("ready")) < 4: pass
print(*(slot for slot in range(12) if storage.create(f"slots/{slot}", me.encode())))
"""
FORKED = """
import os, sys
from wal.storage.webhdfs import WebHdfsStorage
storage = WebHdfsStorage(sys.argv[1], {"user": "root"})
storage.publish("x", b"parent", b"", durable=True)
child = os.fork()
for turn in range(5):
    assert storage.read("x").data == b"parent"
    assert storage.create(f"{turn}-{'parent' if child else 'child'}", b"")
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert len(storage.list("")) == 12, storage.list("")
"""


@pytest.fixture
def storage(hdfs_url: str) -> Iterator[WebHdfsStorage]:
    storage = WebHdfsStorage(hdfs_url, OPTIONS)
    yield storage
    storage.close()


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def test_of_four_processes_one_creates_each_file(hdfs_url: str, raw: Raw) -> None:
    processes = {f"p{number}": start(CREATOR, hdfs_url, f"p{number}") for number in range(4)}
    wins = [(slot, me) for me, process in processes.items() for slot in finish(process).split()]
    assert sorted(int(slot) for slot, _ in wins) == list(range(12))
    assert all(raw.read(f"slots/{slot}") == me.encode() for slot, me in wins)
    assert raw.names(".wal/tmp") == set()


def test_a_forked_child_works_beside_its_parent(hdfs_url: str) -> None:
    finish(start(FORKED, hdfs_url))


def test_threads_share_a_storage(storage: WebHdfsStorage) -> None:
    def work(me: int) -> bool:
        for turn in range(4):
            content = b"%d-%d" % (me, turn)
            storage.publish(f"{me}/x", content, content, durable=True)
            stored = storage.read(f"{me}/x")
            assert (stored.data, stored.attribute) == (content, content)
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


def test_a_read_while_the_file_is_replaced_is_of_one_version(storage: WebHdfsStorage, hdfs_url: str) -> None:
    """Versions differ in length and content, and the attribute says which one it is."""
    versions = [(b"%d" % number * (1 + number * 70_000), b"%d" % number) for number in range(5)]
    storage.publish("x", *versions[0], durable=True)
    other, stop = WebHdfsStorage(hdfs_url, OPTIONS), threading.Event()

    def replace() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            other.publish("x", *versions[turn % 5], durable=True)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        seen = set()
        for _ in range(60):
            stored = storage.read("x")
            assert (stored.data, stored.attribute) in versions
            with storage.open("x") as file:
                assert file.read() in [data for data, _ in versions]
            seen.add(stored.attribute)
    finally:
        stop.set()
        thread.join()
        other.close()
    assert len(seen) > 1


def test_a_large_file_that_is_replaced_while_it_is_read_raises_and_is_never_mixed(storage: WebHdfsStorage) -> None:
    old, new = b"a" * (2 * CHUNK + 5), b"b" * (2 * CHUNK + 5)
    storage.publish("x", old, b"", durable=True)
    with storage.open("x") as file:
        assert file.read(10) == b"a" * 10
        storage.publish("x", new, b"", durable=True)
        assert file.read(CHUNK - 10) == b"a" * (CHUNK - 10)  # in memory since it was opened
        with pytest.raises(OSError, match="replaced or removed while it was read"):
            file.read(1)
    with storage.open("x") as file:
        file.seek(CHUNK - 1)
        assert file.read() == new[CHUNK - 1 :]
        file.seek(2)
        assert file.read(3) == b"bbb"


def test_a_reader_that_is_overtaken_again_and_again_reads_the_file_in_the_end(
    storage: WebHdfsStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.publish("x", b"content", b"att", durable=True)
    download, overtaken = storage._client.download, iter(range(50))

    def overtaken_first(path: str) -> bytes:
        if next(overtaken, None) is not None:
            raise FileNotFoundError(path)
        return download(path)

    monkeypatch.setattr(storage._client, "download", overtaken_first)
    assert storage.read("x").data == b"content"


def test_the_reader_of_a_large_file_keeps_no_more_than_a_chunk(storage: WebHdfsStorage) -> None:
    with storage.stage("big") as staged:
        for number in range(3):
            staged.write(bytes([number]) * CHUNK)
        staged.write(b"end")
        staged.finish(b"att")
    earlier = storage.requests
    with storage.open("big") as file:
        assert [file.read(CHUNK) == bytes([number]) * CHUNK for number in range(3)] == [True] * 3
        assert (file.read(), file.read(1)) == (b"end", b"")
        file.seek(-4, os.SEEK_END)
        assert file.read() == b"\x02end"
    # its status; then each chunk by NameNode and DataNode, the last two once more after the way back
    assert storage.requests - earlier <= 1 + 2 * 6


def test_a_large_staged_file_that_is_given_up_leaves_nothing(storage: WebHdfsStorage, raw: Raw) -> None:
    for written in (1, CHUNK, 3 * CHUNK + 1):
        with storage.stage("staged/x") as staged:
            staged.write(bytes(written))
        assert raw.names("staged") == set()


def test_of_two_large_staged_files_of_one_name_the_first_stays(storage: WebHdfsStorage, raw: Raw) -> None:
    with storage.stage("staged/x") as first, storage.stage("staged/x") as second:
        first.write(b"1" * (CHUNK + 1))
        first.finish(b"one")
        with pytest.raises(FileExistsError):
            for _ in range(8):
                second.write(b"2" * CHUNK)
            second.finish(b"two")
    assert raw.read("staged/x") == b"1" * (CHUNK + 1)
    with pytest.raises(FileExistsError), storage.stage("staged/y") as small:
        small.write(b"2")
        raw.write("staged/y", b"another")
        small.finish(b"")
    assert raw.read("staged/y") == b"another"
