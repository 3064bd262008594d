"""Each planted bug is caught by the tests that `planted` names for it; without it they pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.figures import Layer
from tests.trust.planted import PLANTED
from tests.trust.planting import ROOT, Planted, copy_product, run


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A copy of the product."""
    copy_product(tmp_path)
    yield tmp_path


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Planted, folder: Path, layer: Layer) -> None:
    bug.plant(folder)
    outcome = run(folder, bug.caught_by)
    assert not outcome.broken, f"{bug.name}: {outcome.broken}\n{outcome.output}"
    assert outcome.failed, f"{bug.name} is caught by none of {bug.caught_by}\n{outcome.output}"
    layer.report("planted bugs", 1, floor=1, night=0, unit="caught")


def test_without_a_bug_the_same_tests_pass(folder: Path, layer: Layer) -> None:
    """On a copy, in the same way: so it is the bug that they fail of."""
    node_ids = sorted({node_id for bug in PLANTED for node_id in bug.caught_by})
    outcome = run(folder, node_ids)
    assert not outcome.failed and not outcome.broken, outcome.output
    assert outcome.passed >= len(node_ids), outcome.output
    layer.report("planted bugs", 0, floor=0, night=len(PLANTED), unit="caught")


def test_every_bug_can_still_be_planted_and_the_twelve_are_among_them() -> None:
    for bug in PLANTED:
        text = (ROOT / bug.file).read_text()
        assert text.count(bug.old) == 1 and bug.new != bug.old, bug.name
        compile(text.replace(bug.old, bug.new), bug.file, "exec")
    assert len({bug.name for bug in PLANTED}) == len(PLANTED) >= 25
    assert sum(bug.first for bug in PLANTED) == 12


def test_a_bug_whose_text_is_gone_cannot_be_planted(folder: Path) -> None:
    stale = Planted("a stale entry", "I1", "wal/writer.py", "no such text", "", ())
    with pytest.raises(LookupError, match="mend the entry"):
        stale.plant(folder)


def test_a_bug_that_is_a_typo_or_that_nobody_notices_is_not_caught(folder: Path) -> None:
    node_ids = ("tests/wal/test_log_tail.py::test_a_torn_head_word_is_never_believed",)
    harmless = Planted(
        "harmless",
        "I1",
        "wal/writer.py",
        "        self.poisoned: str",
        "        pass\n        self.poisoned: str",
        node_ids,
    )
    harmless.plant(folder)
    assert not run(folder, node_ids).caught
    typo = Planted(
        "a typo",
        "I1",
        "wal/writer.py",
        "        pass\n        self.poisoned: str",
        "        nothing\n        self.poisoned: str",
        node_ids,
    )
    typo.plant(folder)
    outcome = run(folder, node_ids)
    assert outcome.broken and not outcome.caught
