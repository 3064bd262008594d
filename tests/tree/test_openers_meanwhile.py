"""What another process does between two calls of one that opens a tree: creates it, fills it, trims its log, is gone.

The other one does all of it right before the N-th call, for every N.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

import wal
from metatree import LockTimeoutError, Metatree
from tests.tree.meanwhile import Before, Disk, Files, Impatient, Mount, Objects, Short
from tests.tree.model import LEVELS

NODES = 12


class Other:
    """The other process: opens or creates the tree, commits, trims the log."""

    def __init__(self) -> None:
        self.tree: Metatree | None = None
        self.nodes: list[str] = []  # what it committed, oldest first

    def live(self, storage: wal.Storage) -> None:
        """Everything that can be done without waiting."""
        with suppress(LockTimeoutError):
            self.tree = Impatient(storage, LEVELS)
            for number in range(NODES):
                name = f"m{len(self.nodes):02}"
                self.tree.put(f"{name}/v", b"%d" % number * 50, name="blob")
                self.nodes.append(name)
            self.tree.checkpoint()

    def close(self) -> None:
        if self.tree is not None:
            self.tree.close()


@pytest.mark.parametrize("stays", [True, False], ids=["and stays", "and is gone"])
@pytest.mark.parametrize("there", ["nothing", "an empty tree", "a tree", "a tree, opened for reading"])
@pytest.mark.parametrize("kind", [Files, Mount, Objects])
def test_whatever_another_process_does_between_two_calls_of_an_opener_it_opens_one_whole_tree(
    kind: type[Disk], there: str, stays: bool, fast_path: Path
) -> None:
    at, met, reached = 0, 0, True
    while reached:
        at += 1
        root = fast_path / str(at)
        root.mkdir()
        disk, before, other = kind(root), Before(), Other()
        if there == "an empty tree":
            Short(disk.storage(), LEVELS).close()
        elif there != "nothing":
            other.live(disk.storage())
            other.close()
        known = len(other.nodes)

        def happen(disk: Disk = disk, other: Other = other) -> None:
            other.live(disk.storage())
            if not stays:
                other.close()

        before.at, before.happen = at, happen
        read_only = "reading" in there
        with Short(disk.storage(before), None if read_only else LEVELS, read_only=read_only) as tree:
            reached, before.at = before.count >= at, 0
            expected = list(other.nodes)
            assert tree.children("") == expected, f"another process before call {at}"
            if not read_only:
                tree.put("mine/v", b"mine", name="blob")
                expected.append("mine")
        other.close()
        with Short(disk.storage(), read_only=True) as reader:
            assert [node.path for node in reader.walk("") if node.path and "/" not in node.path] == expected
        met += len(other.nodes) > known
    assert met >= 5, f"the other process was kept out at nearly all of {at} calls"
