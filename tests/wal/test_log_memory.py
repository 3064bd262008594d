"""The append log on a disk in memory."""

from __future__ import annotations

import pytest

from wal import MemoryPosix, MemoryStorage, open_log
from wal.testing.log_suite import LogSuite, Opener


class TestMemory(LogSuite):
    @pytest.fixture
    def opener(self) -> Opener:
        disk = MemoryPosix()
        return lambda **options: open_log(MemoryStorage(disk), **options)
