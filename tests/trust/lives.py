"""Short lives of a process that uses a tree in a folder, and what may be left of it when the system kills or fails it.

The process is forked from a warm one, and notes in shared memory what it began and what was acknowledged: a note is no
system call, so none of the faults can hit it.
"""

from __future__ import annotations

import mmap
import os
import pickle
import shutil
import struct
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import wal
from metatree import CommitUnknownError, Metatree, MetatreeError
from tests.tree.model import BIG, LEVELS, OPERATIONS, OTHER_BIG, State, dump, populate
from tests.trust.leftovers import Left, recovered

Act = Callable[[Metatree], object]
EMPTY: State = {"": ({}, (), {})}


@dataclass(frozen=True)
class Life:
    """What one process does between opening and closing the tree."""

    acts: tuple[Act, ...]
    start: str = "populated"  # or "nothing": it makes the tree; or "killed": it has to recover it
    apply: str = "sync"


def _acts(*names: str) -> tuple[Act, ...]:
    return tuple(OPERATIONS[name].act for name in names)


def _put(tree: Metatree) -> None:
    tree.put("m/v7", b"seven", name="b")


def _put_staged(tree: Metatree) -> None:
    tree.put("m/v8", BIG, name="big")


def _replace(tree: Metatree) -> None:
    tree.put("m/v1", OTHER_BIG, name="big", force=True)


def _update(tree: Metatree) -> None:
    tree.update("m/v1", auc=0.95)


def _unset(tree: Metatree) -> None:
    tree.unset("m", "n")


def _delete(tree: Metatree) -> None:
    tree.delete("m/v2", recursive=True)


def _move(tree: Metatree) -> None:
    tree.move("m/v3", "m/moved")


def _copy(tree: Metatree) -> None:
    tree.copy("m/v1", "other/v2")


def _checkpoint(tree: Metatree) -> None:
    tree.checkpoint()


LIVES = {
    "creates": Life((_put, _put_staged), start="nothing"),
    "puts": Life((_put, _put_staged, _update)),
    "replaces": Life((_replace, _unset, _checkpoint)),
    "moves": Life((_move, _delete, _copy)),
    "transaction": Life(_acts("transaction of 20")),
    "checkpoints": Life((_put_staged, _delete, _checkpoint, _update)),
    "recovers": Life((_update, _put), start="killed"),
    "applies later": Life((_put, _replace, _move, _checkpoint), apply="background"),
}


@dataclass
class Notes:
    """What the process noted; kept in memory that it shares with who watches it."""

    shared: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 1 << 22))
    hangs: bool = False

    def begin(self, number: int) -> None:
        self.shared[0:4] = struct.pack("<I", number)

    def acknowledge(self, number: int) -> None:
        self.shared[4:8] = struct.pack("<I", number)

    def tell(self, ending: Ending) -> None:
        data = pickle.dumps(ending)
        self.shared[16 : 16 + len(data)] = data
        self.shared[8:12] = struct.pack("<I", len(data))

    def let_go(self) -> None:
        self.shared[12] = 1

    def wait(self) -> None:
        while not self.shared[12]:
            time.sleep(0.0005)

    @property
    def counts(self) -> tuple[int, int]:
        """Acts begun and acknowledged."""
        begun, acknowledged = struct.unpack("<II", self.shared[0:8])
        return begun, acknowledged

    @property
    def ending(self) -> Ending | None:
        """None: it was killed."""
        (length,) = struct.unpack("<I", self.shared[8:12])
        return pickle.loads(self.shared[16 : 16 + length]) if length else None


@dataclass(frozen=True)
class Ending:
    """How a process fared that came to its end."""

    raised: str = ""  # the traceback, if an act or the opening raised
    ours: bool = True  # it, and all that followed, was of the documented classes
    unknown: bool = False  # it left open whether the act was done
    shown: State | None = None  # what the same handle showed afterwards; None: it refused
    more: str = "refused"  # whether it then took one more change: done, refused, unknown


def live(life: Life, root: str, notes: Notes) -> None:
    """Be that process."""
    warnings.simplefilter("ignore")
    notes.tell(_live(life, root, notes))


