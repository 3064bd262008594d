"""Plants a bug in a copy of the product and asks the tests that have to catch it.

There is no switch in the product: a bug is one replacement in the text of one module of a copy. Its tests then run in
a process of their own on that copy. Caught means: at least one of them failed, by an assertion or an error of what is
under test. A copy that cannot be imported, or a test that cannot be collected, has caught nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("metatree", "wal")
BROKEN = ("ImportError", "ModuleNotFoundError", "NameError", "SyntaxError", "UnboundLocalError")  # no bug, but a typo
# what this run was given and its own must not inherit
OURS = ("METATREE_", "PYTEST_", "PYTHONPATH")
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # order, seed and sharing are this run's; and it starts faster


@dataclass(frozen=True, slots=True)
class Planted:
    """One bug."""

    name: str  # what the engine now does
    breaks: str  # the invariant of docs/protocol.md
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...]  # node ids
    first: bool = False  # of the twelve that must never be missing here

    def plant(self, folder: Path) -> None:
        """Break the copy in `folder`. Raises LookupError: the text is not there exactly once, the entry is stale."""
        path = folder / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise LookupError(f"{self.name}: its text is {text.count(self.old)} times in {self.file}: mend the entry")
        path.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the tests of one run said."""

    passed: int
    failed: tuple[str, ...]  # test: message
    broken: tuple[str, ...]  # what says nothing about the bug
    output: str

    @property
    def caught(self) -> bool:
        return bool(self.failed) and not self.broken


def copy_product(folder: Path) -> None:
    """The packages as they are, compiled modules included."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package)


def run(folder: Path, node_ids: Sequence[str]) -> Outcome:
    """Run tests of this checkout on the product in `folder`, up to the first failure."""
    results = folder / "results.xml"
    options = f"-x -q -p pytest_timeout -p no:cacheprovider --no-header -o pythonpath={folder} --timeout=900"
    command = [sys.executable, "-P", "-m", "pytest", *options.split(), f"--junitxml={results}", *node_ids]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    paths = os.pathsep.join(map(str, (folder, ROOT, ROOT / "tools")))
    done = subprocess.run(
        command, cwd=ROOT, env={**clean, **ALONE, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    output = done.stdout + done.stderr
    if done.returncode not in (0, 1) or not results.exists():
        return Outcome(0, (), (f"pytest ended with {done.returncode}",), output)
    return _read(results, output)


def _read(results: Path, output: str) -> Outcome:
    passed, failed, broken = 0, [], []
    for case in ElementTree.parse(results).iter("testcase"):  # noqa: S314  written by our own pytest
        problem = case.find("failure")
        error = case.find("error")
        if error is not None:
            broken.append(f"{case.get('name')}: {error.get('message')}")
        elif problem is None:
            passed += case.find("skipped") is None
        elif (problem.get("message") or "").startswith(BROKEN):
            broken.append(f"{case.get('name')}: {problem.get('message')}")
        else:
            failed.append(f"{case.get('name')}: {problem.get('message')}")
    return Outcome(passed, tuple(failed), tuple(broken), output)
