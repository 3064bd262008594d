"""`put`: every kind of source, every option, every way it can fail; a put that fails leaves nothing."""

from __future__ import annotations

import hashlib
import io
import os
import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import fsspec
import pytest

from metatree import (
    BlobExistsError,
    BlobNotFoundError,
    ClosedError,
    InvalidLocationError,
    Metatree,
    MetatreeError,
    NodeExistsError,
    NodeNotFoundError,
    ReadOnlyError,
)
from tests.tree.storages import at, kind_of, records

# inline in the record · the last that is inline · the first that is staged · several chunks
SIZES = (0, 1, 64 << 10, (64 << 10) + 1, (2 << 20) + 3)


def content(size: int, seed: str = "") -> bytes:
    """Bytes that differ everywhere, so that a shifted or repeated chunk shows."""
    block = b"".join(hashlib.sha256(f"{seed}{n}".encode()).digest() for n in range(64))
    return (block * (size // len(block) + 1))[:size]


def got(tree: Metatree, location: str) -> bytes:
    return b"".join(tree.get(location))


def shown(tree: Metatree) -> dict[str, bytes]:
    """Every file that a person sees in the tree: all but the engine's own."""
    files = at(tree, "").files().items()
    return {name: data for name, data in files if name.split("/")[0] not in (".wal", ".lock", ".metatree")}


def staged(tree: Metatree) -> list[str]:
    return [folder.name for folder in at(tree, ".wal/staged").iterdir()]


@pytest.fixture
def source(fast_path: Path) -> Callable[..., Path]:
    def make(data: bytes = b"weights", name: str = "model.bin") -> Path:
        path = fast_path / "sources" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return make


# --- kinds of source --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["str", "pathlib", "file url", "memory url", "bytes", "bytearray", "memoryview", "file object", "raw file"]
)
@pytest.mark.everywhere
def test_every_kind_of_source_arrives_byte_for_byte(kind: str, tree: Metatree, source: Callable[..., Path]) -> None:
    memory = fsspec.filesystem("memory")
    named = kind in ("str", "pathlib", "file url", "memory url")
    for size in SIZES:
        data = content(size)
        path = source(data)
        memory.pipe_file("/api-put/model.bin", data)
        sources: dict[str, Callable[[], Any]] = {
            "str": lambda path=path: str(path),
            "pathlib": lambda path=path: path,
            "file url": lambda path=path: path.as_uri(),
            "memory url": lambda: "memory://api-put/model.bin",
            "bytes": lambda data=data: data,
            "bytearray": lambda data=data: bytearray(data),
            "memoryview": lambda data=data: memoryview(data),
            "file object": lambda data=data: io.BytesIO(data),
            "raw file": lambda path=path: path.open("rb", buffering=0),
        }
        given = sources[kind]()
        node = f"m/v{size}"
        assert tree.put(node, given, name=None if named else "model.bin") is True
        if kind == "raw file":
            given.close()
        assert got(tree, f"{node}/model.bin") == data
        tree.flush()
        assert at(tree, node, "model.bin").read_bytes() == data
        assert tree.list(node) == ["model.bin"]
    memory.rm("/api-put", recursive=True)
    assert len(staged(tree)) == sum(size > 64 << 10 for size in SIZES)  # a staged blob stays to the checkpoint
    tree.checkpoint()
    assert staged(tree) == []
    assert all(got(tree, f"m/v{size}/model.bin") == content(size) for size in SIZES)


def test_a_file_object_is_read_from_where_it_stands_and_left_open(tree: Metatree) -> None:
    stream = io.BytesIO(b"skipped, kept")
    stream.seek(9)
    tree.put("m", stream, name="b")
    assert got(tree, "m/b") == b"kept"
    assert not stream.closed


def test_a_file_object_that_gives_few_bytes_at_a_time_is_read_to_its_end(tree: Metatree) -> None:
    class Trickle(io.RawIOBase):
        left = content(200_000)

        def read(self, size: int = -1) -> bytes:
            part, self.left = self.left[:777], self.left[777:]
            return part

    tree.put("m", Trickle(), name="b")
    assert got(tree, "m/b") == content(200_000)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.local("it looks at what only files of this machine have")
def test_the_source_is_neither_changed_nor_linked(size: int, tree: Metatree, source: Callable[..., Path]) -> None:
    path = source(content(size))
    os.utime(path, ns=(1_000_000_000, 2_000_000_000))
    before = path.stat()
    tree.put("m/v1", path)
    tree.checkpoint()
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns, before.st_mode, after.st_nlink) == (
        after.st_ino,
        after.st_mtime_ns,
        after.st_mode,
        1,
    )
    assert Path(tree.root, "m/v1/model.bin").stat().st_ino != after.st_ino
    path.write_bytes(b"rewritten in place")
    assert got(tree, "m/v1/model.bin") == content(size)


