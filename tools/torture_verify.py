"""What `torture_kill` finds in a tree, held against what its writers had acknowledged."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torture_work import BEGUN, CHECKPOINT, CHECKPOINTED, DONE, READY, State, plan

from metatree import Metatree


@dataclass(frozen=True)
class Journal:
    """What a writer noted."""

    ready: bool
    acknowledged: int  # changes whose call returned
    begun: int  # changes begun; one more than acknowledged if it died in a call
    in_flight: bool  # died with a transaction in flight

    @staticmethod
    def read(path: str) -> Journal:
        data = Path(path).read_bytes() if os.path.exists(path) else b""
        acknowledged = data.count(DONE) + data.count(CHECKPOINTED)
        begun = data.count(BEGUN) + data.count(CHECKPOINT)
        return Journal(data[:1] == READY, acknowledged, begun, data[-1:] == BEGUN)


def expected(seed: str, node: str, journal: Journal) -> list[State]:
    """The states that a writer may have left: after its last acknowledged change, or after the one it had begun."""
    states = []
    for upto in {journal.acknowledged, journal.begun}:
        state = State()
        changes = plan(seed, node)
        for _ in range(upto):
            state.make(next(changes))
        states.append(state)
    return sorted(states, key=lambda state: state.tallied)


def shown(tree: Metatree, node: str) -> dict[str, Any] | None:
    """A writer's node as the library shows it."""
    if not tree.exists(node):
        return None
    found = tree.find(node)
    return {
        "keys": dict(found.metadata),
        "blobs": tree.list(node),
        "versions": {name: shown_version(tree, f"{node}/{name}") for name in found.children},
        "order": found.children,
    }


def shown_version(tree: Metatree, path: str) -> dict[str, Any]:
    blobs = {name: b"".join(tree.get(f"{path}/{name}")) for name in tree.list(path)}
    return {"keys": dict(tree.find(path).metadata), "blobs": blobs}


def wanted(state: State) -> dict[str, Any] | None:
    if not state.exists:
        return None
    versions = {name: asdict(version) for name, version in state.versions.items()}
    return {"keys": state.keys, "blobs": [], "versions": versions, "order": list(state.versions)}


def on_disk(folder: Path) -> dict[str, Any] | None:
    """A writer's node as the folders show it, read without the library."""
    if not folder.exists():
        return None
    keys, order, blobs = read_folder(folder)
    versions = {}
    for name in order:
        below, children, contents = read_folder(folder / name)
        versions[name] = {"keys": {**below, **({"children": children} if children else {})}, "blobs": contents}
    inside = sorted(set(blobs) - set(order))
    return {"keys": keys, "blobs": inside, "versions": versions, "order": order}


def read_folder(folder: Path) -> tuple[dict[str, Any], list[str], dict[str, bytes]]:
    metadata = json.loads((folder / "metadata.json").read_bytes())
    children = metadata.pop("children", [])
    entries = [entry for entry in folder.iterdir() if entry.name != "metadata.json"]
    return metadata, children, {e.name: b"" if e.is_dir() else e.read_bytes() for e in entries}


def differences(found: dict[str, Any] | None, states: Sequence[State]) -> str | None:
    """None if what was found is one of the states; else what is wrong, in words."""
    if any(found == wanted(state) for state in states):
        return None
    last = wanted(states[0])
    if found is None or last is None:
        return f"the node is {'missing' if found is None else 'there'}"
    if found["order"] != last["order"]:
        return f"its versions are {found['order']}, after its last acknowledged change they were {last['order']}"
    for name, version in last["versions"].items():
        there = found["versions"][name]
        if there != version:
            wrong = [
                b for b in {*version["blobs"], *there["blobs"]} if version["blobs"].get(b) != there["blobs"].get(b)
            ]
            return f"version {name}: keys {there['keys']}, not {version['keys']}; blobs that differ: {wrong}"
    return f"keys {found['keys']}, not {last['keys']}"


# --- the run --------------------------------------------------------------------------------------------------------
