"""A process that dies at any storage call of a change to a tree in a bucket: another finds it whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from metatree import Metatree
from metatree.facts import decode_header
from tests.tree.storages import NamedObjects, TextBucket
from tests.tree.test_overtaken import VICTIM, Host, in_order, opened, prepared, shown
from wal.testing.faults import Crash
from wal.testing.hosts import watched

Act = Callable[[Metatree], object]


class Mortal(Host):
    """Dies before or after its k-th call; then no call is made any more."""

    def __init__(self, bucket: TextBucket, dies_at: int, *, after: bool) -> None:
        super().__init__(bucket)
        self.storage = watched(NamedObjects(bucket, "tree"), self._until)
        self._dies_at = dies_at
        self._after = after
        self.count = 0  # calls since it was armed
        self.dead = False

    def _until(self, method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        with self._mutex:
            self.count += self.armed
            if self.dead or (self.armed and self.count >= self._dies_at):
                first, self.dead = not self.dead, True
                if first and self._after:
                    run()
                raise Crash(f"{method} {arguments[:1]}")
        return run()


def large(tree: Metatree) -> None:
    tree.put("m/v3", bytes(100_000), name="large")


def large_and_cleared(tree: Metatree) -> None:
    large(tree)
    tree.checkpoint()


def warm(tree: Metatree) -> None:
    """From then on the handle knows this file's version, and replaces it unread."""
    tree.update("m", warm=1)


CHANGES: dict[str, Act] = {
    **VICTIM,
    "large": large,
    "checkpoint": lambda tree: tree.checkpoint(),
    "large and its checkpoint": large_and_cleared,
}


def listed_and_missing(bucket: TextBucket) -> list[str]:
    """Nodes that a parent's metadata.json lists and that have none themselves."""
    files = {name: value for name, value in shown(bucket).items() if name.endswith("metadata.json")}
    listed = {name: keys.get("children", []) for name, keys in files.items()}
    below = [name.replace("metadata.json", f"{child}/metadata.json") for name in listed for child in listed[name]]
    return [name for name in below if name not in files]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_died_at_any_call_is_whole_or_absent_and_the_next_writer_finishes_it(
    change: str, after: bool
) -> None:
    act = CHANGES[change]
    before, done = in_order(warm), in_order(warm, act)
    seen = set()
    dies_at = 0
    while True:
        dies_at += 1
        bucket = TextBucket()
        prepared(bucket)
        host = Mortal(bucket, dies_at, after=after)
        tree = opened(host)
        warm(tree)
        host.armed = True
        try:
            act(tree)
            died = host.dead
        except Crash:
            died = True
        host.dead = True
        tree._engine.abandon()
        assert listed_and_missing(bucket) == [], f"died at call {dies_at}"
        with opened(Host(bucket)) as other:
            version = "v3" if change in ("put", "large", "move", "mixed") else ""
            known = other.exists(f"m/{version}") if version else None
            other.flush()
            assert shown(bucket) in (before, done), f"died at call {dies_at}"
            if known is not None:  # a reader knew it before the files did
                assert known is (shown(bucket) == done)
            assert other.check(deep=True).ok
            other.update("other", after=True)
            seen.add(shown(bucket)["m/metadata.json"] == done["m/metadata.json"])
        with opened(Host(bucket)) as last:
            assert last.check(deep=True).ok and last.find("other").metadata["after"] is True
        if not died:
            break
    assert dies_at > 4 and True in seen


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_collection_that_died_at_any_call_is_finished_by_the_next(after: bool) -> None:
    dead = "0-00112233445566aa"
    ends, dies_at = set(), 0
    while True:
        dies_at += 1
        bucket = TextBucket()
        prepared(bucket)
        before = shown(bucket)
        host = Mortal(bucket, dies_at, after=after)
        tree = opened(host)
        with tree._engine.storage.stage(f".wal/staged/{dead}/1") as file:
            file.write(b"dead")
            file.finish(b"")
        host.armed = True
        with suppress(Crash):
            tree.gc(older_than=0, dry_run=False)
        died, host.dead = host.dead, True
        tree._engine.abandon()
        with opened(Host(bucket)) as other:  # no recovery takes it away where hosts share the storage
            done = other.gc(older_than=0, dry_run=False)
            ends.add(tuple(done.old))
            left = [note.path for note in other.check(deep=True).notes]  # the clock's probe: goes after a day
            assert all(path.startswith(".wal/tmp/gc-") for path in left), f"died at call {dies_at}: {left}"
            headers = [decode_header(record.header) for batch in other._engine.log.read(0) for record in batch.records]
            assert [txid for header in headers for txid in header.aborts] == [dead], f"died at call {dies_at}"
            assert other.gc(older_than=0, dry_run=False).clean
            assert shown(bucket) == before
        if not died:
            break
    assert dies_at > 3 and ends == {(), (f".wal/staged/{dead}",)}
