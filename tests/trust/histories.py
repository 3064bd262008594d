"""Are transactions that ran at once serializable, in real time and in the order of the log?

Transactions append unique values to lists and read others (Elle's list-append). A list read shows every append before
it in order, so all dependencies follow: ww (the next append), wr (the read of it), rw (the append that a read did not
see); and real time: who returned before another began comes first. A cycle is an anomaly. Besides, a transaction that
committed has an LSN, and must have read exactly what those with lower ones appended.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from time import monotonic_ns
from typing import Any

from metatree import CommitUnknownError, ConflictError, Metatree

NEVER = 1 << 62  # nanoseconds: nobody knows when, or whether, it returned

Plan = list[tuple[str, str, str]]  # ("append" or "read", node, key)
Op = tuple[str, str, Any]  # ("append", list, value) or ("read", list, (values…))


@dataclass(frozen=True, slots=True)
class Done:
    """A transaction that committed, or, without a return, may have."""

    began: int  # nanoseconds of the machine's monotonic clock
    returned: int
    operations: Sequence[Op]
    lsn: int | None = None  # None: it changed nothing, or nobody was told


def draw(choose: random.Random, nodes: Sequence[str]) -> Plan:
    """Two to four operations on four lists of each node."""
    return [
        ("append" if choose.random() < 0.5 else "read", choose.choice(nodes), f"l{choose.randrange(4)}")
        for _ in range(choose.randrange(2, 5))
    ]


def appends(plan: Plan, value: str) -> list[Op]:
    """What it appends, if it commits."""
    return [("append", f"{node}:{key}", f"{value}.{i}") for i, (kind, node, key) in enumerate(plan) if kind == "append"]


def one_transaction(tree: Metatree, plan: Plan, value: str) -> Done | None:
    """Carry it out; None if it was refused."""
    began = monotonic_ns()
    operations: list[Op] = []
    try:
        with tree.transaction() as txn:
            for step, (kind, node, key) in enumerate(plan):
                seen = tuple(tree.find(node).metadata.get(key, ()))
                if kind == "append":
                    tree.update(node, {key: [*seen, f"{value}.{step}"]})
                    operations.append(("append", f"{node}:{key}", f"{value}.{step}"))
                else:
                    operations.append(("read", f"{node}:{key}", seen))
    except ConflictError:
        return None
    except CommitUnknownError:
        return Done(began, NEVER, appends(plan, value))
    return Done(began, monotonic_ns(), operations, txn.lsn)


def final_lists(tree: Metatree) -> dict[str, list[str]]:
    """Every list, by node and key."""
    return {
        f"{node.path}:{key}": list(values)
        for node in tree.walk()
        for key, values in node.metadata.items()
        if key[0] == "l" and key[1:].isdigit()
    }


@dataclass
class Graph:
    """Who must come before whom: number of a transaction -> numbers of those after it."""

    history: Sequence[Done]
    final: Mapping[str, Sequence[str]]
    after: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))

    def __post_init__(self) -> None:
        """Raises AssertionError for what needs no graph: lost, half, invented or re-ordered values."""
        self._author = {
            value: i for i, done in enumerate(self.history) for kind, _, value in done.operations if kind == "append"
        }
        there = {value for values in self.final.values() for value in values}
        assert there <= self._author.keys(), f"values that nobody appended: {there - self._author.keys()}"
        lost = {self._author[value] for value in self._author.keys() - there}
        assert not lost, f"lost, or half a transaction: {[self.history[i] for i in lost][:3]}"
        for values in self.final.values():
            for one, other in pairwise(values):
                self.after[self._author[one]].add(self._author[other])  # ww
        for i, done in enumerate(self.history):
            for kind, name, seen in done.operations:
                if kind == "read":
                    self._read(i, self.final.get(name, ()), name, seen)
        self._real_time()

    def _read(self, i: int, values: Sequence[str], name: str, seen: Sequence[str]) -> None:
        assert list(seen) == list(values[: len(seen)]), f"{seen} is no prefix of {name}: {values}"
        if seen:
            self.after[self._author[seen[-1]]].add(i)  # wr
        if len(seen) < len(values):
            self.after[i].add(self._author[values[len(seen)]])  # rw
        lsn = self.history[i].lsn
        if lsn is not None:
            known = [self.history[self._author[value]].lsn for value in values]
            before = sum(1 for other in known if other is not None and other < lsn)
            upto = sum(1 for other in known if other is None or other <= lsn)
            assert before <= len(seen) <= upto, f"at LSN {lsn}, {name} shows {len(seen)} values of {before} to {upto}"

    def _real_time(self) -> None:
        """An edge to each that began later is implied by those to the ones that began before any of them returned."""
        in_order = sorted(range(len(self.history)), key=lambda i: self.history[i].began)
        began = [self.history[i].began for i in in_order]
        horizon = [NEVER] * (len(in_order) + 1)
        for at in reversed(range(len(in_order))):
            horizon[at] = min(horizon[at + 1], self.history[in_order[at]].returned)
        for i, done in enumerate(self.history):
            first = bisect_right(began, done.returned)
            self.after[i].update(in_order[first : bisect_right(began, horizon[first], lo=first)])

    def cycle(self) -> list[Done] | None:
        """Transactions each of which must come before the next, and the last before the first; None: serializable."""
        state: dict[int, bool] = {}  # True: on the path that is being followed
        for start in range(len(self.history)):
            if start in state:
                continue
            path, stack = [start], [self._following(start)]
            state[start] = True
            while stack:
                following = next(stack[-1], None)
                if following is None:
                    stack.pop()
                    state[path.pop()] = False
                elif state.get(following):
                    return [self.history[i] for i in path[path.index(following) :]]
                elif following not in state:
                    state[following] = True
                    path.append(following)
                    stack.append(self._following(following))
        return None

    def _following(self, i: int) -> Iterator[int]:
        return iter(self.after.get(i, set()) - {i})


def assert_serializable(history: Iterable[Done], final: Mapping[str, Sequence[str]]) -> None:
    """Raises AssertionError with the transactions of a cycle, or with what was lost or invented."""
    found = Graph(list(history), final).cycle()
    assert found is None, f"each of these comes before the next, and the last before the first: {found}"
