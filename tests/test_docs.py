"""Every example of README.md and docs/ runs as it is printed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, blocks, runnable

FOUND = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS = [path for path in FOUND if path.is_file() and runnable(path)]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_example_runs_as_printed(document: Path, tmp_path: Path) -> None:
    scripts = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": scripts + os.pathsep + os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
    }
    command = [sys.executable, str(ROOT / "tests" / "documents.py"), str(document), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_the_readme_has_examples_in_both_languages() -> None:
    assert {"python", "shell"} <= {
        "shell" if b.language == "bash" else b.language for b in runnable(ROOT / "README.md")
    }


def test_blocks_are_found_with_their_line_and_without_their_indentation() -> None:
    text = "a\n```python\nx = 1\n```\n- b\n  ```text\n  y\n    z\n  ```\n"
    assert [(b.language, b.line, b.code) for b in blocks(text)] == [("python", 3, "x = 1\n"), ("text", 7, "y\n  z\n")]
