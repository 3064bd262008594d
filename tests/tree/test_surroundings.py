"""What surrounds a tree goes wrong: permissions, space, descriptors, the root itself, links, special files, locks."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import wal
from metatree import (
    ApplyPendingWarning,
    InvalidLocationError,
    Metatree,
    MetatreeError,
    ReadOnlyError,
    UnavailableError,
)
from tests.tree.conftest import assert_clean
from wal.testing import MUTATING_CALLS, Boundary, Call

LEVELS = ("model", "version")
LARGE = bytes(range(256)) * 800  # staged


@pytest.fixture
def root(fast_path: Path) -> Path:
    """A closed tree: m/v1 with two blobs, m/v2 with a directory blob."""
    folder = fast_path / "d"
    folder.mkdir()
    (folder / "inner").write_bytes(b"inner")
    with Metatree(fast_path / "tree", LEVELS) as tree:
        tree.put("m/v1", b"small", name="s")
        tree.put("m/v1", LARGE, name="l")
        tree.put("m/v2", folder, recursive=True)
        tree.update("m", active="v1")
    return fast_path / "tree"


def in_another_process(code: str, *arguments: str) -> str:
    """Run `code`; what it printed. Its exit must be clean: it asserts for itself."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- a filesystem that cannot be written ------------------------------------------------------------------------------


READER = """
    import os, sys
    import hashlib, json, portalocker  # before the rights to read the libraries may be gone
    from metatree import Metatree, ReadOnlyError, MetatreeError
    if os.geteuid() == 0:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
    root = sys.argv[1]
    for make in (lambda: Metatree(root), lambda: Metatree(root, ("model", "version"))):
        try:
            make()
        except ReadOnlyError as error:
            assert "read_only=True" in str(error), error
        else:
            raise AssertionError("a tree that cannot be written was opened for writing")
    with Metatree(root, read_only=True) as tree:
        assert dict(tree.find("m").metadata) == {"active": "v1"}
        assert b"".join(tree.get("m/<active>/s")) == b"small"
        assert len(b"".join(tree.get("m/v1/l"))) == 204800
        assert tree.children("m") == ["v1", "v2"] and tree.list("m/v2") == ["d"]
        assert tree.check(deep=True).ok
        try:
            tree.update("m", a=1)
        except ReadOnlyError:
            pass
        else:
            raise AssertionError("a reader wrote")
    print("done")
"""


def protect(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.fixture
def reachable(root: Path) -> Iterator[Path]:
    """A tree that any user may read and none but root may write."""
    root.parent.chmod(0o755)
    protect(root)
    yield root
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_reader_needs_no_write_permission(reachable: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in reachable.rglob("*")}
    assert in_another_process(READER, str(reachable)) == "done\n"
    assert {p: p.stat().st_mtime_ns for p in reachable.rglob("*")} == before


def test_a_reader_without_permission_sees_what_is_only_in_the_log_yet(root: Path) -> None:
    root.parent.chmod(0o755)
    with Metatree(root, apply="background") as tree:
        tree.put("m/v3", b"fresh", name="s")
        out = in_another_process(
            """
            import os, sys
            import hashlib, json, portalocker
            from metatree import Metatree
            if os.geteuid() == 0:
                os.setgroups([]); os.setgid(65534); os.setuid(65534)
            with Metatree(sys.argv[1], read_only=True) as reader:
                print(b"".join(reader.get("m/v3/s")).decode())
            """,
            str(root),
        )
        assert out == "fresh\n"


class Mount(wal.Posix):
    """As if the root were mounted read-only."""

    def kernel_file(self, path: str) -> bytes:
        if path == "/proc/self/mountinfo":
            return b"1 1 0:1 / / ro - ext4 none ro\n"
        return super().kernel_file(path)


def test_a_read_only_mount_is_for_readers_and_says_so(root: Path) -> None:
    with pytest.raises(ReadOnlyError, match="mounted read-only"):
        Metatree(wal.LocalStorage(str(root), posix=Mount()))
    with Metatree(wal.LocalStorage(str(root), posix=Mount()), read_only=True) as tree:
        assert tree.list("m/v1") == ["l", "s"] and tree.check(deep=True).ok


class Reading(Boundary):
    """Refuses every call that changes something, as a reader's filesystem would."""

    def around(self, call: Call, run: Callable[[], Any], tear: Callable[[], Any] | None) -> Any:
        if call.number and call.method != "fdatasync":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), call.path)
        return run()


