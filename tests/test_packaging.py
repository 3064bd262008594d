"""What is installed under which name: a stray top-level package would land in everybody's environment."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INFO = "metatreedb-0.3.0.dist-info/"


def build(kind: str, target: Path) -> Path:
    """Build with the tools of this environment: isolation would need the network and prove nothing more."""
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(target), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = target.iterdir()
    return made


def sources(package: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    with zipfile.ZipFile(build("wheel", tmp_path_factory.mktemp("wheel"))) as archive:
        return set(archive.namelist())


def test_the_wheel_installs_metatree_wal_and_metatreedb_and_nothing_else(wheel: set[str]) -> None:
    installed = {name for name in wheel if not name.startswith(INFO)}
    assert {name.split("/")[0] for name in installed} == {"metatree", "wal", "metatreedb.py"}
    assert installed == {"metatreedb.py"} | sources("metatree") | sources("wal")
    assert all(name.endswith((".py", "/py.typed")) for name in installed)


def test_the_wheel_says_that_it_is_typed_and_brings_its_licence(wheel: set[str]) -> None:
    assert {"metatree/py.typed", "wal/py.typed"} <= wheel
    described = {name.removeprefix(INFO) for name in wheel if name.startswith(INFO)}
    assert described == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def test_the_source_distribution_can_be_tested_and_holds_no_leftovers(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "tests/test_packaging.py", "tools/ingest.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", ".git/"))]
