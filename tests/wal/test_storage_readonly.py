"""Filesystems of fsspec that are only read."""

from __future__ import annotations

import functools
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from wal.errors import UnsupportedError
from wal.storage import Entry, Kind, Storage, open_storage
from wal.storage.readonly import ReadOnlyStorage, hide_secrets

SECRET = "s3cr3t"  # noqa: S105


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def fill(root: Path) -> Path:
    (root / "m" / "a b").mkdir(parents=True)
    (root / "m" / "a b" / "x").write_bytes(b"deep")
    (root / "m" / "metadata.json").write_bytes(b'{"see": "http://127.0.0.1/m/other"}')
    return root


@pytest.fixture(params=["memory", "zip", "http"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    root = fill(tmp_path / "tree")
    if request.param == "memory":
        import fsspec

        memory = fsspec.filesystem("memory")
        memory.put(str(root), "/read-only", recursive=True)
        yield open_storage("memory://read-only")
        memory.rm("/read-only", recursive=True)
    elif request.param == "zip":
        with zipfile.ZipFile(tmp_path / "tree.zip", "w") as archive:
            for path in root.rglob("*"):
                archive.write(path, path.relative_to(root))
        yield open_storage(f"zip://::file://{tmp_path}/tree.zip")
    else:
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(root)))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield open_storage(f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
        server.server_close()
        thread.join()


def test_files_and_folders_are_read(storage: Storage) -> None:
    assert storage.read("m/a b/x").data == b"deep"
    assert storage.read("m/metadata.json").attribute is None
    with storage.open("m/a b/x") as file:
        assert (file.read(2), file.read()) == (b"de", b"ep")
        file.seek(2)
        assert file.read() == b"ep"
    assert {(entry.name, entry.kind) for entry in storage.list("m")} == {
        ("a b", Kind.FOLDER),
        ("metadata.json", Kind.FILE),
    }
    assert [entry.name for entry in storage.list("")] == ["m"]
    assert storage.entry("m/a b/x") == Entry("x", Kind.FILE, 4)
    assert storage.entry("m") == Entry("m", Kind.FOLDER, 0)
    assert storage.attribute("m/a b/x") is None


def test_absence_and_kind_are_told_apart(storage: Storage) -> None:
    assert storage.entry("m/none") is None
    for call in (storage.read, storage.open, storage.list, storage.attribute):
        with pytest.raises(FileNotFoundError):
            call("m/none")
    for call in (storage.read, storage.open):
        with pytest.raises(IsADirectoryError):
            call("m")
    with pytest.raises(NotADirectoryError):
        storage.list("m/metadata.json")
    for name in ("../x", "a//b", "/m", "m/.."):
        with pytest.raises(ValueError):
            storage.read(name)


def test_nothing_is_written_and_the_reason_names_the_scheme_and_what_to_do(storage: Storage) -> None:
    scheme = storage.url.partition(":")[0]
    assert not storage.capabilities.writable and not storage.capabilities.slot_log
    assert f"{scheme}://" in storage.capabilities.reason and "read_only=True" in storage.capabilities.reason
    for call in (
        lambda: storage.create("x", b""),
        lambda: storage.publish("x", b"", b"", durable=True),
        lambda: storage.publish_folder("x", []),
        lambda: storage.set_aside("m", "x"),
        lambda: storage.make_folder("x"),
        lambda: storage.stage("x"),
        lambda: storage.stage_existing("m/metadata.json", "x", share=False),
        lambda: storage.sync_folder("m"),
        lambda: storage.sync(["m"]),
        lambda: storage.erase("m"),
        lambda: storage.versions("m"),
        lambda: storage.remove("m", ""),
        lambda: storage.fenced("m"),
        lambda: storage.open_file("m/metadata.json", writable=False),
        lambda: storage.lock("m"),
    ):
        with pytest.raises(UnsupportedError, match=f"{scheme}://"):
            call()


def test_what_is_written_by_others_is_seen_at_once() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/seen/x", b"1")
    storage = open_storage("memory://seen")
    assert [entry.name for entry in storage.list("")] == ["x"]
    memory.pipe_file("/seen/y", b"22")
    assert {entry.name for entry in storage.list("")} == {"x", "y"}
    assert storage.read("y").data == b"22"
    memory.rm("/seen", recursive=True)
    with pytest.raises(FileNotFoundError):
        open_storage("memory://seen")


@pytest.mark.parametrize("url", ["nosuch://x/y", "hdfs+nothing://x"])
def test_a_scheme_that_nobody_knows_is_refused_by_name(url: str) -> None:
    with pytest.raises(UnsupportedError, match=url.partition("://")[0].replace("+", r"\+")):
        open_storage(url)


def test_an_error_of_a_library_is_an_error_of_the_system_without_its_secrets() -> None:
    with pytest.raises(OSError) as caught:
        ReadOnlyStorage(f"http://ann:{SECRET}@127.0.0.1:9/tree?sig={SECRET}")
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert "127.0.0.1:9" in str(caught.value)


def test_an_open_file_whose_server_cannot_seek_says_so(storage: Storage) -> None:
    with storage.open("m/a b/x") as file:
        file.seek(2)
        if storage.url.startswith("http"):
            with pytest.raises(OSError, match="range requests"):
                file.read()
        else:
            assert file.read() == b"ep"


def test_urls_are_shown_without_what_they_hide() -> None:
    for text, shown in {
        "https://ann:pw@h/x": "https://h/x",
        "sftp://ann@h:22/x": "sftp://h:22/x",
        "zip://a::https://t0ken@h/x.zip": "zip://a::https://h/x.zip",
        "https://h/x?sig=abc&b=c": "https://h/x",
        "could not GET 'https://h/x?a=b'": "could not GET 'https://h/x'",
        "is it there? no": "is it there? no",
    }.items():
        assert hide_secrets(text) == shown


@pytest.mark.parametrize("status", [403, 500, 503, 404, 410])
def test_a_web_server_that_refuses_or_fails_is_not_absence(status: int) -> None:
    class Answering(Silent):
        def do_GET(self) -> None:
            self.send_error(status)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        with pytest.raises(OSError) as caught:
            open_storage(f"http://127.0.0.1:{server.server_port}/tree")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    absent = status in (404, 410)
    assert isinstance(caught.value, FileNotFoundError) is absent
    assert absent or str(status) in str(caught.value)


def test_a_web_server_that_is_not_there_is_not_absence() -> None:
    with pytest.raises(OSError, match="Connect") as caught:
        open_storage("http://127.0.0.1:9/tree")
    assert not isinstance(caught.value, FileNotFoundError)
