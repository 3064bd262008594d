"""That a benchmark runs is shown in memory: how long it takes, and on what disk, is not asked here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tree.conftest import fast_path as fast_path


@pytest.fixture
def tmp_path(fast_path: Path) -> Path:
    return fast_path
