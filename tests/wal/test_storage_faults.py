"""The faulty boundaries themselves, and what local storage does at every call that dies or fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from wal.storage import LocalStorage, MemoryPosix, MemoryStorage, Posix, Publication, Staged, Storage
from wal.testing import ALL_CALLS, Crash, Crashing, CrashStorage, Failing, FaultyStorage, Recorder

When = Literal["before", "after", "torn"]
WHENS: tuple[When, ...] = ("before", "after", "torn")


def prepare(storage: Storage) -> None:
    storage.publish("m/x", b"old", b"old", durable=True)
    storage.publish("m/gone", b"old", b"old", durable=True)
    with storage.stage("staged/1") as staged:
        staged.write(b"blob")
        staged.finish(b"att")


OPERATIONS: dict[str, Callable[[Storage], object]] = {
    "create": lambda s: s.create("m/1.rec", b"record"),
    "publish": lambda s: s.publish("m/x", b"new!", b"new!", durable=True),
    "publish staged": lambda s: s.publish("m/x", Staged("staged/1"), b"att", durable=True),
    "publish folder": lambda s: s.publish_folder(
        "m/v", [Publication("m/v/a", b"1", b"a"), Publication("m/v/b/c", Staged("staged/1"), b"b")]
    ),
    "set aside": lambda s: s.set_aside("m/gone", "trash/1/gone"),
}


def state(storage: Storage, folder: str = "m") -> dict[str, bytes]:
    """Every file below `folder`."""
    found: dict[str, bytes] = {}
    for entry in storage.list(folder):
        name = f"{folder}/{entry.name}"
        if entry.kind.value == "folder":
            found |= state(storage, name) | {f"{name}/": b""}
        else:
            found[name] = storage.read(name).data
    return found


def both_states(operation: str) -> tuple[dict[str, bytes], dict[str, bytes], int]:
    """The tree before and after an operation, and how many mutating calls it makes."""
    recorder = Recorder(MemoryPosix())
    storage = MemoryStorage(recorder)
    prepare(storage)
    before, first = state(storage), recorder.count
    OPERATIONS[operation](storage)
    return before, state(storage), recorder.count - first


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("when", WHENS)
def test_a_crash_at_any_call_leaves_the_old_or_the_new_state(operation: str, when: When) -> None:
    before, after, calls = both_states(operation)
    assert calls >= 2
    for number in range(1, calls + 1):
        disk = MemoryPosix()
        prepare(MemoryStorage(disk))
        posix = CrashStorage(Crashing(number, when), disk)
        with pytest.raises(Crash):
            OPERATIONS[operation](LocalStorage("/disk", posix=posix))
        assert posix.crashed is not None and posix.crashed.number == number
        survivor = MemoryStorage(disk)
        assert state(survivor) in (before, after)
        assert survivor.read("staged/1").data == b"blob"


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE])
def test_an_error_at_any_call_is_raised_or_harmless(operation: str, lasting: bool, number: int) -> None:
    before, after, _ = both_states(operation)
    call = 0
    while True:
        call += 1
        disk = MemoryPosix()
        prepare(MemoryStorage(disk))
        posix = FaultyStorage(Failing(call, number, lasting), disk, counted=ALL_CALLS)
        try:
            storage = LocalStorage("/disk", posix=posix)
            OPERATIONS[operation](storage)
        except OSError as error:
            assert error.errno == number
            assert state(MemoryStorage(disk)) in (before, after)
        else:
            assert state(MemoryStorage(disk)) == after
            if not posix.failed:
                break
    assert call > 5


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_short_write_at_any_call_is_continued(operation: str) -> None:
    _, after, calls = both_states(operation)
    for number in range(1, calls + 1):
        disk = MemoryPosix()
        prepare(MemoryStorage(disk))
        OPERATIONS[operation](LocalStorage("/disk", posix=FaultyStorage(Failing(number, short=True), disk)))
        assert state(MemoryStorage(disk)) == after


def test_a_short_write_may_be_followed_by_an_error(tmp_path: Path) -> None:
    posix = FaultyStorage(Failing(1, errno.ENOSPC, short=True), counted=frozenset({"pwrite"}))
    (tmp_path / "f").write_bytes(b"")
    file = LocalStorage(str(tmp_path), posix=posix).open_file("f", writable=True)
    with pytest.raises(OSError, match="space"):
        file.pwrite(b"12345678", 0)
    assert (tmp_path / "f").read_bytes() == b"1234"
    assert [call.method for call in posix.failed] == ["pwrite", "pwrite"]
    file.close()


def test_a_write_that_takes_nothing_does_not_spin(tmp_path: Path) -> None:
    class Full(Posix):
        def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
            return 0

    storage = LocalStorage(str(tmp_path), posix=Full())
    with pytest.raises(OSError, match="no bytes"):
        storage.publish("x", b"1", b"", durable=False)
    assert os.listdir(tmp_path / ".wal/tmp") == []
    storage.close()


def test_a_crash_frees_locks_and_descriptors(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    posix = CrashStorage(Crashing(1, "torn"), counted=frozenset({"pwrite"}))
    (tmp_path / "f").write_bytes(b"")
    dying = LocalStorage(str(tmp_path), posix=posix)
    lock, file = dying.lock(""), dying.open_file("f", writable=True)
    assert lock.acquire()
    other = LocalStorage(str(tmp_path))
    assert other.lock("").acquire(timeout=0) is False
    with pytest.raises(Crash):
        file.pwrite(b"12345678", 0)
    assert (tmp_path / "f").read_bytes() == b"1234"
    assert other.lock("").acquire(timeout=0) is True
    for call in (lambda: dying.read("f"), lambda: dying.entry("f"), lock.release, file.size):
        with pytest.raises(Crash):
            call()
    other.close()
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_crash_can_be_a_real_death(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        posix = CrashStorage(Crashing(2, "after", action="kill"))
        LocalStorage(str(tmp_path), posix=posix).make_folder("a/b/c")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9
    assert (tmp_path / "a/b").is_dir() and not (tmp_path / "a/b/c").exists()


def test_the_recorder_keeps_what_was_written(tmp_path: Path) -> None:
    recorder = Recorder()
    storage = LocalStorage(str(tmp_path), posix=recorder)
    storage.publish("x", b"12", b"att", durable=False)
    methods = [call.method for call in recorder.calls]
    assert methods == ["mkdir", "mkdir", "open", "pwrite", "setxattr", "rename"]
    write = recorder.calls[3]
    assert write.number == 4 and write.arguments[1:] == (b"12", 0)
    assert write.path == recorder.calls[2].path
    storage.close()
