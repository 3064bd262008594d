"""A tree as a plain dictionary: the verbs, drawn by Hypothesis, on the one and on the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from hypothesis import strategies as st

from metatree import ConflictError, Metatree, MetatreeError
from tests.tree.model import BIG, OTHER_BIG, State, dump

Operation = tuple[Any, ...]

nodes = st.sampled_from(["a", "b", "a/v", "a/w", "b/v", "b/w"])
blobs = st.sampled_from(["x", "y"])
contents = st.sampled_from(["nothing", "one", "two", "staged", "also staged"])
CONTENT = {"nothing": b"", "one": b"1", "two": b"22", "staged": BIG[:66_000], "also staged": OTHER_BIG[:70_000]}
keys = st.sampled_from(["k", "l"])
values = st.sampled_from([0, 1, True, 0.5, "s", None, ["list", 1], {"deep": {"er": 1}}])

operations = st.one_of(
    st.tuples(st.just("put"), nodes, blobs, contents, st.booleans()),
    st.tuples(st.just("update"), nodes, keys, values),
    st.tuples(st.just("unset"), nodes, keys),
    st.tuples(st.just("delete"), nodes),
    st.tuples(st.just("delete blob"), nodes, blobs),
    st.tuples(st.just("move"), nodes, nodes),
    st.tuples(st.just("copy"), nodes, nodes),
    st.tuples(st.just("move blob"), nodes, blobs, nodes, blobs),
    st.tuples(st.just("compare and set"), nodes, keys, values, values),
)


def do(tree: Metatree, operation: Operation) -> None:
    """The operation, on the tree."""
    match operation:
        case "put", where, blob, content, force:
            tree.put(where, CONTENT[content], name=blob, force=force)
        case "update", where, key, value:
            tree.update(where, {key: value})
        case "unset", where, key:
            tree.unset(where, key)
        case "delete", where:
            tree.delete(where, recursive=True)
        case "delete blob", where, blob:
            tree.delete(f"{where}/{blob}")
        case "move", source, target:
            tree.move(source, target)
        case "copy", source, target:
            tree.copy(source, target)
        case "move blob", where, blob, there, name:
            tree.move(f"{where}/{blob}", f"{there}/{name}")
        case "compare and set", where, key, expect, value:
            tree.compare_and_set(where, key, expect, value)
        case _:
            raise AssertionError(operation)


def after(state: State, operation: Operation) -> State | None:
    """The operation, on the dictionary; None if it must be refused."""
    state = {path: (dict(k), c, dict(b)) for path, (k, c, b) in state.items()}
    match operation:
        case "put", where, blob, content, force:
            if where in state and blob in state[where][2] and not force:
                return None
            _make(state, where)
            state[where][2][blob] = CONTENT[content]
        case "update", where, key, value:
            if where not in state:
                return None
            state[where][0][key] = value
        case "unset", where, key:
            if where not in state:
                return None
            state[where][0].pop(key, None)
        case "delete", where:
            if where not in state:
                return None
            _drop(state, where)
        case "delete blob", where, blob:
            if where not in state or blob not in state[where][2]:
                return None
            del state[where][2][blob]
        case ("move" | "copy") as verb, source, target:
            if source not in state or target in state or f"{target}/".startswith(f"{source}/"):
                return None
            if "/" in target and state[source][1]:
                return None  # would stand below the last level
            inside = [path for path in state if path == source or path.startswith(f"{source}/")]
            copies = {target + path[len(source) :]: state[path] for path in inside}
            _make(state, target)
            state.update({path: (dict(k), c, dict(b)) for path, (k, c, b) in copies.items()})
            if verb == "move":
                _drop(state, source)
        case "move blob", where, blob, there, name:
            if where not in state or blob not in state[where][2] or (there in state and name in state[there][2]):
                return None
            _make(state, there)
            state[there][2][name] = state[where][2].pop(blob)
        case "compare and set", where, key, expect, value:
            if where not in state or not _same(state[where][0].get(key), expect):
                return None
            state[where][0][key] = value
    return state


def following(state: State, operations: list[Operation]) -> Iterator[tuple[Operation, State | None]]:
    """Each operation with the dictionary after it, done one after the other; None: refused."""
    for operation in operations:
        wanted = after(state, operation)
        yield operation, wanted
        state = state if wanted is None else wanted


def replayed(state: State, told: list[tuple[Operation, bool]]) -> State | None:
    """The dictionary after operations of which somebody was told that they were done, or refused; None: they would
    have been told otherwise."""
    for operation, done in told:
        wanted = after(state, operation)
        if (wanted is not None) != done:
            return None
        state = state if wanted is None else wanted
    return state


def told(tree: Metatree, operations: list[Operation]) -> list[tuple[Operation, bool]]:
    """Each operation, and whether the tree did it or refused it."""
    found = []
    for operation in operations:
        try:
            do(tree, operation)
        except MetatreeError:  # a conflict as well: if it ends a transaction, the block's end raises it again
            found.append((operation, False))
        else:
            found.append((operation, True))
    return found


def in_a_transaction(tree: Metatree, state: State, operations: list[Operation], *, commit: bool) -> State:
    """The dictionary after a transaction that does or refuses each as the dictionary says, and reads its own writes."""
    before = state
    with suppress(ZeroDivisionError), tree.transaction():
        for operation, done in told(tree, operations):
            wanted = after(state, operation)
            assert done is (wanted is not None), f"{operation} in a transaction"
            state = state if wanted is None else wanted
        assert dump(tree) == state, "a transaction reads its own writes"
        if not commit:
            raise ZeroDivisionError
    return state if commit else before


def beside_another(
    tree: Metatree,
    start: State,
    first: list[Operation],
    theirs: list[Operation],
    do_theirs: Callable[[], None],
    then: list[Operation],
) -> State | None:
    """What a transaction of `first` and `then` leaves if another handle commits `theirs` in between: as if one of the
    two came first. None: it conflicts, and the other has done something."""
    their_told = [(operation, wanted is not None) for operation, wanted in following(start, theirs)]
    ours: list[tuple[Operation, bool]] = []
    try:
        with tree.transaction():
            ours += told(tree, first)
            do_theirs()
            ours += told(tree, then)
    except ConflictError:
        assert any(done for _, done in their_told), "a conflict with nobody"
        return None
    found = dump(tree)
    orders = [replayed(start, [*their_told, *ours]), replayed(start, [*ours, *their_told])]
    assert found in orders, "no order of the two transactions explains what they were told and left"
    return found


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def _make(state: State, path: str) -> None:
    if path in state:
        return
    parent, _, name = path.rpartition("/")
    _make(state, parent)
    had, children, blobs_ = state[parent]
    state[parent] = (had, (*children, name), blobs_)
    state[path] = ({}, (), {})


def _drop(state: State, path: str) -> None:
    for inner in [other for other in state if other == path or other.startswith(f"{path}/")]:
        del state[inner]
    parent, _, name = path.rpartition("/")
    had, children, blobs_ = state[parent]
    state[parent] = (had, tuple(child for child in children if child != name), blobs_)
