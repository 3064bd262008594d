"""tools/ingest.py onto a bucket and onto HDFS: killed half way and run again, the tree equals the manifest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.figures import PATIENCE
from tests.hosts.conftest import LEVELS, TORTURE, Shared, environment
from tests.tools.test_ingest import TOOL

MODELS, VERSIONS = (40, 25) if TORTURE else (6, 8)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    maker = TOOL.parents[1] / "tests" / "tools" / "make_manifest.py"
    command = [sys.executable, str(maker), str(tmp_path / "data"), str(MODELS), str(VERSIONS)]
    subprocess.run(command, check=True)
    return tmp_path / "data" / "manifest.jsonl"


def command(there: Shared, manifest: Path) -> list[str]:
    options = [word for key, value in there.place.options.items() for word in ("-o", f"{key}={value}")]
    sizes = ["--keys", ",".join(LEVELS), "--batch", "4", "--json"]
    return [sys.executable, str(TOOL), there.place.root, str(manifest), *options, *sizes]


def load(there: Shared, manifest: Path) -> dict[str, Any]:
    done = subprocess.run(command(there, manifest), capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


@pytest.mark.slow
@pytest.mark.timeout(1800 if TORTURE else PATIENCE)
def test_a_load_that_was_killed_and_run_again_equals_its_manifest(remote: Shared, manifest: Path) -> None:
    remote.open(LEVELS).close()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command(remote, manifest), env=environment(), **quiet) as loading:
        with remote.open(read_only=True) as watching:
            while not watching.children() and loading.poll() is None:
                pass
        loading.kill()
    assert loading.returncode == -signal.SIGKILL
    resumed = load(remote, manifest)
    assert resumed["added"] > 0 and resumed["already_there"] > 0
    assert (resumed["added"] + resumed["already_there"], resumed["rejected"]) == (MODELS * VERSIONS, 0)
    again = load(remote, manifest)
    assert (again["added"], again["already_there"]) == (0, MODELS * VERSIONS)

    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    expected = {"metadata.json"} | {f"{row['location'].partition('/')[0]}/metadata.json" for row in rows}
    for row in rows:
        keys = {key: value for key, value in row.items() if key not in ("location", "source", "name")}
        assert remote.metadata(row["location"]) == keys
        blob = f"{row['location']}/{row['name']}"
        assert remote.plain.read(blob) == (manifest.parent / row["source"]).read_bytes()
        expected |= {blob, f"{row['location']}/metadata.json"}
    assert remote.files() == expected
    remote.assert_clean()


def test_a_misspelt_option_is_wrong_usage(manifest: Path) -> None:
    for option, said in (("sekret=x", "sekret"), ("key", "key=value")):
        words = [sys.executable, str(TOOL), "s3://nowhere/tree", str(manifest), "-o", option]
        done = subprocess.run(words, capture_output=True, text=True, env=environment())
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
