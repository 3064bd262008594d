"""A tree against a plain dictionary: every verb, transactions, two handles, crashes and faults, in any order."""

from __future__ import annotations

import errno
import os
import warnings
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from metatree import ApplyPendingWarning, CommitUnknownError, Metatree, MetatreeError, UnavailableError
from tests.tree.model import BIG, OTHER_BIG, DyingStorage, State, clone, dump, empty_disk, open_tree, plain
from wal.storage.memory import MemoryPosix
from wal.testing import Crash, Crashing, Failing, FaultyStorage

NEVER = 1 << 40

Operation = tuple[Any, ...]

# --- the verbs ----------------------------------------------------------------------------------------------------

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


# --- the machine --------------------------------------------------------------------------------------------------


class Lives(RuleBasedStateMachine):
    """One disk; a handle that may die; at times a second one beside it."""

    @initialize()
    def begin(self) -> None:
        self.disk: MemoryPosix = empty_disk()
        self.state: State = {"": ({}, (), {})}
        self.other: Metatree | None = None
        self.open()

    def open(self) -> None:
        self.posix = DyingStorage(Crashing(NEVER, "before"), self.disk)
        self.tree = open_tree(self.posix)

    # --- changes --------------------------------------------------------------------------------------------------

    @rule(operation=operations)
    def change(self, operation: Operation) -> None:
        self.expect(self.tree, operation)

    @precondition(lambda self: self.other is not None)
    @rule(operation=operations)
    def change_through_the_other_handle(self, operation: Operation) -> None:
        assert self.other is not None
        self.expect(self.other, operation)

    def expect(self, tree: Metatree, operation: Operation) -> None:
        wanted = after(self.state, operation)
        try:
            do(tree, operation)
        except MetatreeError as error:
            assert wanted is None, f"{operation} was refused: {error!r}"
        else:
            assert wanted is not None, f"{operation} was not refused"
            self.state = wanted

    @rule(steps=st.lists(operations, min_size=1, max_size=6), commit=st.booleans())
    def transaction(self, steps: list[Operation], commit: bool) -> None:
        state = self.state
        with suppress(ZeroDivisionError), self.tree.transaction():
            for operation in steps:
                wanted = after(state, operation)
                try:
                    do(self.tree, operation)
                except MetatreeError as error:
                    assert wanted is None, f"{operation} was refused in a transaction: {error!r}"
                else:
                    assert wanted is not None, f"{operation} was not refused in a transaction"
                    state = wanted
            assert dump(self.tree) == state, "a transaction reads its own writes"
            if not commit:
                raise ZeroDivisionError
        if commit:
            self.state = state

    # --- life -----------------------------------------------------------------------------------------------------

    @rule()
    def checkpoint(self) -> None:
        self.tree.checkpoint()

    @rule()
    def reopen(self) -> None:
        self.tree.close()
        self.open()

    @rule()
    def second_handle_comes_or_goes(self) -> None:
        if self.other is None:
            self.other = open_tree(self.disk)
        else:
            self.other.close()
            self.other = None

    @rule()
    def a_reader_looks(self) -> None:
        with open_tree(clone(self.disk), read_only=True) as reader:
            assert dump(reader) == self.state

    @rule(
        steps=st.lists(operations, min_size=1, max_size=4),
        call=st.integers(1, 60),
        when=st.sampled_from(["before", "after", "torn"]),
        again=st.none() | st.integers(1, 40),
    )
    def crash(self, steps: list[Operation], call: int, when: Any, again: int | None) -> None:
        """Die in one of several transactions, then, perhaps, in the recovery."""
        possible = [self.state]
        self.posix.plan = Crashing(self.posix.count + call, when)
        with suppress(Crash, MetatreeError):
            for operation in steps:
                wanted = after(possible[-1], operation)
                if wanted is not None:
                    possible.append(wanted)
                    do(self.tree, operation)
                    del possible[:-1]
        if self.posix.crashed is None:
            self.posix.plan = Crashing(NEVER, "before")
            self.state = possible[-1]
            return
        if again is not None:
            dying = DyingStorage(Crashing(again, when), self.disk)
            with suppress(Crash, MetatreeError):
                open_tree(dying).close()
        self.open()
        found = dump(self.tree)
        assert found in possible, "neither the state before nor the one after"
        self.tree.flush()  # if another handle lives, this was no recovery: the files follow with the next call
        self.state = found

    @precondition(lambda self: self.other is None)
    @rule(
        operation=operations,
        call=st.integers(1, 40),
        error=st.sampled_from([errno.EIO, errno.ENOSPC, errno.EACCES]),
        lasting=st.booleans(),
    )
    def fault(self, operation: Operation, call: int, error: int, lasting: bool) -> None:
        """A handle whose disk fails; then it goes away without closing, as one does that cannot."""
        self.tree.close()
        posix = FaultyStorage(Failing(NEVER), self.disk)
        tree = open_tree(posix)
        wanted = after(self.state, operation)
        posix.plan = Failing(posix.count + call, error, lasting)
        possible = [self.state]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ApplyPendingWarning)
            try:
                do(tree, operation)
                possible = [wanted or self.state]
            except CommitUnknownError:
                possible = [self.state, wanted or self.state]
            except MetatreeError:
                pass
            posix.plan = Failing(NEVER)
            with suppress(UnavailableError):
                tree.close()
        self.open()
        found = dump(self.tree)
        assert found in possible
        self.state = found

    # --- what always holds ------------------------------------------------------------------------------------------

    @invariant()
    def the_tree_is_the_dictionary(self) -> None:
        if not hasattr(self, "tree"):
            return
        assert dump(self.tree) == self.state
        if self.other is not None:
            assert dump(self.other) == self.state
        assert plain(self.disk) == self.state

    def teardown(self) -> None:
        if not hasattr(self, "tree"):
            return
        if self.other is not None:
            self.other.close()
        self.tree.close()
        with open_tree(self.disk) as tree:
            assert dump(tree) == self.state
            report = tree.check(deep=True)
            assert report.ok, str(report)
        assert plain(self.disk) == self.state


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=int(os.environ.get("METATREE_MODEL_EXAMPLES", "40")),
    stateful_step_count=int(os.environ.get("METATREE_MODEL_STEPS", "30")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