@pytest.mark.local("it looks at what only files of this machine have")
def test_the_blob_does_not_inherit_what_only_the_source_may_do(tree: Metatree, source: Callable[..., Path]) -> None:
    path = source()
    path.chmod(0o600)
    tree.put("m", path)
    tree.flush()
    assert Path(tree.root, "m/model.bin").stat().st_mode & 0o444 == 0o444 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("size", [10, (64 << 10) + 1])
@pytest.mark.local("the source is a path below the root")
def test_a_source_inside_the_root_is_copied_and_stays(size: int, tree: Metatree) -> None:
    path = Path(tree.root, "inside.bin")
    path.write_bytes(content(size))
    tree.put("m/v1", path)
    path.write_bytes(b"other")
    tree.put("m/v2", path)
    assert got(tree, "m/v1/inside.bin") == content(size)
    assert got(tree, "m/v2/inside.bin") == b"other"
    assert path.read_bytes() == b"other"
    assert path.stat().st_nlink == 1


@pytest.mark.local("the source is a path below the root")
def test_a_blob_of_the_tree_itself_can_be_the_source(tree: Metatree) -> None:
    tree.put("m/v1", content(100_000), name="b")
    tree.flush()
    tree.put("m/v2", Path(tree.root, "m/v1/b"))
    tree.put("m/v1", Path(tree.root, "m/v1/b"), force=True)
    assert got(tree, "m/v1/b") == got(tree, "m/v2/b") == content(100_000)


@pytest.mark.local("it looks at what only files of this machine have")
def test_a_link_as_source_is_followed_because_the_caller_named_it(tree: Metatree, source: Callable[..., Path]) -> None:
    path = source(b"behind the link")
    link = path.with_name("link.bin")
    link.symlink_to(path)
    tree.put("m", link)
    assert got(tree, "m/link.bin") == b"behind the link"
    tree.flush()
    assert not Path(tree.root, "m/link.bin").is_symlink()


# --- name= ------------------------------------------------------------------------------------------------------------


def test_name_names_the_blob(tree: Metatree, source: Callable[..., Path]) -> None:
    tree.put("m", source(), name="other.bin")
    tree.put("m", b"x", name="y")
    assert tree.list("m") == ["other.bin", "y"]


@pytest.mark.parametrize("given", [b"x", bytearray(b"x"), io.BytesIO(b"x")], ids=["bytes", "bytearray", "file object"])
def test_content_without_a_name_of_its_own_needs_one(given: Any, tree: Metatree) -> None:
    with pytest.raises(InvalidLocationError, match="name="):
        tree.put("m", given)
    assert records(tree) == [] and not tree.exists("m")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "metadata.json", ".wal", "x.tmp", "a\0b", "a\\b"])
def test_a_name_that_is_no_segment_is_refused(name: str, tree: Metatree) -> None:
    with pytest.raises(InvalidLocationError):
        tree.put("m", b"x", name=name)
    assert records(tree) == [] and not tree.exists("m")


def test_a_source_whose_own_name_cannot_be_a_blob_is_refused_unless_it_gets_another(
    tree: Metatree, source: Callable[..., Path]
) -> None:
    path = source(b"{}", "metadata.json")
    with pytest.raises(InvalidLocationError, match=r"metadata\.json"):
        tree.put("m", path)
    assert records(tree) == []
    tree.put("m", path, name="settings.json")
    assert tree.list("m") == ["settings.json"]


# --- nodes on the way -------------------------------------------------------------------------------------------------


@pytest.mark.everywhere
def test_put_creates_missing_nodes_and_adds_each_to_its_parent_once(tree: Metatree) -> None:
    tree.put("m/v1", b"1", name="a")
    tree.put("m/v1", b"2", name="b")
    tree.put("m/v0", b"3", name="a")
    tree.put("m", b"4", name="a")
    tree.put("", b"5", name="a")
    assert tree.children("") == ["m"]
    assert tree.children("m") == ["v1", "v0"]
    assert (tree.list(""), tree.list("m"), tree.list("m/v1")) == (["a"], ["a"], ["a", "b"])
    assert got(tree, "a") == b"5"


