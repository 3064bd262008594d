"""The append log on this machine's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from wal import LocalStorage, open_log
from wal.testing.log_suite import LogSuite, Opener


class TestLocal(LogSuite):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda **options: open_log(LocalStorage(tmp_path), **options)


class TestLocalInSmallSegments(LogSuite):
    """So that everything above happens across rotations as well."""

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda **options: open_log(LocalStorage(tmp_path), segment_size=200, **options)
