"""Kept nodes: those of a dropped node go with it, whatever else is kept, and the others stay."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from pathlib import Path as FilePath
from types import FrameType
from typing import Any
from unittest import mock

import pytest

import wal
from metatree import Metatree, fold, nodes
from metatree.errors import InvalidLocationError
from metatree.facts import Fact, Header, KeysFact, NodeFact, NodeGone, encode
from metatree.fold import Effect
from metatree.location import Path, Reference, fold_name, parse_string, substitute
from metatree.metadata import Metadata
from metatree.nodes import CACHE_BYTES, MAX_RESOLVED, Found, NodeCache, NodeState, Where
from metatree.window import Window
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
            cache.forward([NodeGone(path)])
            model -= {other for other in model if other[: len(path)] == path}
        assert kept(cache) == model


def test_a_node_goes_whose_parents_are_not_kept() -> None:
    cache = NodeCache()
    cache.keep(("a", "x", "1"), node())
    cache.keep(("b", "x", "1"), node())
    cache.forward([NodeGone(("a",))])
    assert kept(cache) == {("b", "x", "1")}


def test_a_node_that_was_evicted_does_not_take_the_way_to_others_along() -> None:
    cache = NodeCache()
    cache.keep(("a",), node())
    cache.keep(("a", "x", "1"), node())
    large = node()
    large.contents += CACHE_BYTES - large.memory() - cache.get(("a", "x", "1")).memory()  # type: ignore[union-attr]
    cache.keep(("b",), large)
    assert kept(cache) == {("a", "x", "1"), ("b",)}
    cache.forward([NodeGone(("a", "x"))])
    assert kept(cache) == {("b",)}


def test_nothing_is_left_when_all_went() -> None:
    cache = NodeCache()
    for path in PATHS[1:]:
        cache.forward([NodeFact(path, {"n": 1}, ())])
    for name in "ab":
        cache.forward([NodeGone((name,))])
    assert kept(cache) == set() and cache._below == {} and cache._memory == 0


def test_a_drop_looks_at_no_other_node() -> None:
    cache = NodeCache()
    for number in range(1000):
        cache.keep((Name(f"m{number}"), Name("v")), node())
    Name.compared = 0
    cache.forward([NodeGone((Name("m7"),))])
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


@pytest.mark.parametrize("at", range(1, 60))
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
        cache.forward([fact])
        effect.apply(fact)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    cache.forward([fact])
    effect.apply(fact)
    node = cache.get(("m",))
    assert node is not None and (node.blobs, node.names) == (set(), {"a": "a", fold_name("B"): "B"})
    assert list(node.children) == ["a", "B"] == list(effect.at(("m",)).children)
    assert effect.at(("m",)).name_taken(fold_name("B")) == ("B", True)


# --- where locations lead -------------------------------------------------------------------------------------------

LOCATIONS: list[Where] = [
    "a/<to>",
    "b/x",
    *PATHS,
    (Reference("to"), "x"),
    ("a", Reference("to")),
    ("b", Reference("to"), Reference("to")),
]


def leads_to(cache: NodeCache, where: Where) -> Found | None:
    path: Path = ()
    for segment in parse_string(where) if isinstance(where, str) else where:
        if isinstance(segment, Reference):
            above = cache.get(path)
            if above is None:
                return None
            segment = substitute(segment, above.keys, path)
        path = (*path, segment)
    node = cache.get(path)
    return None if node is None else (path, Metadata(node.keys))


def any_fact(draw: random.Random) -> Fact:
    path, to = draw.choice(PATHS), draw.choice("abxyz12")
    whole = NodeFact(path, {"to": to}, ())
    return draw.choice([whole, KeysFact(path, {"to": to}, ()), KeysFact(path, {}, ("to",)), NodeGone(path)])


def test_where_a_location_leads_is_forgotten_when_anything_is_changed() -> None:
    draw = random.Random(2)
    cache, met = NodeCache(), 0
    for _ in range(20_000):
        segments = draw.choice(LOCATIONS)
        kind = draw.random()
        if kind < 0.1:
            cache.keep(draw.choice(PATHS), NodeState.of({"to": draw.choice("abxyz12")}, ()))
        elif kind < 0.12:
            cache.forward([any_fact(draw)])
        elif kind < 0.6:
            try:
                cache.resolve(segments)
            except InvalidLocationError:
                assert segments not in cache.resolved
        elif segments in cache.resolved:
            met += 1
            assert cache.resolved[segments] == leads_to(cache, segments)
    assert met > 500


@pytest.mark.parametrize("fact", [NodeFact(("m",), {}, ()), KeysFact(("m",), {"a": 1}, ()), NodeGone(("m",))])
def test_where_a_location_leads_is_forgotten_with_each_fact(fact: Fact) -> None:
    cache = NodeCache()
    cache.keep(("m",), NodeState.of({"a": 0}, ()))
    assert cache.resolve(("m",)) == (("m",), {"a": 0}) == cache.resolved[("m",)]
    cache.forward([fact])
    assert cache.resolved == {}


def test_a_node_that_is_no_longer_kept_is_not_held_by_where_locations_lead() -> None:
    cache, large = NodeCache(), node()
    cache.keep(("a",), node())
    assert cache.resolve(("a",)) is not None
    large.contents = CACHE_BYTES
    cache.keep(("b",), large)
    assert cache.get(("a",)) is None and cache.resolved == {}


def test_no_more_locations_are_remembered_than_the_bound() -> None:
    cache = NodeCache()
    cache.keep((), NodeState.of({f"k{number}": "a" for number in range(3 * MAX_RESOLVED)}, ()))
    cache.keep(("a",), node())
    for number in range(3 * MAX_RESOLVED):
        assert cache.resolve((Reference(f"k{number}"),)) == (("a",), {})
        assert 0 < len(cache.resolved) <= MAX_RESOLVED


def test_a_window_that_begins_anew_forgets_where_locations_led_before_its_head_moves() -> None:
    """Who looks without the lock compares the heads, and then takes what is remembered."""
    log = mock.Mock(trimmed=lambda *, fresh=False: 7)
    window = Window(log, trust_applied=False, eager=False)
    window.nodes.keep((), node())
    window.nodes.resolve(())
    old, seen = window.nodes.resolved, set[tuple[int, bool]]()

    def look(frame: FrameType, event: str, argument: Any) -> Any:
        seen.add((window.head, window.nodes.resolved is old))
        return look

    sys.settrace(look)
    try:
        window.restart()
    finally:
        sys.settrace(None)
    assert {(0, True), (7, False)} <= seen and (7, True) not in seen


def test_a_commit_between_the_look_into_memory_and_the_look_at_the_log_is_seen(fast_path: FilePath) -> None:
    """What was taken from memory before it counts only if the log has not grown since."""
    with Metatree(fast_path / "tree", ("model", "version")) as tree, Metatree(fast_path / "tree") as other:
        for version in ("v1", "v2"):
            other.put(f"m/{version}", b"", name="b")
        other.update("m", active="v1")
        for _ in range(3):
            assert tree.find("m/<active>").name == "v1"

        class Meanwhile(dict[Where, Found]):
            def get(self, where: Where, default: Any = None) -> Any:
                found = super().get(where, default)
                other.update("m", active="v2")
                tree._engine.reader.refresh()  # as another thread of this handle may
                return found

        cache = tree._engine.reader.window.nodes
        cache.resolved = Meanwhile(cache.resolved)
        assert "m/<active>" in cache.resolved
        assert tree.find("m/<active>").name == "v2"


def test_what_was_resolved_by_a_string_is_no_location_of_nested_tuples(fast_path: FilePath) -> None:
    with Metatree(fast_path / "tree", ("model", "version")) as tree:
        tree.put("m/v1", b"", name="b")
        tree.update("m", active="v1")
        for _ in range(3):
            assert tree.find("m/<active>").name == tree.find(("m", "<active>")).name == "v1"
        with pytest.raises(InvalidLocationError):
            tree.find(("m", ("active",)))  # type: ignore[arg-type]


@pytest.mark.parametrize("reads", [True, False])
def test_a_signal_handler_that_reads_while_records_are_folded_leaves_none_out(
    monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    window = Window(mock.Mock(), trust_applied=False, eager=False)

    def take(number: int) -> None:
        header = Header(f"t{number}", "", "")
        window._take(wal.Batch(number, (encode(header, [KeysFact((), {f"k{number}": number}, ())]),)))

    def interrupted(facts: Iterable[Fact], effect: Effect) -> Effect:
        monkeypatch.setattr("metatree.window.fold", fold.fold)
        take(4)
        if reads:
            assert window.effect.keys == {"k1": 1, "k2": 2, "k3": 3, "k4": 4}
        return fold.fold(facts, effect)

    for number in (1, 2, 3):
        take(number)
    monkeypatch.setattr("metatree.window.fold", interrupted)
    assert window.effect.keys == {"k1": 1, "k2": 2, "k3": 3, "k4": 4}
