"""A flush of the slots' folder that failed: the next one succeeds and proves nothing, the kernel has dropped names."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from wal import InDoubtError, MemoryPosix, MemoryStorage, WriteAheadLog, open_log
from wal.testing import Boundary, Call
from wal.testing.hosts import ManualClock
from wal.testing.log_tools import add, bodies

T = TypeVar("T")
FOLDER = "/disk/.wal"


class Kernel(Boundary):
    """Tells once of a name that it could not write; from then on only a name that is written again is durable."""

    failures = 0

    def __init__(self, inner: MemoryPosix | None = None) -> None:
        super().__init__(inner or MemoryPosix())
        self.dirty: set[str] = set()
        self.durable: set[str] = set()
        self._whole: set[str] = set()  # files whose content is durable

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        done = run()
        if call.method in ("link", "rename"):
            if call.arguments[0] in self._whole:
                self.dirty.add(str(call.arguments[1]))
        elif call.method in ("fsync", "fdatasync") and call.path != FOLDER:
            self._whole.add(call.path)
        elif call.method == "fsync" and call.path == FOLDER:
            dirty, self.dirty = self.dirty, set()
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EIO, os.strerror(errno.EIO), call.path)
            self.durable |= dirty
        return done

    def has(self, lsn: int) -> bool:
        return f"{FOLDER}/{lsn:020d}.rec" in self.durable


@pytest.fixture
def kernel() -> Kernel:
    kernel = Kernel()
    open_log(MemoryStorage(kernel), kind="slots", create=True).close()
    return kernel


def opened(kernel: Kernel, **options: object) -> WriteAheadLog:
    return open_log(MemoryStorage(kernel), kind="slots", clock=ManualClock(), lock_timeout=0.5, **options)  # type: ignore[arg-type]


def test_a_slot_whose_folder_could_not_be_flushed_is_written_anew_before_it_is_acknowledged(kernel: Kernel) -> None:
    with_two = opened(kernel)
    kernel.failures = 2
    assert add(with_two, b"one").lsn == 1
    assert kernel.has(1)
    assert add(with_two, b"two").lsn == 2
    assert bodies(opened(kernel, read_only=True)) == [b"one", b"two"]


def test_a_slot_in_doubt_is_written_anew_before_anything_follows_it(kernel: Kernel) -> None:
    log = opened(kernel)
    kernel.failures = 1000
    with pytest.raises(InDoubtError):
        add(log, b"one")
    kernel.failures = 0
    assert add(log, b"two").lsn == 2
    assert kernel.has(1) and kernel.has(2)
    assert bodies(log) == [b"one", b"two"]


def test_a_reader_of_the_same_handle_is_shown_a_slot_in_doubt_only_once_it_is_written_anew(kernel: Kernel) -> None:
    log = opened(kernel)
    kernel.failures = 1000
    with pytest.raises(InDoubtError):
        add(log, b"one")
    with pytest.raises(OSError, match="Input/output"):
        log.head(fresh=True)
    kernel.failures = 0
    assert log.head(fresh=True) == 1 and kernel.has(1)


def test_the_next_writer_writes_anew_what_is_not_applied_and_leaves_the_rest(kernel: Kernel) -> None:
    """Its creator may have died of what it was told; what is applied was flushed by who applied it."""
    log = opened(kernel, done=0)
    add(log, b"applied")
    with log.right():
        log.store_mark(0, 1)
    kernel.failures = 1000
    with pytest.raises(InDoubtError):
        add(log, b"in doubt")
    kernel.failures = 0
    kernel.durable.clear()
    again = opened(kernel, done=0)
    assert bodies(again) == [b"applied", b"in doubt"]
    assert kernel.has(2) and not kernel.has(1)


def test_what_was_read_when_a_flush_failed_is_written_anew_by_who_may_write(kernel: Kernel) -> None:
    log, other = opened(kernel), opened(kernel)
    add(other, b"one")
    kernel.failures = 1
    kernel.durable.clear()
    with pytest.raises(OSError, match="Input/output"):
        log.head(fresh=True)
    assert log.head(fresh=True) == 1 and kernel.has(1)


def test_a_reader_that_may_not_write_does_not_though_its_flush_failed(kernel: Kernel) -> None:
    writer, reader = opened(kernel), opened(kernel, read_only=True)
    add(writer, b"one")
    kernel.failures = 1
    kernel.durable.clear()
    with pytest.raises(OSError, match="Input/output"):
        reader.head(fresh=True)
    assert reader.head(fresh=True) == 1 and not kernel.has(1)


def test_a_trim_is_durable_before_anything_is_removed_that_its_records_needed(kernel: Kernel) -> None:
    log = opened(kernel)
    last = add(log, b"one").lsn
    kernel.durable.clear()
    log.trim(last)
    assert f"{FOLDER}/checkpoint.json" in kernel.durable and kernel.has(last)
    log.close()


def test_a_trim_whose_flush_failed_is_made_again_by_the_next(kernel: Kernel) -> None:
    log = opened(kernel)
    last = add(log, b"one").lsn
    kernel.failures = 1
    with pytest.raises(OSError, match="Input/output"):
        log.trim(last)
    assert log.trimmed() < last, "who asks for it removes nothing"
    log.trim(last)
    assert log.trimmed() == last and f"{FOLDER}/checkpoint.json" in kernel.durable
    log.close()


def test_a_slot_in_doubt_that_a_reader_took_is_written_anew_as_well(kernel: Kernel) -> None:
    """Another thread follows the log after the failed flush, and its own, which proves nothing, succeeds."""
    log = opened(kernel)

    class Storage(MemoryStorage):
        armed = True

        def create(self, name: str, data: bytes) -> bool:
            try:
                return super().create(name, data)
            except OSError:
                log.chain.follow()  # type: ignore[attr-defined]
                raise

        def publish(self, name: str, *given: Any, **named: Any) -> str:
            if self.armed and name.endswith(".rec"):
                raise OSError(errno.EIO, "not written anew")
            return super().publish(name, *given, **named)

    storage = Storage(kernel)
    log.chain.storage = storage  # type: ignore[attr-defined]
    kernel.failures = 1
    with pytest.raises(InDoubtError):
        add(log, b"in doubt")
    lost = log.head()
    assert not kernel.has(lost)
    storage.armed = False
    assert add(log, b"next").lsn == lost + 1
    assert kernel.has(lost)
    log.close()


def test_a_flush_with_nothing_to_write_anew_ends_no_doubt(kernel: Kernel) -> None:
    log, other = opened(kernel), opened(kernel)
    chain = log.chain  # type: ignore[attr-defined]
    chain.doubt()
    chain.make_sure()
    for found, anew in ((b"one", True), (b"two", False)):
        last = add(other, found).lsn
        kernel.durable.clear()
        assert log.head(fresh=True) == last
        assert kernel.has(last) is anew, "a flush is believed again only once something was written anew"
    log.close()
    other.close()


def test_a_writer_that_opened_is_in_doubt_only_about_what_was_there(kernel: Kernel) -> None:
    log, other = opened(kernel, done=0), opened(kernel)
    last = add(other, b"one").lsn
    kernel.durable.clear()
    assert log.head(fresh=True) == last
    assert not kernel.has(last), "it was written anew"
    log.close()
    other.close()
