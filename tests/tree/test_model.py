"""A tree against a plain dictionary: every verb, transactions, two handles, crashes and faults, in any order.

`METATREE_MODEL_SEED` repeats a run.
"""

from __future__ import annotations

import errno
import os
import random
import warnings
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from metatree import ApplyPendingWarning, CommitUnknownError, Metatree, MetatreeError, UnavailableError
from tests.figures import TORTURE, Layer
from tests.tree.dictionary import Operation, after, beside_another, do, in_a_transaction, operations
from tests.tree.model import DyingStorage, State, clone, dump, empty_disk, open_tree, plain
from wal.storage.memory import MemoryPosix
from wal.testing import Boundary, Crash, Crashing, Failing, FaultyStorage

NEVER = 1 << 40
SEED = os.environ.get("METATREE_MODEL_SEED", f"{random.randrange(1 << 32):08x}")
PARTS = 5  # so that several workers share them
STEPS = 500 * 200  # of all parts, in an ordinary run
STEPS_AT_NIGHT = 2_000 * 500
ROUND = 5_000 if TORTURE else 1_000  # steps after which is looked how many there are, and at the time


class Lives(RuleBasedStateMachine):
    """One disk; a handle that may die; at times a second one beside it."""

    steps: ClassVar[int] = 0  # of all machines

    @initialize()
    def begin(self) -> None:
        self.disk: MemoryPosix = empty_disk()
        self.state: State = {"": ({}, (), {})}
        self.other: Metatree | None = None
        self.others_posix: Boundary | None = None
        self.checked: list[object] = []
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
        self.state = in_a_transaction(self.tree, self.state, steps, commit=commit)

    @precondition(lambda self: self.other is not None)
    @rule(
        first=st.lists(operations, max_size=3),
        theirs=st.lists(operations, min_size=1, max_size=3),
        then=st.lists(operations, max_size=3),
    )
    def two_at_once(self, first: list[Operation], theirs: list[Operation], then: list[Operation]) -> None:
        """The other handle commits while a transaction is open: that conflicts, or it is as if one came first."""
        other = self.other
        assert other is not None

        def do_theirs() -> None:
            for operation in theirs:
                self.expect(other, operation)

        found = beside_another(self.tree, self.state, first, theirs, do_theirs, then)
        self.state = self.state if found is None else found

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
            self.others_posix = Boundary(self.disk)
            self.other = open_tree(self.others_posix)
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
        type(self).steps += 1
        now = [self.tree, self.posix.count, self.other, self.others_posix and self.others_posix.count, id(self.state)]
        if now == self.checked:  # nobody wrote, nothing should have changed
            return
        self.checked = now
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


def lives(layer: Layer, name: str, machine: type[Any], part: object, *, floor: int, night: int, among: int) -> None:
    """Lives of the machine, whose `steps` are counted, until there were enough."""
    rounds, life = 0, 500 if layer.torture else 200
    while layer.more(name, machine.steps, floor=floor, night=night, among=among):
        # Hypothesis ends a life early for which it has drawn too much
        run_state_machine_as_test(
            seed(f"{SEED} {part} {rounds}")(machine),
            settings=settings(
                max_examples=-(-max(floor - machine.steps, min(ROUND, floor // 4)) // life),
                stateful_step_count=life,
                deadline=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
        rounds += 1
    note, unit = f"METATREE_MODEL_SEED={SEED}", f"steps, lives of up to {life}"
    layer.report(name, machine.steps, floor=floor, night=night, unit=unit, note=note)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_tree_is_what_a_dictionary_is_whatever_befalls_it(layer: Layer, part: int) -> None:
    machine = type("Lives", (Lives,), {"steps": 0})
    aims = {"floor": STEPS // PARTS, "night": STEPS_AT_NIGHT // PARTS}
    lives(layer, "machine of a tree and a dictionary", machine, part, **aims, among=PARTS)
