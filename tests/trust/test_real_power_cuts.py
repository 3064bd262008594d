"""Power cuts under real filesystems: every write and flush of a disk is noted, and a part of them brought on a new one.

What a program was told before the cut is there once the filesystem and then the tree have recovered; what was in flight
is there whole or not at all. Needs root, FUSE and loop devices. `METATREE_CUTS_SEED` repeats a run.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from logging_disk import Entry, entries

from metatree import Metatree, MetatreeError
from tests.figures import Layer
from tests.servers.debian import need
from tests.tree.conftest import fast_path as fast_path
from tests.tree.model import BIG, LEVELS, OPERATIONS, State, dump, populate
from tests.trust import disks
from tests.trust.lives import wrong_left

SEED = os.environ.get("METATREE_CUTS_SEED", f"{random.randrange(1 << 32):08x}")
NAME = "power cuts under real filesystems"
CUTS = {"ext4": 500, "xfs": 200, "btrfs": 350}  # in an ordinary run: 70 seconds of a processor
NIGHT = 50_000
ROW = 12  # changes before the last cut


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
    with disks.mounted(kind, base, mount), Metatree(f"{mount}/tree", LEVELS) as tree:
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


def recover(kind: str, folder: Path, history: History, choose: random.Random) -> str | None:
    """One cut; what is wrong afterwards."""
    upto = choose.randrange(len(history.written) + 1)
    left = disks.cut(choose, history.written, upto)
    end = history.written[upto - 1].end if upto else 0
    returned = sum(position <= end for position in history.told) - 1
    image, mount = f"{folder}/cut", f"{folder}/mount"
    disks.copy_sparse(f"{folder}/base", image)
    fd = os.open(image, os.O_RDWR)
    disks.write(fd, left)
    os.close(fd)
    words = f"cut before write {upto} of {len(history.written)}, {returned} changes had returned"
    try:
        with disks.mounted(kind, image, mount):
            return wrong_left(history.states[returned : returned + 2], f"{mount}/tree", words)
    except (MetatreeError, OSError) as error:
        return f"{words}: {type(error).__name__}: {error}"


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
    end, done, lives = time.monotonic() + layer.seconds(0.06), 0, 0
    while done < CUTS[kind] or time.monotonic() < end:
        folder = fast_path / str(lives)
        for name in ("mount", "fuse"):
            (folder / name).mkdir(parents=True)
        seed = f"{SEED} {kind} {lives}"
        history = run(kind, folder, seed)
        choose = random.Random(seed)
        for _ in range(min(CUTS[kind] - done, 250) if done < CUTS[kind] else 250):
            problem = recover(kind, folder, history, choose)
            assert problem is None, f"{problem}\nagain: METATREE_CUTS_SEED={SEED} pytest {__file__} -k {kind}"
            done += 1
        for name in ("base", "work", "log", "cut"):
            (folder / name).unlink()
        lives += 1
    note = f"{kind} {done}, seed {SEED}"
    layer.report(NAME, done, floor=CUTS[kind], night=NIGHT // len(CUTS), unit="cuts", note=note)
