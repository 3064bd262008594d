"""One handle in many threads, tasks and forked children; and programs that end without closing it."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wal
from metatree import ConflictError, Metatree, MetatreeError
from tests.tree.conftest import LEVELS, assert_clean
from tests.tree.storages import Elsewhere
from tests.wal.test_log_slots_fork import in_a_child

REPOSITORY = Path(__file__).resolve().parents[2]
MakeTree = Callable[..., Metatree]


def content(tree: Metatree, location: str) -> bytes:
    return b"".join(tree.get(location))


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work(number)` in threads at once; an exception in any of them is raised here."""
    errors: list[BaseException] = []
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait()
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def run_script(script: str, *arguments: object, status: int = 0) -> str:
    """A program of its own, in which a fork meets no thread of the test runner; what it printed."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == status, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def root(fast_path: Path) -> Iterator[Path]:
    with Metatree(fast_path / "tree", LEVELS) as tree:
        tree.put("m/v", b"content", name="blob")
        tree.update("m", active="v")
    yield fast_path / "tree"
    assert_clean(fast_path / "tree")


# --- threads --------------------------------------------------------------------------------------------------------


def test_eight_threads_use_all_verbs_of_one_handle(tree: Metatree) -> None:
    def work(number: int) -> None:
        mine = f"m{number}"
        for count in range(6):
            tree.put(f"{mine}/v{count}", f"{number}.{count}".encode(), name="blob")
            tree.put(f"shared/t{number}c{count}", b"x" * 70_000, name="large")
            assert tree.find(mine).children == [f"v{n}" for n in range(count + 1)]
            tree.update(last=count)  # the cursor is this thread's own
            assert tree.metadata["last"] == count and tree.location.endswith(mine)
            with tree.transaction() as txn:
                tree.update(f"{mine}/v{count}", n=count)
                tree.copy(f"{mine}/v{count}", f"{mine}/copied")
                tree.move(f"{mine}/copied", f"{mine}c{count}/moved")
            assert txn.lsn is not None
            assert content(tree, f"{mine}c{count}/moved/blob") == f"{number}.{count}".encode()
            tree.compare_and_set(mine, "last", count, -1)
            tree.unset(mine, "last")
            tree.delete(f"{mine}c{count}", recursive=True)
            assert not tree.exists(f"{mine}c{count}") and tree.list(f"{mine}/v{count}") == ["blob"]
            tree.run(lambda _: tree.update("shared", n=tree.find("shared").metadata.get("n", 0) + 1), attempts=1_000)
            list(tree.walk("shared"))
            if number == 0:
                tree.checkpoint()

    in_threads(8, work)
    assert tree.find("shared").metadata["n"] == 48
    assert sorted(tree.children("shared")) == sorted(f"t{n}c{c}" for n in range(8) for c in range(6))
    for number in range(8):
        assert tree.children(f"m{number}") == [f"v{count}" for count in range(6)]
        assert [dict(tree.find(f"m{number}/v{c}").metadata) for c in range(6)] == [{"n": c} for c in range(6)]


def test_threads_that_commit_at_once_share_batches(tree: Metatree) -> None:
    tree.put("m/v", b"", name="blob")
    before = tree.lsn
    in_threads(8, lambda number: [tree.update("m/v", {f"k{number}-{n}": n}) for n in range(40)] and None)
    assert len(tree.find("m/v").metadata) == 320
    assert 0 < tree.lsn - before < 320, "every commit had a flush of its own"


def test_the_cursor_is_each_threads_own(tree: Metatree) -> None:
    for number in range(4):
        tree.put(f"m{number}/v", b"", name="blob")
    tree.find("m0")

    def work(number: int) -> None:
        assert tree.location == tree.root  # where every thread begins
        tree.find(f"m{number}/v")
        for n in range(25):
            tree.update(None, {f"k{n}": number})
            assert tree.location == f"{tree.root}/m{number}/v"

    in_threads(4, work)
    assert tree.location == f"{tree.root}/m0"
    for number in range(4):
        assert dict(tree.find(f"m{number}/v").metadata) == {f"k{n}": number for n in range(25)}


def test_the_cursor_is_each_asyncio_tasks_own(tree: Metatree) -> None:
    for number in range(4):
        tree.put(f"m{number}/v", b"", name="blob")

    async def work(number: int) -> None:
        tree.find(f"m{number}/v")
        for n in range(10):
            await asyncio.sleep(0)
            tree.update(None, {f"k{n}": number})

    async def all_of_them() -> None:
        tree.find("m0")
        await asyncio.gather(*(work(number) for number in range(4)))
        assert tree.location.endswith("m0")

    asyncio.run(all_of_them())
    for number in range(4):
        assert dict(tree.find(f"m{number}/v").metadata) == {f"k{n}": number for n in range(10)}


def test_readers_in_threads_never_see_a_mix_while_another_thread_writes(tree: Metatree) -> None:
    tree.put("m/v0", b"v0", name="blob")
    tree.update("m", active="v0")
    done = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            for n in range(1, 80):
                with tree.transaction():
                    tree.put(f"m/v{n}", f"v{n}".encode(), name="blob")
                    tree.update("m", active=f"v{n}")
                    tree.delete(f"m/v{n - 1}", recursive=True)
            done.set()
        while not done.is_set():
            content(tree, "m/<active>/blob")
            try:
                with tree.transaction():
                    active = tree.find("m").metadata["active"]
                    assert tree.children("m") == [active] and content(tree, "m/<active>/blob") == active.encode()
            except ConflictError:
                pass

    in_threads(4, work)
    assert content(tree, "m/<active>/blob") == b"v79"


# --- fork -----------------------------------------------------------------------------------------------------------

FORK = """
import os, signal, sys, threading
from metatree import Metatree
root, mode = sys.argv[1:3]
tree = Metatree(root, apply=mode)
def wait(pid):
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
def child(work):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        os._exit(code)
"""
both_modes = pytest.mark.parametrize("mode", ["sync", "background"])


@both_modes
def test_a_forked_child_uses_the_inherited_tree_and_so_does_its_parent(root: Path, mode: str) -> None:
    script = """
