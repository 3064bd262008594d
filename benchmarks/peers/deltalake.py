"""Delta Lake: one table, a row for each model and each version, the blob in a column of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.base import Peer, Store, optional

Row = tuple[str, str, str, bytes]
COLUMNS = ("model", "version", "metadata", "content")


class Table(Store):
    """One table, as one writer holds it."""

    def __init__(self, delta: Any, arrow: Any, folder: Path) -> None:
        self._delta = delta
        self._arrow = arrow
        self._place = str(folder / "table")
        if not delta.DeltaTable.is_deltatable(self._place):
            delta.write_deltalake(self._place, self._rows([]))
        self._table = delta.DeltaTable(self._place)
        self._models = self._names("SELECT model FROM node WHERE version = ''")

    def put(self, model: str, version: str, content: bytes) -> None:
        self.put_many(model, (version,), content)

    def put_many(self, model: str, versions: Sequence[str], content: bytes) -> None:
        rows: list[Row] = [(model, version, "{}", content) for version in versions]
        if model not in self._models:
            rows.insert(0, (model, "", "{}", b""))
        self._delta.write_deltalake(self._table, self._rows(rows), mode="append")
        self._models.add(model)

    def update(self, model: str, version: str, values: Mapping[str, Any]) -> None:
        changed = {**self._metadata(model, version), **values}
        self._table.update(predicate=_of(model, version), new_values={"metadata": json.dumps(changed)})

    def find_active(self, model: str) -> object:
        self._table.update_incremental()  # others may have written; then both reads see one version of the table
        return self._metadata(model, self._metadata(model, "")["active"])

    def versions(self, model: str) -> set[str]:
        return self._names(f"SELECT version FROM node WHERE model = '{model}' AND version != ''")  # noqa: S608

    def _metadata(self, model: str, version: str) -> dict[str, Any]:
        (found,) = self._names(f"SELECT metadata FROM node WHERE {_of(model, version)}")  # noqa: S608
        metadata: dict[str, Any] = json.loads(found)
        return metadata

    def _names(self, query: str) -> set[str]:
        result = self._delta.QueryBuilder().register("node", self._table).execute(query).read_all()
        return set(result.column(0).to_pylist())

    def _rows(self, rows: list[Row]) -> Any:
        kinds = (self._arrow.DataType.string(),) * 3 + (self._arrow.DataType.binary(),)
        columns = zip(COLUMNS, kinds, strict=True)
        return self._arrow.Table(
            {name: self._arrow.Array([row[at] for row in rows], type=kind) for at, (name, kind) in enumerate(columns)}
        )


def _of(model: str, version: str) -> str:
    return f"model = '{model}' AND version = '{version}'"


@contextmanager
def opened(folder: Path) -> Iterator[Table]:
    yield Table(optional("deltalake"), optional("arro3.core"), folder)


PEERS = (Peer("deltalake", opened, "deltalake"),)
