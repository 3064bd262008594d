"""What only the real system shows: links, special files, the order of flushes, forks, lock holders."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wal.errors import CutShortError, UnsupportedError
from wal.storage import (
    Kind,
    LocalStorage,
    Posix,
    Publication,
    Staged,
    Storage,
    UnsafePathError,
    open_source,
    open_storage,
)
from wal.storage.kernel import find_mount, lock_holders
from wal.testing import ALL_CALLS, Boundary, Recorder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def storage(root: Path) -> Iterator[LocalStorage]:
    storage = LocalStorage(str(root))
    yield storage
    storage.close()


def everything_that_takes_a_name(storage: Storage, name: str) -> list[Callable[[], object]]:
    return [
        lambda: storage.read(name),
        lambda: storage.open(name),
        lambda: storage.attribute(name),
        lambda: storage.open_file(name, writable=True),
        lambda: storage.publish(name, b"x", b"", durable=False),
        lambda: storage.publish("ok", Staged(name), b"", durable=False),
        lambda: storage.publish_folder("new", [Publication("new/x", Staged(name), b"")]),
        lambda: storage.stage_existing(name, "staged", share=True),
        lambda: storage.stage_existing(name, "staged", share=False),
        lambda: storage.make_folder(name),
        lambda: storage.list(name),
        lambda: storage.sync_folder(name),
        lambda: storage.lock(name).acquire(timeout=0),
    ]


class TestLinksAndSpecialFiles:
    def test_a_link_is_refused_wherever_it_stands(self, storage: LocalStorage, root: Path, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "x").write_bytes(b"secret")
        (root / "to_folder").symlink_to(outside)
        (root / "to_file").symlink_to(outside / "x")
        (root / "to_nothing").symlink_to(outside / "none")
        for name in ("to_file", "to_folder", "to_nothing", "to_folder/x"):
            for call in everything_that_takes_a_name(storage, name):
                with pytest.raises(UnsafePathError, match=name.split("/")[0]):
                    call()
        for call in (
            lambda: storage.entry("to_folder/x"),
            lambda: storage.create("to_folder/y", b""),
            lambda: storage.stage("to_folder/y"),
            lambda: storage.set_aside("to_folder/x", "aside"),
            lambda: storage.set_aside("to_file", "to_folder/y"),
            lambda: storage.erase("to_folder/x"),
        ):
            with pytest.raises(UnsafePathError):
                call()
        assert os.listdir(outside) == ["x"]
        assert (outside / "x").read_bytes() == b"secret"

    def test_a_link_itself_is_seen_set_aside_and_erased(
        self, storage: LocalStorage, root: Path, tmp_path: Path
    ) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "x").write_bytes(b"keep")
        (root / "m").mkdir()
        (root / "m" / "link").symlink_to(outside)
        (root / "link").symlink_to(outside)
        entry = storage.entry("link")
        assert entry is not None and entry.kind is Kind.OTHER
        assert {found.name: found.kind for found in storage.list("m")} == {"link": Kind.OTHER}
        assert storage.create("link", b"") is False
        assert storage.publish_folder("link", []) is False
        assert storage.set_aside("link", ".wal/trash/link") == ".wal/trash/link"
        storage.erase("m")
        storage.erase(".wal/trash")
        assert (outside / "x").read_bytes() == b"keep"

    def test_a_scratch_folder_that_is_a_link_is_not_written_to(
        self, storage: LocalStorage, root: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "outside").mkdir()
        (root / ".wal").mkdir()
        (root / ".wal" / "tmp").symlink_to(tmp_path / "outside")
        with pytest.raises(UnsafePathError):
            storage.publish("x", b"", b"", durable=False)
        assert os.listdir(tmp_path / "outside") == []

    @pytest.mark.parametrize("exchanged", [".wal", ".wal/tmp"])
    def test_a_scratch_folder_that_becomes_a_link_between_two_writes_is_not_written_to(
        self, exchanged: str, storage: LocalStorage, root: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "outside" / "tmp").mkdir(parents=True)
        for name in "abc":
            storage.publish(name, b"", b"", durable=False)
        (root / exchanged).rename(root / "aside")
        (root / exchanged).symlink_to(tmp_path / "outside")
        for _ in range(2):
            with pytest.raises(UnsafePathError):
                storage.publish("x", b"", b"", durable=False)
        (root / exchanged).unlink()
        storage.publish("x", b"", b"", durable=False)  # made again
        assert os.listdir(tmp_path / "outside") == ["tmp"] and os.listdir(tmp_path / "outside" / "tmp") == []

    def test_special_files_are_never_opened(self, root: Path) -> None:
        os.mkfifo(root / "fifo")
        with socket.socket(socket.AF_UNIX) as server:
            here = os.open(root, os.O_RDONLY)
            try:
                server.bind(f"/proc/self/fd/{here}/socket")  # the path of a socket is short
            finally:
                os.close(here)
        recorder = Recorder(counted=ALL_CALLS)
        storage = LocalStorage(str(root), posix=recorder)
        for name in ("fifo", "socket"):
            for call in everything_that_takes_a_name(storage, name):
                with pytest.raises(UnsafePathError, match=name):
                    call()
            opened = [call for call in recorder.calls if call.method.startswith("open") and call.path.endswith(name)]
            assert opened == []
            entry = storage.entry(name)
            assert entry is not None and entry.kind is Kind.OTHER
        storage.close()

    def test_a_mount_below_the_root_is_not_entered(self) -> None:
        """/dev/shm is a mount on most systems; a root above it must stop there."""
        if not os.path.ismount("/dev/shm") or not os.access("/dev", os.R_OK):
            pytest.skip("not run: /dev/shm is no mount here")
        storage = LocalStorage("/dev")
        try:
            with pytest.raises(UnsafePathError, match="mounted"):
                storage.list("shm")
            with pytest.raises(UnsafePathError):
                storage.erase("shm")
            entry = storage.entry("shm")
            assert entry is not None and entry.kind is Kind.OTHER
        finally:
            storage.close()

    def test_a_file_that_becomes_a_link_between_look_and_open_is_not_followed(self, root: Path) -> None:
        class Swapping(Posix):
            def open(self, path: str, flags: int, mode: int = 0o666) -> int:
                if path.endswith("/x"):
                    os.unlink(path)
                    os.symlink("/etc/hostname", path)
                return super().open(path, flags, mode)

        (root / "x").write_bytes(b"")
        storage = LocalStorage(str(root), posix=Swapping())
        with pytest.raises(UnsafePathError):
            storage.read("x")
        storage.close()


class TestReading:
    def test_a_read_that_is_cut_short_goes_on_to_the_end(self, root: Path) -> None:
        class Slow(Posix):
            def pread(self, fd: int, length: int, offset: int) -> bytes:
                return super().pread(fd, min(length, 3), offset)

        storage = LocalStorage(str(root), posix=Slow())
        for content in (b"", b"abc", b"abcd", b"0123456789"):
            (root / "x").write_bytes(content)
            assert storage.read("x").data == content
        storage.close()

    def test_a_small_file_is_looked_at_opened_and_read_at_once(self, root: Path) -> None:
        recorder = Recorder(counted=ALL_CALLS)
        storage = LocalStorage(str(root), posix=recorder)
        storage.publish("m/x", b"content", b"att", durable=False)
        recorder.calls.clear()
        assert storage.read("m/x").data == b"content"
        methods = [call.method for call in recorder.calls]
        assert methods == ["lstat", "lstat", "open_read", "fstat", "pread", "getxattr"]
        storage.close()


class TestOrderOfFlushes:
    @pytest.fixture
    def recorder(self) -> Recorder:
        return Recorder()

    @pytest.fixture
    def storage(self, root: Path, recorder: Recorder) -> Iterator[LocalStorage]:
        storage = LocalStorage(str(root), posix=recorder)
        storage.make_folder(".wal/tmp")
        storage.make_folder("m")
        storage.publish("m/x", b"old", b"", durable=False)
        recorder.calls.clear()
        yield storage
        storage.close()

    def steps(self, recorder: Recorder, root: Path) -> list[str]:
        """The calls with paths relative to the root; temporary names become "tmp"."""
        lines = []
        for method, path in recorder.trace():
            relative = os.path.relpath(path, root)
            lines.append(f"{method} {'tmp' if relative.startswith('.wal/tmp/') else relative}")
        return lines

    def test_create_flushes_the_file_before_the_link_and_the_folder_after_it(
        self, storage: LocalStorage, recorder: Recorder, root: Path
    ) -> None:
        assert storage.create("m/1.rec", b"x")
        assert self.steps(recorder, root) == [
            "open tmp", "pwrite tmp", "fdatasync tmp", "link m/1.rec", "fsync m", "unlink tmp",
        ]  # fmt: skip

    def test_create_flushes_every_folder_that_it_made(
        self, storage: LocalStorage, recorder: Recorder, root: Path
    ) -> None:
        assert storage.create("m/a/b/1.rec", b"x")
        steps = self.steps(recorder, root)
        assert steps[steps.index("link m/a/b/1.rec") :] == [
            "link m/a/b/1.rec", "fsync m/a/b", "fsync m/a", "fsync m", "fsync .", "unlink tmp",
        ]  # fmt: skip

    def test_publish_flushes_before_the_rename_only_if_asked(
        self, storage: LocalStorage, recorder: Recorder, root: Path
    ) -> None:
        storage.publish("m/x", b"new", b"att", durable=True)
        durable = self.steps(recorder, root)
        recorder.calls.clear()
        storage.publish("m/x", b"new", b"att", durable=False)
        assert durable == ["open tmp", "pwrite tmp", "setxattr tmp", "fdatasync tmp", "rename m/x"]
        assert self.steps(recorder, root) == ["open tmp", "pwrite tmp", "setxattr tmp", "rename m/x"]

    def test_a_staged_file_is_linked_then_renamed_then_its_second_name_removed(
        self, storage: LocalStorage, recorder: Recorder, root: Path
    ) -> None:
        with storage.stage("staged") as staged:
            staged.write(b"x")
            staged.finish(b"att")
        assert self.steps(recorder, root) == ["open staged", "pwrite staged", "setxattr staged", "fdatasync staged"]
        recorder.calls.clear()
        storage.publish("m/y", Staged("staged"), b"att", durable=True)
        assert self.steps(recorder, root) == ["link tmp", "rename m/y", "unlink tmp"]

    def test_a_shared_source_is_flushed_before_it_is_linked(
        self, storage: LocalStorage, recorder: Recorder, root: Path
    ) -> None:
        storage.stage_existing("m/x", "staged", share=True)
        assert self.steps(recorder, root) == ["fdatasync m/x", "link staged"]

    def test_sync_asks_the_filesystem_once_through_the_oldest_descriptor(
        self, storage: LocalStorage, recorder: Recorder, root: Path
    ) -> None:
        storage.sync(["m/x"])
        assert self.steps(recorder, root) == ["syncfs ."]

    def test_an_unknown_filesystem_gets_every_flush(self, root: Path) -> None:
        class Foreign(Posix):
            def kernel_file(self, path: str) -> bytes:
                return b"1 0 0:1 / / rw - nfs4 server:/x rw\n"

        recorder = Recorder(Foreign())
        storage = LocalStorage(str(root), posix=recorder)
        assert storage.capabilities.append_log is False
        assert "nfs4" in storage.capabilities.reason
        storage.publish("m/x", b"", b"", durable=False)
        storage.publish_folder("m/v", [Publication("m/v/y", b"", b"")])
        storage.make_folder("m/w")
        assert self.steps(recorder, root).count("fdatasync tmp") == 2
        recorder.calls.clear()
        storage.sync(["m/x", "m/v/y", "m/v", "m/gone/z"])
        steps = self.steps(recorder, root)
        assert set(steps) == {"fsync m/x", "fsync m/v/y", "fsync m/v", "fsync m", "fsync ."}
        assert steps[-1] == "fsync ."
        storage.close()

    def test_a_missing_syncfs_becomes_one_flush_a_file(self, root: Path) -> None:
        class Old(Boundary):
            def syncfs(self, fd: int) -> None:
                raise OSError(errno.ENOSYS, "not here")

        recorder = Recorder(Old())
        storage = LocalStorage(str(root), posix=recorder)
        storage.publish("m/x", b"", b"", durable=False)
        recorder.calls.clear()
        storage.sync(["m/x"])
        assert self.steps(recorder, root)[1:] == ["fsync m/x", "fsync m", "fsync ."]
        storage.close()

    def test_a_failed_syncfs_is_reported(self, root: Path) -> None:
        class Broken(Boundary):
            def syncfs(self, fd: int) -> None:
                raise OSError(errno.EIO, "lost")

        storage = LocalStorage(str(root), posix=Broken())
        with pytest.raises(OSError, match="lost"):
            storage.sync([])
        storage.close()

    def test_make_root_is_durable_up_to_what_was_there(self, tmp_path: Path) -> None:
        recorder = Recorder()
        LocalStorage.make_root(str(tmp_path / "a/b"), recorder)
        LocalStorage.make_root(str(tmp_path / "a/b"), recorder)
        synced = {path for method, path in recorder.trace() if method == "fsync"}
        assert synced == {str(tmp_path), str(tmp_path / "a")}
        assert (tmp_path / "a/b").is_dir()

    def test_make_root_makes_all_of_it_if_others_make_the_folders_above_meanwhile(self, tmp_path: Path) -> None:
        class Overtaken(Posix):
            def mkdir(self, path: str) -> None:
                if path == str(tmp_path / "a"):
                    os.mkdir(path)  # another process, between our look at a/b and this call
                super().mkdir(path)

        LocalStorage.make_root(str(tmp_path / "a/b"), Overtaken())
        assert (tmp_path / "a/b").is_dir()

    @pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
    def test_make_root_raises_where_no_folder_can_be_made(self) -> None:
        with pytest.raises(FileNotFoundError):
            LocalStorage.make_root("/proc/far/down")


class TestLinksThatTheSystemRefuses:
    @pytest.mark.parametrize("number", [errno.EXDEV, errno.EMLINK, errno.EPERM])
    def test_content_is_copied_where_it_cannot_be_linked(self, root: Path, number: int) -> None:
        class NoLinks(Posix):
            def link(self, source: str, target: str) -> None:
                raise OSError(number, os.strerror(number))

        storage = LocalStorage(str(root), posix=NoLinks())
        storage.publish("m/x", b"content", b"att", durable=False)
        storage.stage_existing("m/x", "staged", share=True)
        storage.publish("m/y", Staged("staged"), b"new", durable=True)
        assert storage.publish_folder("n", [Publication("n/z", Staged("staged"), b"new")])
        assert (root / "m/y").read_bytes() == (root / "n/z").read_bytes() == b"content"
        assert storage.attribute("staged") == b"att"
        assert storage.attribute("m/y") == b"new"
        assert os.listdir(root / ".wal/tmp") == []
        storage.close()

    def test_a_copy_works_without_the_kernel_s_help(self, root: Path) -> None:
        class Plain(Posix):
            def copy_file_range(self, source: int, target: int, count: int, offset: int) -> int:
                raise OSError(errno.ENOSYS, "not here")

        content = os.urandom(3_000_000)
        storage = LocalStorage(str(root), posix=Plain())
        storage.publish("x", content, b"", durable=False)
        storage.stage_existing("x", "y", share=False)
        assert (root / "y").read_bytes() == content
        storage.close()

    def test_a_link_whose_reply_was_lost_is_a_win(self, root: Path) -> None:
        class Repeating(Posix):
            def link(self, source: str, target: str) -> None:
                super().link(source, target)
                super().link(source, target)

        storage = LocalStorage(str(root), posix=Repeating())
        assert storage.create("x", b"mine") is True
        assert (root / "x").read_bytes() == b"mine"
        assert storage.create("x", b"again") is False
        storage.close()

    def test_a_source_replaced_between_flush_and_link_is_flushed_again(self, root: Path) -> None:
        flushed: list[int] = []

        class Racing(Posix):
            def fdatasync(self, fd: int) -> None:
                super().fdatasync(fd)
                flushed.append(os.fstat(fd).st_ino)
                if len(flushed) == 1:
                    (root / "new").write_bytes(b"new")
                    os.rename(root / "new", root / "x")

        (root / "x").write_bytes(b"old")
        storage = LocalStorage(str(root), posix=Racing())
        storage.stage_existing("x", "staged", share=True)
        assert os.stat(root / "staged").st_ino == flushed[-1] and len(flushed) == 2
        storage.close()

    @pytest.mark.parametrize("call", ["pread", "fstat", "getxattr", "open", "listdir"])
    def test_a_file_that_another_host_replaced_is_opened_again_a_few_times(self, root: Path, call: str) -> None:
        """NFS: the file that was opened is gone, its name leads to another."""
        stale = 0

        def refusing(self: Posix, *arguments: Any, **options: Any) -> Any:
            nonlocal stale
            if stale:
                stale -= 1
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return getattr(Posix, call)(*arguments) if call == "pread" else getattr(Posix, call)(self, *arguments)

        storage = LocalStorage(str(root), posix=type("Nfs", (Posix,), {call: refusing})())
        storage.publish("m/x", b"content", b"attribute", durable=True)
        asked: list[Callable[[], object]] = {
            "pread": [lambda: storage.read("m/x").data == b"content"],
            "fstat": [lambda: storage.read("m/x").data == b"content", lambda: storage.open("m/x").close() is None],
            "getxattr": [lambda: storage.attribute("m/x") == storage.read("m/x").attribute == b"attribute"],
            "open": [lambda: storage.read("m/x").data == b"content", lambda: storage.open("m/x").close() is None],
            "listdir": [lambda: [entry.name for entry in storage.list("m")] == ["x"]],
        }[call]
        for ask in asked:
            stale = 2
            assert ask() and not stale
            stale = 1_000
            with pytest.raises(OSError, match=r"[Ss]tale"):
                ask()
            stale = 0
        storage.close()

    @pytest.mark.parametrize("linked", [True, False])
    @pytest.mark.parametrize("whole", [True, False])
    def test_a_staged_file_that_was_cut_does_not_become_the_file(self, root: Path, linked: bool, whole: bool) -> None:
        class Unlinked(Posix):
            def link(self, source: str, target: str) -> None:
                raise OSError(errno.EPERM, "no links here")

        storage = LocalStorage(str(root), posix=Posix() if linked else Unlinked())
        with storage.stage("staged") as file:
            file.write(b"content")
            file.finish(b"")
        os.truncate(root / "staged", 3)
        with pytest.raises(CutShortError, match=r"3 bytes instead of 7.*staged"):
            if whole:
                storage.publish_folder("m", [Publication("m/x", Staged("staged", 7), b"a")])
            else:
                storage.publish("m/x", Staged("staged", 7), b"a", durable=False)
        assert not (root / "m" / "x").exists() and not os.listdir(root / ".wal" / "tmp")
        storage.publish("m/x", Staged("staged"), b"a", durable=False)
        assert storage.read("m/x").data == b"con", "as large as it may be"
        storage.close()

    def test_a_filesystem_without_attributes_answers_unknown(self, root: Path) -> None:
        class Bare(Posix):
            def getxattr(self, target: int | str, attribute: str) -> bytes:
                raise OSError(errno.ENOTSUP, "none")

            def setxattr(self, target: int | str, attribute: str, value: bytes) -> None:
                raise OSError(errno.ENOTSUP, "none")

        storage = LocalStorage(str(root), posix=Bare())
        assert storage.capabilities.attributes is False
        storage.publish("x", b"1", b"att", durable=True)
        assert storage.read("x").attribute is None
        storage.close()


PROGRAM = """
import sys, time
from wal.storage import LocalStorage
lock = LocalStorage(sys.argv[1]).lock(".wal")
assert lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


