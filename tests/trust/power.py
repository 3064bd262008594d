"""A life on a disk whose power is cut after every call, and what is verified of each state that may be left.

`Life` counts what was acknowledged; `cut` holds every legal state of the disk against it. A state that several cuts may
leave is recovered once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Any, ClassVar

from metatree import Metatree
from tests.tree.model import LEVELS, OPERATIONS, State, dump, plain
from wal.storage.memory import MemoryPosix, MemoryStorage
from wal.testing import PowerPosix
from wal.testing.power import Choice, Platter

SEVERAL = 10  # choices that are tried for each new state that is asked for: many lead to the same one
CLOSELY = 8  # one state in so many is also read before, and opened again
IN_AN_OPERATION = {  # distinct states that are asked for: nearly what one life of it shows
    **dict.fromkeys(OPERATIONS, 30),
    "transaction of 20": 750,
    "transaction with a pack": 480,
    "move of a model": 230,
    "move of a node": 140,
    "copy of a node": 140,
    "put of a staged blob": 120,
    "put of a directory": 120,
    "put into a new version": 90,
}


def digest(state: State) -> bytes:
    """The same for equal states."""
    found = blake2b()
    for path, (keys, order, blobs) in sorted(state.items()):
        found.update(repr((path, sorted(keys.items()), order, sorted(blobs))).encode())
        for _, content in sorted(blobs.items()):
            found.update(content)
    return found.digest()


class SmallLog(Metatree):
    """A tree whose segments are full after a few records, and cheap to copy."""

    _tuning: ClassVar = {"segment_size": 1 << 14}


class Hasty(SmallLog):
    """On a mount, one that soon takes the place of a committer that was cut off."""

    _tuning: ClassVar = {**SmallLog._tuning, "ttl": 0.01}


def open_tree(posix: MemoryPosix, *, kind: type[Metatree] = SmallLog, **options: Any) -> Metatree:
    return kind(MemoryStorage(posix), LEVELS, **options)


def on_a_mount(disk: MemoryPosix) -> MemoryPosix:
    """The disk, as that of a server which makes names durable only when their folder is flushed."""
    table = b"1 0 0:1 / / rw - fuse.example none rw\n"
    inner = disk.kernel_file
    disk.kernel_file = lambda path: table if path == "/proc/self/mountinfo" else inner(path)  # type: ignore[method-assign]
    return disk


class _MountPlatter(Platter):
    def disk(self, choice: Choice) -> MemoryPosix:
        return on_a_mount(super().disk(choice))


class MountPosix(PowerPosix):
    """`PowerPosix` on a mount."""

    def __init__(self) -> None:
        super().__init__()
        self.platter = _MountPlatter()
        on_a_mount(self)


def recovered(disk: MemoryPosix, *, closely: bool) -> State:
    """What whoever opens the disk finds, every invariant verified; `closely`: a reader and a second opening agree."""
    seen = None
    if closely:
        with open_tree(disk, read_only=True) as reader:
            seen = dump(reader)
    with open_tree(disk, kind=Hasty) as tree:
        report = tree.check(deep=True)
        assert report.ok, str(report)
    found = plain(disk)
    if closely:
        assert seen == found, "a reader found another state than recovery"
        with open_tree(disk) as tree:
            assert tree.recover().clean, "the second opening had to recover again"
            assert dump(tree) == found, "the library does not show what the folders hold"
    return found


def created(disk: MemoryPosix, *, closely: bool) -> State:
    """As `recovered`, where perhaps there is no tree yet, which a reader would refuse."""
    open_tree(disk).close()
    return recovered(disk, closely=closely)


def existing(disk: MemoryPosix, *, closely: bool) -> State:
    """As `recovered`, never making a tree where none is: a reader, who comes first, refuses that."""
    return recovered(disk, closely=True)


@dataclass
class Life:
    """One process on one disk, from a state in which everything is sure."""

    disk: PowerPosix
    seed: str
    products: int  # combinations of the objects' choices that are drawn at each cut
    bound: int  # new states that are looked at after one cut; if there are more, a sample
    recover: Callable[..., State] = recovered
    cuts: int = 0
    known: dict[bytes, bytes] = field(default_factory=dict)  # digest of a disk -> of the state that was recovered
    failure: BaseException | None = None  # the first one: whoever calls into the disk might swallow it

    def allow(self, *states: State) -> None:
        """What a cut may leave from now on: the state before what is in flight, and the one after it."""
        self._allowed = [digest(state) for state in states]

    def start(self) -> None:
        self.disk.settle()
        self._choose = Random(self.seed)
        self.disk.cut = self._cut

    def returned(self) -> None:
        """A cut now that a call has returned, whatever it did last: every object in each of its states."""
        with self.disk._changed:
            self.disk.platter.unsettled()
            if self.disk.cut is not None:
                self._cut("which was the last one of an act that has returned")

    def stop(self) -> None:
        """No more cuts. Raises what was found wrong."""
        self.disk.cut = None
        if self.failure is not None:
            raise self.failure

    def _cut(self, words: str) -> None:
        self.cuts += 1
        if self.failure is None:
            try:
                self._look(f"power cut after call {self.cuts}, {words}; seed {self.seed}")
            except Exception as error:  # noqa: BLE001
                self.failure = error  # `stop` raises it

    def _look(self, words: str) -> None:
        last = len(self.known) + self.bound
        for choice in self.disk.platter.legal(self._choose, self.products, SEVERAL * self.bound):
            mark = self.disk.platter.digest(choice)
            if mark not in self.known and len(self.known) == last:
                return
            try:
                if mark not in self.known:
                    found = self.recover(self.disk.platter.disk(choice), closely=mark[0] % CLOSELY == 0)
                    self.known[mark] = digest(found)
                assert self.known[mark] in self._allowed, "neither the state before nor the one after"
            except Exception as error:
                error.add_note(f"{words}; left: {choice}")
                raise


def acts(life: Life, tree: Metatree, several: Iterable[Callable[[Metatree], object]]) -> None:
    """Carry out changes one after another, with the states that a cut in each may leave."""
    state = dump(tree)
    for act in several:
        to_come = after(life, act)
        life.allow(state, to_come)
        act(tree)
        state = to_come
        life.allow(state)
        life.returned()
        if life.failure is not None:
            return


def after(life: Life, act: Callable[[Metatree], object]) -> State:
    """The state that an act leads to: tried on a copy of the disk as it is now, everything written."""
    with life.disk._changed:  # a committer in the background goes on meanwhile
        copied = life.disk.platter.disk(life.disk.platter.newest())
    with open_tree(copied) as other:
        act(other)
    return plain(copied)