def test_put_is_one_commit_whatever_it_creates(tree: Metatree) -> None:
    tree.put("m/v1", b"1", name="a")
    assert len(records(tree)) == 1


def test_put_does_not_move_the_cursor(tree: Metatree) -> None:
    tree.put("m/v1", b"1", name="a")
    tree.find("m")
    tree.put("m/v2", b"1", name="a")
    assert tree.location == f"{tree.root}/m"


def test_put_below_the_last_level_is_refused(tree: Metatree) -> None:
    with pytest.raises(InvalidLocationError, match="levels"):
        tree.put("m/v1/deeper", b"x", name="a")
    assert records(tree) == []


def test_put_does_not_create_what_a_reference_needs(tree: Metatree) -> None:
    with pytest.raises(NodeNotFoundError):
        tree.put("m/<active>", b"x", name="a")
    tree.put("m", b"x", name="a")
    with pytest.raises(InvalidLocationError, match="active"):
        tree.put("m/<active>", b"x", name="a")
    tree.update("m", active="v1")
    tree.put("m/<active>", b"x", name="a")
    assert tree.children("m") == ["v1"]


# --- what is there already --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, (64 << 10) + 1])
def test_an_existing_blob_is_refused_and_kept(size: int, tree: Metatree) -> None:
    tree.put("m/v1", content(size, "first"), name="b")
    before = tree.lsn
    with pytest.raises(BlobExistsError, match=r"m/v1/b.*force=True") as caught:
        tree.put("m/v1", content(size, "second"), name="b")
    assert isinstance(caught.value, FileExistsError)
    assert tree.lsn == before
    assert got(tree, "m/v1/b") == content(size, "first")
    tree.checkpoint()
    assert staged(tree) == []  # what the refused call had staged is gone


@pytest.mark.parametrize("old", [0, 5, (64 << 10) + 1])
@pytest.mark.parametrize("new", [0, 5, (64 << 10) + 1])
@pytest.mark.everywhere
def test_force_replaces_a_blob_of_any_size_by_one_of_any_other(old: int, new: int, tree: Metatree) -> None:
    tree.put("m/v1", content(old, "old"), name="b")
    assert tree.put("m/v1", content(new, "new"), name="b", force=True) is True
    assert got(tree, "m/v1/b") == content(new, "new")
    tree.checkpoint()
    assert at(tree, "m/v1/b").read_bytes() == content(new, "new")
    assert tree.list("m/v1") == ["b"]


def test_force_on_a_name_that_is_free_is_a_plain_put(tree: Metatree) -> None:
    tree.put("m", b"1", name="b", force=True)
    assert got(tree, "m/b") == b"1"


def test_force_does_not_replace_a_node_by_a_blob_or_a_blob_by_a_node(tree: Metatree) -> None:
    tree.put("m/v1", b"1", name="b")
    with pytest.raises(NodeExistsError, match="m/v1"):
        tree.put("m", b"x", name="v1", force=True)
    tree.put("m", b"x", name="v2")
    with pytest.raises(BlobExistsError, match="m/v2"):
        tree.put("m/v2", b"x", name="b", force=True)
    assert tree.children("m") == ["v1"] and tree.list("m") == ["v2"]


@pytest.mark.parametrize(("first", "second"), [("Model", "model"), ("straße", "STRASSE"), ("É", "é")])
@pytest.mark.parametrize("force", [False, True])
def test_names_that_differ_only_in_case_are_twins(first: str, second: str, force: bool, tree: Metatree) -> None:
    tree.put("m", b"1", name=first)
    with pytest.raises(BlobExistsError, match="case or form"):
        tree.put("m", b"2", name=second, force=force)
    tree.put(first, b"1", name="b")
    with pytest.raises(NodeExistsError, match="case or form"):
        tree.put(second, b"2", name="b", force=force)
    with pytest.raises((NodeExistsError, BlobExistsError)):
        tree.put(f"m/{second}", b"2", name="b", force=force)
    assert (tree.children(""), tree.list("m"), tree.children("m")) == (["m", first], [first], [])


# --- directories ------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(fast_path: Path) -> Path:
    top = fast_path / "sources" / "bundle"
    (top / "deep/er").mkdir(parents=True)
    (top / "small.txt").write_bytes(b"small")
    (top / "deep/large.bin").write_bytes(content(100_000))
    (top / "deep/er/empty").write_bytes(b"")
    return top


