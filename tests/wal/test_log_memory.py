"""The append log on a disk in memory."""

from __future__ import annotations

import pytest

from wal import MemoryPosix, MemoryStorage, open_log
from wal.testing.append_log_suite import AppendLogSuite
from wal.testing.log_access import Opener


class TestMemory(AppendLogSuite):
    @pytest.fixture
    def opener(self) -> Opener:
        disk = MemoryPosix()
        return lambda **options: open_log(MemoryStorage(disk), **options)
