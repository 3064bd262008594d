"""What a transaction read against what a commit changed: the same answer as by looking at every pair, for less."""

from __future__ import annotations

import random

import pytest

from metatree import reads
from metatree.facts import Changes
from metatree.location import Path, fold_name, join, split
from metatree.reads import ReadSet
from tests.tree.compared import Name

NAMES = ("a", "A", "b", "c")
PATHS: list[Path] = [(), ("a",), ("b",), ("a", "b"), ("a", "c"), ("b", "a")]
KINDS = ("set", "unset", "new", "gone", "put", "del")
MANY = 200


def read(found: ReadSet, kind: int, path: Path, name: str) -> None:
    match kind:
        case 0:
            found.key(path, name)
        case 1:
            found.all_keys(path)
        case 2:
            found.names(path)
        case 3:
            found.name(path, name)
        case 4:
            found.creatable(path, name)
        case _:
            found.tree(path)


def touches(kind: int, path: Path, name: str, text: str, what: str, touched: str) -> bool:
    """Whether one read and one change are in conflict, by the words of `ReadSet`'s methods."""
    node, same = split(text), split(text) == path
    folded = fold_name(touched) == fold_name(name)
    if kind == 5 and node[: len(path)] == path:
        return True
    if what == "gone" and kind != 4 and path[: len(node) + 1] == (*node, touched):
        return True
    match kind:
        case 0:
            return same and what in ("set", "unset") and touched == name
        case 1:
            return same and what in ("set", "unset")
        case 2:
            return same and what in ("new", "gone", "put", "del")
        case 3:
            return same and what in ("new", "gone", "put", "del") and folded
        case 4:
            return same and folded and (what == "put" or (what == "new" and touched != name))
    return False


def test_a_conflict_is_found_where_one_read_and_one_change_touch() -> None:
    draw, seen = random.Random(1), set[bool]()
    for _ in range(20_000):
        found = ReadSet()
        asked = [(draw.randrange(6), draw.choice(PATHS), draw.choice(NAMES)) for _ in range(draw.randrange(1, 4))]
        made = [(join(draw.choice(PATHS)), draw.choice(KINDS), draw.choice(NAMES)) for _ in range(draw.randrange(1, 3))]
        changes: Changes = {}
        for each in asked:
            read(found, *each)
        for text, what, name in made:
            changes.setdefault(text, {}).setdefault(what, []).append(name)
        expected = any(touches(*one, *other) for one in asked for other in made)
        assert (found.conflict(changes) is not None) == expected, (asked, changes)
        seen.add(expected)
    assert seen == {True, False}


@pytest.mark.parametrize("what", ["new", "put"])
def test_many_wanted_names_and_many_new_ones_are_not_compared_in_pairs(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, folded = ReadSet(), 0
    for number in range(MANY):
        found.creatable(("a",), f"mine{number}")

    def counting(name: str) -> str:
        nonlocal folded
        folded += 1
        return fold_name(name)

    monkeypatch.setattr(reads, "fold_name", counting)
    assert found.conflict({"a": {what: [f"theirs{number}" for number in range(MANY)]}}) is None
    assert 0 < folded <= 2 * MANY


def test_many_reads_and_many_drops_are_not_compared_in_pairs() -> None:
    found = ReadSet()
    for number in range(MANY):
        found.names((Name("a"), Name(f"mine{number}")))
    Name.compared = 0
    assert found.conflict({"a": {"gone": [f"theirs{number}" for number in range(MANY)]}}) is None
    assert Name.compared < 10 * MANY


def test_many_reads_of_keys_and_many_changed_ones_are_not_compared_in_pairs() -> None:
    found = ReadSet()
    for number in range(MANY):
        found.key(("a",), Name(f"mine{number}"))
    Name.compared = 0
    assert found.conflict({"a": {"set": [f"theirs{number}" for number in range(MANY)]}}) is None
    assert Name.compared < 10 * MANY
