"""SIGKILL among writers that share a bucket, an HDFS or a mount: nothing acknowledged is lost, nothing is half done.

The killing and the verifying are those of tools/torture_kill.py; tests/tree/test_kill.py shows that it would notice.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.figures import PATIENCE
from tests.hosts.conftest import TORTURE, Shared, environment

TOOL = Path(__file__).resolve().parents[2] / "tools" / "torture_kill.py"
KILLS = {"mount": 60, "seaweedfs": 8, "hdfs": 4}


@pytest.mark.slow
@pytest.mark.timeout(7200 if TORTURE else PATIENCE)
def test_killed_writers_lose_nothing_and_leave_nothing_half_done(there: Shared) -> None:
    kills = 500 if TORTURE else KILLS[there.kind]
    options = [word for key, value in there.place.options.items() for word in ("-o", f"{key}={value}")]
    sizes = ["--kills", str(kills), "--writers", "4", "--check-every", str(kills // 2 + 1), "--ttl", "3"]
    mount = ["--as-mount"] if there.place.mount else []
    done = subprocess.run(
        [sys.executable, str(TOOL), there.place.root, *options, *mount, *sizes, "--json"],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr[-6000:]
    print(done.stdout)
    summary = json.loads(done.stdout)
    assert summary["findings"] == []
    assert summary["kills"] >= kills and summary["in_flight"] >= kills // 4
    assert summary["acknowledged"] > 0
    there.assert_clean()
