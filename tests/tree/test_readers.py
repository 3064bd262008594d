"""Readers: committed states only, never a mix; no lock, no write permission, no repair."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

import wal
from metatree import InvalidLocationError, Metatree, NodeNotFoundError, ReadOnlyError
from metatree.errors import MetatreeError
from tests.tree.conftest import LEVELS, assert_clean
from wal.storage.local import LocalStorage
from wal.testing import ALL_CALLS, Boundary, Call

REPOSITORY = Path(__file__).resolve().parents[2]
T = TypeVar("T")


def content(tree: Metatree, location: str) -> bytes:
    return b"".join(tree.get(location))


def start(script: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, **options
    )


def listing(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Everything below a folder, with what any change of it would change."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            data = b"" if name in folders else Path(path).read_bytes()
            found[path] = (status.st_ino, status.st_mtime_ns, status.st_mode, data)
    return found


@pytest.fixture
def root(fast_path: Path) -> Iterator[Path]:
    yield fast_path / "tree"
    assert_clean(fast_path / "tree")


# --- a writer flips `active`, readers follow it ---------------------------------------------------------------------

WRITER = """
import sys
from metatree import Metatree
root, apply = sys.argv[1:]
tree = Metatree(root, apply=apply)
print("ready", flush=True)
sys.stdin.readline()
n = 0
import threading
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
while not stop.is_set():
    n += 1
    with tree.transaction():
        tree.put(f"m/v{n}", f"v{n}".encode(), name=f"file-of-v{n}")
        tree.put(f"m/v{n}", f"v{n}".encode() * (30_000 if n % 8 == 0 else 1), name="large")
        tree.update(f"m/v{n}", model_file=f"file-of-v{n}", version=f"v{n}")
        tree.update("m", active=f"v{n}")
        tree.delete(f"m/v{n - 1}", recursive=True)
    if n % 50 == 0:
        tree.checkpoint()