tree.find("m/v")
def work():
    assert tree.location.endswith("m/v")  # the cursor came along
    for n in range(20):
        tree.update("m/v", {f"child {os.getpid()} {n}": n})
    with tree.transaction():
        tree.put(f"m/c{os.getpid()}", b"x" * 100_000, name="large")
    tree.close()
children = [child(work) for _ in range(3)]
for n in range(20):
    tree.update("m/v", {f"parent {n}": n})
for pid in children:
    wait(pid)
tree.update("m/v", after=True)
assert len(tree.metadata) == 81, len(tree.metadata)
assert len(tree.children("m")) == 4
tree.close()
"""
    run_script(FORK + script, root, mode)
    assert len(json.loads((root / "m" / "v" / "metadata.json").read_bytes())) == 81


@both_modes
def test_a_fork_inside_a_transaction_leaves_the_transaction_to_the_parent(root: Path, mode: str) -> None:
    script = """
with tree.transaction() as txn:
    tree.update("m/v", inside=True)
    tree.put("m/v", b"x" * 100_000, name="large")
    def work():
        assert dict(tree.find("m/v").metadata) == {}
        tree.update("m/v", child=True)  # a commit of its own
        tree.close()
    wait(child(work))
assert txn.lsn is not None
assert dict(tree.find("m/v").metadata) == {"child": True, "inside": True}
assert b"".join(tree.get("m/v/large")) == b"x" * 100_000
tree.close()
"""
    run_script(FORK + script, root, mode)


@both_modes
def test_a_forked_child_that_never_uses_the_tree_harms_nothing_even_by_its_regular_exit(root: Path, mode: str) -> None:
    script = """
