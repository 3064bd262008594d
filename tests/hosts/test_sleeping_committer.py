"""A committer sleeps before its k-th storage call, is overtaken, and wakes: for every k, the tree equals the log.

On servers, and between calls of the system, for one k in a few; for all of them with `METATREE_TORTURE`.

What the other host does meanwhile is the worst that it can do: it undoes, or does over again, what the sleeper was
about to put into the files.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from metatree import Metatree
from tests.hosts.conftest import LEVELS, TORTURE, Shared
from tests.hosts.sleeper import Sleeper

TTL = 0.05  # seconds, by the clock of the one that overtakes
MOST = 1000  # calls of one change
STEPS = {
    "mount": 1,
    "seaweedfs": 1 if TORTURE else 6,
    "hdfs": 1 if TORTURE else 20,
}  # every so many calls; where to begin is drawn


def again(tree: Metatree, node: str) -> None:
    tree.update(node, x=2)
    tree.update(node, x=1)


def put_again(tree: Metatree, node: str) -> None:
    tree.put(node, b"again", name="weights")
    tree.update(node, x=3)


def replace_twice(tree: Metatree, node: str) -> None:
    tree.put(node, b"third", name="weights", force=True)
    tree.put(node, b"first", name="weights", force=True)


def checkpoint(tree: Metatree, node: str) -> None:
    tree.update(node, x=4)
    tree.checkpoint()


Meanwhile = Callable[[Metatree, str], object]
# what the sleeper does; what the node is before; what is done meanwhile
CASES: dict[str, tuple[str, bool, Meanwhile]] = {
    "a new version, deleted meanwhile": (
        "put a version",
        False,
        lambda tree, node: tree.delete(node, recursive=True),
    ),
    "a new version, replaced meanwhile": ("put a version", False, replace_twice),
    "a new blob, deleted meanwhile": ("put a blob", True, lambda tree, node: tree.delete(f"{node}/more")),
    "a replaced blob, replaced back": ("replace a blob", True, replace_twice),
    "an update, updated back and forth": ("update", True, again),
    "a deletion, put again meanwhile": ("delete", True, put_again),
    "a checkpoint, and a commit meanwhile": ("make again, checkpoint", True, lambda tree, node: tree.update(node, x=4)),
    "a checkpoint, and another meanwhile": ("make again, checkpoint", True, checkpoint),
    "a move, moved back": ("move", True, lambda tree, node: tree.move(f"{node}-moved", node)),
}


def rounds(there: Shared, case: str, level: str, step: int = 1) -> int:
    """Let it sleep before every call (every `step`-th); the first number that was beyond the last call."""
    change, exists, meanwhile = CASES[case]
    there.open(LEVELS).close()
    overtaking = replace(there.place, ttl=TTL)
    sleeper = Sleeper(there.place, level)
    try:
        with overtaking.open() as other:
            other.put("m/kept", b"kept", name="weights")
            for call in range(random.randint(1, step), MOST, step):
                node = f"m/v{call}"
                if exists:
                    other.put(node, b"first", name="weights")
                    other.update(node, x=0)
                if not sleeper.begin(change, node, call):
                    sleeper.close()
                    return call
                meanwhile(other, node)
                sleeper.wake()
                assert_equal(there, other, call)
                if other.exists(node):
                    other.delete(node, recursive=True)
    finally:
        sleeper.kill()
    raise AssertionError("it never came to an end")


def assert_equal(there: Shared, tree: Metatree, call: int) -> None:
    """The files show what the log says: by the library's own check, and read without it."""
    report = tree.check(deep=True)
    assert report.ok, f"call {call}: {report}"
    expected = {}
    for node in tree.walk(""):
        keys, children = dict(node.metadata), node.children
        name = f"{node.path}/metadata.json" if node.path else "metadata.json"
        expected[name] = {**({"children": children} if children else {}), **keys}
        expected.update({f"{node.path}/{blob}": b"".join(tree.get(f"{node.path}/{blob}")) for blob in node.list()})
    files = there.files()
    assert files == expected.keys(), f"call {call}: {files ^ expected.keys()}"
    for name, content in expected.items():
        data = there.plain.read(name)
        assert content == (data if isinstance(content, bytes) else json.loads(data)), f"call {call}: {name}"


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_it_changes_nothing_that_stays_wherever_it_slept(case: str, there: Shared) -> None:
    step = STEPS[there.kind]
    end = rounds(there, case, "storage", step)
    print(f"{there.kind}: {case}: asleep before {'every' if step == 1 else f'one in {step}'} of about {end} calls")
    assert end > 4
    there.assert_clean()


@pytest.mark.slow
@pytest.mark.parametrize("there", ["mount"], indirect=True)
@pytest.mark.parametrize("case", CASES)
def test_on_a_mount_wherever_it_slept_between_two_calls_of_the_system(case: str, there: Shared) -> None:
    step = 1 if TORTURE else 8
    end = rounds(there, case, "system", step)
    print(f"{there.kind}: {case}: asleep before {'every' if step == 1 else f'one in {step}'} of about {end} calls")
    assert end > 10
    there.assert_clean()