def test_a_directory_needs_recursive(tree: Metatree, directory: Path) -> None:
    with pytest.raises(IsADirectoryError, match="recursive=True"):
        tree.put("m", directory)
    assert records(tree) == [] and not tree.exists("m")


@pytest.mark.parametrize("as_url", [False, True])
@pytest.mark.everywhere
def test_a_directory_is_one_blob_with_all_its_files(as_url: bool, tree: Metatree, fast_path: Path) -> None:
    top = fast_path / "sources" / "bundle"
    (top / "deep/er").mkdir(parents=True)
    files = {"small.txt": b"small", "deep/large.bin": content(100_000), "deep/er/empty": b""}
    for name, data in files.items():
        (top / name).write_bytes(data)
    assert tree.put("m/v1", top.as_uri() if as_url else top, recursive=True) is True
    assert len(records(tree)) == 1
    assert tree.list("m/v1") == ["bundle"]
    assert tree.children("m/v1") == []
    for name, data in files.items():
        assert got(tree, f"m/v1/bundle/{name}") == data
    tree.checkpoint()
    for name, data in files.items():
        assert at(tree, "m/v1/bundle", name).read_bytes() == data
    assert {p.relative_to(top).as_posix() for p in top.rglob("*") if p.is_file()} == set(files)


def test_a_directory_url_of_another_filesystem_is_one_blob_too(tree: Metatree) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/api-dir/one": b"1", "/api-dir/sub/two": b"2"})
    try:
        tree.put("m", "memory://api-dir", recursive=True)
    finally:
        memory.rm("/api-dir", recursive=True)
    assert tree.list("m") == ["api-dir"]
    assert got(tree, "m/api-dir/sub/two") == b"2"


@pytest.mark.everywhere
def test_force_replaces_a_directory_blob_as_a_whole(tree: Metatree, fast_path: Path) -> None:
    for number, names in enumerate((("a", "b"), ("b", "c"))):
        top = fast_path / f"{number}" / "bundle"
        top.mkdir(parents=True)
        for name in names:
            (top / name).write_text(f"{number}{name}")
    tree.put("m", fast_path / "0/bundle", recursive=True)
    with pytest.raises(BlobExistsError):
        tree.put("m", fast_path / "1/bundle", recursive=True)
    assert got(tree, "m/bundle/a") == b"0a"
    tree.put("m", fast_path / "1/bundle", recursive=True, force=True)
    assert not tree.exists("m/bundle/a")
    assert (got(tree, "m/bundle/b"), got(tree, "m/bundle/c")) == (b"1b", b"1c")
    tree.put("m", b"now a file", name="bundle", force=True)
    assert got(tree, "m/bundle") == b"now a file"
    tree.put("m", fast_path / "0/bundle", recursive=True, force=True)
    assert got(tree, "m/bundle/a") == b"0a"
    tree.checkpoint()
    assert sorted(p.name for p in at(tree, "m/bundle").iterdir()) == ["a", "b"]


def test_a_directory_that_holds_a_link_or_a_special_file_is_refused(tree: Metatree, directory: Path) -> None:
    (directory / "link").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="link or special file"):
        tree.put("m", directory, recursive=True)
    (directory / "link").unlink()
    os.mkfifo(directory / "pipe")
    with pytest.raises(OSError, match="link or special file"):
        tree.put("m", directory, recursive=True)
    assert records(tree) == [] and not tree.exists("m") and staged(tree) == []


def test_an_empty_directory_cannot_be_a_blob(tree: Metatree, fast_path: Path) -> None:
    (fast_path / "nothing/inside").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no file"):
        tree.put("m", fast_path / "nothing", recursive=True)
    assert records(tree) == []


@pytest.mark.parametrize("name", ["x.tmp", "back\\slash", "trailing.", "nul"])
def test_a_directory_with_a_name_inside_that_no_storage_takes_is_refused(
    name: str, tree: Metatree, directory: Path
) -> None:
    (directory / "deep" / name).write_bytes(b"")
    with pytest.raises(InvalidLocationError, match="cannot be a segment"):
        tree.put("m", directory, recursive=True)
    assert records(tree) == [] and not tree.exists("m") and staged(tree) == []


def test_a_directory_with_twins_inside_is_refused(tree: Metatree, directory: Path) -> None:
    (directory / "deep/Same").write_bytes(b"1")
    (directory / "deep/same").write_bytes(b"2")
    with pytest.raises((InvalidLocationError, BlobExistsError), match="case or form"):
        tree.put("m", directory, recursive=True)
    assert records(tree) == [] and not tree.exists("m")


