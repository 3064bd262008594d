"""The append log on this machine's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from wal import LocalStorage, open_log
from wal.testing.append_log_suite import AppendLogSuite
from wal.testing.log_access import Opener


class TestLocal(AppendLogSuite):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda **options: open_log(LocalStorage(tmp_path), **options)


class TestLocalInSmallSegments(AppendLogSuite):
    """So that everything above happens across rotations as well."""

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda **options: open_log(LocalStorage(tmp_path), segment_size=200, **options)
