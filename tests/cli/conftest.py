"""A tree for the command to look after."""

from __future__ import annotations

from pathlib import Path

import pytest

from metatree import Metatree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree after a clean close."""
    with Metatree(tmp_path / "tree", ("model", "version")) as tree:
        tree.put("m/v1", b"weights", name="w")
        tree.update("m/v1", auc=0.9)
        tree.put("m/v2", b"weights", name="w")
    return tmp_path / "tree"
