"""One key of a node, seen through layers of changes: the same as among all its keys, and without looking at those."""

from __future__ import annotations

import random
from collections.abc import Iterator, KeysView
from pathlib import Path

from metatree import Metatree
from metatree.fold import Effect
from metatree.view import View

NAMES = ("a", "b", "c", "d")
PATHS = (("m",), ("m", "v"))


def change(layer: Effect, draw: random.Random) -> None:
    path, name = draw.choice(PATHS), draw.choice(NAMES)
    match draw.randrange(7):
        case 0 | 1 | 2:
            layer.at(path).set_keys({name: draw.choice([None, 1, draw.random()])})
        case 3 | 4:
            layer.at(path).unset_keys([name])
        case 5:
            layer.at(path).set_whole({name: 2}, ())
        case _:
            layer.at(path[:-1]).drop_node(path[-1])


def test_one_key_is_what_it_is_among_all_keys(tmp_path: Path) -> None:
    draw = random.Random(1)
    with Metatree(tmp_path, ("model", "version")) as tree:
        tree.put("m/v", b"", name="w")
        tree.update("m/v", a=None, b=1)
        tree.update("m", c=True)
        reader, seen = tree._engine.reader, set[object]()
        for _ in range(2000):
            layers = [Effect() for _ in range(draw.randrange(4))]
            for layer in layers:
                for _ in range(draw.randrange(5)):
                    change(layer, draw)
            view = View(reader, layers)
            for path in PATHS:
                keys = view.keys(path)
                for name in NAMES:
                    assert view.key(path, name) == (keys.get(name), name in keys)
                    seen.add((view.key(path, name)[1], len(layers)))
        assert len(seen) == 8  # there and not there, in each number of layers
        assert tree.check().ok


class Counting(dict[str, object]):
    """Counts how often all of it is gone through."""

    passed = 0

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        Counting.passed += 1
        return super().keys()

    def __iter__(self) -> Iterator[str]:  # with it, a copy asks for the keys
        Counting.passed += 1
        return super().__iter__()


def test_an_update_in_a_transaction_does_not_go_through_the_keys_set_before(tmp_path: Path) -> None:
    with Metatree(tmp_path, ("model",)) as tree:
        tree.put("m", b"", name="w")
        with tree.transaction() as txn:
            tree.update("m", a=1)
            effect = txn._draft.delta.at(("m",))
            effect.keys = Counting(effect.keys)
            tree.update("m", b=2)
            tree.compare_and_set("m", "a", 1, 3)
            assert Counting.passed == 0
            assert dict(tree.find("m").metadata) == {"a": 3, "b": 2}
            assert Counting.passed > 0
        assert tree.check().ok
