"""What the cache of parsed nodes counts is what they take in memory, and is bounded."""

from __future__ import annotations

import gc
import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from sys import getsizeof
from typing import Any

import pytest

from metatree import Metatree, nodes
from metatree.facts import BlobFact, BlobGone, ChildFact, Fact, Inline, KeysFact, NodeFact, NodeGone
from metatree.location import fold_name
from metatree.nodes import NodeCache, NodeState
from metatree.reader import Reader

LEVELS = ("model", "version")


def held(make: Callable[[], NodeCache]) -> tuple[int, NodeCache]:
    """(the bytes of memory that a cache and all in it take, the cache)."""
    gc.collect()
    tracemalloc.start()
    try:
        cache = make()
        gc.collect()
        return tracemalloc.get_traced_memory()[0], cache
    finally:
        tracemalloc.stop()


def assert_honest(make: Callable[[], NodeCache]) -> None:
    true, cache = held(make)
    assert true / 2 < cache._memory < true * 2, f"{true} bytes in memory, {cache._memory} counted"


def parsed(keys: dict[str, Any], children: list[str]) -> NodeState:
    """A node as its file gives it: nothing in it is shared with another."""
    fresh = json.loads(json.dumps([keys, children]))
    return NodeState(fresh[0], dict.fromkeys(fresh[1], True), 0)


def name(node: NodeState, *blobs: str) -> None:
    """What `Reader.names` does."""
    own = set(json.loads(json.dumps(blobs)))
    node.set_names(own, {fold_name(name): name for name in (*node.children, *own)})


KEYS: dict[str, dict[str, Any]] = {
    "none": {},
    "a few": {"name": "fraud", "auc": 0.93, "n": 12345, "stage": "candidate", "ok": True, "none": None},
    "long text": {"notes": "x" * 5000, "more": "é" * 5000},
    "small numbers": {"histogram": [n % 200 for n in range(500)]},
    "numbers": {"histogram": [n / 7 for n in range(500)]},
    "rows": {"rows": [{"epoch": n, "loss": n / 3, "ok": False} for n in range(100)]},
    "a table": {"table": {f"row {n}": [n, n / 3] for n in range(100)}},
    "many": {f"key {n}": f"value {n}" for n in range(300)},
}


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS.keys())
def test_small_nodes_are_counted_within_a_factor_of_two(keys: dict[str, Any]) -> None:
    def make() -> NodeCache:
        cache = NodeCache()
        for number in range(200):
            cache.keep((f"m{number // 10}", f"v{number}"), parsed(keys, []))
        return cache

    assert_honest(make)


NAMES = {"short": "v{}", "upper case": "V{}", "long": "v{:0180d}", "not ASCII": "é{}"}


@pytest.mark.parametrize("form", NAMES.values(), ids=NAMES.keys())
@pytest.mark.parametrize("named", [False, True])
def test_a_large_node_is_counted_within_a_factor_of_two(form: str, named: bool) -> None:
    """Also when all the names in it are kept, since a put has asked whether a name is taken."""

    def make() -> NodeCache:
        cache, node = NodeCache(), parsed({}, [form.format(number) for number in range(20_000)])
        cache.keep(("m",), node)
        if named:
            name(node)
            cache.recount(("m",), node)
        return cache

    assert_honest(make)


def test_a_node_that_has_grown_child_by_child_is_counted_within_a_factor_of_two() -> None:
    def make() -> NodeCache:
        cache, node = NodeCache(), parsed({}, [])
        name(node)
        cache.keep(("m",), node)
        for number in range(4000):
            cache.forward([ChildFact(("m",), f"version {number}", True)])
            cache.forward([BlobFact(("m",), f"blob {number}", 0, "", Inline(b""))])
            cache.forward([KeysFact(("m",), {"n": number}, ())])
        return cache

    assert_honest(make)


# --- the count follows the changes ------------------------------------------------------------------------------------

WORDS = ("a", "A", "b", "B", "long name", "LONG name", "é", "É", "\N{GRINNING FACE}")
PATHS = ((), ("m",), ("m", "v"))


def any_value(draw: random.Random) -> Any:
    return draw.choice([None, 1, 10**9, 0.5, "text", ["x", {"y": 1.5}], {"deep": {"er": "value"}}])


def any_fact(draw: random.Random) -> Fact:
    path, word = draw.choice(PATHS), draw.choice(WORDS)
    kind = draw.randrange(12)
    if kind == 0:
        return NodeGone(path)
    if kind < 3:
        return NodeFact(path, {word: any_value(draw)}, tuple(draw.sample(WORDS, draw.randrange(5))))
    if kind < 6:
        return KeysFact(path, {word: any_value(draw)}, tuple(draw.sample([w for w in WORDS if w != word], 2)))
    if kind < 8:
        return ChildFact(path, word, draw.random() < 0.6)
    if kind < 10:
        return BlobFact(path, draw.choice([word, f"{word}/inner"]), 0, "", Inline(b""))
    return BlobGone(path, draw.choice([word, f"{word}/inner"]))


def counted_anew(node: NodeState) -> int:
    """The contents of a node, counted in one go."""
    fresh = NodeState(node.keys, node.children, 0)
    if node.blobs is not None:
        fresh.set_names(node.blobs, node.names)
    return fresh.contents