def test_a_directory_blob_may_hold_a_metadata_json_of_its_own(tree: Metatree, directory: Path) -> None:
    (directory / "metadata.json").write_bytes(b"[not ours]")
    tree.put("m/v1", directory, recursive=True)
    assert got(tree, "m/v1/bundle/metadata.json") == b"[not ours]"
    assert tree.children("m/v1") == []


def test_recursive_on_a_plain_file_is_a_plain_put(tree: Metatree, source: Callable[..., Path]) -> None:
    tree.put("m", source(b"x"), recursive=True)
    assert got(tree, "m/model.bin") == b"x"


# --- sources that fail ------------------------------------------------------------------------------------------------


class Failing(io.RawIOBase):
    """Gives some bytes, then raises."""

    def __init__(self, good: int, error: BaseException) -> None:
        self._left, self._error = content(good), error

    def read(self, size: int = -1) -> bytes:
        if not self._left:
            raise self._error
        part, self._left = self._left[:size], self._left[size:]
        return part


@pytest.mark.parametrize(
    "error",
    [RuntimeError("half way"), OSError(5, "half way"), KeyError("half way"), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.everywhere
def test_a_source_that_fails_half_way_raises_its_own_error_and_leaves_nothing(
    error: BaseException, tree: Metatree
) -> None:
    tree.put("m/v1", b"old", name="b")
    tree.flush()
    before, head = shown(tree), tree.lsn
    for good in (0, 10, 64 << 10, 300_000, 3 << 20):
        with pytest.raises(type(error)) as caught:
            tree.put("m/v1", Failing(good, error), name="b", force=True)
        assert caught.value is error
        with pytest.raises(type(error)):
            tree.put("new/v1", Failing(good, error), name="b")
    tree.flush()
    assert (shown(tree), tree.lsn, staged(tree)) == (before, head, [])
    assert not tree.exists("new")


def test_a_source_that_fails_inside_a_transaction_fails_only_that_call_if_it_is_caught(tree: Metatree) -> None:
    with tree.transaction() as txn:
        tree.put("m", b"1", name="a")
        with pytest.raises(RuntimeError):
            tree.put("m", Failing(300_000, RuntimeError("half way")), name="b")
        tree.put("m", content(100_000), name="c")
    assert txn.lsn == tree.lsn
    assert tree.list("m") == ["a", "c"]
    assert got(tree, "m/c") == content(100_000)


@pytest.mark.parametrize("given", ["text", None, 3], ids=["text", "None", "int"])
def test_a_file_object_that_gives_no_bytes_is_a_type_error(given: Any, tree: Metatree) -> None:
    class Odd:
        def read(self, size: int = -1) -> Any:
            return given

    with pytest.raises(TypeError, match="bytes"):
        tree.put("m", Odd(), name="b")
    assert records(tree) == []


@pytest.mark.parametrize("given", [None, 3, 1.5, ["x"], {"a": 1}, object()], ids=lambda given: type(given).__name__)
def test_what_is_no_source_is_a_type_error(given: Any, tree: Metatree) -> None:
    with pytest.raises(TypeError, match="a source is"):
        tree.put("m", given, name="b")
    assert records(tree) == [] and not tree.exists("m")


def test_a_generator_is_no_source(tree: Metatree) -> None:
    with pytest.raises(TypeError, match="a source is"):
        tree.put("m", (b"x" for _ in range(3)), name="b")
    assert records(tree) == []


@pytest.mark.parametrize("user", ["", "ann:secret@"])
@pytest.mark.parametrize("recursive", [False, True])
def test_a_url_whose_server_is_not_reached_is_an_os_error_that_names_it_without_secrets(
    user: str, recursive: bool, tree: Metatree
) -> None:
    with socket.socket() as nobody:  # bound, but not listening: it refuses
        nobody.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{nobody.getsockname()[1]}/x"
        with pytest.raises(OSError, match=f"^http://{place} cannot be read: ClientConnectorError") as caught:
            tree.put("m", f"http://{user}{place}{'?sig=secret' if user else ''}", name="x", recursive=recursive)
    assert type(caught.value) is OSError
    assert type(caught.value.__cause__).__module__.startswith("aiohttp")
    assert "secret" not in str(caught.value)
    assert not tree.exists("m")


class _Nothing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.mark.local("the source is the same for all storages")
def test_a_url_of_nothing_is_not_found_without_secrets(tree: Metatree) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Nothing) as server:
        Thread(target=server.serve_forever).start()
        place = f"127.0.0.1:{server.server_port}/x"
        try:
            with pytest.raises(FileNotFoundError, match=f"http://{place}"):
                tree.put("m", f"http://{place}")
            with pytest.raises(FileNotFoundError, match=f"^http://{place} cannot be read") as caught:
                tree.put("m", f"http://ann:secret@{place}?sig=secret", name="x")
        finally:
            server.shutdown()
    assert "secret" not in str(caught.value)


def test_a_missing_source_is_its_own_error_and_creates_no_node(tree: Metatree, fast_path: Path) -> None:
    for missing in (fast_path / "missing", str(fast_path / "missing"), (fast_path / "missing").as_uri()):
        with pytest.raises(FileNotFoundError) as caught:
            tree.put("m/v1", missing)
        assert not isinstance(caught.value, BlobNotFoundError)
        assert "missing" in str(caught.value)
    with pytest.raises(FileNotFoundError):
        tree.put("m/v1", "memory://nowhere/missing")
    assert records(tree) == [] and not tree.exists("m")


def test_a_url_of_an_unknown_kind_is_the_error_of_whoever_reads_urls(tree: Metatree) -> None:
    with pytest.raises(ValueError, match="nosuch"):
        tree.put("m", "nosuch://host/file")
    assert records(tree) == []


def test_special_files_are_never_opened_as_sources(
    tree: Metatree, fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(fast_path / "pipe")  # to open it would wait for a writer for ever
    with pytest.raises(OSError, match="not a regular file"):
        tree.put("m", fast_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    try:
        monkeypatch.chdir(fast_path)
        server.bind("sock")  # a socket's path may be short only
        with pytest.raises(OSError, match="not a regular file"):
            tree.put("m", fast_path / "sock")
    finally:
        server.close()
    with pytest.raises(OSError, match="not a regular file"):
        tree.put("m", "/dev/zero")
    assert records(tree) == []


def test_a_dangling_link_as_source_is_missing(tree: Metatree, fast_path: Path) -> None:
    (fast_path / "dangling").symlink_to(fast_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        tree.put("m", fast_path / "dangling")
    assert records(tree) == []


# --- whole-tree states ------------------------------------------------------------------------------------------------


def test_put_is_refused_by_a_reader_and_by_a_closed_tree(
    make_tree: Callable[..., Metatree], fast_path: Path, source: Callable[..., Path]
) -> None:
    tree = make_tree()
    tree.put("m", b"1", name="b")
    reader = make_tree(keys=None, read_only=True)
    with pytest.raises(ReadOnlyError):
        reader.put("m", source())
    tree.close()
    with pytest.raises(ClosedError):
        tree.put("m", source())


def test_a_put_inside_a_transaction_is_seen_there_at_once_and_outside_only_after_it(
    tree: Metatree, make_tree: Callable[..., Metatree]
) -> None:
    other = make_tree(keys=None, read_only=True)
    with tree.transaction():
        tree.put("m/v1", content(100_000), name="large")
        tree.put("m/v1", b"small", name="small")
        assert got(tree, "m/v1/large") == content(100_000)
        assert tree.list("m/v1") == ["large", "small"]
        assert not other.exists("m")
    assert other.list("m/v1") == ["large", "small"]
    assert got(other, "m/v1/large") == content(100_000)


@pytest.mark.everywhere
def test_many_small_blobs_of_one_transaction_share_one_pack(tree: Metatree) -> None:
    many = 40 if kind_of(tree) not in ("objects", "moto", "seaweedfs") else 250  # in a bucket a record holds more
    data = {f"b{n}": content(20_000, str(n)) for n in range(many)}
    with tree.transaction():
        for name, value in data.items():
            tree.put("m/v1", value, name=name)
        assert all(got(tree, f"m/v1/{name}") == value for name, value in data.items())
    assert all(got(tree, f"m/v1/{name}") == value for name, value in data.items())
    folders = staged(tree)
    assert len(folders) == 1
    assert [p.name for p in at(tree, ".wal/staged", folders[0]).iterdir()] == ["pack"]
    tree.checkpoint()
    assert all(got(tree, f"m/v1/{name}") == value for name, value in data.items())


def test_an_error_of_put_is_one_of_ours_or_the_sources(tree: Metatree) -> None:
    for location in ("..", "a//b", "/a", "a/", "a\0"):
        with pytest.raises(MetatreeError):
            tree.put(location, b"x", name="b")
