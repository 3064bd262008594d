"""What the documents name is there: a renamed module or test must not leave a sentence behind that points nowhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALONE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
DOCUMENTS = [*ALONE, *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = (ROOT, ROOT / "metatree", ROOT / "wal")
PATH = re.compile(r"`([\w./]+\.(?:py|md|toml))`")
TEST = re.compile(r"`(test_\w+)`")
LINK = re.compile(r"\]\((?!https?://)([^)#]+)[^)]*\)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_file_and_link_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text()
    # a bare module name follows its folder in a list: `metatree/tree.py`, `engine.py`
    missing = [
        name
        for name in PATH.findall(text)
        if not any((folder / name).exists() for folder in (*FOLDERS, document.parent))
    ]
    missing += [name for name in LINK.findall(text) if not (document.parent / name).exists()]
    assert set(missing) <= {"0002-zero-filled-segments.md"}  # what a name looks like


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_test_that_a_document_names_exists(document: Path) -> None:
    sources = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "wal" / "testing").glob("*.py")]
    tests = set(re.findall(r"def (test_\w+)", "\n".join(path.read_text() for path in sources)))
    named = set(TEST.findall(document.read_text()))
    assert named - tests == set()
