"""W4: find("m/<active>") and its metadata, warm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Step, Workload
from benchmarks.peers import BLOB, metatree, sqlite, sqlite_put, sqlite_update

VERSIONS = 20
VALUES: dict[str, object] = {"auc": 0.93, "stage": "candidate"}


@contextmanager
def metatree_find(folder: Path) -> Iterator[Step]:
    with metatree(folder) as tree:
        for number in range(VERSIONS):
            tree.put(f"m/v{number}", BLOB, name="w")
        tree.update("m/v7", VALUES)
        tree.update("m", active="v7")
        yield lambda number: dict(tree.find("m/<active>").metadata)


@contextmanager
def sqlite_find(folder: Path) -> Iterator[Step]:
    sql = "SELECT metadata FROM node WHERE model = ? AND version = ?"
    with sqlite(folder) as connection:
        for number in range(VERSIONS):
            sqlite_put(connection, "m", f"v{number}")
        sqlite_update(connection, "m", "v7", VALUES)
        sqlite_update(connection, "m", "", {"active": "v7"})

        def find(number: int) -> object:
            connection.execute("BEGIN")  # both reads see one state, as Metatree's do
            model = json.loads(connection.execute(sql, ("m", "")).fetchone()[0])
            version = json.loads(connection.execute(sql, ("m", model["active"])).fetchone()[0])
            connection.execute("COMMIT")
            return version

        yield find


@contextmanager
def files_find(folder: Path) -> Iterator[Step]:
    """Plain files, no guarantee: what reading the two metadata.json by hand costs."""
    (folder / "m" / "v7").mkdir(parents=True)
    (folder / "m" / "metadata.json").write_text(json.dumps({"active": "v7"}))
    (folder / "m" / "v7" / "metadata.json").write_text(json.dumps(VALUES))

    def find(number: int) -> object:
        with open(folder / "m" / "metadata.json", "rb") as file:
            active = json.loads(file.read())["active"]
        with open(folder / "m" / active / "metadata.json", "rb") as file:
            return json.loads(file.read())

    yield find


def workloads(steps: int) -> list[Workload]:
    contestants = {"metatree": metatree_find, "sqlite": sqlite_find, "plain files": files_find}
    return [Workload("W4", 'find("m/<active>") and its metadata, warm', contestants, steps * 10, warmup=200)]