tree.close()
print(n)
"""
READER = """
import sys
from itertools import count
from metatree import Metatree
root, times, read_only = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "read-only"
tree = Metatree(root, read_only=read_only)
print("ready", flush=True)
sys.stdin.readline()
seen = []
last = 0
for turn in count():
    if turn >= times and len(set(seen)) > 10:  # with fewer states they would mean nothing
        break
    if turn % 100 == 99:  # cold caches as well
        tree.close()
        tree = Metatree(root, read_only=read_only)
    if turn % 4 == 3:
        got = b"".join(tree.get("m/<active>/large"))
        version = b"v" + got.split(b"v")[1]
        assert got == version * (len(got) // len(version)), got[:50]
        got = version
    elif turn % 4 == 2:
        with tree.open("m/<active>/<model_file>") as file:
            got = file.read()
    else:  # <model_file> is a key of the version and names it: a mix of two states would find no such file
        got = b"".join(tree.get("m/<active>/<model_file>"))
    number = int(got[1:])
    assert number >= last, f"back from v{last} to v{number}"
    last = number
    seen.append(number)
    children = tree.children("m")
    assert len(children) == 1 and int(children[0][1:]) >= last, (children, last)
tree.close()
print(len(set(seen)))
"""


@pytest.mark.parametrize("apply", ["sync", "background"])
def test_ten_thousand_reads_through_a_flipping_reference_never_fail_and_never_mix(root: Path, apply: str) -> None:
    times = 1_250  # each of four readers, in each mode: 10,000 in all
    with Metatree(root, LEVELS) as tree:
        tree.put("m/v0", b"v0", name="file-of-v0")
        tree.put("m/v0", b"v0", name="large")
        tree.update("m/v0", model_file="file-of-v0")
        tree.update("m", active="v0")
    writer = start(WRITER, root, apply)
    readers = [start(READER, root, times, "read-only" if n % 2 else "writer") for n in range(4)]
    everybody = [writer, *readers]
    for process in everybody:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in everybody:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    seen = [int(reader.communicate()[0] or -1) for reader in readers]
    flips = int(writer.communicate("stop\n")[0])
    assert [process.returncode for process in everybody] == [0] * 5
    assert min(flips, *seen) > 10


# --- what is known already ------------------------------------------------------------------------------------------


class Looks(Boundary):
    """Keeps every call that asks the system for something."""

    def __init__(self) -> None:
        super().__init__(counted=ALL_CALLS)
        self.calls: list[tuple[str, str]] = []

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        self.calls.append((call.method, Path(call.path).name))
        return run()


def test_a_warm_find_and_its_metadata_cost_one_look_at_the_head_each(root: Path) -> None:
    looks = Looks()
    root.mkdir()
    with Metatree(LocalStorage(str(root), posix=looks), LEVELS) as tree:
        tree.put("m/v1", b"1", name="b")
        tree.update("m/v1", auc=0.93)
        tree.update("m", active="v1")
        assert tree.find("m/<active>").metadata == {"auc": 0.93}
        looks.calls.clear()
        node = tree.find("m/<active>")
        assert node.path == "m/v1" and looks.calls == [("pread", "head")]
        assert node.metadata["auc"] == 0.93 and looks.calls == [("pread", "head")] * 2


def test_what_is_known_is_forgotten_with_the_commit_that_changes_it(root: Path) -> None:
    with Metatree(root, LEVELS) as writer, Metatree(root) as other, Metatree(root, read_only=True) as reader:
        for tree in (writer, other):
            writer.put("m/v1", b"1", name="b")
            writer.put("m/v2", b"2", name="b")
            for version in ("v1", "v2", "v1"):
                tree.update("m", active=version)
                tree.update(f"m/{version}", chosen=version)
                for asked in (writer, other, reader):
                    assert asked.find("m/<active>").path == f"m/{version}"
                    assert asked.find("m/<active>").metadata["chosen"] == version
                    assert asked.find("m/<active>").metadata["chosen"] == version
            tree.unset("m", "active")
            for asked in (writer, other, reader):
                with pytest.raises(InvalidLocationError, match="has no key 'active'"):
                    asked.find("m/<active>")
                assert asked.find("m/v1").metadata["chosen"] == "v1"
            tree.delete("m", recursive=True)
            for asked in (writer, other, reader):
                with pytest.raises(NodeNotFoundError):
                    asked.find("m/v1")


def test_a_transaction_finds_its_own_state_and_not_what_is_known_outside(root: Path) -> None:
    with Metatree(root, LEVELS) as tree:
        tree.put("m/v1", b"1", name="b")
        tree.update("m/v1", n=1)
        assert tree.find("m/v1").metadata["n"] == 1
        with tree.transaction():
            tree.update("m/v1", n=2)
            assert tree.find("m/v1").metadata["n"] == 2
            tree.delete("m/v1", recursive=True)
            with pytest.raises(NodeNotFoundError):
                tree.find("m/v1")
        tree.put("m/v1", b"1", name="b")
        assert dict(tree.find("m/v1").metadata) == {}


# --- files first, log after (E10) -----------------------------------------------------------------------------------


class Meanwhile(Boundary):
    """Lets something happen right after one call for a file of the tree, before the log is looked at again."""

    def __init__(self, after: int) -> None:
        super().__init__(counted=ALL_CALLS)
        self.happen: Callable[[], None] | None = None
        self.calls: list[str] = []
        self._after = after

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        try:
            return run()
        finally:
            if self.happen is not None and "/.wal" not in call.path:
                self.calls.append(f"{call.method} {call.path}")
                if len(self.calls) > self._after:
                    happen, self.happen = self.happen, None
                    happen()


def flip(writer: Metatree, n: int) -> None:
    with writer.transaction():
        writer.put(f"m/v{n}", f"v{n}".encode(), name=f"file-of-v{n}")
        writer.update(f"m/v{n}", model_file=f"file-of-v{n}")
        writer.update("m", active=f"v{n}")
        if n > 1:
            writer.delete(f"m/v{n - 1}", recursive=True)


QUESTIONS: dict[str, Callable[[Metatree], tuple[Any, Callable[[int], Any]]]] = {
    "get": lambda tree: (content(tree, "m/<active>/<model_file>"), lambda n: f"v{n}".encode()),
    "open": lambda tree: (tree.open("m/<active>/<model_file>").read(), lambda n: f"v{n}".encode()),
    "find": lambda tree: (tree.find("m/<active>").path, lambda n: f"m/v{n}"),
    "list": lambda tree: (tree.list("m/<active>"), lambda n: [f"file-of-v{n}"]),
    "children": lambda tree: (tree.children("m"), lambda n: [f"v{n}"]),
    "exists": lambda tree: (tree.exists("m/<active>/<model_file>"), lambda n: True),
    "metadata": lambda tree: (dict(tree.find("m").metadata), lambda n: {"active": f"v{n}"}),
}


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
@pytest.mark.parametrize("flips", [1, 2], ids=["one commit", "two commits"])
@pytest.mark.parametrize("trimmed", [False, True], ids=["in the log", "trimmed"])
@pytest.mark.parametrize("read_only", [True, False], ids=["read-only", "writer"])
def test_a_commit_between_any_two_reads_of_a_cold_reader_is_seen_whole_or_not_at_all(
    root: Path, question: str, flips: int, trimmed: bool, read_only: bool
) -> None:
    writer = Metatree(root, LEVELS)
    n = 1
    flip(writer, n)

    def commit() -> None:
        nonlocal n
        for _ in range(flips):
            n += 1
            flip(writer, n)
        if trimmed:
            writer.checkpoint()

    interleaved = 0
    while True:  # a commit after the first call to the system that the question makes, after the second, ...
        before = n
        writer.checkpoint()  # so that the reader has to read the files, not only the log
        boundary = Meanwhile(after=interleaved)
        reader = Metatree(wal.LocalStorage(str(root), boundary), read_only=read_only)
        boundary.happen = commit
        answer, right = QUESTIONS[question](reader)
        over, boundary.happen = boundary.happen is not None, None
        reader.close()
        allowed = [right(version) for version in range(before, n + 1)]
        assert answer in allowed, f"{answer} is none of {allowed}; the commit came after {boundary.calls}"
        if over:  # the question makes no more calls
            break
        interleaved += 1
    assert interleaved >= 2, "nothing was interleaved"
    writer.close()


@pytest.mark.parametrize("inside", [False, True], ids=["a call", "a transaction"])
def test_the_keys_of_a_large_node_are_of_one_state_though_its_file_is_ahead_of_what_the_reader_knows(
    root: Path, inside: bool
) -> None:
    writer = Metatree(root, LEVELS, apply="background")
    writer._engine.committer.stop()  # it applies when it is told to
    writer.update((), filler="f" * 20_000, one=0, two=0, three=0)
    n = after = 0
    over = False
    while not over:
        writer.flush()
        writer.checkpoint()
        n += 2
        writer.update((), one=n, two=n)  # a record of changes, to be laid over the file
        boundary = Meanwhile(after=after)
        reader = Metatree(wal.LocalStorage(str(root), boundary), apply="background")
        reader._engine.committer.stop()  # or it might wait for the question, with the right for which the commit waits

        def commit(n: int = n) -> None:
            writer.update((), two=n + 1, three=n + 1)
            writer._engine.committer.pass_(defer=False)

        boundary.happen = commit
        with reader.transaction() if inside else nullcontext():
            found = reader.metadata  # of the root
        over, boundary.happen = boundary.happen is not None, None
        seen = found["two"], found["three"] == n + 1
        assert seen in [(n, False), (n + 1, True)], f"{seen} is of no state; the commit came after {boundary.calls}"
        reader.close()
        after += 1
    assert after > 2, "nothing was interleaved"
    writer.close()


def test_a_blob_that_was_opened_is_read_to_its_end_though_it_is_replaced_and_deleted(root: Path) -> None:
    with Metatree(root, LEVELS) as writer, Metatree(root, read_only=True) as reader:
        writer.put("m/v", b"1" * 3_000_000, name="blob")
        chunks = reader.get("m/v/blob")
        first = next(chunks)
        writer.put("m/v", b"2" * 3_000_000, name="blob", force=True)
        writer.delete("m", recursive=True)
        writer.checkpoint()
        assert first + b"".join(chunks) == b"1" * 3_000_000


# --- I4: who begins after a commit returned sees it -----------------------------------------------------------------


@pytest.mark.parametrize("apply", ["sync", "background"])
def test_a_reader_that_begins_after_a_commit_returned_sees_it(root: Path, apply: str) -> None:
    with Metatree(root, LEVELS, apply=apply) as writer, Metatree(root, read_only=True) as warm:
        for n in range(40):
            writer.put(f"m/v{n}", f"{n}".encode(), name="blob")
            writer.update("m", active=f"v{n}")
            assert content(warm, "m/<active>/blob") == f"{n}".encode()
            assert len(warm.children("m")) == n + 1 and warm.lsn == writer.lsn
            if n % 10 == 0:
                with Metatree(root, read_only=True) as cold:
                    assert content(cold, "m/<active>/blob") == f"{n}".encode()
        writer.delete("m/v0", recursive=True)
        assert not warm.exists("m/v0")


@pytest.mark.parametrize("apply", ["sync", "background"])
def test_another_process_that_begins_after_a_commit_returned_sees_it(root: Path, apply: str) -> None:
    script = """
import sys
from metatree import Metatree
tree = Metatree(sys.argv[1], read_only=True)
for line in sys.stdin:
    print(tree.find("m").metadata["n"], flush=True)
"""
    with Metatree(root, LEVELS, apply=apply) as writer:
        writer.put("m", b"", name="blob")
        process = start(script, root)
        assert process.stdin is not None and process.stdout is not None
        for n in range(200):
            writer.update("m", n=n)
            process.stdin.write("look\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{n}\n"
        process.communicate()
        assert process.returncode == 0


# --- E18: readers repair nothing, and need nothing repaired ---------------------------------------------------------

TAIL = """
import os, signal, sys
import wal
from metatree import Metatree
from wal.testing import Boundary
root, method, part = sys.argv[1:]
class Dying(Boundary):
    armed = False
    def around(self, call, run, tear):
        if self.armed and call.method == method and part in call.path:
            if method == "pwrite" and tear is not None:
                tear()
            os.kill(os.getpid(), signal.SIGKILL)
        return run()
posix = Dying()
tree = Metatree(wal.LocalStorage(root, posix), apply="background")
tree.put("m/v2", b"two", name="blob")     # committed, perhaps not applied
tree.update("m", active="v2")
posix.armed = True
tree.update("m", active="v1", more="x" * 4000)
tree.flush()
"""


def die_in(root: Path, method: str, part: str) -> None:
    with Metatree(root, LEVELS) as tree:
        tree.put("m/v1", b"one", name="blob")
        tree.update("m", active="v1")
    process = start(TAIL, root, method, part)
    process.communicate()
    assert process.returncode == -9, "the writer was to die"


@pytest.mark.parametrize(
    ("method", "part", "active"),
    [
        pytest.param("pwrite", ".log", "v2", id="torn tail"),
        pytest.param("fdatasync", ".log", "v1", id="not acknowledged"),
        pytest.param("rename", "/m/metadata.json", None, id="not applied"),
    ],
)
def test_a_reader_serves_an_unsettled_tail_from_the_log_and_changes_not_one_byte(
    root: Path, method: str, part: str, active: str | None
) -> None:
    die_in(root, method, part)
    before = listing(root)
    for _ in range(2):
        with Metatree(root, read_only=True) as reader:
            shown = reader.find("m").metadata["active"]
            assert shown in ("v1", "v2") and (active is None or shown == active)
            assert reader.children("m") == ["v1", "v2"] and content(reader, "m/v2/blob") == b"two"
            assert content(reader, "m/<active>/blob") == {"v1": b"one", "v2": b"two"}[shown]
    assert listing(root) == before, "a reader rewrote, quarantined or created something"
    with Metatree(root) as tree:  # a writer settles it, to the same state
        assert tree.find("m").metadata["active"] == shown


def test_a_reader_takes_a_file_that_a_power_cut_emptied_from_the_log(root: Path) -> None:
    die_in(root, "rename", "/m/metadata.json")
    (root / "m" / "v2" / "metadata.json").write_bytes(b"") if (root / "m" / "v2").exists() else None
    (root / "m" / "metadata.json").write_bytes(b"")  # applied un-synced: what a power cut may leave of it
    with Metatree(root, read_only=True) as reader:
        assert reader.children("m") == ["v1", "v2"] and content(reader, "m/v2/blob") == b"two"


def test_E18_a_mere_reader_does_not_believe_that_what_was_applied_reached_the_disk(root: Path, tmp_path: Path) -> None:
    """Nothing but the head file's marks says so, and a power cut may keep these and take the file."""
    with Metatree(root, LEVELS) as writer:
        writer.checkpoint()
        writer.put("m/v1", b"one", name="blob")
        shutil.copytree(root, tmp_path / "cut")
    (tmp_path / "cut" / "m" / "metadata.json").write_bytes(b"")
    (tmp_path / "cut" / "m" / "v1" / "blob").write_bytes(b"")
    with Metatree(tmp_path / "cut", read_only=True) as reader:
        assert reader.children("m") == ["v1"] and content(reader, "m/v1/blob") == b"one"


def test_a_reader_of_a_tree_at_work_makes_no_verdict_on_its_tail(root: Path) -> None:
    """A frame half written is no torn tail while its writer lives."""
    writer = Metatree(root, LEVELS)
    writer.put("m/v1", b"one", name="blob")
    log = max((root / ".wal").glob("*.log"))
    used = len(log.read_bytes().rstrip(b"\0"))
    with open(log, "r+b") as file:
        file.seek(-(-used // 8) * 8)
        file.write(b"\x01half a frame")
    before = listing(root)
    with Metatree(root, read_only=True) as reader:
        assert content(reader, "m/v1/blob") == b"one"
        assert listing(root) == before
        writer.update("m", n=1)  # the writer itself settles it
        assert reader.find("m").metadata["n"] == 1
    writer.close()


# --- without permission to write ------------------------------------------------------------------------------------


def test_a_read_only_tree_refuses_every_change_and_writes_nothing(root: Path) -> None:
    with Metatree(root, LEVELS) as tree:
        tree.put("m/v1", b"one", name="blob")
    before = listing(root)
    with Metatree(root, read_only=True) as reader:
        for change in (
            lambda: reader.put("m/v2", b"", name="x"),
            lambda: reader.put("m/v2", b"x" * 100_000, name="x"),
            lambda: reader.update("m", n=1),
            lambda: reader.unset("m", "n"),
            lambda: reader.compare_and_set("m", "n", None, 1),
            lambda: reader.delete("m", recursive=True),
            lambda: reader.move("m", "n"),
            lambda: reader.copy("m", "n"),
            lambda: reader.transaction().__enter__(),
            lambda: reader.run(lambda txn: None),
            reader.checkpoint,
            reader.flush,
            reader.recover,
        ):
            with pytest.raises(ReadOnlyError):
                change()
        assert reader.check(deep=True).ok
        assert [node.path for node in reader.walk()] == ["", "m", "m/v1"]
    assert listing(root) == before


WITHOUT_RIGHTS = """
import os, sys
from metatree import Metatree, MetatreeError
root, uid, state = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if uid >= 0:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
    try:
        open(os.path.join(root, "metadata.json"), "a").close()
    except PermissionError:
        pass
    else:
        sys.exit("could write")
with Metatree(root, read_only=True) as tree:
    assert tree.children("m") == ["v1", "v2"], tree.children("m")
    assert b"".join(tree.get("m/v2/blob")) == b"two"
    assert tree.list("m/v1") == ["blob"]
    if state == "clean":
        report = tree.check(deep=True)
        assert report.ok, str(report)
try:
    Metatree(root)
except MetatreeError as error:
    assert "read_only" in str(error), error
else:
    sys.exit("opened for writing")
print("fine")
"""


@pytest.mark.parametrize("state", ["clean", "not applied", "not acknowledged"])
def test_a_user_without_write_permission_reads_everything(root: Path, state: str) -> None:
    if state == "clean":
        with Metatree(root, LEVELS) as tree:
            tree.put("m/v1", b"one", name="blob")
            tree.put("m/v2", b"two", name="blob")
    else:
        die_in(root, *{"not applied": ("rename", "/m/metadata.json"), "not acknowledged": ("fdatasync", ".log")}[state])
    modes = {
        path: os.stat(path).st_mode
        for folder, d, f in os.walk(root)
        for path in [folder, *(os.path.join(folder, n) for n in f)]
    }
    root.parent.chmod(0o755)
    try:
        for path in modes:
            os.chmod(path, 0o555 if os.path.isdir(path) else 0o444)
        # root may write whatever the modes say, so it becomes somebody else; anybody else has no permission now
        process = start(WITHOUT_RIGHTS, root, 65534 if os.getuid() == 0 else -1, state)
        output, _ = process.communicate()
        assert (process.returncode, output) == (0, "fine\n")
    finally:
        for path, mode in modes.items():
            os.chmod(path, mode)


def test_a_tree_on_a_read_only_mount_is_read(root: Path) -> None:
    if os.getuid() != 0 or shutil.which("unshare") is None or shutil.which("mount") is None:
        pytest.skip("not run: needs root, unshare and mount")
    die_in(root, "rename", "/m/metadata.json")
    command = (
        'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$2" -W error -c "$3" "$1" -1 "not applied"'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, "sh", str(root), sys.executable, WITHOUT_RIGHTS],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"not run: this machine allows no mount of one's own: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


class Impatient(Metatree):
    """Waits for no lock."""

    _tuning: ClassVar[dict[str, Any]] = {"lock_timeout": 0.0}


def test_readers_hold_up_no_writer_and_no_recovery(root: Path) -> None:
    with Metatree(root, LEVELS) as tree:
        tree.put("m/v1", b"one", name="blob")
    reader = Metatree(root, read_only=True)
    reader.find("m")
    with Impatient(root) as tree:  # the first writer: the reader does not make it a second one (E5)
        assert tree._engine.recovered is not None
        tree.update("m", n=1)
        tree.checkpoint()
    assert reader.find("m").metadata["n"] == 1
    reader.close()


def test_a_reader_without_a_tree_is_told_so_and_makes_none(fast_path: Path) -> None:
    empty = fast_path / "empty"
    empty.mkdir()
    for where in (empty, fast_path / "absent"):
        with pytest.raises(MetatreeError):
            Metatree(where, read_only=True)
    assert os.listdir(fast_path) == ["empty"] and os.listdir(empty) == []


def test_a_reader_whose_nodes_are_all_in_memory_holds_no_more_records_than_what_was_not_trimmed(root: Path) -> None:
    with Metatree(root, LEVELS) as tree, Metatree(root, read_only=True) as reader:
        tree.update("", n=0)
        for number in range(3000):
            tree.update("", n=number)
            assert reader.metadata["n"] == number  # reads no file
            if number % 500 == 0:
                tree.checkpoint()
        assert len(reader._engine.reader.window._facts) < 2200
