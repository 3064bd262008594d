"""Bad values: each class of them is InvalidMetadataError, changes nothing, and is found before anything is written."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metatree import InvalidMetadataError, Metatree
from metatree.values import MAX_DEPTH, MAX_KEY_BYTES, MAX_KEYS_BYTES
from tests.tree.storages import again, at, repeats


def nested(depth: int, kind: type = list) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"k": value}
    return value


def cycle(kind: type) -> Any:
    if kind is list:
        items: list[Any] = [1]
        items.append(items)
        return items
    mapping: dict[str, Any] = {}
    mapping["a"] = {"b": [mapping]}
    return mapping


class Text(str):
    """A subclass, as numpy's str_ is."""


class Colour(enum.Enum):
    RED = "red"


class Stage(Text, enum.Enum):
    """What `str` and f-strings show of it is not what it holds."""

    NEW = "new"


BAD: dict[str, Any] = {
    "NaN": float("nan"),
    "infinity": float("inf"),
    "minus infinity": -math.inf,
    "2**64": 2**64,
    "-2**63-1": -(2**63) - 1,
    "10**400": 10**400,
    "lone surrogate": "\ud800",
    "lone surrogate inside": "a\udfff",
    "bytes": b"x",
    "bytearray": bytearray(b"x"),
    "memoryview": memoryview(b"x"),
    "set": {1},
    "frozenset": frozenset("a"),
    "object": object(),
    "function": len,
    "class": int,
    "complex": 1j,
    "Decimal": decimal.Decimal("1.5"),
    "Fraction": fractions.Fraction(1, 2),
    "datetime": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    "date": datetime.date(2024, 1, 1),
    "Path": Path("x"),
    "Enum": Colour.RED,
    "generator": (x for x in [1]),
    "range": range(3),
    "deque": collections.deque([1]),
    "integer key": {1: 2},
    "None key": {None: 1},
    "tuple key": {("a",): 1},
    "bool key": {True: 1},
    "bytes key": {b"a": 1},
    "surrogate key": {"\ud800": 1},
    "list cycle": cycle(list),
    "dict cycle": cycle(dict),
    "too deep list": nested(MAX_DEPTH + 1),
    "too deep dict": nested(MAX_DEPTH + 1, dict),
    "deep beyond recursion": nested(100_000),
    "too large": "x" * MAX_KEYS_BYTES,
    "too large list": list(range(300_000)),
}
BAD_KEYS: dict[str, Any] = {
    "empty": "",
    "integer": 3,
    "None": None,
    "bytes": b"a",
    "tuple": ("a",),
    "lone surrogate": "\ud800",
    "too long": "k" * (MAX_KEY_BYTES + 1),
    "too long in bytes": "ü" * (MAX_KEY_BYTES // 2 + 1),
    "children": "children",
}


@pytest.fixture
def filled(make_tree: Callable[..., Metatree]) -> Metatree:
    tree = make_tree()
    tree.put("m/v1", b"x", name="b")
    tree.update("m", a=1)
    return tree


def shown(tree: Metatree) -> dict[str, bytes]:
    return {name: data for name, data in at(tree, "").files().items() if name.endswith("metadata.json")}


def wrappings(value: Any) -> list[Any]:
    return [value, [value], {"x": value}, [[1, {"y": (value,)}]]]


def test_every_bad_value_at_every_depth_is_refused_and_changes_nothing(filled: Metatree) -> None:
    before, head = shown(filled), filled.lsn
    for name, bad in BAD.items():
        for value in wrappings(bad):
            calls: list[Callable[[], object]] = [
                lambda value=value: filled.update("m", k=value),
                lambda value=value: filled.update("m", {"good": 1, "k": value}),
                lambda value=value: filled.find("m").update(k=value),
                lambda value=value: filled.compare_and_set("m", "k", None, value),
            ]
            for call in calls:
                with pytest.raises(InvalidMetadataError):
                    call()
                assert filled.lsn == head, name
    assert shown(filled) == before
    assert dict(filled.find("m").metadata) == {"a": 1}


def test_every_bad_key_is_refused_and_changes_nothing(filled: Metatree) -> None:
    head = filled.lsn
    for key in BAD_KEYS.values():
        with pytest.raises(InvalidMetadataError):
            filled.update("m", {"good": 1, key: 1})
        with pytest.raises(InvalidMetadataError):
            filled.compare_and_set("m", key, None, 1)
        with pytest.raises(InvalidMetadataError):
            filled.unset("m", key)
    assert filled.lsn == head
    assert dict(filled.find("m").metadata) == {"a": 1}


def test_a_bad_value_in_a_transaction_fails_only_its_own_call(filled: Metatree) -> None:
    with filled.transaction():
        filled.update("m", before=1)
        for bad in BAD.values():
            with pytest.raises(InvalidMetadataError):
                filled.update("m", {"good": 1, "bad": bad})
        filled.update("m", after=2)
    assert dict(filled.find("m").metadata) == {"a": 1, "before": 1, "after": 2}


def test_the_error_names_the_key_and_can_be_printed(filled: Metatree) -> None:
    with pytest.raises(InvalidMetadataError, match=r"metrics\.loss\.1") as caught:
        filled.update("m", metrics={"loss": [0.1, float("nan")]})
    assert isinstance(caught.value, ValueError)
    with pytest.raises(InvalidMetadataError) as surrogate:
        filled.update("m", {"\ud800": 1})
    str(surrogate.value).encode()


def test_the_keys_of_a_node_are_bounded_together_even_if_they_come_one_by_one(filled: Metatree) -> None:
    part = "x" * (MAX_KEYS_BYTES // 4)
    for number in range(3):
        filled.update("m", {f"k{number}": part})
    head = filled.lsn
    with pytest.raises(InvalidMetadataError, match="more than"):
        filled.update("m", k3=part)
    assert filled.lsn == head and "k3" not in filled.find("m").metadata
    filled.unset("m", "k0")
    filled.update("m", k3=part)
    filled.checkpoint()
    assert len(filled.find("m").metadata) == 4


def test_the_limits_themselves_are_allowed(filled: Metatree) -> None:
    values = {
        "deep": nested(MAX_DEPTH - 1),
        "low": -(2**63),
        "high": 2**64 - 1,
        "k" * MAX_KEY_BYTES: 1,
        "tiny": 5e-324,
        "null byte": "a\0b",
        "separator": "\u2028\x7f\ufffe",
    }
    filled.update("m", values)
    filled.checkpoint()
    assert dict(filled.find("m").metadata) == {"a": 1, **values}
    assert json.loads(at(filled, "m/metadata.json").read_text("utf-8")) == {"children": ["v1"], "a": 1, **values}


def test_subclasses_are_stored_as_the_plain_values_they_are(filled: Metatree) -> None:
    class Whole(int):
        pass

    class Real(float):
        pass

    filled.update(
        "m", t=Text("t"), i=Whole(3), f=Real(0.5), d=collections.OrderedDict(a=1), p=MappingProxyType({"b": 2})
    )
    metadata = filled.find("m").metadata
    assert dict(metadata) == {"a": 1, "t": "t", "i": 3, "f": 0.5, "d": {"a": 1}, "p": {"b": 2}}
    assert [type(metadata[k]) for k in "tif"] == [str, int, float]


@pytest.mark.parametrize("name", [Text("new"), Stage.NEW], ids=["subclass", "enum"])
def test_a_name_is_the_same_plain_string_in_the_handle_that_wrote_it_as_in_others(filled: Metatree, name: str) -> None:
    with again(filled) as other:
        filled.put((name, name), b"x", name=name)
        filled.update((name,), {name: name, "in": {name: name}})
        for tree in (filled, other):
            node = tree.find("new")
            names = [*tree.children("")[-1:], *node.children, *tree.list("new/new"), *node.metadata]
            values = [node.metadata["new"], *node.metadata["in"], *node.metadata["in"].values()]
            assert names == ["new", "new", "new", "new", "in"] and values == ["new"] * 3
            assert {type(text) for text in (*names, *values)} == {str}
        filled.unset("new", name)
        assert other.find("new").metadata.keys() == {"in"}


def test_numbers_of_numpy_that_are_no_python_numbers_are_refused_by_name(filled: Metatree) -> None:
    class float32:
        """Looks like numpy's: convertible, but neither float nor int."""

        def __float__(self) -> float:
            return 0.5

    with pytest.raises(InvalidMetadataError, match="float32"):
        filled.update("m", loss=float32())


def test_a_mapping_that_fails_while_it_is_read_changes_nothing(filled: Metatree) -> None:
    class Broken(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            raise RuntimeError("half way")

    head = filled.lsn
    with pytest.raises(RuntimeError, match="half way"):
        filled.update("m", deep=Broken(a=1))
    assert filled.lsn == head


TEXT = st.text(st.characters(exclude_categories=("Cs",)))
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXT,
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.everywhere
def test_any_json_value_comes_back_as_it_was_from_the_api_the_file_and_the_log(
    make_tree: Callable[..., Metatree],
) -> None:
    tree = make_tree()
    tree.put("m", b"", name="b")
    reader = make_tree(keys=None, read_only=True)
    numbers = iter(range(10**9))

    @settings(max_examples=repeats(tree, 100), deadline=None)
    @given(JSON)
    def run(value: Any) -> None:
        key = f"k{next(numbers) % 20}"
        tree.update("m", {key: value})
        text = json.dumps(value)
        assert json.dumps(tree.find("m").metadata[key]) == text
        assert json.dumps(reader.find("m").metadata[key]) == text  # through the log
        assert json.dumps(json.loads(at(tree, "m/metadata.json").read_text("utf-8"))[key]) == text

    run()


def test_messages_and_keys_of_transactions_are_checked_too(filled: Metatree) -> None:
    for bad in ("a\nb", "\0", "x" * 10_001, 3, b"x", "\ud800"):
        with pytest.raises(ValueError, match="printable"):
            filled.transaction(bad)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="printable"):
            filled.transaction(idempotency_key=bad)  # type: ignore[arg-type]