tree.update("m/v", before=True)
pid = os.fork()
if not pid:
    sys.exit(0)  # all the exit handlers run in the child
wait(pid)
tree.update("m/v", after=True)
assert dict(tree.find("m/v").metadata) == {"before": True, "after": True}
tree.close()
"""
    run_script(FORK + script, root, mode)
    with Metatree(root) as tree:
        assert dict(tree.find("m/v").metadata) == {"before": True, "after": True}


_RENEWING = """
import wal
from tests.tree.storages import Elsewhere
from tests.wal.test_log_slots_fork import in_a_child
if mode == "mount":
    tree = Metatree(wal.LocalStorage(root, Elsewhere()), ("model", "version"))
else:
    tree = Metatree(root, read_only=mode == "read-only", apply="background" if mode == "background" else "sync")
resets = []
def renewing(meanwhile):
    real = tree._engine.log.reset_after_fork
    def reset():
        resets.append(threading.current_thread())
        if len(resets) == 1:
            meanwhile()
        real()
    tree._engine.log.reset_after_fork = reset
"""
AT_ONCE = FORK.replace("tree = Metatree(root, apply=mode)\n", _RENEWING)
of_each_kind = pytest.mark.parametrize("mode", ["sync", "background", "mount", "read-only"])


@pytest.fixture
def kept(root: Path, mode: str, tmp_path: Path) -> Path:
    """The root of a tree that suits `mode`."""
    if mode != "mount":
        return root
    with Metatree(wal.LocalStorage(tmp_path, Elsewhere()), LEVELS) as tree:
        tree.put("m/v", b"x", name="b")
    return tmp_path


@of_each_kind
@pytest.mark.parametrize("way", ["tree.find('m/v')", "tree.lsn", "tree.recover(dry_run=True)", "change()"])
def test_of_two_threads_of_a_child_that_come_at_once_one_renews_the_tree_and_the_other_waits(
    kept: Path, mode: str, way: str
) -> None:
    script = """
def change():
    if not tree._engine.read_only:
        tree.update("m/v", {threading.current_thread().name: 1})
def work():
    done = []
    def use():
        eval(way)
        change()
        done.append(threading.current_thread().name)
    first, second = threading.Thread(target=use, name="first"), threading.Thread(target=use, name="second")
    def meanwhile():
        second.start()
        second.join(0.2)  # it waits, or it would renew the tree as well
    renewing(meanwhile)
    first.start()
    first.join()
    second.join()
    assert sorted(done) == ["first", "second"] and resets == [first], (done, resets)
    assert tree.check().ok
    assert len(dict(tree.find("m/v").metadata)) == (0 if tree._engine.read_only else 2)
    tree.close()
way = sys.argv[3]
wait(child(work))
tree.close()
"""
    if mode == "read-only" and way == "change()":
        way = "tree.children('m')"
    run_script(AT_ONCE + script, kept, mode, way)


@of_each_kind
def test_a_tree_that_one_thread_of_a_child_closes_while_another_renews_it_is_closed(kept: Path, mode: str) -> None:
    script = """
def work():
    closing = threading.Thread(target=tree.close)
    def meanwhile():
        closing.start()
        closing.join(0.2)
        assert closing.is_alive(), "it has closed what is about to be opened"
    renewing(meanwhile)
    try:
        tree.find("m/v")
    except metatree.ClosedError:
        pass  # it was closed between the renewal and the reading
    closing.join()
    try:
        tree.find("m/v")
    except metatree.ClosedError:
        return
    raise AssertionError("it is open")
import metatree
wait(child(work))
tree.close()
"""
    run_script(AT_ONCE + script, kept, mode)


@of_each_kind
def test_a_grandchild_works_whatever_its_parent_was_renewing_at_the_fork(kept: Path, mode: str) -> None:
    script = """
