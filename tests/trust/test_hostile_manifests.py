"""A manifest from a stranger: its rows change nothing but the tree, and nothing in it but what a row may."""

from __future__ import annotations

import json
from pathlib import Path

import ingest
import pytest

from metatree import Metatree
from tests.trust.walls import canary, picture

LOCATIONS: list[object] = [
    "../../outside/v1",
    "/etc/passwd",
    "m/../../x",
    "m/v1/../../../x",
    ["..", "x"],
    ["m", "../x"],
    {"model": "..", "version": "x"},
    {"model": {"metadata": "escape"}, "version": "v"},
    "<escape>/v",
    "m/<escape>",
    ".wal/tmp",
    ".metatree",
    "metadata.json",
    "m\0/v",
    "CON/v",
    "m//v",
    {"nothing": 1},
    [[]],
    [1, 2],
    "m" * 5000,
]
NAMES = ["../x", "/x", "metadata.json", ".wal", "a/../../x", "x\0", "<escape>", "..", "nul.txt", "x" * 300, "a\\b"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with Metatree(tmp_path / "tree", ("model", "version")) as tree:
        tree.put("m/v0", b"", name="b")
        tree.update("", escape="../../outside")
        tree.update("m", escape="../../outside")
    return tmp_path / "tree"


def load(root: Path, manifest: Path, *more: str) -> list[dict[str, object]]:
    """The rejected rows."""
    rejects = manifest.with_name("rejects.jsonl")
    rejects.unlink(missing_ok=True)
    assert ingest.main([str(root), str(manifest), "--rejects", str(rejects), *more]) in (0, 1)
    return [json.loads(line) for line in rejects.read_text().splitlines()] if rejects.exists() else []


def test_no_row_leads_out_of_the_tree_and_each_bad_one_is_rejected(root: Path, tmp_path: Path) -> None:
    outside = canary(tmp_path)
    (tmp_path / "source.bin").write_bytes(b"content")
    before, names = picture(outside), {path.name for path in tmp_path.iterdir()}
    rows: list[dict[str, object]] = [{"location": place, "source": "source.bin"} for place in LOCATIONS]
    rows += [{"location": "m/v1", "source": "source.bin", "name": name} for name in NAMES]
    rows += [
        {"location": "m/v1", "source": "source.bin", "name": "x", "children": ["../outside"]},
        {"location": "m/v1", "source": "no such file", "name": "x"},
        {"location": "m/v1", "source": "nowhere://host/file", "name": "x"},
        {"location": "m/v1", "source": "\0", "name": "x"},
        {"location": "m/v1", "source": {"a": 1}, "name": "x"},
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rejected = load(root, manifest)
    assert len(rejected) == len(rows), [row for row in rows if row not in [each["row"] for each in rejected]]
    assert picture(outside) == before
    assert {path.name for path in tmp_path.iterdir()} - names <= {"manifest.jsonl", "rejects.jsonl"}
    with Metatree(root) as tree:
        assert tree.children("") == ["m"] and tree.children("m") == ["v0"]
        assert tree.check(deep=True).ok


CSV = [
    "location,source\nm/v1,source.bin,surplus\n",
    'location,source\n"m/v1,source.bin\n',
    "location,source\n=cmd(),@x\n",
    "location,source\nm/v1\n",
    "location,source\n" + "x" * (17 << 20) + ",y\n",
    "location,source\nm/\x00,source.bin\n",
]


@pytest.mark.parametrize("case", range(len(CSV)))
def test_tricks_of_csv_are_rejected_rows(case: int, root: Path, tmp_path: Path) -> None:
    (tmp_path / "source.bin").write_bytes(b"content")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(CSV[case])
    assert len(load(root, manifest)) == 1
    with Metatree(root) as tree:
        assert tree.children("m") == ["v0"] and tree.check(deep=True).ok
