"""Writers in processes of their own. Each waits for a line on its standard input, works, and says what it was told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from torture_place import Place

from metatree import Metatree

ROOT = Path(__file__).resolve().parents[2]
COUNTER = "counter"  # a node whose key n all increment
PAIR = ("left", "right")  # nodes that transactions change together
SHARED = "m"  # a node into which all put versions


def found(place: Place) -> None:
    """Make the tree that they write to."""
    with place.open(("model", "version")) as tree:
        for node in (COUNTER, SHARED, *PAIR):
            tree.put(node, b"", name="born")
        tree.update(COUNTER, n=0)
        for node in PAIR:
            tree.update(node, last="")


def work(tree: Metatree, name: str, commits: int) -> list[tuple[str, Any]]:
    """Make so many commits; what each of them was, in their order."""
    done: list[tuple[str, Any]] = []
    for number in range(commits):
        token = f"{name}-{number}"
        match number % 5:
            case 0 | 1:
                tree.put(f"{SHARED}/{token}", token.encode() * 100, name="weights")
                done.append(("put", token))
            case 2:
                tree.update(SHARED, {token: number})
                done.append(("update", [token, number]))
            case 3:
                done.append(("count", tree.run(lambda _: count(tree), attempts=10_000)))
            case 4:
                tree.run(lambda _: together(tree, token), attempts=10_000)  # noqa: B023  called at once
                done.append(("pair", token))
    return done


def count(tree: Metatree) -> int:
    n = int(tree.find(COUNTER).metadata["n"]) + 1
    tree.update(COUNTER, n=n)
    return n


def together(tree: Metatree, token: str) -> None:
    seen = {tree.find(node).metadata["last"] for node in PAIR}
    assert len(seen) == 1, f"half a transaction was seen: {seen}"
    for node in PAIR:
        tree.update(node, last=token)
        tree.put(node, token.encode(), name=token)


def main() -> None:
    """In the writer's process."""
    warnings.simplefilter("error")
    place, name, commits, apply = Place.decode(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    with place.open(apply=apply) as tree:
        print("ready", flush=True)
        sys.stdin.readline()
        done = work(tree, name, commits)
    print(json.dumps(done), flush=True)


def start(place: Place, name: str, commits: int, apply: str) -> subprocess.Popen[str]:
    """A writer that has yet to be told to begin."""
    command = [sys.executable, "-m", "tests.hosts.writers", place.encode(), name, str(commits), apply]
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tools'}"}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **paths}
    )


if __name__ == "__main__":
    main()