@pytest.mark.parametrize("eager", [False, True])
def test_whatever_has_changed_a_node_its_count_is_that_of_one_counted_anew(eager: bool) -> None:
    draw, cache, met = random.Random(3), NodeCache(eager=eager), 0
    for _ in range(10_000):
        kind, path = draw.random(), draw.choice(PATHS)
        node = cache.get(path)
        if node is None and kind < 0.1:
            cache.keep(path, NodeState.of({"a": any_value(draw)}, draw.sample(WORDS, 3)))
        elif node is not None and node.blobs is None and kind < 0.3:
            name(node, *(set(draw.sample(WORDS, 3)) - node.children.keys()))
            cache.recount(path, node)
        else:
            cache.forward([any_fact(draw)])
        kept = [each for path in PATHS if (each := cache.get(path)) is not None]
        met += any(each.names for each in kept)
        assert [each.contents for each in kept] == [counted_anew(each) for each in kept]
        assert cache._memory == sum(each.counted for each in kept) == sum(each.memory() for each in kept)
    assert met > 300


class Unread(dict[str, Any]):
    """A dict that nobody may go through."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("all names were read")

    keys = values = items = __iter__  # type: ignore[assignment]


def test_a_change_of_a_large_node_counts_none_of_its_other_names() -> None:
    cache, node = NodeCache(), parsed({}, ["a", "b"])
    name(node, "c")
    cache.keep(("m",), node)
    node.children, node.names = Unread(node.children), Unread(node.names)
    cache.forward(
        [ChildFact(("m",), "d", True), ChildFact(("m",), "a", False), BlobFact(("m",), "e", 0, "", Inline(b""))]
    )
    cache.forward([BlobGone(("m",), "c"), KeysFact(("m",), {"n": 1}, ())])
    assert cache._memory == node.memory() + getsizeof({"n": 1}) - getsizeof({}) + getsizeof("n")


# --- the bound --------------------------------------------------------------------------------------------------------


def test_what_is_kept_never_takes_more_than_the_bound_but_for_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "CACHE_BYTES", 5000)
    draw, cache = random.Random(4), NodeCache(eager=True)
    for _ in range(5000):
        if draw.random() < 0.2:
            cache.keep((draw.choice(WORDS), draw.choice(WORDS)), parsed({"a": "x" * draw.randrange(500)}, []))
        else:
            cache.forward([any_fact(draw)])
        assert cache._memory <= 5000 or len(cache._nodes) == 1
        assert cache._memory == sum(each.counted for each in cache._nodes.values())


@pytest.mark.parametrize("grow", ["children", "names"])
def test_a_node_that_grows_takes_the_place_of_others(grow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "CACHE_BYTES", 200_000)
    cache, node = NodeCache(), parsed({}, [f"v{number}" for number in range(1000)])
    for number in range(30):
        cache.keep((f"m{number}",), parsed({}, []))
    cache.keep(("m",), node)
    assert cache.get(("m0",)) and cache.resolve(("m1",)) and cache.get(("m",))
    if grow == "names":
        monkeypatch.setattr(nodes, "CACHE_BYTES", cache._memory + 10_000)
        name(node)
        cache.recount(("m",), node)
    else:
        for number in range(2000):
            cache.forward([ChildFact(("m",), f"w{number}", True)])
    assert cache.get(("m1",)) is None and cache.resolved == {} and cache.get(("m",)) is node
    assert cache._memory <= nodes.CACHE_BYTES or len(cache._nodes) == 1


def test_names_that_are_kept_count_with_their_tables() -> None:
    cache, node = NodeCache(), parsed({}, [f"v{number}" for number in range(1000)])
    cache.keep(("m",), node)
    before, empty = cache._memory, getsizeof(node.blobs) + getsizeof(node.names)
    name(node, "b", "c")
    cache.recount(("m",), node)
    assert node.blobs is not None
    strings = sum(map(getsizeof, (*node.blobs, *node.names)))
    assert cache._memory == before + strings + getsizeof(node.blobs) + getsizeof(node.names) - empty


def test_a_node_that_is_not_kept_is_not_counted() -> None:
    cache, node = NodeCache(), parsed({}, ["a"])
    cache.keep(("m",), parsed({}, []))
    before = cache._memory
    name(node)
    cache.recount(("m",), node)
    cache.recount(("other",), node)
    assert cache._memory == before


def test_a_long_walk_of_a_handle_stays_within_the_bound(fast_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model is asked whether a name is taken, so that all names are kept too; and every answer is right."""
    bound = 1 << 19
    with Metatree(fast_path / "tree", LEVELS) as tree, tree.transaction():
        for model in range(24):
            for version in range(200):
                tree.put(f"m{model}/version {version}", b"", name="b")
            tree.update(f"m{model}", number=model)
    monkeypatch.setattr(nodes, "CACHE_BYTES", bound)
    with Metatree(fast_path / "tree") as tree:
        reader = tree._engine.reader

        def walk() -> NodeCache:
            for model in range(24):
                found = tree.find(f"m{model}")
                assert found.metadata["number"] == model and len(tree.children(f"m{model}")) == 200
                reader.ask(lambda _, model=model: named(reader, model))  # type: ignore[misc]
                cache = reader.window.nodes
                assert cache._memory == sum(node.memory() for node in cache._nodes.values()) <= bound
            return reader.window.nodes

        true, cache = held(walk)
        assert bound / 2 < cache._memory and true < 2 * bound


def named(reader: Reader, model: int) -> dict[str, str]:
    node = reader.node((f"m{model}",))
    assert node is not None
    return reader.names((f"m{model}",), node)