def test_a_reader_makes_no_changing_call_at_all(root: Path) -> None:
    boundary = Reading(counted=MUTATING_CALLS)
    with Metatree(wal.LocalStorage(str(root), posix=boundary), read_only=True) as tree:
        for node in tree.walk():
            _ = node.metadata, node.list()
        assert b"".join(tree.get("m/v1/l")) == LARGE
        assert tree.check(deep=True).ok
        assert tree.recover(dry_run=True).clean


# --- space, quota, permission in mid-run ------------------------------------------------------------------------------


class Switch(Boundary):
    """Works until it is switched: then every growing call fails with one error."""

    def __init__(self) -> None:
        super().__init__(counted=MUTATING_CALLS)
        self.error = 0

    def around(self, call: Call, run: Callable[[], Any], tear: Callable[[], Any] | None) -> Any:
        growing = call.method in {"open", "pwrite", "copy_file_range", "mkdir", "link", "rename", "setxattr"}
        if self.error and call.number and growing:
            raise OSError(self.error, os.strerror(self.error), call.path)
        return run()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_storage_that_refuses_writes_in_mid_run_is_unavailable_and_what_was_there_stays(
    number: int, root: Path
) -> None:
    switch = Switch()
    tree = Metatree(wal.LocalStorage(str(root), posix=switch))
    tree.update("m", before=1)
    head = tree.lsn
    switch.error = number
    for call in (
        lambda: tree.put("m/v1", b"x", name="n"),
        lambda: tree.put("m/v1", LARGE, name="n"),
        lambda: tree.update("m", a=1),
        lambda: tree.copy("m/v1/l", "m/v1/n"),
        lambda: tree.delete("m/v2", recursive=True),
    ):
        with pytest.raises(MetatreeError) as caught:
            call()
        assert not isinstance(caught.value, InvalidLocationError)
        assert isinstance(caught.value.__cause__ or caught.value, Exception)
    assert b"".join(tree.get("m/v1/l")) == LARGE  # reads go on
    assert dict(tree.find("m").metadata) == {"active": "v1", "before": 1}
    switch.error = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ApplyPendingWarning)
        tree.close()
    with Metatree(root) as again:
        assert again.lsn == head and not again.exists("m/v1/n")
        again.update("m", after=1)
    assert_clean(root)


class Quota(Boundary):
    """Stands in for a small disk where none can be mounted: so many bytes can be written, then no more."""

    def __init__(self, free: float) -> None:
        super().__init__(counted=MUTATING_CALLS)
        self.free = free

    def around(self, call: Call, run: Callable[[], Any], tear: Callable[[], Any] | None) -> Any:
        if call.method in ("pwrite", "copy_file_range"):
            size = len(call.arguments[1]) if call.method == "pwrite" else 1 << 19  # type: ignore[arg-type]
            if size > self.free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), call.path)
            self.free -= size
        return run()