class TestLocks:
    @pytest.fixture
    def other_process(self, storage: LocalStorage, root: Path) -> Iterator[subprocess.Popen[str]]:
        storage.make_folder(".wal")
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(root)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        with process:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
            process.kill()

    def test_the_holder_is_named_and_its_death_frees_the_lock(
        self, storage: LocalStorage, other_process: subprocess.Popen[str]
    ) -> None:
        lock = storage.lock(".wal")
        assert lock.acquire(timeout=0) is False
        text = lock.holder()
        assert f"process {other_process.pid} (" in text and "python" in text and "import" not in text
        assert os.uname().nodename in text and "running for" in text and "stopped" not in text
        os.kill(other_process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, other_process.pid, os.WSTOPPED | os.WNOWAIT)
        assert "stopped" in lock.holder()
        os.kill(other_process.pid, signal.SIGCONT)
        other_process.kill()
        assert lock.acquire(timeout=30) is True
        lock.release()
        assert "no process" in lock.holder()

    @pytest.mark.parametrize("explicit", [True, False])
    def test_a_forked_child_leaves_the_lock_to_its_parent(self, storage: LocalStorage, explicit: bool) -> None:
        storage.make_folder(".wal")
        lock = storage.lock(".wal")
        assert lock.acquire()
        done, signal_done = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                if explicit:
                    lock.disown()
                    lock.release()
                    lock.close()
                free = lock.acquire(timeout=0)
                storage.close()
                os.write(signal_done, b"free" if free else b"held")
            finally:
                os._exit(0)
        assert os.read(done, 10) == b"held"
        os.waitpid(child, 0)
        os.close(done)
        os.close(signal_done)
        assert storage.lock(".wal").acquire(timeout=0) is False
        lock.release()
        assert storage.lock(".wal").acquire(timeout=0) is True

    def test_of_two_threads_of_a_child_that_reset_the_storage_one_opens_the_root_anew(self, root: Path) -> None:
        class Slow(Posix):
            """The first descriptor that the child opens is slow to come."""

            def __init__(self) -> None:
                self.before: Callable[[], None] | None = None
                self.closed: list[int] = []

            def open(self, path: str, flags: int, mode: int = 0o666) -> int:
                before, self.before = self.before, None
                if before is not None:
                    before()
                return super().open(path, flags, mode)

            def close(self, fd: int) -> None:
                self.closed.append(fd)
                super().close(fd)

        posix = Slow()
        storage = LocalStorage(root, posix)
        child = os.fork()
        if child == 0:
            try:
                second = threading.Thread(target=storage.reset_after_fork)

                def meanwhile() -> None:
                    second.start()
                    second.join(0.2)  # it waits, or it would open the root as well

                posix.before = meanwhile
                storage.reset_after_fork()
                second.join()
                storage.close()
                os._exit(0 if len(posix.closed) == len(set(posix.closed)) == 2 else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        storage.close()

    def test_a_lock_file_that_was_replaced_is_locked_anew(self, storage: LocalStorage, root: Path) -> None:
        storage.make_folder(".wal")
        old, new = storage.lock(".wal/apply"), storage.lock(".wal/apply")
        assert old.acquire()
        old.release()
        (root / ".wal/apply").unlink()
        assert new.acquire()
        assert old.acquire(timeout=0) is False  # its descriptor is of the file that is gone
        new.release()
        assert old.acquire(timeout=0) is True

    def test_a_lock_on_a_removed_folder_is_not_got(self, storage: LocalStorage, root: Path) -> None:
        storage.make_folder(".wal")
        lock = storage.lock(".wal")
        assert lock.acquire()
        lock.release()
        (root / ".wal").rmdir()
        with pytest.raises(FileNotFoundError):
            lock.acquire(timeout=0)
        storage.make_folder(".wal")
        assert lock.acquire(timeout=0) is True

    def test_a_failing_flock_raises_the_system_s_error_and_frees_the_object(self, root: Path) -> None:
        class NoLocks(Posix):
            broken = True

            def flock(self, fd: int, *, shared: bool, block: bool) -> bool:
                if self.broken:
                    raise OSError(errno.ENOLCK, "no locks")
                return super().flock(fd, shared=shared, block=block)

        posix = NoLocks()
        storage = LocalStorage(str(root), posix=posix)
        lock = storage.lock("")
        with pytest.raises(OSError, match="no locks"):
            lock.acquire()
        posix.broken = False
        assert lock.acquire(timeout=0) is True
        storage.close()

    def test_waiting_uses_the_clock_and_keeps_its_deadline(self, storage: LocalStorage, root: Path) -> None:
        from wal.clock import Clock

        class Stepping(Clock):
            now = 0.0
            pauses: list[float] = []  # noqa: RUF012

            def monotonic(self) -> float:
                return self.now

            def sleep(self, seconds: float) -> None:
                self.pauses.append(seconds)
                self.now += seconds

        clock = Stepping()
        waiting = LocalStorage(str(root), clock=clock)
        assert storage.lock("").acquire()
        held = storage.lock("x")
        assert held.acquire()
        assert waiting.lock("x").acquire(timeout=1.0) is False
        assert clock.now == pytest.approx(1.0)
        assert max(clock.pauses) <= 2e-3 and clock.pauses[0] <= 50e-6
        waiting.close()

    def test_errors_of_the_real_flock_are_system_errors(self) -> None:
        posix = Posix()
        for call in (lambda: posix.flock(1 << 20, shared=False, block=False), lambda: posix.funlock(1 << 20)):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == errno.EBADF

    def test_two_threads_wait_for_each_other_on_one_object(self, storage: LocalStorage) -> None:
        lock = storage.lock("")
        assert lock.acquire()
        got: list[bool] = []
        thread = threading.Thread(target=lambda: got.append(lock.acquire(timeout=0.01)))
        thread.start()
        thread.join()
        assert got == [False]


class TestKernelTables:
    def test_the_longest_and_latest_mount_counts(self) -> None:
        table = (
            b"1 0 8:1 / / rw,relatime - ext4 /dev/a rw\n"
            b"2 1 0:5 / /mnt/a\\040b rw master:1 - nfs4 s:/x rw\n"
            b"3 1 0:6 / /mnt rw - xfs /dev/b rw\n"
            b"4 1 0:7 / /mnt ro - tmpfs t rw\n"
            b"broken\n"
        )
        for path, expected in {"/x": "ext4", "/mnt/a b/c": "nfs4", "/mnt/c": "tmpfs", "/mntx": "ext4"}.items():
            mount = find_mount(table, path)
            assert mount is not None and mount.type == expected
            assert mount.read_only is (expected == "tmpfs")

    def test_waiters_and_other_locks_are_no_holders(self) -> None:
        status = os.stat_result((0, 77, os.makedev(8, 1), 1, 0, 0, 0, 0, 0, 0))
        table = (
            b"1: FLOCK  ADVISORY  WRITE 10 08:01:77 0 EOF\n"
            b"1: -> FLOCK  ADVISORY  WRITE 11 08:01:77 0 EOF\n"
            b"2: POSIX  ADVISORY  WRITE 12 08:01:77 0 EOF\n"
            b"3: FLOCK  ADVISORY  WRITE 13 08:02:77 0 EOF\n"
        )
        assert lock_holders(table, status) == [10]
        elsewhere = os.stat_result((0, 77, os.makedev(9, 9), 1, 0, 0, 0, 0, 0, 0))
        assert lock_holders(table, elsewhere) == [10, 13]

    def test_a_read_only_mount_is_not_writable(self, root: Path) -> None:
        class ReadOnly(Posix):
            def kernel_file(self, path: str) -> bytes:
                return b"1 0 0:1 / / ro - ext4 /dev/a rw\n"

        capabilities = LocalStorage(str(root), posix=ReadOnly()).capabilities
        assert (capabilities.writable, capabilities.append_log) == (False, True)
        assert "read-only" in capabilities.reason

    def test_an_unreadable_table_allows_no_append_log(self, root: Path) -> None:
        class Blind(Posix):
            def kernel_file(self, path: str) -> bytes:
                raise FileNotFoundError(path)

        storage = LocalStorage(str(root), posix=Blind())
        assert storage.capabilities.append_log is False and storage.capabilities.reason
        assert "unknown" in storage.lock("").holder()


class TestOpening:
    def test_paths_and_file_urls_open_local_roots(self, root: Path) -> None:
        for url in (str(root), f"file://{root}", f"local://{root}", f"file://localhost{root}"):
            opened = open_storage(url)
            assert opened.url == str(root)
            opened.close()

    def test_what_is_no_local_root_is_refused(self, root: Path) -> None:
        (root / "file").write_bytes(b"")
        with pytest.raises(UnsupportedError, match="nosuch"):
            open_storage("nosuch://bucket/x")
        with pytest.raises(TypeError, match="endpoint"):
            open_storage(str(root), {"endpoint": "x"})
        with pytest.raises(ValueError, match="other host"):
            open_storage("file://elsewhere/x")
        with pytest.raises(FileNotFoundError):
            open_storage(str(root / "none"))
        with pytest.raises(NotADirectoryError):
            open_storage(str(root / "file"))

    def test_sources_are_files_links_to_files_and_urls(self, tmp_path: Path) -> None:
        import fsspec

        path = tmp_path / "a b.bin"
        path.write_bytes(b"source")
        (tmp_path / "link").symlink_to(path)
        fsspec.filesystem("memory").pipe_file("/source-test/x", b"remote")
        for source in (path, str(path), tmp_path / "link", path.as_uri()):
            with open_source(source) as file:
                assert file.read() == b"source"
        with open_source("memory://source-test/x") as file:
            assert file.read() == b"remote"

    def test_special_files_and_folders_are_no_sources(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(UnsafePathError):
            open_source(tmp_path / "fifo")
        with pytest.raises(UnsafePathError):
            open_source("/dev/zero")
        with pytest.raises(IsADirectoryError):
            open_source(tmp_path)
        with pytest.raises(FileNotFoundError):
            open_source(tmp_path / "none")
