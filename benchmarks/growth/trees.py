"""Trees of given sizes, each built once in a run and used by all curves that want it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from metatree import Metatree

KEYS = ("group", "model", "version")
KIB = bytes(range(256)) * 4
_LOT = 5000  # puts of one transaction


class Trees:
    """Below one folder; nothing is removed before the run ends, since mass deletes slow what follows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Path] = {}
        self._fresh = 0

    def fresh(self) -> Path:
        """Where a new tree may be made."""
        self._fresh += 1
        return self._folder / f"fresh-{self._fresh}"

    def wide(self, children: int) -> Path:
        """One node "g/m" with so many children."""
        return self._once(f"wide-{children}", lambda path: _build(path, (f"g/m/v{n}" for n in range(children))))

    def balanced(self, nodes: int) -> Path:
        """So many versions, evenly below groups and models; "g0/m0/v0" is there."""
        return self._once(f"balanced-{nodes}", lambda path: _build(path, _balanced(nodes)))

    def past(self, records: int) -> Path:
        """One node "g/m/v", and so many records that were checkpointed long ago."""
        return self._once(f"past-{records}", lambda path: _commit(path, records))

    def files(self, number: int) -> Path:
        """A folder of so many small files, "f0" and so on: what a directory blob is put from."""
        return self._once(f"files-{number}", lambda path: _write(path, number))

    def _once(self, name: str, build: Callable[[Path], None]) -> Path:
        path = self._made.get(name)
        if path is None:
            path = self._folder / name
            build(path)
            self._made[name] = path
        return path


def _balanced(nodes: int) -> Iterable[str]:
    wide = round(nodes ** (1 / 3)) or 1
    return (f"g{n // wide // wide}/m{n // wide % wide}/v{n % wide}" for n in range(nodes))


def _build(path: Path, locations: Iterable[str]) -> None:
    rest = list(locations)
    with Metatree(path, KEYS) as tree:
        for first in range(0, len(rest), _LOT):
            with tree.transaction():
                for location in rest[first : first + _LOT]:
                    tree.put(location, b"small", name="w")


def _commit(path: Path, records: int) -> None:
    with Metatree(path, KEYS, apply="background") as tree:
        tree.put("g/m/v", b"small", name="w")
        for number in range(records - 1):
            tree.update("g/m/v", step=number)


def _write(path: Path, files: int) -> None:
    path.mkdir()
    for number in range(files):
        (path / f"f{number}").write_bytes(b"small")
