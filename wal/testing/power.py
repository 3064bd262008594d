"""The states that a power loss may leave on a disk. (`PowerPosix` is the disk.)

The model: what a filesystem for which `Capabilities.append_log` holds may do.

1. Content is durable after an fsync or fdatasync of the file, or a syncfs. Until then each 512-byte sector holds any of
   the values it has had since, independently of all others, or zeros where the file grew. The length also has any of
   its values since.
2. Attributes are durable after an fsync of the file or folder, or a syncfs. Until then each has any value since.
3. A name is durable after an fsync of its folder, or a syncfs, but not after an fsync of the file. Until then each name
   leads to any file or folder it has led to since, or to none, independently of all others.
4. A rename or link is atomic for the new name; the old name of a rename never disappears before the new one exists. It
   may still exist beside the new one, unless the old name's folder was synced.
5. What no name leads to is lost.

Not in the model: sectors that are neither old nor new (a disk that lies about what it wrote), files that become shorter
than a durable length, decay of the medium.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count, product
from math import prod
from random import Random
from typing import Any

from wal.storage.memory import MemoryPosix, _Inode

SECTOR = 512
EXHAUSTIVE = 256  # an object with at most this many choices is tried with all of them

History = list[Any]  # the values that something may have after a power loss: the durable one first, the newest last


@dataclass(slots=True)
class _Object:
    """A file or folder in all its possible states."""

    folder: bool
    parts: dict[int | str, History] = field(default_factory=dict)  # not durable: sectors and attributes
    lengths: History = field(default_factory=lambda: [0])
    names: dict[str, History] = field(default_factory=dict)  # histories of object numbers; None: no such name
    sure: bytes = b""
    attributes: dict[str, bytes] = field(default_factory=dict)  # the durable ones
    digests: dict[tuple[int, ...], bytes] = field(default_factory=dict)  # by choice of parts and length, until changed


@dataclass(slots=True)
class _Rename:
    """The old name may be gone only if the new one exists; each is (folder, name, step in its history)."""

    old: tuple[int, str, int]
    new: tuple[int, str, int]


Key = tuple[int, Any]  # number of the object; a sector, an attribute, ("name", name) or "length"
Choice = dict[Key, int]  # which value of each history


class Platter:
    """What is durable and what is not, after the calls that were reported to it."""

    def __init__(self) -> None:
        self.objects: dict[int, _Object] = {1: _Object(folder=True)}
        self._renames: list[_Rename] = []
        self._changed: set[int] = set()  # objects changed since the last call of `legal`

    # --- what happened ------------------------------------------------------------------------------------------------

    def born(self, number: int, *, folder: bool) -> None:
        self.objects[number] = _Object(folder)

    def written(self, number: int, before: bytes, after: bytes, touched: range | None = None) -> None:
        """A write or a change of length: the file's whole content before and after; `touched`: the only bytes that
        may differ."""
        found = self._change(number)
        where = touched or range(max(len(before), len(after)))
        for sector in range(where.start // SECTOR, -(-where.stop // SECTOR)):
            old, new = (text[sector * SECTOR : (sector + 1) * SECTOR] for text in (before, after))
            if old != new:
                history = found.parts.setdefault(sector, [old.ljust(SECTOR, b"\0")])
                history.append(new.ljust(SECTOR, b"\0"))
        if len(before) != len(after):
            found.lengths.append(len(after))

    def attached(self, number: int, attribute: str, value: bytes) -> None:
        found = self._change(number)
        found.parts.setdefault(attribute, [found.attributes.get(attribute)]).append(value)

    def named(self, folder: int, name: str, number: int | None) -> tuple[int, str, int]:
        """A name now leads to another object, or to none."""
        history = self._change(folder).names.setdefault(name, [None])
        history.append(number)
        return folder, name, len(history) - 1

    def renamed(self, old: tuple[int, str], new: tuple[int, str], number: int) -> None:
        there = self.named(*new, number)
        self._renames.append(_Rename(self.named(*old, None), there))

    def synced(self, number: int, content: bytes, *, attributes: bool) -> None:
        """fsync; or fdatasync, without the attributes."""
        found = self._change(number)
        if found.folder:
            self._settle_names(number)
        else:
            found.sure, found.lengths = content, [len(content)]
        for part in list(found.parts):
            if isinstance(part, int):
                del found.parts[part]
            elif attributes:
                found.attributes[part] = found.parts.pop(part)[-1]

    def all_synced(self, contents: dict[int, bytes]) -> None:
        """syncfs."""
        for number, found in self.objects.items():
            if found.folder or number in contents:
                self.synced(number, contents.get(number, b""), attributes=True)

    def _change(self, number: int) -> _Object:
        self._changed.add(number)
        self.objects[number].digests.clear()
        return self.objects[number]

    def _settle_names(self, folder: int) -> None:
        remaining = []
        for rename in self._renames:
            if rename.old[0] == folder and rename.new[0] != folder:
                self._at_least(*rename.new)
            elif folder not in (rename.old[0], rename.new[0]):
                remaining.append(rename)
        self._renames = remaining
        names = self.objects[folder].names
        for name, history in list(names.items()):
            names[name] = [history[-1]]
        self.objects[folder].names = {name: history for name, history in names.items() if history != [None]}

    def _at_least(self, folder: int, name: str, step: int) -> None:
        """The name can no longer lead to what it led to before `step`."""
        history = self.objects[folder].names[name]
        history[:step] = [history[step]] * step  # step numbers stay the same, since other renames hold them

    # --- what may be left ---------------------------------------------------------------------------------------------

    def legal(self, choose: Random, products: int, most: int) -> Iterator[Choice]:
        """What a power loss may leave, in random order. For each object changed since the last call: all its choices,
        with everything else newest or oldest. Also `products` random choices of everything. At most `most` of all."""
        objects = self._uncertain()
        newest = self.newest()
        oldest = dict.fromkeys(newest, 0)
        changed, self._changed = self._changed, set()
        found: list[tuple[Choice, Choice]] = [(oldest, {}), (newest, {})]
        for number in changed & objects.keys():
            found += product((newest, oldest), _choices(objects[number], choose))
        for _ in range(products):
            mixed = {k: choose.randrange(len(history)) for parts in objects.values() for k, history in parts.items()}
            found.append((newest, mixed))
        for rest, chosen in choose.sample(found, min(most, len(found))):
            yield self._lawful({**rest, **chosen})

    def unsettled(self) -> None:
        """Let the next `legal` try all choices of every object that is not wholly durable, whenever it was changed."""
        self._changed |= self.objects.keys()

    def newest(self) -> Choice:
        """The state without a power loss."""
        return {key: len(history) - 1 for parts in self._uncertain().values() for key, history in parts.items()}

    def _uncertain(self) -> dict[int, dict[Key, History]]:
        found: dict[int, dict[Key, History]] = {}
        for number, thing in self.objects.items():
            parts: dict[Key, History] = {(number, part): history for part, history in thing.parts.items()}
            parts |= {(number, ("name", name)): names for name, names in thing.names.items() if len(names) > 1}
            if len(thing.lengths) > 1:
                parts[number, "length"] = thing.lengths
            if parts:
                found[number] = parts
        return found

    def _lawful(self, choice: Choice) -> Choice:
        """The choice, corrected so that a rename's new name exists wherever its old one is gone."""
        for rename in reversed(self._renames):
            (old_folder, old, gone), (new_folder, new, came) = rename.old, rename.new
            if choice.get((old_folder, ("name", old)), 0) >= gone:
                key = new_folder, ("name", new)
                choice[key] = max(choice.get(key, 0), came)
        return choice

    def disk(self, choice: Choice) -> MemoryPosix:
        """The disk in the chosen state."""
        disk = MemoryPosix()
        made: dict[int, _Inode] = {}
        disk._top = self._make(1, choice, made)
        disk._numbers = count(max(made) + 1)
        return disk

    def _make(self, number: int, choice: Choice, made: dict[int, _Inode]) -> _Inode:
        if number in made:
            made[number].links += 1
            return made[number]
        inode = made[number] = _Inode(number, folder=self.objects[number].folder, links=1)
        inode.data, inode.attributes = self._content(number, choice)
        for name, below in self._entries(number, choice):
            inode.entries[name] = self._make(below, choice, made)
        return inode

    def _content(self, number: int, choice: Choice) -> tuple[bytearray, dict[str, bytes]]:
        """(a file's content, attributes of the file or folder)."""
        thing = self.objects[number]
        data, attributes = bytearray(thing.sure), dict(thing.attributes)
        for part, history in thing.parts.items():
            value = history[choice[number, part]]
            if isinstance(part, int):
                data.extend(bytes(max(0, (part + 1) * SECTOR - len(data))))
                data[part * SECTOR : (part + 1) * SECTOR] = value
            elif value is not None:
                attributes[part] = value
        length = thing.lengths[choice.get((number, "length"), -1)]
        del data[length:]
        data.extend(bytes(length - len(data)))
        return data, attributes

    def _entries(self, number: int, choice: Choice) -> Iterator[tuple[str, int]]:
        for name, names in self.objects[number].names.items():
            below = names[choice.get((number, ("name", name)), -1)]
            if below is not None:
                yield name, below

    def digest(self, choice: Choice) -> bytes:
        """A digest of the chosen state: equal for equal names and contents, whether or not names share a file."""
        return self._digest(1, choice)

    def _digest(self, number: int, choice: Choice) -> bytes:
        thing = self.objects[number]
        key = (*(choice[number, part] for part in thing.parts), choice.get((number, "length"), -1))
        known = thing.digests.get(key)
        if known is None:
            data, attributes = self._content(number, choice)
            found = blake2b(repr((thing.folder, sorted(attributes.items()), len(data))).encode())
            found.update(data)
            known = thing.digests[key] = found.digest()
        if not thing.folder:
            return known
        entries = sorted((name, self._digest(below, choice)) for name, below in self._entries(number, choice))
        return blake2b(repr((known, entries)).encode(), digest_size=16).digest()


def _choices(parts: dict[Key, History], choose: Random) -> Iterator[Choice]:
    """All choices of one object if they are few. Else: each value of each part with the rest oldest or newest, a tear
    after each part, and some random choices."""
    keys, sizes = list(parts), [len(history) for history in parts.values()]
    if prod(sizes) <= EXHAUSTIVE:
        yield from (dict(zip(keys, chosen, strict=True)) for chosen in product(*map(range, sizes)))
        return
    for place, key in enumerate(keys):
        for value in range(sizes[place]):
            for rest in (0, -1):
                others = {other: rest % size for other, size in zip(keys, sizes, strict=True)}
                yield {**others, key: value}
        yield {other: (size - 1) * (at <= place) for at, (other, size) in enumerate(zip(keys, sizes, strict=True))}
    for _ in range(EXHAUSTIVE // 4):
        yield {key: choose.randrange(size) for key, size in zip(keys, sizes, strict=True)}
