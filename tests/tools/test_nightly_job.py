"""examples/nightly_job.py as somebody starts it who has not read it."""

import subprocess
import sys
from pathlib import Path

import pytest

JOB = Path(__file__).resolve().parents[2] / "examples" / "nightly_job.py"


@pytest.mark.parametrize("arguments", [[], ["only-a-root"], ["a", "b", "c"]])
def test_other_arguments_print_the_usage(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(JOB), *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ") and "ROOT DAY" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
