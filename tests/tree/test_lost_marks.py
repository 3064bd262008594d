"""What a power cut took the attribute of is not taken for somebody else's file."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from metatree import Metatree
from metatree.facts import BlobFact, Inline, NodeFact, NodeGone
from metatree.fold import fold
from tests.tree.model import BIG, ROOT, clone, empty_disk, open_tree, plain
from wal.storage.memory import MemoryPosix

FIRST: dict[str, tuple[Callable[[Metatree], object], tuple[str, ...]]] = {
    "a small blob": (lambda tree: tree.put("a", b"small", name="x"), ("x",)),
    "a staged blob": (lambda tree: tree.put("a", BIG, name="x"), ("x",)),
    "a node below": (lambda tree: tree.put("a/v", b"small", name="x"), ("v/x", "v/metadata.json")),
    "a blob that went before": (lambda tree: (tree.put("a", b"small", name="x"), tree.delete("a/x")), ("x",)),
}


def again(first: Callable[[Metatree], object], lost: tuple[str, ...]) -> tuple[MemoryPosix, MemoryPosix]:
    """A node was made, dropped and made again in one window: as it is, and as if the folder of the first one had stayed
    in its place, its files without their attributes."""
    disk = empty_disk()
    tree = open_tree(disk)
    first(tree)
    old = clone(disk)._find(f"{ROOT}/a")
    for name in lost:
        inode = old
        for part in name.split("/"):
            inode = inode.entries.setdefault(part, type(old)(1 << 20, folder=False, links=1, data=bytearray(b"small")))
        inode.attributes.clear()
    tree.delete("a", recursive=True)
    tree.put("a/w", b"new", name="y")
    cut = clone(disk)
    cut._find(ROOT).entries["a"] = old
    return clone(disk), cut


@pytest.mark.parametrize("name", FIRST)
def test_a_dropped_node_that_a_power_cut_left_gives_nothing_to_its_successor(name: str) -> None:
    right, cut = again(*FIRST[name])
    with open_tree(cut) as tree:
        assert tree.check(deep=True).ok
    assert plain(cut) == plain(right)


def test_a_file_that_nobody_put_is_still_given_back() -> None:
    right, cut = again(*FIRST["a small blob"])
    foreign = type(cut._top)(1 << 21, folder=False, links=1, data=bytearray(b"by hand"))
    cut._find(f"{ROOT}/a").entries["notes"] = foreign
    with open_tree(cut):
        pass
    expected = plain(right)
    expected["a"][2]["notes"] = b"by hand"
    assert plain(cut) == expected


def test_what_was_put_is_told_of_every_time_that_the_node_was_made_and_dropped() -> None:
    effect = fold([])
    for number in range(3):
        below = BlobFact(("m", "v"), f"b{number}", 1, "0" * 64, Inline(b"x"))
        fold([NodeFact(("m",), {}, ("v",)), NodeFact(("m", "v"), {}, ()), below, NodeGone(("m", "v"))], effect)
        fold([NodeGone(("m",))], effect)
        made = {f"v/b{before}" for before in range(number + 1)} | {"v/metadata.json", "metadata.json"}
        assert effect.at(("m",)).files_put() == made
    assert effect.files_put() == {f"m/{file}" for file in made}
