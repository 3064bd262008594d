"""docs/storage_contract.md claims nothing that no test shows, but where it says so."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = ROOT / "docs" / "storage_contract.md"
COLUMNS = ["guarantee", "local disk", "other mounts", "S3", "HDFS", "others"]
TEST = re.compile(r"`(tests/[\w/]+\.py)`")
# there is nothing to show
NOTHING = re.compile(r"no test|no commits|not used|nothing is written|there are no")


def table() -> list[list[str]]:
    text = CONTRACT.read_text().partition("## Guarantees\n")[2].partition("\n\nNothing")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()]


def test_the_table_has_a_column_for_each_kind_of_storage() -> None:
    head, rule, *rows = table()
    assert head == COLUMNS
    assert set("".join(rule)) == {"-"}
    assert len(rows) > 15
    assert {len(row) for row in rows} == {len(COLUMNS)}


def test_each_cell_names_the_test_that_shows_it_or_says_that_there_is_none() -> None:
    claims = [(row[0], column, cell) for row in table()[2:] for column, cell in zip(COLUMNS[1:], row[1:], strict=True)]
    assert [claim for claim in claims if not TEST.search(claim[2]) and not NOTHING.search(claim[2])] == []


def test_each_test_that_is_named_exists_and_holds_tests() -> None:
    for name in set(TEST.findall(CONTRACT.read_text())):
        assert re.search(r"def test_|StorageSuite|LogSuite", (ROOT / name).read_text()), name
