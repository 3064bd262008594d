"""docs/protocol.md: each case names a test that is there, and each invariant has bugs that are planted against it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.trust.planted import PLANTED

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "protocol.md").read_text()
NODE_ID = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def cases() -> list[list[str]]:
    """The rows of the tables that end with the tests."""
    rows, inside = [], False
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[-1] == "driven by":
            inside = True
        elif inside and set(line) - set("|-"):
            rows.append(cells)
    return rows


def missing(node_id: tuple[str, str]) -> bool:
    path = ROOT / node_id[0]
    return not path.exists() or not re.search(rf"^ *def {node_id[1]}\(", path.read_text(), re.MULTILINE)


def test_each_case_names_the_tests_that_drive_it() -> None:
    assert len(cases()) > 50
    assert [row for row in cases() if len(row) != 3 or not NODE_ID.search(row[-1])] == []


def test_each_test_that_is_named_is_in_the_file_that_is_named() -> None:
    assert [node_id for node_id in NODE_ID.findall(TEXT) if missing(node_id)] == []


def test_each_invariant_but_that_of_all_others_has_planted_bugs() -> None:
    named = re.findall(r"\*\*(I\d) ", TEXT)
    assert named == [f"I{number}" for number in range(1, 9)]
    assert {bug.breaks for bug in PLANTED} == set(named) - {"I8"}, (
        "I8 is how the others are kept: nothing breaks it alone"
    )