@pytest.fixture(params=["mounted", "counted"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Quota, Callable[[], None]]]:
    """A folder on a disk of 40 MB, and what makes the disk larger. A real one where this user may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)]
    mounted = request.param == "mounted" and subprocess.run(command, capture_output=True).returncode == 0
    quota = Quota(float("inf") if mounted else 40e6)

    def enlarge() -> None:
        quota.free = float("inf")
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=120m", str(folder)], check=True, capture_output=True)

    yield folder, quota, enlarge
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_loses_nothing_and_the_tree_goes_on_when_there_is_space(
    small_disk: tuple[Path, Quota, Callable[[], None]],
) -> None:
    folder, quota, enlarge = small_disk
    (folder / "tree").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ApplyPendingWarning)
        tree = Metatree(wal.LocalStorage(str(folder / "tree"), posix=quota), LEVELS)
        stored: list[str] = []
        failed = 0
        for number in range(400):
            location = f"m/v{number % 3}"
            try:
                tree.put(location, os.urandom(1 << 19 if number % 2 else 2_000), name=f"b{number}")
                stored.append(f"{location}/b{number}")
            except UnavailableError as error:
                failed += 1
                assert "No space left" in str(error)
                if failed > 3:
                    break
        assert failed and len(stored) > 20
        for location in stored:
            assert len(b"".join(tree.get(location))) in (2_000, 1 << 19)
        assert sorted(f"m/v{n}/{b}" for n in range(3) for b in tree.list(f"m/v{n}")) == sorted(stored)
        enlarge()
        tree.put("m/v9", b"there is room again", name="b")
        tree.close()
    with Metatree(folder / "tree") as tree:
        assert sorted(f"m/v{n}/{b}" for n in range(3) for b in tree.list(f"m/v{n}")) == sorted(stored)
        assert tree.exists("m/v9/b")
    assert_clean(folder / "tree")


def test_no_descriptors_left_is_unavailable_and_passes(root: Path) -> None:
    with Metatree(root) as tree:
        tree.update("m", before=1)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        held = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        try:
            while True:
                try:
                    held.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    break
            head = tree.lsn
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ApplyPendingWarning)
                with pytest.raises(UnavailableError, match="Too many open files"):
                    tree.put("m/v1", LARGE, name="n")
                with pytest.raises(UnavailableError, match="Too many open files"):
                    tree.get("m/v1/l")
                with pytest.raises(MetatreeError):
                    Metatree(root)
                assert tree.lsn == head
        finally:
            for descriptor in held:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        tree.put("m/v1", LARGE, name="n")
        assert b"".join(tree.get("m/v1/n")) == LARGE
    assert_clean(root)


def test_descriptors_are_given_back(root: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    with Metatree(root) as tree:
        tree.put("m/v1", LARGE, name="warm")
        before = count()
        for number in range(20):
            tree.put("m/v1", LARGE, name=f"n{number}")
            b"".join(tree.get(f"m/v1/n{number}"))
            tree.open(f"m/v1/n{number}").close()
            tree.get("m/v1/s")  # a generator nobody reads
            with pytest.raises(MetatreeError):
                tree.put("m/v1", LARGE, name="warm")
        assert count() <= before + 1
    after = count()
    for _ in range(5):
        with Metatree(root) as tree:
            tree.update("m", n=_)
        with pytest.raises(MetatreeError):
            Metatree(root, ("other",))
    assert count() == after


# --- the root goes away -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_a_root_that_goes_away_while_open_is_an_error_and_is_not_made_again(
    how: str, root: Path, fast_path: Path
) -> None:
    tree = Metatree(root)
    tree.find("m")
    if how == "renamed":
        root.rename(fast_path / "elsewhere")
    else:
        shutil.rmtree(root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ApplyPendingWarning)
        for call in (
            lambda: tree.put("m/v1", LARGE, name="n"),
            lambda: tree.get("m/v1/l"),
            lambda: tree.list("m/v2"),
            tree.check,
        ):
            with pytest.raises(MetatreeError):
                call()
        with suppress(MetatreeError):
            tree.close()
    assert not root.exists()
    if how == "renamed":
        assert_clean(fast_path / "elsewhere")


# --- links and special files inside -----------------------------------------------------------------------------------


def links(fast_path: Path) -> dict[str, Callable[[Path], object]]:
    outside = fast_path / "outside"
    if not outside.exists():
        (outside / "below").mkdir(parents=True)
        (outside / "secret").write_bytes(b"not of this tree")
        (outside / "metadata.json").write_bytes(b'{"a": 1}')
    return {
        "to a file outside": lambda p: p.symlink_to(outside / "secret"),
        "to a folder outside": lambda p: p.symlink_to(outside),
        "to a file inside": lambda p: p.symlink_to(fast_path / "tree/m/v1/s"),
        "to a folder inside": lambda p: p.symlink_to(fast_path / "tree/m/v1"),
        "dangling": lambda p: p.symlink_to(fast_path / "nowhere"),
        "to itself": lambda p: p.symlink_to(p),
        "FIFO": os.mkfifo,  # to open one would wait for ever
        "socket": bind,
    }


def bind(path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
        server.close()


KINDS = ["to a file outside", "to a folder outside", "to a file inside", "to a folder inside", "dangling", "to itself",
         "FIFO", "socket"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_or_special_file_as_a_blob_is_neither_followed_nor_listed_nor_overwritten(
    kind: str, root: Path, fast_path: Path
) -> None:
    place = root / "m/v1/trap"
    links(fast_path)[kind](place)
    before = os.lstat(place)
    with Metatree(root) as tree:
        for call in (
            lambda: tree.get("m/v1/trap"),
            lambda: tree.get("m/v1/trap", fast_path / "out"),
            lambda: tree.open("m/v1/trap"),
            lambda: tree.get("m/v1/trap/secret"),
            lambda: tree.get("m/v1/trap", fast_path / "out", recursive=True),
        ):
            with pytest.raises(MetatreeError):
                call()
        assert tree.list("m/v1") == ["l", "s"]
        assert tree.children("m/v1") == []
        report = tree.check(deep=True)
        assert [f.path for f in report.problems] == ["m/v1/trap"]
        assert "link or special file" in report.problems[0].reason
        assert not any(f.path.startswith("m/v1/trap/") for f in (*report.problems, *report.notes))
    assert os.lstat(place).st_ino == before.st_ino
    assert not (fast_path / "out").exists()
    place.unlink()
    assert_clean(root)


@pytest.mark.parametrize("kind", ["to a folder outside", "to a folder inside", "dangling", "FIFO"])
@pytest.mark.parametrize("where", ["m/v1", "m", "m/v1/metadata.json", "metadata.json"])
def test_a_link_or_special_file_in_place_of_a_node_is_refused_by_every_verb_and_by_check_and_recovery(
    where: str, kind: str, root: Path, fast_path: Path
) -> None:
    place, aside = root / where, fast_path / "aside"
    place.rename(aside)
    links(fast_path)[kind](place)
    outside = sorted((fast_path / "outside").rglob("*"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ApplyPendingWarning)
        with Metatree(root) as tree:
            for call in (
                lambda: tree.find("m/v1").metadata,
                lambda: tree.update("m/v1", a=1),
                lambda: tree.put("m/v1", b"x", name="secret", force=True),
                lambda: tree.put("m/v1", LARGE, name="secret", force=True),
            ):
                with pytest.raises(MetatreeError):
                    call()
            assert not tree.check().ok
            assert tree.lsn == 4
    assert sorted((fast_path / "outside").rglob("*")) == outside
    assert (fast_path / "outside/secret").read_bytes() == b"not of this tree"
    assert (fast_path / "outside/metadata.json").read_bytes() == b'{"a": 1}'
    place.unlink()
    aside.rename(place)
    assert_clean(root)


def test_recovery_writes_through_no_link(root: Path, fast_path: Path) -> None:
    """The log names m/v3, and its folder was exchanged for a link while nobody had the tree open."""
    links(fast_path)
    with Metatree(root) as tree:
        tree.put("m/v3", b"x", name="secret")
        tree.flush()
        copy = fast_path / "copy"
        shutil.copytree(root, copy, symlinks=True)
    shutil.rmtree(copy / "m/v3")
    (copy / "m/v3").symlink_to(fast_path / "outside")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ApplyPendingWarning)
        with suppress(MetatreeError), Metatree(copy) as tree:
            tree.check()
    assert (fast_path / "outside/secret").read_bytes() == b"not of this tree"
    assert sorted(p.name for p in (fast_path / "outside").iterdir()) == ["below", "metadata.json", "secret"]


@pytest.mark.parametrize("name", [".wal", ".metatree", ".lock"])
def test_a_link_in_place_of_an_engine_file_is_refused_and_not_written_through(
    name: str, root: Path, fast_path: Path
) -> None:
    (root / name).rename(fast_path / "aside")
    (root / name).symlink_to(fast_path / "aside")
    before = {p.name: p.read_bytes() for p in [fast_path / "aside"] if p.is_file()}
    for read_only in (False, True):
        try:
            Metatree(root, read_only=read_only).close()
        except MetatreeError:
            continue
        assert name == ".lock"  # no lock of ours: whoever put a link there keeps it
    assert {p.name: p.read_bytes() for p in [fast_path / "aside"] if p.is_file()} == before


def test_the_root_itself_may_be_reached_through_a_link(root: Path, fast_path: Path) -> None:
    (fast_path / "link").symlink_to(root)
    with Metatree(fast_path / "link") as tree:
        tree.update("m", through="a link")
        assert tree.check(deep=True).ok
    assert_clean(root)


# --- locks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["apply", "alive"])
def test_a_lock_file_deleted_while_held_lets_nobody_in_beside_its_holder(name: str, root: Path) -> None:
    first = Metatree(root)
    first.update("m", n=0)
    (root / ".wal" / name).unlink(missing_ok=True)
    second = Metatree(root)
    for number in range(10):
        first.update("m", {f"a{number}": number})
        second.update("m", {f"b{number}": number})
        second.put("m/v1", str(number).encode(), name="n", force=True)
        first.put("m/v1", str(number).encode(), name="n", force=True)
    assert first.lsn == second.lsn
    first.close()
    second.close()
    with Metatree(root) as tree:
        metadata = tree.find("m").metadata
        assert all(metadata[f"{c}{n}"] == n for c in "ab" for n in range(10))
    assert_clean(root)


def test_an_unknown_keyword_of_a_local_root_is_refused_so_that_a_typo_is_no_option(fast_path: Path) -> None:
    for keywords in ({"aply": "background"}, {"endpoint_url": "x"}, {"storage_options": {"key": "x"}}):
        with pytest.raises(TypeError, match=r"aply|endpoint_url|key"):
            Metatree(fast_path / "tree", LEVELS, **keywords)  # type: ignore[arg-type]
        assert not (fast_path / "tree").exists()
    for keywords in ({"apply": "later"}, {"consistency": "weak"}, {"consistency": -1}, {"apply": None}):
        with pytest.raises(ValueError, match=next(iter(keywords))):
            Metatree(fast_path / "tree", LEVELS, **keywords)  # type: ignore[arg-type]
        assert not (fast_path / "tree").exists()
