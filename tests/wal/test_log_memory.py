"""The append log on a disk in memory."""

from __future__ import annotations

from collections.abc import Sized
from contextlib import closing
from threading import Thread

import pytest

from wal import MemoryPosix, MemoryStorage, Record, index, open_log
from wal.append_log import AppendLog
from wal.checkpoint import Checkpoint
from wal.frame import encode_batch
from wal.testing.append_log_suite import AppendLogSuite
from wal.testing.log_access import Opener
from wal.testing.log_tools import add


class TestMemory(AppendLogSuite):
    @pytest.fixture
    def opener(self) -> Opener:
        disk = MemoryPosix()
        return lambda **options: open_log(MemoryStorage(disk), **options)


def test_the_size_of_the_log_is_that_of_its_frames_across_segments() -> None:
    with closing(open_log(MemoryStorage(MemoryPosix()), create=True, segment_size=300)) as log:
        sizes = [len(encode_batch(1, 0, [Record(b"", bytes(number * 10))])[0]) for number in range(12)]
        for number in range(12):
            add(log, bytes(number * 10))
        assert log.verify().segments > 4
        assert [log.size_after(lsn) for lsn in range(13)] == [sum(sizes[lsn:]) for lsn in range(13)]


def test_the_size_of_the_log_is_asked_for_while_another_thread_trims(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_log(MemoryStorage(MemoryPosix()), create=True)) as log:
        assert isinstance(log, AppendLog)
        for _ in range(5):
            add(log, b"x")
        chain = log.chain

        def trim() -> None:
            if chain._mutex.acquire(blocking=False):  # else that thread has to wait
                chain.moved(Checkpoint(log.id, 5, *chain.index.place(5)))
                chain._mutex.release()

        def measured(starts: Sized) -> int:
            monkeypatch.delattr(index, "len")
            length = len(starts)
            other = Thread(target=trim)
            other.start()
            other.join()
            return length

        monkeypatch.setattr(index, "len", measured, raising=False)
        assert log.size_after(0) > 0
