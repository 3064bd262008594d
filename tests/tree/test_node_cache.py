"""Kept nodes: those of a dropped node go with it, whatever else is kept, and the others stay."""

from __future__ import annotations

import random
import sys
from types import FrameType
from typing import Any

import pytest

from metatree import fold, nodes
from metatree.facts import NodeFact, NodeGone
from metatree.fold import Effect
from metatree.location import Path, fold_name
from metatree.nodes import CACHE_BYTES, NodeCache, NodeState
from tests.tree.compared import Name

PATHS = [
    (),
    *((a,) for a in "ab"),
    *((a, b) for a in "ab" for b in "xyz"),
    *((a, b, c) for a in "ab" for b in "xyz" for c in "12"),
]


def node() -> NodeState:
    return NodeState.of({}, ())


def kept(cache: NodeCache) -> set[Path]:
    return {path for path in PATHS if cache.get(path) is not None}


def test_what_is_kept_is_what_was_kept_but_for_what_was_dropped_at_it_or_above() -> None:
    draw = random.Random(1)
    cache, model = NodeCache(), set[Path]()
    for _ in range(3000):
        path = draw.choice(PATHS)
        if draw.random() < 0.7 or not path:
            cache.keep(path, node())
            model.add(path)
        else:
            cache.forward(NodeGone(path))
            model -= {other for other in model if other[: len(path)] == path}
        assert kept(cache) == model


def test_a_node_goes_whose_parents_are_not_kept() -> None:
    cache = NodeCache()
    cache.keep(("a", "x", "1"), node())
    cache.keep(("b", "x", "1"), node())
    cache.forward(NodeGone(("a",)))
    assert kept(cache) == {("b", "x", "1")}


def test_a_node_that_was_evicted_does_not_take_the_way_to_others_along() -> None:
    cache = NodeCache()
    cache.keep(("a",), node())
    cache.keep(("a", "x", "1"), node())
    large = node()
    large.weight = CACHE_BYTES - cache.get(("a", "x", "1")).weight  # type: ignore[union-attr]
    cache.keep(("b",), large)
    assert kept(cache) == {("a", "x", "1"), ("b",)}
    cache.forward(NodeGone(("a", "x")))
    assert kept(cache) == {("b",)}


def test_nothing_is_left_when_all_went() -> None:
    cache = NodeCache()
    for path in PATHS[1:]:
        cache.forward(NodeFact(path, {"n": 1}, ()))
    for name in "ab":
        cache.forward(NodeGone((name,)))
    assert kept(cache) == set() and cache._below == {} and cache._weight == 0


def test_a_drop_looks_at_no_other_node() -> None:
    cache = NodeCache()
    for number in range(1000):
        cache.keep((Name(f"m{number}"), Name("v")), node())
    Name.compared = 0
    cache.forward(NodeGone((Name("m7"),)))
    assert Name.compared < 50


class Interrupting:
    """Raises KeyboardInterrupt at one line of the modules that bring a state forward."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and frame.f_code.co_filename in (nodes.__file__, fold.__file__):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


@pytest.mark.parametrize("at", range(1, 40))
def test_a_child_that_came_while_an_interrupt_did_is_known_in_full_when_its_record_is_met_again(at: int) -> None:
    cache, effect = NodeCache(), Effect()
    old, fact = NodeFact(("m",), {}, ("a",)), NodeFact(("m",), {}, ("a", "B"))
    kept = NodeState.of({}, ("a",))
    kept.blobs, kept.names = {"B"}, {"a": "a"}  # its folder was listed before it was known
    cache.keep(("m",), kept)
    effect.apply(old)
    effect.at(("m",)).name_taken("a")  # from now on names are kept
    sys.settrace(Interrupting(at))
    try:
        cache.forward(fact)
        effect.apply(fact)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    cache.forward(fact)
    effect.apply(fact)
    node = cache.get(("m",))
    assert node is not None and (node.blobs, node.names) == (set(), {"a": "a", fold_name("B"): "B"})
    assert list(node.children) == ["a", "B"] == list(effect.at(("m",)).children)
    assert effect.at(("m",)).name_taken(fold_name("B")) == ("B", True)
