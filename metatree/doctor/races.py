"""Tests of guarantees that need several processes: each function returns whether one holds, and what was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import wal

from . import turns
from .contenders import PROCESSES, THREADS, Contenders

CROWD = f"{PROCESSES} processes of {THREADS} threads"
Verdict = tuple[bool, str]  # whether it holds; what was seen

_SIZE = 64 * 1024  # bytes of a file that is replaced under its readers
_LONGEST = 3.0  # seconds; a check begins no new round after this ...
_FEWEST = 3  # ... unless it has had no more rounds than this


@dataclass(frozen=True, slots=True)
class Arena:
    """What a race needs."""

    storage: wal.Storage
    contenders: Contenders
    clock: wal.Clock

    def rounds(self, most: int) -> Iterator[int]:
        """1, 2, … up to `most`, or for some seconds: fewer rounds on slow storage."""
        end = self.clock.monotonic() + _LONGEST
        for number in range(1, most + 1):
            if number > _FEWEST and self.clock.monotonic() > end:
                return
            yield number


def put_if_absent(arena: Arena) -> Verdict:
    """Exactly one writer wins each name, and its content is stored."""
    number = 0
    for number in arena.rounds(40):
        name = f"absent/{number:03}"
        winners = [who for who in arena.contenders.race(turns.create, name) if who]
        data = arena.storage.read(name).data
        if len(winners) != 1:
            return False, f"{len(winners)} of {PROCESSES * THREADS} writers were told that they made {name}"
        if data != turns.content(winners[0]):
            return False, f"{name} does not hold what its winner wrote"
    return True, f"{number} names, {CROWD}, one winner each"


def compare_and_set(arena: Arena) -> Verdict:
    """No number is written twice, and none is lost."""
    name = "counter"
    arena.storage.create(name, b"0")
    lists = arena.contenders.race(turns.count_with_versions, name, 25, _LONGEST)
    written = sorted(number for each in lists for number in each)
    last = int(arena.storage.read(name).data.split()[0])
    if len(set(written)) != len(written):
        twice = next(number for number, count in Counter(written).items() if count > 1)
        return False, f"two writers replaced the same version: {twice} was written twice"
    if written != list(range(1, last + 1)):
        return False, f"{len(written)} replacements were acknowledged, {last} are in the file"
    if not written:
        raise TimeoutError("no replacement went through")
    return True, f"{last} replacements, {CROWD}, none lost"


def folder_once(arena: Arena) -> Verdict:
    """Exactly one writer wins each name; all its files are visible as soon as the folder is."""
    number = 0
    for number in arena.rounds(10):
        name = f"folders/{number:03}"
        winners = [who for who in arena.contenders.race(turns.publish_folder, name) if who]
        if len(winners) != 1:
            return False, f"{len(winners)} of {PROCESSES * THREADS} writers were told that they made {name}"
        for file in turns.FILES:
            if arena.storage.read(f"{name}/{file}").data != turns.content(winners[0]):
                return False, f"{name}/{file} is not its winner's"
        seen = _watch_folder(arena, f"{name}-watched")
        if seen != ["whole"] * len(seen):
            return False, f"a folder was seen in part: {next(each for each in seen if each != 'whole')}"
    return True, f"{number} names, {CROWD}, one winner each; {number} more seen whole by {len(seen)} watchers"


def _watch_folder(arena: Arena, name: str) -> list[str]:
    arena.contenders.start(turns.watch_folder, name, 60.0)
    turns.publish_folder(arena.storage, "watched", name)
    return arena.contenders.finish()


def fence(arena: Arena) -> Verdict:
    """Committers that publish in a loop are stopped when their folder is retired. After that none of their operations
    has an effect, not even one that had begun."""
    storage, published = arena.storage, 0
    number = 0
    for number in arena.rounds(5):
        work, name = f"fence/{number}/work", f"fence/{number}/file"
        storage.publish(name, turns.content("before"), b"", durable=False)
        storage.publish(f"{work}/here", b"", b"", durable=False)
        arena.contenders.start(turns.publish_until_fenced, work, name, 2 * _LONGEST)
        while storage.read(name).data == turns.content("before") and arena.contenders.busy():
            arena.clock.sleep(0)
        storage.retire(work, f"fence/{number}/away")
        there = storage.read(name).data
        done = arena.contenders.finish()
        if storage.read(name).data != there:
            return False, "an operation of an overtaken committer took effect after its folder was retired"
        if None in done:
            return False, "an overtaken committer still published seconds after its folder was retired"
        published += sum(done)
        if passed := _passes(storage, work, name):
            return False, f"{passed} went through though the working folder was gone"
    return True, f"{number} times, {CROWD}: {published} files were published before, none after"


def _passes(storage: wal.Storage, work: str, name: str) -> str:
    """The first operation that an overtaken committer can still do; "" if there is none."""
    view = storage.fenced(work)
    for what, step in (
        ("publish", lambda: view.publish(name, b"late", b"", durable=False)),
        ("publish_folder", lambda: view.publish_folder(f"{name}-late", [wal.Publication(f"{name}-late/f", b"", b"")])),
        ("set_aside", lambda: view.set_aside(name, f"{name}-aside")),
    ):
        try:
            step()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return what
    late = storage.entry(f"{name}-late") is not None or storage.read(name).data == b"late"
    return "a refused operation" if late else ""


def read_after_write(arena: Arena) -> Verdict:
    """Other processes see new names, and removals, at once."""
    rounds = 0
    names: list[str] = []
    for rounds in arena.rounds(10):
        names.append(f"{rounds:03}")
        arena.storage.create(f"fresh/{names[-1]}", turns.content(names[-1]))
        trouble = _compare(arena, names)
        if trouble:
            return False, f"after a new name, {trouble}"
    arena.storage.erase(f"fresh/{names[0]}")
    trouble = _compare(arena, names[1:])
    if trouble:
        return False, f"after a removal, {trouble}"
    return True, f"{rounds} new names and a removal, looked at by {CROWD}"


def _compare(arena: Arena, names: list[str]) -> str:
    for seen in arena.contenders.race(turns.look, "fresh", names):
        for how, verb in (("listed", "listed"), ("found", "found"), ("read", "read as written")):
            if seen[how] != len(names):
                return f"only {seen[how]} of {len(names)} were {verb}"
        if seen["strange"]:
            return f"{seen['strange']} names were listed that are not there"
    return ""


def replace_whole(arena: Arena) -> Verdict:
    """Readers see a whole version of a file that is replaced in a loop."""
    name, written = "replaced", 0
    _replace(arena.storage, name, written)
    arena.contenders.start(turns.watch_file, name, _SIZE, 2000, _LONGEST)
    while arena.contenders.busy():
        written += 1
        _replace(arena.storage, name, written)
    seen: Counter[str] = sum(arena.contenders.finish(), Counter())
    for what, words in (
        ("torn", "returned a part of a file, or parts of two"),
        ("missing", "found no file"),
        ("mixed", "returned the content of one version and the attribute of another"),
    ):
        if seen[what]:
            return False, f"{seen[what]} of {seen.total()} reads {words}"
    return True, f"{written} replacements under {seen.total()} reads by {CROWD}"


def _replace(storage: wal.Storage, name: str, number: int) -> None:
    data = turns.content(f"version {number:012}", _SIZE)
    storage.publish(name, data, data[:16], durable=False)


def locks_exclude(arena: Arena) -> Verdict:
    """A counter in a file, read and written in two steps under a lock, loses no increment."""
    times = 10
    arena.storage.publish("number", b"%016d" % 0, b"", durable=True)
    total = sum(arena.contenders.race(turns.count_with_lock, "number", "lock", times))
    counted = int(arena.storage.read("number").data)
    if counted != total:
        return False, f"{total} times 1 was added with the lock held, and the file says {counted}"
    return True, f"{total} turns of {CROWD}, none lost"


def locks_freed(arena: Arena) -> Verdict:
    """A killed process frees its lock. Must be the last race, since it kills a process."""
    died = arena.contenders.send_to_death(turns.die_with_lock, "held", "held-sign")
    if not died or arena.storage.entry("held-sign") is None:
        raise OSError("the process that should hold the lock did not get it")
    lock = arena.storage.lock("held")
    try:
        if lock.acquire(timeout=_LONGEST):
            return True, "a process was killed while it held one"
        return False, f"{_LONGEST:.0f} s after its holder was killed it was still held by {lock.holder()}"
    finally:
        lock.close()
