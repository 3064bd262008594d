"""What people do wrong every day, and what they are told: the thing, and the next step."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wal
from metatree import (
    BlobExistsError,
    BlobNotFoundError,
    InvalidLocationError,
    Metatree,
    MetatreeError,
    NodeNotFoundError,
    UnavailableError,
)
from metatree.errors import translated
from wal.storage.memory import MemoryPosix, MemoryStorage

Make = Callable[..., Metatree]


@pytest.fixture
def tree(make_tree: Make, fast_path: Path) -> Metatree:
    tree = make_tree()
    tree.put("m/v1", b"weights", name="w")
    (fast_path / "dir").mkdir()
    (fast_path / "dir/inner").write_bytes(b"inner")
    tree.put("m", fast_path / "dir", recursive=True)
    return tree


# --- what is not there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "kind", "named"),
    [
        ("nope/v1/w", NodeNotFoundError, "nope"),
        ("m/v9/w", NodeNotFoundError, "m/v9"),
        ("nope/w", NodeNotFoundError, "nope"),
        ("m/v1/nope", BlobNotFoundError, "m/v1/nope"),
        ("m/v1/nope/inner", BlobNotFoundError, "m/v1/nope/inner"),
        ("m/dir/nope", BlobNotFoundError, "m/dir/nope"),
        ("nope", BlobNotFoundError, "nope"),
    ],
)
def test_it_is_the_node_that_is_missing_or_only_the_blob(
    location: str, kind: type[Exception], named: str, tree: Metatree, fast_path: Path
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: tree.get(location),
        lambda: tree.open(location),
        lambda: tree.get(location, fast_path / "out"),
        lambda: tree.get(location, fast_path / "out", recursive=True),
        lambda: tree.delete(location),
        lambda: tree.copy(location, "m/v1/new"),
    ]
    for call in calls:
        with pytest.raises(kind, match=f"(^|['\"]){re.escape(named)}(['\": ]|$)"):
            call()
        with pytest.raises(kind), tree.transaction():
            call()
    assert not tree.exists(location)


# --- locations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/m/v1", "'/m/v1' begins with '/'.*write 'm/v1'"),
        ("m/v1/", "'m/v1/' ends in '/'.*write 'm/v1'"),
        ("m//v1", "'m//v1' holds '//'.*write 'm/v1'"),
        ("/", "the root is ''"),
    ],
)
def test_a_slash_too_many_is_named(location: str, message: str, tree: Metatree) -> None:
    with pytest.raises(InvalidLocationError, match=message):
        tree.find(location)


# --- downloads --------------------------------------------------------------------------------------------------------


def test_a_download_takes_a_path_as_bytes(tree: Metatree, fast_path: Path) -> None:
    assert b"".join(tree.get("m/v1/w", os.fsencode(fast_path / "out"))) == b"weights"
    assert (fast_path / "out").read_bytes() == b"weights"
    with pytest.raises(TypeError, match="expected str, bytes or"):
        tree.get("m/v1/w", 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("recursive", [False, True])
def test_a_download_names_the_folder_that_is_missing(recursive: bool, tree: Metatree, fast_path: Path) -> None:
    source = "m/dir" if recursive else "m/v1/w"
    (fast_path / "file").touch()
    for folder, kind in (("none", FileNotFoundError), ("file", NotADirectoryError)):
        with pytest.raises(kind, match="create it first") as caught:
            tree.get(source, fast_path / folder / "out", recursive=recursive)
        assert caught.value.filename == str(fast_path / folder)
        assert not isinstance(caught.value, MetatreeError)
    for target in (fast_path, str(fast_path / "new") + "/", ""):
        with pytest.raises(BlobExistsError, match="pass the name of a new file"):
            tree.get(source, target, recursive=recursive)


# --- sources ----------------------------------------------------------------------------------------------------------


def test_links_and_special_files_in_a_source_are_an_ordinary_error_with_path_and_advice(
    tree: Metatree, fast_path: Path
) -> None:
    (fast_path / "dir/link").symlink_to("inner")
    os.mkfifo(fast_path / "fifo")
    for source, named, advice in (("dir", "dir/link", "cp -rL"), ("fifo", "fifo", "regular file")):
        with pytest.raises(OSError, match=advice) as caught:
            tree.put("m/v2", fast_path / source, recursive=True)
        assert type(caught.value) is OSError and not isinstance(caught.value, wal.UnsafePathError)
        assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(fast_path / named))
    assert not tree.exists("m/v2")
    (fast_path / "dir/link").unlink()
    tree.put("m/v2", fast_path / "dir", recursive=True)


# --- roots ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", [None, 5, b"/tmp/x", ["a"], ""])
def test_what_is_no_root_is_said(root: Any) -> None:
    with pytest.raises(InvalidLocationError, match="is not a valid root: pass a path or URL"):
        Metatree(root, ("a",))


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
@pytest.mark.parametrize("root", ["/proc/tree", "/proc/far/down", "/dev/null/tree"])
def test_a_place_where_no_folder_can_be_made_is_said(root: str) -> None:
    with pytest.raises(MetatreeError, match=f"{root} cannot be made: .*choose a place"):
        Metatree(root, ("a",))
    with pytest.raises(MetatreeError, match=f"{root} (does not exist|is no)") as caught:
        Metatree(root, read_only=True)
    assert "keys=" not in str(caught.value)


def test_a_reader_is_not_told_how_to_create(fast_path: Path) -> None:
    (fast_path / "notes").mkdir()
    (fast_path / "notes/a.txt").touch()
    for name, message in (("none", "does not exist"), ("notes", r"is not a tree: it has no \.metatree")):
        with pytest.raises(MetatreeError, match=message) as caught:
            Metatree(fast_path / name, read_only=True)
        assert "keys" not in str(caught.value) and "new" not in str(caught.value)


def test_a_misspelt_keyword_is_refused_with_the_right_one(tree: Metatree) -> None:
    with pytest.raises(TypeError, match=r"unknown keyword for a local root: readonly \(did you mean read_only\?\)"):
        Metatree(tree.root, readonly=True)
    with pytest.raises(TypeError, match=r"unknown keyword for a local root: zzz$"):
        Metatree(tree.root, zzz=True)
    with pytest.raises(TypeError, match=r"unknown keyword for an open storage: zzz$"):
        Metatree(MemoryStorage(MemoryPosix()), ("model",), zzz=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("lost", ["s3:/bucket/x", Path("s3://bucket/x"), "S3:/x", "webhdfs:/x", "gs:/x", "file:/x"])
def test_a_url_that_lost_a_slash_is_not_taken_for_a_folder(
    lost: str | Path, fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fast_path)
    scheme, rest = str(lost).split(":/")
    with pytest.raises(InvalidLocationError, match=f"two slashes.*pass the text '{scheme}://{rest}'"):
        Metatree(lost, ("a",))
    assert os.listdir() == []
    with Metatree(f"./{lost}", ("a",)) as tree:  # whoever means a folder of that name can say so
        assert tree.root == str(fast_path / lost)
    with Metatree("c:x/y", ("a",)) as tree:
        assert tree.root == str(fast_path / "c:x/y")


@pytest.mark.parametrize("root", ["~", "~/x", Path("~/x"), "~root/x", "local://~/x"])
def test_a_home_folder_that_no_shell_has_filled_in_is_not_taken_for_a_folder(
    root: str | Path, fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fast_path)
    monkeypatch.setenv("HOME", str(fast_path / "home"))
    path = str(root).removeprefix("local://")
    with pytest.raises(InvalidLocationError, match=f"pass '{os.path.expanduser(path)}', or './{path}'"):
        Metatree(root, ("a",))
    assert os.listdir() == []
    for name in (f"./{path}", "~no such user/x"):
        with Metatree(name, ("a",)) as tree:
            assert tree.root == os.path.abspath(name)


@pytest.mark.parametrize(
    ("root", "options", "message"),
    [
        ("s3://", {}, "a place in a bucket"),
        ("s3:///", {}, "a place in a bucket"),
        ("webhdfs://", {}, "needs a host"),
        ("webhdfs:///", {}, "needs a host"),
    ],
)
def test_a_url_without_a_place_is_not_taken_for_a_folder(
    root: str, options: dict[str, Any], message: str, fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fast_path)
    for read_only in (True, False):
        with pytest.raises(InvalidLocationError, match=message):
            Metatree(root, ("a",), read_only=read_only, **options)
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("keyword", "meant"), [("aply", "apply"), ("readonly", "read_only"), ("endpont_url", "endpoint_url")]
)
def test_a_misspelt_keyword_for_a_bucket_is_refused_with_the_right_one(keyword: str, meant: str) -> None:
    with pytest.raises(TypeError, match=rf"not an option of an s3 root: {keyword} \(did you mean {meant}\?\)"):
        Metatree("s3://bucket/x", ("a",), **{keyword: "x"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("root", "options"),
    [("s3://bucket/x", {"endpoint": "x", "key": "a"}), ("s3://bucket/x", {"kye": "x", "key": "a"})],
)
def test_no_hint_is_given_for_an_option_that_is_right(root: str, options: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="did you mean") as caught:
        Metatree(root, ("a",), **options)  # type: ignore[arg-type]
    assert "keys" not in str(caught.value)
    assert str(caught.value).count("did you mean") == 1


# --- arguments of the wrong kind --------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", ["1d", "86400", None, -5, float("nan")])
def test_what_is_no_age_is_refused_with_what_is_one(age: Any, tree: Metatree) -> None:
    with pytest.raises(ValueError, match=r"older_than is a number of seconds .*, not "):
        tree.gc(older_than=age)


@pytest.mark.parametrize("source", [5, None, ["a"], object()])
@pytest.mark.parametrize("name", [None, "n"])
def test_what_is_no_source_is_said(source: Any, name: str | None, tree: Metatree) -> None:
    with pytest.raises(TypeError, match=f"a source is a path, .*, not {type(source).__name__}"):
        tree.put("m/v1", source, name=name)
    assert tree.find("m/v1").list() == ["w"]


@pytest.mark.parametrize("txid", [5, None, b"1f-00112233445566aa", "", "1f"])
def test_what_is_no_transaction_id_is_said(txid: Any, tree: Metatree) -> None:
    with pytest.raises(ValueError, match="is not a transaction id, which looks like"):
        tree.status(txid)


def test_repair_is_told_a_list_of_paths(tree: Metatree) -> None:
    with pytest.raises(TypeError, match=r"give \['m/v1/w'\], not 'm/v1/w'"):
        tree.repair(paths="m/v1/w")


# --- the storage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(errno.EIO, "broken"), True),
        (PermissionError(errno.EACCES, "no usable credentials"), False),
        (OSError(errno.ENXIO, "the bucket does not exist"), False),
    ],
)
def test_only_what_may_pass_is_to_be_tried_again(error: OSError, passes: bool) -> None:
    with pytest.raises(UnavailableError, match="nothing was changed") as caught, translated():
        raise error
    assert ("try again" in str(caught.value)) is passes


def test_a_location_that_is_too_long_is_named_and_told_apart_from_a_blob(tree: Metatree) -> None:
    for call in (lambda: tree.find("m/v1/w"), lambda: tree.put("m/v1/w", b"x", name="w")):
        with pytest.raises(InvalidLocationError) as caught:
            call()
        assert str(caught.value) == (
            "'m/v1/w' has 3 segments, but this tree has 2 levels: model, version; a blob is read with get or open, "
            "and put takes its name as name='…'"
        )
    with pytest.raises(InvalidLocationError, match="'m/<active>/w' has 3 segments"):
        tree.find("m/<active>/w")


def test_an_error_without_a_file_names_the_root() -> None:
    with pytest.raises(UnavailableError) as caught, translated("ftp://x/y"):
        raise OSError(-2, "Name or service not known")
    assert str(caught.value).startswith("ftp://x/y: [Errno -2] Name or service not known; ")
    with pytest.raises(UnavailableError) as caught, translated("/root"):
        raise OSError(errno.EIO, "broken", "/disk/file")
    assert str(caught.value).startswith("[Errno 5] broken: '/disk/file'; ")


def test_a_url_whose_host_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UnavailableError, match=r"^ftp://no\.such\.host/y: \[Errno -2\]"):
        Metatree("ftp://no.such.host/y", read_only=True)


def test_check_names_a_file_that_cannot_be_read_once(tree: Metatree) -> None:
    file = Path(tree.root) / "m/v1/metadata.json"
    whole = file.read_bytes()
    file.write_bytes(b"{")
    (problem,) = tree.check().problems
    assert problem.path == "m/v1/metadata.json" and problem.reason.startswith("cannot be read as a node's metadata")
    assert problem.path not in problem.reason
    file.write_bytes(whole)
    assert tree.check().ok


@pytest.mark.parametrize(
    "root",
    ["webhdfs://bob:topsecret@localhost:1/x", "s3://AKIA:topsecret@bucket/x", "http://bob:topsecret@localhost:1/x"],
)
def test_a_root_that_holds_a_secret_is_refused_and_not_shown(root: str) -> None:
    for read_only in (False, True):
        with pytest.raises(InvalidLocationError, match="keyword") as caught:
            Metatree(root, ("model", "version"), read_only=read_only)
        assert "topsecret" not in str(caught.value)
