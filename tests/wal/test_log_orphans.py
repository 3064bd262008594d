"""An orphan: the successor that an interrupted rotation left. It is empty, its header says which batches it was made
for, and the next rotation puts another file in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import TypeVar

import pytest

from wal import MemoryPosix, MemoryStorage, WriteAheadLog, open_log
from wal.checkpoint import Checkpoint, read_checkpoint
from wal.names import Names
from wal.testing.boundary import ALL_CALLS, Boundary, Call
from wal.testing.faults import Crash
from wal.testing.log_tools import add, bodies, files_of

T = TypeVar("T")
NAMES = Names(".wal")
SIZE = 512  # of a segment
LARGE = b"x" * 400  # fits no segment that holds a batch already
SMALL = b"y"


class Killed(Boundary):
    """Its process is killed before its N-th call from now on; closing is all that the system then still does for it."""

    def __init__(self, disk: MemoryPosix) -> None:
        super().__init__(disk, counted=ALL_CALLS)
        self.at = -1  # never
        self.is_dead = False

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        self.is_dead = self.is_dead or call.number == self.at
        if self.is_dead:
            raise Crash(call.method)
        return run()


@contextmanager
def opened(disk: MemoryPosix, *, read_only: bool = False) -> Iterator[WriteAheadLog]:
    with closing(open_log(MemoryStorage(disk), read_only=read_only, segment_size=SIZE)) as log:
        yield log


def made(batches: int = 2, trimmed: int = 1) -> MemoryPosix:
    disk = MemoryPosix()
    with closing(open_log(MemoryStorage(disk), create=True, segment_size=SIZE)) as log:
        for _ in range(batches):
            add(log, SMALL, b"%d" % log.head())
        log.trim(trimmed)
    return disk


def rotation(disk: MemoryPosix, at: int) -> bool:
    """A process appends what needs a new segment, and is killed before its `at`-th call; False: it came to its end."""
    posix = Killed(disk)
    storage = MemoryStorage(posix)
    log = open_log(storage, segment_size=SIZE)
    posix.at = posix.count + at
    with suppress(Crash):
        add(log, LARGE, b"%d" % log.head())
    with suppress(Crash):
        log.close()
    with suppress(Crash):
        storage.close()
    return posix.is_dead


def orphaned(disk: MemoryPosix) -> None:
    """Kill a rotation when its successor is there and the seal is not."""
    at = 1
    while NAMES.segment(2) not in files_of(MemoryStorage(disk)):
        assert rotation(disk, at)
        at += 1


def headers(log: WriteAheadLog, after: int) -> list[bytes]:
    return [record.header for batch in log.read(after) for record in batch.records]


@pytest.mark.parametrize("trimmed", range(7))
def test_batches_that_fit_beside_an_orphan_are_read_from_the_segment_that_they_are_in(trimmed: int) -> None:
    """Its header says that it begins with batch 3; they went into the segment before it."""
    disk = made()
    orphaned(disk)
    with opened(disk) as log:
        for _ in range(4):
            add(log, SMALL, b"%d" % log.head())
        log.trim(trimmed)
        for after in range(7):
            assert headers(log, after) == [b"%d" % number for number in range(after, 6)]
        assert log.verify().problems == ()
    with opened(disk, read_only=True) as reader:
        for after in range(7):
            assert headers(reader, after) == [b"%d" % number for number in range(after, 6)]


def test_a_redo_mark_beside_an_orphan_is_found_without_a_hint() -> None:
    disk = made()
    orphaned(disk)
    with opened(disk) as log:
        add(log, SMALL)
        log.trim(3)
    storage = MemoryStorage(disk)
    checkpoint = read_checkpoint(storage, NAMES)
    assert checkpoint.segment == 1
    storage.publish(NAMES.checkpoint, Checkpoint(checkpoint.log, 3).encode(), b"", durable=True)
    for read_only in (True, False):
        with opened(disk, read_only=read_only) as log:
            assert (log.trimmed(), log.head()) == (3, 3)
    with opened(disk) as log:
        assert add(log, LARGE).lsn == 4
        assert log.verify().problems == ()


def test_an_orphan_that_is_freed_while_it_is_looked_at_had_become_a_segment() -> None:
    disk = made()
    orphaned(disk)
    with opened(disk) as log:
        for _ in range(3):
            add(log, LARGE, b"%d" % log.head())
        storage = MemoryStorage(disk)
        real = storage.open_file
        shelf = log.history._shelf  # type: ignore[attr-defined]
        seen = shelf.numbers()

        def freed(name: str, *, writable: bool) -> object:
            shelf.storage.open_file = real
            with opened(disk) as other:
                add(other, LARGE, b"%d" % other.head())
                other.trim(other.head())
            return real(name, writable=writable)

        shelf.storage.open_file = freed
        assert shelf.written() == seen
        assert headers(log, 0) == [b"%d" % number for number in range(log.head())]


def test_whoever_looked_at_an_orphan_goes_on_in_the_segment_that_took_its_place() -> None:
    """Two writers are killed, each before any of its calls in a rotation; a third reads the history in between."""
    first, died = 0, True
    while died:
        first, second = first + 1, 0
        again = True
        while again:
            second += 1
            disk = made()
            with opened(disk) as third, opened(disk, read_only=True) as reader:
                died = rotation(disk, first)
                headers(third, 0), headers(reader, 0)
                again = rotation(disk, second)
                headers(third, 0)
                last = add(third, SMALL, b"acknowledged").lsn
                found = bodies(third)
                assert len(found) == last and found[-1] == SMALL
                assert bodies(reader) == found
            with opened(disk, read_only=True) as fresh:
                assert bodies(fresh) == found
            with opened(disk) as fresh:
                assert headers(fresh, 0)[-1] == b"acknowledged"
                assert fresh.verify().problems == ()
    assert first > 10 and second > 10


def test_a_rotation_lets_go_of_an_orphan_that_its_own_handle_has_open() -> None:
    """Nobody keeps one open, as the tests above show; else its batch would go into a file without a name."""
    disk = made()
    orphaned(disk)
    with opened(disk) as log:
        log.chain.shelf.size(2)  # type: ignore[attr-defined]
        last = add(log, LARGE).lsn
        assert log.chain.tail.number == 2  # type: ignore[attr-defined]
    with opened(disk) as fresh:
        assert fresh.head() == last and bodies(fresh)[-1] == LARGE
