"""What systems may do and seldom do: short reads and writes, names that come and go between two calls."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import fsspec
import portalocker
import pytest

from wal import (
    LocalStorage,
    MemoryPosix,
    MemoryStorage,
    Posix,
    UnsafePathError,
    UnsupportedError,
    list_source,
    open_source,
    written_at,
)
from wal.storage import posix as posix_calls
from wal.storage.kernel import describe_holders
from wal.testing.boundary import ALL_CALLS, Boundary, Call

T = TypeVar("T")
CONTENT = bytes(range(256)) * 10


class Turned(Boundary):
    """Answers the calls named in `answers` by what stands there: called with the call and what makes it."""

    def __init__(self, inner: Posix | None = None) -> None:
        super().__init__(inner or MemoryPosix(), counted=ALL_CALLS)
        self.answers: dict[str, Callable[[Call, Callable[[], object]], object]] = {}

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        answer = self.answers.get(call.method)
        return run() if answer is None else answer(call, run)  # type: ignore[return-value]


def failing(number: int) -> Callable[[Call, Callable[[], object]], object]:
    def fail(call: Call, run: Callable[[], object]) -> object:
        raise OSError(number, os.strerror(number), call.path)

    return fail


@pytest.fixture
def posix() -> Turned:
    return Turned()


@pytest.fixture
def storage(posix: Turned) -> Iterator[MemoryStorage]:
    storage = MemoryStorage(posix)
    yield storage
    storage.close()


# --- short reads and writes -----------------------------------------------------------------------------------------


def test_a_read_that_comes_in_pieces_is_whole(posix: Turned, storage: MemoryStorage) -> None:
    storage.publish("x", CONTENT, b"", durable=True)
    inner = posix.inner

    def piece(call: Call, run: Callable[[], object]) -> object:
        fd, length, offset = call.arguments
        return inner.pread(fd, min(length, 100), offset)  # type: ignore[arg-type, call-overload]

    posix.answers["pread"] = piece
    assert storage.read("x").data == CONTENT
    with closing(storage.open_file("x", writable=False)) as file:
        assert file.pread(1000, 7) == CONTENT[7:1007]
        assert file.pread(1000, len(CONTENT) - 150) == CONTENT[-150:], "the end of the file"


def test_a_write_that_takes_nothing_is_an_error(posix: Turned, storage: MemoryStorage) -> None:
    posix.answers["pwrite"] = lambda call, run: 0
    with pytest.raises(OSError, match="took no bytes"):
        storage.publish("x", CONTENT, b"", durable=True)
    assert storage.entry("x") is None


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS])
def test_where_the_kernel_copies_nothing_or_only_a_part_the_rest_is_copied(
    posix: Turned, storage: MemoryStorage, number: int
) -> None:
    storage.publish("x", CONTENT, b"a", durable=True)
    for name, answer in (("nothing", lambda call, run: 0), ("refused", failing(number))):
        posix.answers["copy_file_range"] = answer  # type: ignore[assignment]
        storage.stage_existing("x", name, share=False)
        assert (storage.read(name).data, storage.attribute(name)) == (CONTENT, b"a")
    posix.answers["copy_file_range"] = failing(errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        storage.stage_existing("x", "failed", share=False)
    assert storage.entry("failed") is None


def test_files_may_be_closed_twice_and_sought_but_not_before_their_start(storage: MemoryStorage) -> None:
    storage.publish("x", CONTENT, b"", durable=True)
    with storage.open("x") as file:
        assert (file.seek(-1, io.SEEK_END), file.read()) == (len(CONTENT) - 1, CONTENT[-1:])
        with pytest.raises(ValueError, match="negative seek"):
            file.seek(-len(CONTENT) - 1, io.SEEK_END)
        raw = file.raw  # type: ignore[attr-defined]
    raw.close()
    random = storage.open_file("x", writable=True)
    staged = storage.stage("y")
    for handle in (random, random, staged, staged):
        handle.close()  # type: ignore[attr-defined]
    storage.close()
    storage.close()


# --- names that come and go -----------------------------------------------------------------------------------------


def test_what_goes_before_it_can_be_set_aside_is_absent(posix: Turned, storage: MemoryStorage) -> None:
    storage.publish("x", b"", b"", durable=True)
    posix.answers["rename"] = failing(errno.ENOENT)
    assert storage.set_aside("x", "aside/x") is None


def test_a_file_that_becomes_something_else_between_the_look_and_the_open_is_closed_again(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    posix = Turned(Posix())
    storage = LocalStorage(str(tmp_path), posix)
    before = set(os.listdir("/proc/self/fd"))

    def replaced(call: Call, run: Callable[[], object]) -> object:
        if call.path.endswith("/x"):
            (tmp_path / "x").unlink()
            (tmp_path / "x").mkdir()
        return run()

    posix.answers["open_read"] = replaced
    with pytest.raises((UnsafePathError, OSError)):
        storage.open_file("x", writable=False)
    assert set(os.listdir("/proc/self/fd")) == before
    storage.close()


def test_the_root_itself_is_never_written_or_erased(storage: MemoryStorage) -> None:
    storage.make_folder(".wal/fence")
    for view in (storage, storage.fenced(".wal/fence")):
        for change in (
            lambda view=view: view.publish("", b"", b"", durable=True),
            lambda view=view: view.erase(""),
        ):
            with pytest.raises(ValueError, match="the root itself"):
                change()


def test_a_storage_with_folders_has_no_versions(storage: MemoryStorage) -> None:
    for ask in (lambda: storage.versions("x"), lambda: storage.remove("x", "1")):
        with pytest.raises(UnsupportedError, match="not versions"):
            ask()


# --- through a fence ------------------------------------------------------------------------------------------------


def test_through_a_fence_missing_folders_come_with_what_lies_in_them(storage: MemoryStorage) -> None:
    storage.make_folder(".wal/fence")
    view = storage.fenced(".wal/fence")
    view.publish("a/b/c/d/x", b"1", b"", durable=True)
    view.publish("a/b/c/d/y", b"2", b"", durable=True)
    for name, attribute in (("a/b", None), ("a/b", b"old"), ("e/f/g", None), ("h/i", b"new"), ("a/n", b"n")):
        view.make_folder(name, attribute)
        assert storage.attribute(name) == attribute
    assert (storage.read("a/b/c/d/x").data, storage.read("a/b/c/d/y").data) == (b"1", b"2")
    assert storage.list(".wal/fence") == []
    view.close()
    assert storage.read("a/b/c/d/x").data == b"1", "the storage is still open"


@pytest.mark.parametrize("number", [errno.ENOTEMPTY, errno.EIO])
def test_through_a_fence_a_folder_that_is_always_taken_ends_in_an_error(
    posix: Turned, storage: MemoryStorage, number: int
) -> None:
    storage.make_folder(".wal/fence")
    view = storage.fenced(".wal/fence")

    def taken(call: Call, run: Callable[[], object]) -> object:
        return failing(number)(call, run) if str(call.arguments[1]).endswith("/top") else run()

    posix.answers["rename"] = taken
    said = "again and again" if number == errno.ENOTEMPTY else "Input/output"
    for change in (lambda: view.publish("top/x", b"1", b"", durable=True), lambda: view.make_folder("top/below", b"a")):
        with pytest.raises(OSError, match=said):
            change()
    assert storage.entry("top") is None
    posix.answers.clear()
    view.publish("top/x", b"1", b"", durable=True)
    assert storage.read("top/x").data == b"1"


def test_through_a_fence_a_folder_that_another_makes_meanwhile_is_used(posix: Turned, storage: MemoryStorage) -> None:
    storage.make_folder(".wal/fence")
    view, inner = storage.fenced(".wal/fence"), posix.inner
    made: list[str] = []

    def make(call: Call, run: Callable[[], object]) -> object:
        if not made and call.path.startswith("/disk/.wal/fence"):
            made.append("top")
            inner.mkdir("/disk/top")
        return run()

    posix.answers["mkdir"] = make
    view.publish("top/x", b"1", b"", durable=True)
    assert made
    assert storage.read("top/x").data == b"1"


# --- what the kernel tells ------------------------------------------------------------------------------------------


def test_a_holder_that_ends_while_it_is_looked_for_is_named_by_its_number() -> None:
    class Gone(MemoryPosix):
        def kernel_file(self, path: str) -> bytes:
            if path.startswith("/proc/") and path.split("/")[2].isdigit():
                raise FileNotFoundError(errno.ENOENT, path)
            return super().kernel_file(path)

    disk = Gone()
    with closing(MemoryStorage(disk).lock("x")) as lock:
        assert lock.acquire(timeout=0)
        assert f"({os.getpid()}) (gone; a child of it may still hold the lock)" in describe_holders(disk, "/disk/x")


def test_a_root_that_no_line_of_the_mount_table_fits_is_of_an_unknown_type() -> None:
    class NoTable(MemoryPosix):
        def kernel_file(self, path: str) -> bytes:
            return b"" if path == "/proc/self/mountinfo" else super().kernel_file(path)

    storage = MemoryStorage(NoTable())
    assert not storage.capabilities.append_log
    assert "type is unknown" in storage.capabilities.reason
    storage.close()


@pytest.mark.parametrize(
    ("release", "known"), [("5.7.19-generic", False), ("rolling", False), ("5.8", True), ("6.1.0", True)]
)
def test_one_sync_for_all_is_trusted_only_where_it_reports_failed_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, release: str, known: bool
) -> None:
    """Linux 5.8 and later."""
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    posix_calls._syncfs.cache_clear()
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        if known:
            Posix().syncfs(fd)
        with pytest.raises(OSError) as caught:
            Posix().syncfs(1 << 20 if known else fd)
        assert caught.value.errno == (errno.EBADF if known else errno.ENOSYS)
    finally:
        os.close(fd)
        monkeypatch.undo()
        posix_calls._syncfs.cache_clear()


def test_what_a_waiter_for_a_lock_is_told_is_the_systems_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for shared in (True, False):
        with pytest.raises(OSError) as caught:
            Posix().flock(1 << 20, shared=shared, block=True)
        assert caught.value.errno == errno.EBADF

    def refuse(fd: int, flags: int) -> None:
        raise portalocker.LockException("no reason given")

    monkeypatch.setattr(portalocker, "lock", refuse)
    with pytest.raises(OSError, match="no reason given") as caught:
        Posix().flock(1 << 20, shared=True, block=True)
    assert caught.value.errno == errno.ENOLCK


# --- sources --------------------------------------------------------------------------------------------------------


def test_a_source_that_becomes_a_fifo_before_it_is_opened_is_closed_again(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    posix = Turned(Posix())
    before = set(os.listdir("/proc/self/fd"))

    def replaced(call: Call, run: Callable[[], object]) -> object:
        (tmp_path / "x").unlink()
        os.mkfifo(tmp_path / "x")
        return run()

    posix.answers["open_read"] = replaced
    with pytest.raises(UnsafePathError, match="special files are not opened"):
        open_source(tmp_path / "x", posix=posix)
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_files_below_a_source_are_listed_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "x").write_bytes(b"1")
    assert list_source(tmp_path / "d") == [("e/x", str(tmp_path / "d/e/x"))]
    assert list_source(tmp_path / "d/e/x") is None
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/listed/e/x", b"1")
    try:
        assert list_source("memory://listed") == [("e/x", "memory:///listed/e/x")]
        assert list_source("memory://listed/e/x") is None
        with closing(open_source("memory://listed/e/x")) as file:
            assert file.read() == b"1"
    finally:
        memory.rm("/listed", recursive=True)


def test_a_source_with_a_link_in_it_or_a_folder_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "link").symlink_to("elsewhere")
    with pytest.raises(UnsafePathError, match="a link or special file"):
        list_source(tmp_path / "d")

    def denied(path: str) -> None:
        raise PermissionError(errno.EACCES, "denied", path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(PermissionError, match="denied"):
        list_source(tmp_path / "d")


def test_when_a_file_was_written_is_told_where_it_is_known(tmp_path: Path, storage: MemoryStorage) -> None:
    with closing(LocalStorage(str(tmp_path))) as local:
        local.publish("x", b"", b"", durable=False)
        assert written_at(local, "x") == (tmp_path / "x").stat().st_mtime
    storage.publish("x", b"", b"", durable=False)
    assert written_at(storage, "x") is None


# --- the disk in memory answers like the system ---------------------------------------------------------------------


def names(posix: Posix, root: str) -> list[Callable[[], object]]:
    """Calls that a system refuses: a folder with a file `f`, a folder `d` that holds one, and an empty one, `e`."""
    reading = posix.open(f"{root}/f", os.O_RDONLY)
    folder = posix.open(f"{root}/d", os.O_RDONLY)
    return [
        lambda: posix.open(f"{root}/{'x' * 256}", os.O_RDWR | os.O_CREAT),
        lambda: posix.open(f"{root}/f/below", os.O_RDWR | os.O_CREAT),
        lambda: posix.lstat(f"{root}/f/below"),
        lambda: posix.open(f"{root}/none", os.O_RDONLY),
        lambda: posix.open(f"{root}/f", os.O_RDWR | os.O_CREAT | os.O_EXCL),
        lambda: posix.open(f"{root}/d", os.O_RDWR),
        lambda: posix.open(f"{root}/f", os.O_RDONLY | os.O_DIRECTORY),
        lambda: posix.pwrite(reading, b"x", 0),
        lambda: posix.pread(folder, 1, 0),
        lambda: posix.rename(f"{root}/none", f"{root}/other"),
        lambda: posix.rename(f"{root}/d", f"{root}/d/below"),
        lambda: posix.rename(f"{root}/f", f"{root}/e"),
        lambda: posix.rename(f"{root}/e", f"{root}/f"),
        lambda: posix.rename(f"{root}/e", f"{root}/d"),
        lambda: posix.link(f"{root}/d", f"{root}/linked"),
        lambda: posix.link(f"{root}/f", f"{root}/e"),
        lambda: posix.unlink(f"{root}/e"),
        lambda: posix.rmdir(f"{root}/d"),
        lambda: posix.rmdir(f"{root}/f"),
        lambda: posix.mkdir(f"{root}/f"),
        lambda: posix.listdir(f"{root}/f"),
    ]


def answers(posix: Posix, root: str) -> list[object]:
    for name in ("d", "e"):
        posix.mkdir(f"{root}/{name}")
    for name in ("f", "d/file"):
        posix.close(posix.open(f"{root}/{name}", os.O_RDWR | os.O_CREAT))
    found: list[object] = []
    for call in names(posix, root):
        with pytest.raises(OSError) as caught:
            call()
        found.append(errno.errorcode[caught.value.errno or 0])
    fd = posix.open(f"{root}/f", os.O_RDWR)
    posix.pwrite(fd, b"content", 3)
    posix.close(fd)
    fd = posix.open(f"{root}/f", os.O_RDWR | os.O_TRUNC)
    found += [posix.fstat(fd).st_size, posix.pwrite(fd, b"x", 2), posix.pread(fd, 9, 0)]
    posix.ftruncate(fd, 5)
    posix.link(f"{root}/f", f"{root}/second")
    posix.rename(f"{root}/f", f"{root}/second")  # two names of one file: nothing happens
    posix.rename(f"{root}/d", f"{root}/e")
    found += [posix.fstat(fd).st_nlink, sorted(posix.listdir(root)), posix.listdir(f"{root}/e"), posix.writable(root)]
    posix.close(fd)
    return found


def test_the_disk_in_memory_refuses_and_answers_as_the_system_does(tmp_path: Path) -> None:
    disk = MemoryPosix()
    disk.mkdir("/r")
    assert answers(disk, "/r") == answers(Posix(), str(tmp_path))
