"""Two hosts on one storage against a dictionary: every verb, transactions, old snapshots, upkeep, and what befalls
a host: it dies at any call, sleeps before it while the other takes over and goes on, or its storage fails.

`METATREE_MODEL_SEED` repeats a run.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import greenlet
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from metatree import ApplyPendingWarning, CommitUnknownError, ConflictError, Metatree, MetatreeError
from tests.figures import Layer
from tests.tree.dictionary import Operation, after, beside_another, do, in_a_transaction, operations
from tests.tree.lines import Line, Sleeping
from tests.tree.model import State, dump
from tests.tree.shared import KINDS, TTL, Host, HostClock, as_shown, shown
from tests.tree.test_model import lives
from tests.wal.schedules import one_thread

STEPS, STEPS_AT_NIGHT = 1_500, 500_000  # on each kind of storage
LONG_TTL = 1.0
UPKEEP: dict[str, Callable[[Metatree], object]] = {
    "checkpoint": lambda tree: tree.checkpoint(),
    "flush": lambda tree: tree.flush(),
    "recover": lambda tree: tree.recover(),
    "collect": lambda tree: tree.gc(0, dry_run=False),
    "close": lambda tree: tree.close(),
}
hosts = st.integers(0, 1)
cares = st.sampled_from(sorted(UPKEEP))
calls = st.integers(1, 60)


class Writer(Host):
    """One of the two hosts."""

    def __init__(self, storage: Any, number: int, ttl: float, apply: str) -> None:
        self.line = Line()
        super().__init__(storage, self.line.around, clock=HostClock(number), ttl=ttl, apply=apply)
        self.follows = apply == "sync"


class Snapshot:
    """A transaction that looks at everything, and later once more."""

    def __init__(self, host: Host) -> None:
        self._tree = host.tree
        self._greenlet = greenlet.greenlet(self._look)
        self.first: State = self._greenlet.switch()

    def _look(self) -> State | None:
        back = greenlet.getcurrent().parent
        try:
            with self._tree.transaction():
                back.switch(dump(self._tree))
                found = dump(self._tree)
        except ConflictError:
            return None
        return found

    def again(self) -> State | None:
        """None: that conflicts."""
        found: State | None = self._greenlet.switch()
        self._tree.close()
        return found


class Lives(RuleBasedStateMachine):
    """One storage, two hosts."""

    kind: ClassVar[str] = "objects"
    steps: ClassVar[int] = 0  # of all machines

    @initialize(ttl=st.sampled_from([TTL, LONG_TTL]), modes=st.tuples(*[st.sampled_from(["sync", "background"])] * 2))
    def begin(self, ttl: float, modes: tuple[str, ...]) -> None:
        self.place, self.ttl, self.modes = KINDS[self.kind](), ttl, modes
        self.numbers, self.looks = itertools.count(), 0
        self.state: State = {"": ({}, (), {})}
        self.in_place = True  # the files show it
        self.asleep: Sleeping | None = None
        self.conflicts = False  # it may meet a conflict whatever the dictionary says
        self.before: State = {}  # as it was when that one fell asleep
        self.doing: Operation | None = None  # what that one commits, if it has not yet
        self.care = ""  # or what else it does
        self.snapshot: Snapshot | None = None
        self.changed = True  # something was committed since then, though it may have led to the same state
        self.hosts = [self.open(0), self.open(1)]
        self.sleeper = self.hosts[0]  # the one asleep, if one is
        self.reader = Host(self.place.storage(), read_only=True)

    def open(self, which: int) -> Writer:
        return Writer(self.place.storage(), next(self.numbers), self.ttl, self.modes[which])

    def awake(self, which: int) -> Writer:
        """This host, or the other if it is asleep."""
        host = self.hosts[which]
        return self.hosts[1 - which] if self.asleep is not None and self.sleeper is host else host

    def renew(self, host: Writer) -> Writer:
        """A new handle in its place."""
        which = self.hosts.index(host)
        self.hosts[which] = self.open(which)
        return self.hosts[which]

    # --- changes --------------------------------------------------------------------------------------------------

    @rule(which=hosts, operation=operations)
    def change(self, which: int, operation: Operation) -> None:
        self.expect(self.awake(which), operation)

    def expect(self, host: Writer, operation: Operation) -> None:
        wanted = after(self.state, operation)
        host.lsn = None
        try:
            do(host.tree, operation)
        except MetatreeError as error:
            assert wanted is None, f"{operation} was refused: {error!r}"
        else:
            assert wanted is not None, f"{operation} was not refused"
            self.now(wanted, host)

    def now(self, state: State, host: Writer) -> None:
        """What the host committed, if anything, has led to this state."""
        self.state = state
        if host.lsn is not None:
            self.changed, self.in_place = True, host.follows

    @rule(which=hosts, steps=st.lists(operations, min_size=1, max_size=6), commit=st.booleans())
    def transaction(self, which: int, steps: list[Operation], commit: bool) -> None:
        host = self.awake(which)
        host.lsn = None
        self.now(in_a_transaction(host.tree, self.state, steps, commit=commit), host)

    @precondition(lambda self: self.asleep is None)
    @rule(
        which=hosts,
        first=st.lists(operations, max_size=3),
        theirs=st.lists(operations, min_size=1, max_size=3),
        then=st.lists(operations, max_size=3),
    )
    def two_at_once(self, which: int, first: list[Operation], theirs: list[Operation], then: list[Operation]) -> None:
        """The other host commits while a transaction is open: that conflicts, or it is as if one came first."""
        host, other = self.hosts[which], self.hosts[1 - which]

        def do_theirs() -> None:
            for operation in theirs:
                self.expect(other, operation)

        host.lsn = None
        found = beside_another(host.tree, self.state, first, theirs, do_theirs, then)
        if found is not None:
            self.now(found, host)

    # --- reading --------------------------------------------------------------------------------------------------

    @rule()
    def an_old_reader_looks(self) -> None:
        assert dump(self.reader.tree) == self.state

    @rule()
    def a_reader_looks(self) -> None:
        with Host(self.place.storage(), read_only=True).tree as reader:
            assert dump(reader) == self.state

    @precondition(lambda self: self.snapshot is None)
    @rule()
    def a_snapshot_is_taken(self) -> None:
        self.snapshot = Snapshot(Host(self.place.storage(), clock=HostClock(next(self.numbers)), ttl=self.ttl))
        self.changed = False
        assert self.snapshot.first == self.state

    @precondition(lambda self: self.snapshot is not None)
    @rule()
    def a_snapshot_is_looked_at_again(self) -> None:
        assert self.snapshot is not None
        snapshot, self.snapshot = self.snapshot, None
        found = snapshot.again()
        assert found == snapshot.first or (found is None and self.changed), "a snapshot shows another state"

    # --- upkeep ---------------------------------------------------------------------------------------------------

    @rule(which=hosts, what=cares)
    def upkeep(self, which: int, what: str) -> None:
        host = self.awake(which)
        UPKEEP[what](host.tree)
        self.ended(host, what)

    def ended(self, host: Writer, what: str) -> None:
        """It did this."""
        if what == "close":
            self.renew(host)
        self.conflicts |= what == "collect"  # it may have taken what a sleeper has staged for what nobody will commit
        self.in_place |= what not in ("collect", "close")  # which need not know what the other has committed

    # --- what befalls hosts ---------------------------------------------------------------------------------------

    @precondition(lambda self: self.asleep is None)
    @rule(which=hosts, operation=operations, call=calls)
    def one_falls_asleep_in_a_change(self, which: int, operation: Operation, call: int) -> None:
        host, self.doing, self.care, self.before = self.hosts[which], operation, "", self.state
        self.sleeper, self.conflicts, host.lsn, self.changed = host, False, None, True
        host.line.sleep(call)
        self.asleep = Sleeping(host.line, lambda: do(host.tree, operation))
        if self.asleep.done:
            self.one_wakes_up()
            return
        self.in_place = False
        found = dump(self.awake(which).tree)
        if found != self.state:
            assert found == after(self.state, operation), "half of a change"
            self.changed, self.state, self.doing = True, found, None

    @precondition(lambda self: self.asleep is None)
    @rule(which=hosts, what=cares, call=calls)
    def one_falls_asleep_in_its_upkeep(self, which: int, what: str, call: int) -> None:
        self.sleeper = host = self.hosts[which]
        self.doing, self.care = None, what
        host.line.sleep(call)
        self.asleep = Sleeping(host.line, lambda: UPKEEP[what](host.tree))
        if self.asleep.done:
            self.one_wakes_up()

    @precondition(lambda self: self.asleep is not None)
    @rule()
    def one_wakes_up(self) -> None:
        assert self.asleep is not None
        asleep, self.asleep, operation = self.asleep, None, self.doing
        in_place = self.in_place  # it need not apply what was committed while it slept
        if not asleep.done:
            asleep.go_on()
        host = self.sleeper
        host.line.quiet()
        assert asleep.done
        if operation is None:
            assert asleep.error is None, repr(asleep.error)
            if self.care:
                self.ended(host, self.care)
            self.in_place = in_place
            return
        then, now = after(self.before, operation), after(self.state, operation)
        if asleep.error is None:
            possible = [state for state in (now, self.state if then == self.before else None) if state is not None]
        else:
            may = self.conflicts and isinstance(asleep.error, ConflictError)
            possible = [self.state] if may or None in (then, now) else []
        found = dump(host.tree)
        assert found in possible, f"{operation}: {asleep.error!r}"
        self.now(found, host)
        self.in_place &= in_place

    @precondition(lambda self: self.asleep is not None)
    @rule()
    def one_dies_in_its_sleep(self) -> None:
        assert self.asleep is not None
        asleep, self.asleep = self.asleep, None
        asleep.die()
        self.replace(self.sleeper)

    def replace(self, host: Writer) -> None:
        """After its death."""
        host.tree._engine._closed = True
        self.renew(host).tree.flush()
        self.in_place = True

    @precondition(lambda self: self.asleep is None)
    @rule(which=hosts, steps=st.lists(operations, min_size=1, max_size=4), call=calls, late=st.booleans())
    def one_dies(self, which: int, steps: list[Operation], call: int, late: bool) -> None:
        """Before a call (or after it) of one of several commits."""
        host, possible = self.hosts[which], [self.state]
        host.line.die(call, late=late)

        def work() -> None:
            for operation in steps:
                wanted = after(possible[-1], operation)
                if wanted is not None:
                    possible.append(wanted)
                    do(host.tree, operation)
                    del possible[:-1]

        Sleeping(host.line, work)
        host.line.quiet()
        if died := host.line.dead:
            self.replace(host)
        found = dump(self.hosts[which].tree)
        assert found in possible, "neither the state before nor the one after"
        self.changed, self.state, self.in_place = True, found, died or (self.in_place and host.follows)

    @rule(which=hosts, operation=operations, call=calls, lost=st.booleans(), times=st.sampled_from([1, 3, 1 << 20]))
    def the_storage_fails(self, which: int, operation: Operation, call: int, lost: bool, times: int) -> None:
        """Or only its replies are lost, some times or for long. The handle goes on."""
        host, wanted = self.awake(which), after(self.state, operation)
        possible = [self.state]
        host.line.fail(call, lost=lost, times=times)
        try:
            do(host.tree, operation)
            possible = [wanted] if wanted is not None else []
        except CommitUnknownError as error:
            host.line.quiet()
            known = self.awake(1 - which).tree.status(error.txid)
            possible = [self.state if known is None else wanted or self.state]
        except MetatreeError:
            pass
        host.line.quiet()
        found = dump(host.tree)
        assert found in possible
        self.changed, self.state = True, found
        host.tree.flush()
        self.in_place = True

    @rule(which=hosts, what=cares, call=calls, lost=st.booleans(), times=st.sampled_from([1, 3, 1 << 20]))
    def the_storage_fails_in_the_upkeep(self, which: int, what: str, call: int, lost: bool, times: int) -> None:
        host = self.awake(which)
        host.line.fail(call, lost=lost, times=times)
        with suppress(MetatreeError):
            UPKEEP[what](host.tree)
        host.line.quiet()
        self.ended(host, what)
        self.awake(which).tree.flush()
        self.in_place = True

    # --- what always holds ------------------------------------------------------------------------------------------

    @invariant()
    def the_tree_is_the_dictionary(self) -> None:
        if not hasattr(self, "hosts"):
            return
        type(self).steps += 1
        self.looks += 1
        assert dump(self.awake(self.looks % 2).tree) == self.state  # so the other does not know yet what was committed
        if self.in_place:
            assert shown(self.place) == as_shown(self.state)

    def teardown(self) -> None:
        if not hasattr(self, "hosts"):
            return
        if self.asleep is not None:
            self.one_wakes_up()
        if self.snapshot is not None:
            self.a_snapshot_is_looked_at_again()
        for host in self.hosts:
            host.tree.flush()
        for host in self.hosts:
            host.tree.close()
        with Host(self.place.storage()).tree as tree:
            assert dump(tree) == self.state
            report = tree.check(deep=True)
            assert report.ok, str(report)
        assert shown(self.place) == as_shown(self.state)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mount", "objects"])
def test_a_tree_of_two_hosts_is_what_a_dictionary_is_whatever_befalls_them(layer: Layer, kind: str) -> None:
    machine = type("Lives", (Lives,), {"steps": 0, "kind": kind})
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ApplyPendingWarning)
        lives(layer, "machine of hosts and a dictionary", machine, kind, floor=STEPS, night=STEPS_AT_NIGHT, among=2)