def use():
    tree.find("m/v")
    if not tree._engine.read_only:
        tree.update("m/v", {str(os.getpid()): 1})
def work():
    wait(child(use))  # this process has not used the tree yet
    def meanwhile():
        forking = threading.Thread(target=lambda: wait(child(use)))
        forking.start()
        forking.join()
    renewing(meanwhile)
    use()
    tree.close()
wait(child(work))
use()
assert len(dict(tree.find("m/v").metadata)) == (0 if tree._engine.read_only else 4)
assert tree.check().ok
tree.close()
"""
    run_script(AT_ONCE + script, kept, mode)


@of_each_kind
def test_a_signal_during_the_renewal_is_handled_after_it_and_a_finalizer_is_told_to_come_later(
    kept: Path, mode: str
) -> None:
    script = """
import metatree
def work():
    refused, found = [], []
    def handle(number=0, frame=None):
        try:
            found.append(tree.find("m/v"))
        except metatree.MetatreeError as error:
            refused.append(str(error))
    def happen():
        signal.raise_signal(signal.SIGUSR1)
        assert not found
        handle()  # as a finalizer, which runs anywhere
    signal.signal(signal.SIGUSR1, handle)
    renewing(happen)
    tree.find("m/v")
    assert len(refused) == 1 and "interrupted by a signal: do this after it" in refused[0], refused
    assert len(found) == 1
    tree.close()
wait(child(work))
tree.close()
"""
    run_script(AT_ONCE + script, kept, mode)


@pytest.mark.parametrize("mode", ["sync", "mount"])
def test_two_threads_of_each_of_many_children_lose_nothing(kept: Path, mode: str) -> None:
    script = """
