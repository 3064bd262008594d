"""Power cuts under real filesystems: every write and flush of a disk is noted, and a part of them brought on a new one.

What a program was told before the cut is there once the filesystem and then the tree have recovered; what was in flight
is there whole or not at all. Needs root, FUSE and loop devices. `METATREE_CUTS_SEED` repeats a run.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from logging_disk import Entry, entries

import wal
from metatree import Metatree, MetatreeError
from tests.figures import Layer
from tests.servers.debian import need
from tests.tree.conftest import fast_path as fast_path
from tests.tree.model import BIG, LEVELS, OPERATIONS, State, dump, populate
from tests.trust import disks
from tests.trust.leftovers import Left, Recovered

SEED = os.environ.get("METATREE_CUTS_SEED", f"{random.randrange(1 << 32):08x}")
NAME = "power cuts under real filesystems"
CUTS = {"ext4": 1_200, "xfs": 900, "btrfs": 900}  # in an ordinary run
NIGHT = 50_000
SEGMENT = 1 << 16  # of the log: small, so that the row goes over several
ROW = 24  # changes before the last cut
DRAWN = 300  # cuts of one history; about half of them leave a disk that no other leaves


@dataclass(frozen=True)
class History:
    """What was written in one run, and what was promised."""

    written: list[Entry]
    told: list[int]  # where the log of the disk ended when so many changes had returned
    states: list[State]  # of the tree, then


def changes(choose: random.Random) -> Iterator[Callable[[Metatree], object]]:
    """Changes of every kind; those that cannot be made where the tree stands change nothing."""
    acts = [operation.act for name, operation in OPERATIONS.items() if name != "close"]
    number = 0
    while True:
        number += 1
        yield lambda tree, n=number: tree.put(f"row/v{n}", BIG[: 60_000 + 1_000 * n], name="b")  # type: ignore[misc]
        yield from choose.sample(acts, 2)
        yield lambda tree: tree.checkpoint()


def run(kind: str, folder: Path, seed: str) -> History:
    """Let a program work on a disk whose writes are noted; `folder`/base is the disk before it."""
    base, work, log, mount = f"{folder}/base", f"{folder}/work", f"{folder}/log", f"{folder}/mount"
    disks.make_image(kind, base)
    with disks.mounted(kind, base, mount):
        os.mkdir(f"{mount}/tree")
        storage = wal.open_storage(f"{mount}/tree", {})
        wal.open_log(storage, create=True, segment_size=SEGMENT).close()
        storage.close()
        with Metatree(f"{mount}/tree", LEVELS) as tree:
            populate(tree)
    disks.copy_sparse(base, work)
    row = changes(random.Random(seed))
    with (
        disks.noted(work, log, f"{folder}/fuse") as disk,
        disks.mounted(kind, disk, mount),
        Metatree(f"{mount}/tree", LEVELS) as tree,
    ):
        told, states = [0], [dump(tree)]
        for _ in range(ROW):
            with suppress(MetatreeError):
                next(row)(tree)
            told.append(os.stat(log).st_size)
            states.append(dump(tree))
    return History(list(entries(log)), told, states)


class Cuts:
    """The cuts of one history. A disk that was left before is not mounted again, and where two filesystems recover to
    the same tree, the tree is recovered once."""

    def __init__(self, kind: str, folder: Path, history: History) -> None:
        self._kind, self._folder, self._history = kind, folder, history
        self._disks: dict[object, Left] = {}
        self._recovered = Recovered()

    @property
    def distinct(self) -> tuple[int, int]:
        """Different disks that were mounted, and different trees on them."""
        return len(self._disks), self._recovered.distinct

    def cut(self, choose: random.Random) -> str | None:
        """One cut; what is wrong afterwards."""
        written, told = self._history.written, self._history.told
        upto = choose.randrange(len(written) + 1)
        left = disks.cut(choose, written, upto)
        end = written[upto - 1].end if upto else 0
        returned = sum(position <= end for position in told) - 1
        words = f"cut before write {upto} of {len(written)}, {returned} changes had returned"
        image = disks.content(left)
        try:
            tree = self._disks[image] = self._disks.get(image) or self._recover(left)
        except (MetatreeError, OSError) as error:
            return f"{words}: {type(error).__name__}: {error}"
        if tree.problem is None and tree.state not in self._history.states[returned : returned + 2]:
            return f"{words}: neither the acknowledged state nor the one in flight"
        return None if tree.problem is None else f"{words}: {tree.problem}"

    def _recover(self, left: list[Entry]) -> Left:
        image, mount = f"{self._folder}/cut", f"{self._folder}/mount"
        disks.copy_sparse(f"{self._folder}/base", image)
        fd = os.open(image, os.O_RDWR)
        disks.write(fd, left)
        os.close(fd)
        with disks.mounted(self._kind, image, mount):
            return self._recovered(f"{mount}/tree")


def possible(layer: Layer, kind: str, folder: Path) -> None:
    """Everything that it takes is here."""
    if sys.platform != "linux" or os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        layer.not_run(f"{NAME}: {kind}", "needs Linux, root and /dev/fuse")
    if not os.path.exists("/dev/loop-control"):
        layer.not_run(f"{NAME}: {kind}", "needs loop devices")
    package = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}[kind]
    need(layer, f"{NAME}: {kind}", {f"mkfs.{kind}": package, "fusermount": "fuse"})
    subprocess.run(["modprobe", "-q", kind], check=False) if Path("/sbin/modprobe").exists() else None
    if f"\t{kind}\n" not in Path("/proc/filesystems").read_text():
        layer.not_run(f"{NAME}: {kind}", "not in this kernel")
    image, fuse, mount = (folder / f"trial{ending}" for ending in ("", ".fuse", ".mount"))
    fuse.mkdir()
    mount.mkdir()
    disks.make_image(kind, str(image))
    try:
        with disks.noted(str(image), f"{image}.log", str(fuse)) as disk, disks.mounted(kind, disk, str(mount)):
            pass
    except OSError as error:
        layer.not_run(f"{NAME}: {kind}", f"cannot be mounted here: {error}")


@pytest.mark.parametrize("kind", disks.MAKE)
def test_what_was_acknowledged_is_there_after_a_power_cut(layer: Layer, fast_path: Path, kind: str) -> None:
    possible(layer, kind, fast_path)
    done, trees, lives, aims = 0, 0, 0, {"floor": CUTS[kind], "night": NIGHT // len(CUTS)}
    while layer.more(NAME, done, **aims, among=len(CUTS)):
        folder = fast_path / str(lives)
        for name in ("mount", "fuse"):
            (folder / name).mkdir(parents=True)
        seed = f"{SEED} {kind} {lives}"
        cuts = Cuts(kind, folder, run(kind, folder, seed))
        choose = random.Random(seed)
        for _ in range(DRAWN):
            if not layer.more(NAME, done + cuts.distinct[0], **aims, among=len(CUTS)):
                break
            problem = cuts.cut(choose)
            assert problem is None, f"{problem}\nagain: METATREE_CUTS_SEED={SEED} pytest {__file__} -k {kind}"
        for name in ("base", "work", "log", "cut"):
            (folder / name).unlink()
        done, trees, lives = done + cuts.distinct[0], trees + cuts.distinct[1], lives + 1
    note = f"{kind} {done}, seed {SEED}"
    layer.report(NAME, done, **aims, unit="cuts, each another disk", note=note)
    layer.report(NAME, trees, floor=lives, night=0, unit="distinct trees recovered")