def _live(life: Life, root: str, notes: Notes) -> Ending:
    ending = Ending()
    try:
        with Metatree(root, LEVELS, apply=life.apply) as tree:
            for number, act in enumerate(life.acts, 1):
                notes.begin(number)
                try:
                    act(tree)
                except Exception as error:  # noqa: BLE001  judged by who watches
                    ending = go_on(tree, error)
                    break
                notes.acknowledge(number)
            os.getppid()  # seen by who traces: from here on it closes
    except Exception as error:  # noqa: BLE001  of the opening or the closing
        told = f"{ending.raised}\nthen {traceback.format_exc()}" if ending.raised else traceback.format_exc()
        return replace(ending, raised=told, ours=ending.ours and isinstance(error, MetatreeError))
    return ending


def go_on(tree: Metatree, error: Exception, *, exhausted: bool = False) -> Ending:
    """After an error: the same handle reads and writes rightly, or refuses. `exhausted`: it is Python's, not ours, and
    says nothing of what was done."""
    told = "".join(traceback.format_exception(error))
    ours = exhausted or isinstance(error, MetatreeError)
    unknown = exhausted or isinstance(error, CommitUnknownError)
    shown, more = None, "refused"
    try:
        shown = dump(tree)
        more = "unknown"
        tree.update((), more=True)
        more = "done"
    except CommitUnknownError:
        pass
    except MetatreeError:
        more = "refused"
    except Exception:  # noqa: BLE001
        told, ours = f"{told}\nthen {traceback.format_exc()}", False
    return Ending(told, ours, unknown, shown, more)


# --- what it starts from, what it may leave ---------------------------------------------------------------------------


def make_start(kind: str, root: str) -> None:
    """The folder that a life starts from; its log has small segments, so that copying it is cheap."""
    os.makedirs(root)
    if kind == "nothing":
        return
    storage = wal.open_storage(root, {})
    wal.open_log(storage, create=True, segment_size=1 << 16).close()
    storage.close()
    pid = os.fork()
    if pid == 0:
        try:
            tree = Metatree(root, LEVELS)
            populate(tree)
            if kind != "killed":
                tree.close()
        finally:
            os._exit(0)  # with the tree open: killed
    os.waitpid(pid, 0)


def states(life: Life, root: str) -> list[State]:
    """What the tree holds after so many of the acts; also warms this process up."""
    with Metatree(root, LEVELS, apply=life.apply) as tree:
        found = [dump(tree)]
        for act in life.acts:
            act(tree)
            found.append(dump(tree))
        tree.check(deep=True)
    return found


def wrong(known: Sequence[State], notes: Notes, root: str, recover: Callable[[str], Left] = recovered) -> str | None:
    """What is not as it was promised; None if all is."""
    ending, (begun, acknowledged) = notes.ending, notes.counts
    allowed = [known[acknowledged]]
    if begun > acknowledged and (ending is None or ending.unknown):
        allowed.append(known[begun])
    if ending is not None and not ending.ours:
        return f"a raw error: {ending.raised}"
    if ending is not None and ending.shown is not None and ending.shown not in allowed:
        return f"the handle that failed shows another state: {ending.raised}"
    if ending is not None and ending.more != "refused":
        more = [_with_more(state) for state in allowed]
        allowed = more if ending.more == "done" else [*allowed, *more]
    told = ending.raised if ending is not None else "killed"
    try:
        left = recover(root)
    except (MetatreeError, OSError):
        return f"{told}\ncannot be opened afterwards: {traceback.format_exc()}"
    words = f"{acknowledged} acknowledged, {begun} begun, {told}"
    if left.problem is None and left.state not in allowed:
        return f"neither the acknowledged state nor the one in flight; {words}"
    return None if left.problem is None else f"{left.problem}; {words}"


def _with_more(state: State) -> State:
    keys, children, blobs = state[""]
    return {**state, "": ({**keys, "more": True}, children, blobs)}


def copy_folder(source: str, target: str) -> None:
    shutil.copytree(source, target, symlinks=True)
