"""Many writers, no server of locks: four processes with twenty-five commits each (eight in torture) on one tree."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from metatree import Metatree
from metatree.facts import decode_header
from tests.figures import PATIENCE
from tests.hosts.conftest import TORTURE, Shared
from tests.hosts.writers import COUNTER, PAIR, SHARED, found, start

WRITERS = 8 if TORTURE else 4
COMMITS = 25


def work_at_once(there: Shared) -> dict[str, list[tuple[str, Any]]]:
    """Let all of them loose; what each of them did. Every other one lets its files follow in the background."""
    running = {f"w{n}": start(there.place, f"w{n}", COMMITS, ("sync", "background")[n % 2]) for n in range(WRITERS)}
    for process in running.values():
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in running.values():
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {name: process.communicate()[0] for name, process in running.items()}
    assert {process.returncode for process in running.values()} == {0}
    return {name: json.loads(text) for name, text in said.items()}


def all_of(done: dict[str, list[tuple[str, Any]]], kind: str) -> list[Any]:
    return [what for of_one in done.values() for did, what in of_one if did == kind]


@pytest.mark.slow
@pytest.mark.timeout(1800 if TORTURE else PATIENCE)
def test_writers_at_once_lose_nothing_and_do_nothing_twice(there: Shared) -> None:
    found(there.place)
    with there.open(read_only=True) as tree:
        before = records(tree)
    done = work_at_once(there)
    puts, pairs = all_of(done, "put"), all_of(done, "pair")
    with there.open(read_only=True) as tree:
        shown = {node.path: (node.children, dict(node.metadata)) for node in tree.walk()}
        # every record: as many as there were commits, none of them twice
        written = records(tree)[len(before) :]
        assert len(written) == WRITERS * COMMITS
        assert max(Counter(txid for _, txid in written).values()) == 1
        # every child, in the order in which its writer made it
        children = tree.children(SHARED)
        assert sorted(children) == sorted(puts) and len(puts) == WRITERS * COMMITS * 2 // 5
        for name, of_one in done.items():
            own = [child for child in children if child.startswith(f"{name}-")]
            assert own == [what for did, what in of_one if did == "put"]
        for child in children:
            assert b"".join(tree.get(f"{SHARED}/{child}/weights")) == child.encode() * 100
        # every key, every increment, every pair whole
        assert dict(tree.find(SHARED).metadata) == dict(all_of(done, "update"))
        assert sorted(all_of(done, "count")) == list(range(1, WRITERS * COMMITS // 5 + 1))
        assert tree.find(COUNTER).metadata["n"] == WRITERS * COMMITS // 5
        assert [sorted(tree.list(node)) for node in PAIR] == [sorted([*pairs, "born"])] * 2
    # the files show the same to who reads them without the library
    for path, (children, keys) in shown.items():
        assert there.metadata(path) == {**({"children": children} if children else {}), **keys}
    expected = {f"{SHARED}/{put}/weights" for put in puts} | {f"{node}/{pair}" for node in PAIR for pair in pairs}
    expected |= {f"{node}/born" for node in (COUNTER, SHARED, *PAIR)}
    assert there.files() == expected | {f"{path}/metadata.json" if path else "metadata.json" for path in shown}
    there.assert_clean()


def records(tree: Metatree) -> list[tuple[int, str]]:
    log = tree._engine.log
    return [(batch.lsn, decode_header(record.header).txid) for batch in log.read(0) for record in batch.records]