import time
tree.update("m/v", n=0)
def work():
    start, done = threading.Barrier(2), []
    def add(txn):
        tree.update("m/v", n=tree.find("m/v").metadata["n"] + 1)
    def use():
        start.wait()
        tree.run(add, attempts=100)
        done.append(1)
    threads = [threading.Thread(target=use) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(done) == 2
rounds, end = 0, time.monotonic() + 1.5
while time.monotonic() < end:
    wait(child(work))
    rounds += 1
assert tree.find("m/v").metadata["n"] == 2 * rounds
assert tree.check().ok
tree.close()
"""
    run_script(AT_ONCE + script, kept, mode)


@both_modes
@pytest.mark.parametrize("first", ["this thread", "another thread"])
def test_a_change_of_a_child_forked_inside_a_transaction_is_a_commit_of_its_own(
    root: Path, mode: str, first: str
) -> None:
    script = """
with tree.transaction() as txn:
    tree.update("m/v", inside=True)
    def work():
        if sys.argv[3] == "another thread":
            other = threading.Thread(target=lambda: tree.find("m/v"))
            other.start()
            other.join()
        tree.update("m/v", child=True)
        assert dict(tree.find("m/v").metadata) == {"child": True}
    wait(child(work))
assert dict(tree.find("m/v").metadata) == {"child": True, "inside": True}
tree.close()
"""
    run_script(FORK + script, root, mode, first)


@both_modes
def test_a_transaction_made_before_the_fork_does_not_begin_in_the_child(root: Path, mode: str) -> None:
    script = """
import metatree
txn = tree.transaction()
def work():
    try:
        with txn:
            tree.update("m/v", child=True)
    except metatree.TransactionError as error:
        assert "make a new one in the forked child" in str(error)
    assert dict(tree.find("m/v").metadata) == {}
wait(child(work))
tree.close()
"""
    run_script(FORK + script, root, mode)


@pytest.mark.parametrize("mode", ["sync", "mount"])
@pytest.mark.parametrize(
    "way", ["tree.open('m/v/there')", "list(tree.get('m/v/there'))", "tree.get('m/v/d', out, recursive=True)"]
)
def test_a_child_that_first_reads_a_blob_does_not_write_what_its_parents_transaction_staged(
    kept: Path, mode: str, way: str, tmp_path: Path
) -> None:
    script = """
import glob
way, out = sys.argv[3], sys.argv[4]
os.mkdir(out)
open(out + "/f", "wb").close()
tree.put("m/v", b"x", name="there")
tree.put("m/v", out, name="d", recursive=True)
out += "/copy"
with tree.transaction() as txn:
    for number in range(100):
        tree.put("m/v", bytes(4000), name=str(number))
    assert txn.staging._unwritten
    pack, = glob.glob(root + "/.wal/staged/*/pack*")
    before = os.stat(pack)
    wait(child(lambda: eval(way)))
    after = os.stat(pack)
    assert (after.st_size, after.st_ctime_ns) == (before.st_size, before.st_ctime_ns), "the child wrote"
assert list(tree.get("m/v/99")) == [bytes(4000)]
tree.close()
"""
    run_script(AT_ONCE + script, kept, mode, way, tmp_path / "out")


@pytest.mark.parametrize("mode", ["sync", "mount"])
def test_a_child_whose_first_call_fails_works_once_the_storage_answers_again(kept: Path, mode: str) -> None:
    script = """
import errno, metatree
def work():
    storage, failed = tree._engine.storage, []
    posix = storage._rooted.posix
    def failing(real):
        def run(*arguments, **options):
            if not failed:
                failed.append(1)
                raise OSError(errno.ENOLCK, "No locks available")
            return real(*arguments, **options)
        return run
    name = "flock" if mode == "sync" else "listdir"
    renewing(lambda: setattr(posix, name, failing(getattr(posix, name))))
    try:
        tree.find("m/v")
        raise AssertionError("nothing failed")
    except metatree.UnavailableError as error:
        assert "No locks available" in str(error)
    tree.update("m/v", child=True)
    tree.close()
wait(child(work))
assert dict(tree.find("m/v").metadata) == {"child": True}
tree.close()
"""
    run_script(AT_ONCE + script, kept, mode)


@both_modes
def test_forks_while_other_threads_commit_find_a_tree_that_works(root: Path, mode: str) -> None:
    script = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # that one forks beside threads is what is tested
stop = threading.Event()
def write(number):
    n = 0
    while not stop.is_set():
        n += 1
        tree.update("m/v", {f"thread {number}": n})
        with tree.transaction():
            tree.update("m/v", {f"transaction {number}": n})
threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
for thread in threads:
    thread.start()
def work():
    tree.update("m/v", {f"child {os.getpid()}": True})
    assert tree.find("m").children == ["v"]
    tree.close()
try:
    for _ in range(15):
        wait(child(work))
finally:
    stop.set()
    for thread in threads:
        thread.join()
names = [key for key in tree.find("m/v").metadata if key.startswith("child")]
assert len(names) == 15, names
tree.close()
"""
    run_script(FORK + script, root, mode)


@both_modes
@pytest.mark.parametrize("use", ["uses the tree", "never uses the tree"])
def test_after_the_parent_is_killed_beside_a_living_child_the_next_opener_recovers(
    root: Path, mode: str, use: str
) -> None:
    """The child inherited the parent's locks. Had it kept them, nobody else could ever write or recover."""
    script = f"""
import time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
read, write = os.pipe()
stop = threading.Event()
def commit(number):
    while not stop.is_set():
        tree.update("m/v", {{f"thread {{number}}": time.monotonic_ns()}})
threads = [threading.Thread(target=commit, args=(n,), daemon=True) for n in range(3)]
for thread in threads:
    thread.start()
while len(tree.find("m/v").metadata) < 3:
    pass
pid = os.fork()
if not pid:
    if {use == "uses the tree"}:
        tree.update("m/v", child=True)
    print(os.getpid(), flush=True)
    time.sleep(600)
    os._exit(0)
time.sleep(0.02)
while True:
    time.sleep(1)
"""
    for _ in range(4):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-c", FORK + script, str(root), mode]
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            parent.kill()
            parent.wait()
            done = subprocess.run(
                [sys.executable, "-c", OPENER, str(root)], capture_output=True, text=True, env=environment
            )
            assert done.returncode == 0, done.stderr
        finally:
            os.kill(child, signal.SIGKILL)
            parent.stdout.close()


OPENER = """
import sys
import wal
from metatree.engine import Engine
engine = Engine(wal.LocalStorage(sys.argv[1]), None, read_only=False, apply="sync", lock_timeout=5)
engine.change(lambda draft: draft.update(("m", "v"), {"next": True}))
engine.committer.flush()
engine.close()
"""


@pytest.mark.parametrize("where", [("fdatasync", ".log"), ("rename", "m/v/metadata.json")], ids=["append", "apply"])
def test_a_child_forked_while_a_right_was_held_does_not_hold_it_after_the_parents_death(
    root: Path, where: tuple[str, str]
) -> None:
    """The fork falls exactly into the time in which another thread holds the right to append, or to apply."""
    script = """
import os, sys, threading, time, warnings
import wal
from metatree import Metatree
from wal.testing import Boundary
warnings.simplefilter("ignore", DeprecationWarning)
root, method, part = sys.argv[1:]
inside = threading.Event()
class Pausing(Boundary):
    armed = False
    def around(self, call, run, tear):
        if self.armed and call.method == method and part in call.path:
            inside.set()
            time.sleep(600)
        return run()
posix = Pausing()
tree = Metatree(wal.LocalStorage(root, posix))
posix.armed = True
threading.Thread(target=lambda: tree.update("m/v", n=1), daemon=True).start()
inside.wait()
pid = os.fork()
if not pid:
    time.sleep(600)
    os._exit(0)
print(pid, flush=True)
time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", script, str(root), *where]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        parent.kill()
        parent.wait()
        done = subprocess.run(
            [sys.executable, "-c", OPENER, str(root)], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr[-1500:]
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()
    with Metatree(root) as tree:
        assert dict(tree.find("m/v").metadata) == {"n": 1, "next": True}


# --- pickling -------------------------------------------------------------------------------------------------------


def test_a_pickled_tree_opens_the_same_tree_in_the_same_way(root: Path) -> None:
    with Metatree(root, apply="background") as tree:
        again = pickle.loads(pickle.dumps(tree))
        assert (again.root, again.keys) == (tree.root, tree.keys)
        assert again._arguments == tree._arguments
        again.update("m", by="the copy")
        assert tree.find("m").metadata["by"] == "the copy"
        again.close()
    with Metatree(root, read_only=True) as reader:
        again = pickle.loads(pickle.dumps(reader))
    with again, pytest.raises(MetatreeError, match="read_only"):
        again.update("m", n=1)


def test_a_pickled_tree_works_in_another_process(root: Path) -> None:
    with Metatree(root) as tree:
        text = pickle.dumps(tree).hex()
        script = (
            "import pickle, sys; tree = pickle.loads(bytes.fromhex(sys.argv[1])); tree.update('m', n=7); tree.close()"
        )
        run_script(script, text)
        assert tree.find("m").metadata["n"] == 7


def test_a_node_of_a_tree_can_be_pickled_if_the_tree_can(root: Path) -> None:
    with Metatree(root) as tree:
        node = pickle.loads(pickle.dumps(tree.find("m/v")))
        assert node == tree.find("m/v") and node.list() == ["blob"]
        node._tree.close()


def test_the_pickle_carries_storage_options_and_nothing_that_is_stored_does(root: Path) -> None:
    secret = "canary-6c1f0e"  # noqa: S105
    with Metatree(root) as tree:
        # A local root takes no options, so they are put where those of an object store are kept.
        tree._arguments["storage_options"] = {"secret": secret}
        assert secret.encode() in pickle.dumps(tree)
        assert secret not in repr(tree)
        with tree.transaction("with a message"):
            tree.put("m/v2", b"x" * 100_000, name="large")
            tree.update("m", n=1)
        tree.flush()
        assert secret not in str(tree.check()) + repr(tree.find("m"))
        for folder, _, names in os.walk(root):
            for name in names:
                assert secret.encode() not in Path(folder, name).read_bytes(), name


def test_a_tree_over_a_storage_object_cannot_be_pickled_and_says_so(root: Path) -> None:
    with Metatree(wal.MemoryStorage(wal.MemoryPosix()), LEVELS) as tree, pytest.raises(MetatreeError, match="pickle"):
        pickle.dumps(tree)


# --- programs that do not close -------------------------------------------------------------------------------------


@both_modes
@pytest.mark.parametrize("end", ["falls off its end", "sys.exit", "an exception"])
def test_a_program_that_ends_without_close_leaves_its_files_in_place(root: Path, mode: str, end: str) -> None:
    last = {
        "falls off its end": "",
        "sys.exit": "sys.exit(0)",
        "an exception": "sys.excepthook = lambda *_: None; 1 / 0",
    }
    script = f"""
import sys
from metatree import Metatree
tree = Metatree(sys.argv[1], apply={mode!r})
for n in range(30):
    tree.update("m/v", n=n)
with tree.transaction():
    tree.put("m/v2", b"x" * 100_000, name="large")
    tree.update("m", active="v2")
{last[end]}
"""
    run_script(script, root, status=1 if end == "an exception" else 0)
    files: dict[str, Any] = {
        name: json.loads((root / name / "metadata.json").read_bytes()) for name in ("m", "m/v", "m/v2")
    }
    assert files == {"m": {"children": ["v", "v2"], "active": "v2"}, "m/v": {"n": 29}, "m/v2": {}}
    assert (root / "m" / "v2" / "large").read_bytes() == b"x" * 100_000
    log = wal.open_log(wal.open_storage(str(root)), read_only=True)
    assert log.trimmed() == log.head(), "a regular exit makes a checkpoint"
    log.close()


NO_THREADS = """
import sys, threading
import wal
from metatree import Metatree
from tests.tree.storages import Elsewhere
from tests.wal.test_log_slots_fork import in_a_child

def refuse(thread):
    raise RuntimeError("can't create new thread at interpreter shutdown")

trees = []
for root in sys.argv[2:]:
    storage = wal.LocalStorage(root, Elsewhere()) if sys.argv[1] == "mount" else root
    trees.append(Metatree(storage, ("model", "version"), apply="background"))
    trees[-1]._engine.committer.stop()
    trees[-1].put("m/v1", b"one", name="b")
threading.Thread.start = refuse
"""


@pytest.mark.parametrize("kind", ["local", "mount"])
def test_a_program_that_ends_where_no_thread_can_be_started_leaves_the_files_of_all_its_trees_in_place(
    tmp_path: Path, kind: str
) -> None:
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        root.mkdir()
    run_script(NO_THREADS, kind, *roots)
    for root in roots:
        assert (root / "m" / "v1" / "b").read_bytes() == b"one"


UNFORESEEN = """
import sys
import metatree.engine
from metatree import Metatree

def fail():
    raise ValueError("unforeseen")

trees = [Metatree(root, ("model", "version"), apply="background") for root in sys.argv[1:]]
for tree in trees:
    tree._engine.committer.stop()
    tree.put("m/v1", b"one", name="b")
trees[0]._engine.checkpointer.run = fail
metatree.engine._open = [tree._engine for tree in trees]  # in this order
"""


def test_at_exit_each_tree_is_closed_whatever_happens_to_another(tmp_path: Path) -> None:
    command = [sys.executable, "-c", UNFORESEEN, str(tmp_path / "one"), str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert "one: ValueError: unforeseen" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "one" / "m").exists() and (tmp_path / "two" / "m" / "v1" / "b").read_bytes() == b"one"


@both_modes
def test_a_program_that_ends_inside_a_transaction_commits_nothing_of_it(root: Path, mode: str) -> None:
    script = f"""
import sys
from metatree import Metatree
tree = Metatree(sys.argv[1], apply={mode!r})
tree.update("m/v", before=True)
txn = tree.transaction()
txn.__enter__()
tree.put("m/v2", b"x" * 100_000, name="large")
tree.update("m/v", inside=True)
"""
    command = [sys.executable, "-c", script, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    with Metatree(root) as tree:
        assert dict(tree.find("m/v").metadata) == {"before": True} and tree.children("m") == ["v"]


@both_modes
def test_a_handle_that_is_dropped_without_close_holds_nothing_and_loses_nothing(root: Path, mode: str) -> None:
    script = f"""
import gc, os, sys, threading
from metatree import Metatree
before = len(os.listdir("/proc/self/fd"))
for n in range(10):
    tree = Metatree(sys.argv[1], apply={mode!r})
    tree.update("m/v", n=n)
    del tree
    gc.collect()
after = len(os.listdir("/proc/self/fd"))
assert after <= before + 1, (before, after)
assert threading.active_count() == 1, threading.enumerate()
tree = Metatree(sys.argv[1])
assert dict(tree.find("m/v").metadata) == {{"n": 9}}
tree.close()
"""
    run_script(script, root)


@both_modes
def test_a_dropped_handle_beside_a_living_one_delays_nobody(root: Path, mode: str) -> None:
    with Metatree(root, apply=mode) as tree:
        dropped = Metatree(root, apply=mode)
        dropped.update("m/v", n=1)
        del dropped
        tree.update("m/v", k=2)
        tree.flush()
        assert json.loads((root / "m" / "v" / "metadata.json").read_bytes()) == {"n": 1, "k": 2}


MANY_AT_FIRST = """
import os, sys, threading
from metatree import Metatree
tree = Metatree(sys.argv[1])
for child in range(20):
    if pid := os.fork():
        assert os.waitpid(pid, 0)[1] == 0
        continue
    start = threading.Barrier(4)
    def work(n):
        start.wait()
        tree.update("m", **{f"{child}/{n}": 1})
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    os._exit(not all(f"{child}/{n}" in tree.find("m").metadata for n in range(4)))
assert sum("/" in key for key in tree.find("m").metadata) == 80 and tree.check().ok
tree.close()
"""


def test_threads_of_many_children_lose_nothing(root: Path) -> None:
    with Metatree(root, LEVELS) as tree:
        tree.put("m/v", b"", name="b")
    run_script(MANY_AT_FIRST, root)


def test_a_child_whose_first_call_fails_does_not_go_on_with_what_is_its_parents(
    make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree()
    engine, real, resets = tree._engine, tree._engine.log.reset_after_fork, list[int]()

    def reset() -> None:
        resets.append(1)
        if len(resets) == 1:
            raise OSError("the storage does not answer")
        real()

    monkeypatch.setattr(engine.log, "reset_after_fork", reset)
    monkeypatch.setattr(engine._renewal, "pid", -1)
    with pytest.raises(MetatreeError, match="does not answer"):
        tree.update("m", x=1)
    tree.put("m", b"", name="b")
    assert len(resets) == 2 and engine._renewal.pid == os.getpid()


def test_a_child_that_is_forked_while_another_thread_reads_can_read(fast_path: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def question(_: object) -> None:
        inside.set()
        go_on.wait(20)

    with Metatree(fast_path / "tree", LEVELS) as tree:
        tree.put("m/v", b"x", name="b")
        tree.checkpoint()
        thread = threading.Thread(target=lambda: tree._engine.read(question))
        thread.start()
        assert inside.wait(20)
        in_a_child(lambda: len(tree.find("m/v").list()))
        go_on.set()
        thread.join()
