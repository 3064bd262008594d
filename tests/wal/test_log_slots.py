"""The slot log: the conformance suite on a disk and on objects in memory, and on this machine's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from wal import LocalStorage, MemoryPosix, MemoryStorage, open_log
from wal.testing.log_access import Opener
from wal.testing.objects import Bucket, MemoryObjects
from wal.testing.slot_log_suite import SlotLogSuite


class TestSlotsInMemory(SlotLogSuite):
    @pytest.fixture
    def opener(self) -> Opener:
        disk = MemoryPosix()
        return lambda **options: open_log(MemoryStorage(disk), kind="slots", **options)


class TestSlotsOnObjects(SlotLogSuite):
    @pytest.fixture
    def opener(self) -> Opener:
        bucket = Bucket()
        return lambda **options: open_log(MemoryObjects(bucket), **options)


class TestSlotsOnFiles(SlotLogSuite):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda **options: open_log(LocalStorage(tmp_path), kind="slots", **options)
