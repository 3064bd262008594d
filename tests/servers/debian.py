"""Programs that tests need and pip cannot install: from Debian where it can be had; where not, the layer says so."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile

from tests.figures import Layer


def need(layer: Layer, name: str, programs: dict[str, str]) -> None:
    """Each program (given with its package) is there, or is installed; otherwise the layer `name` cannot run here, and
    the table says so."""
    missing = {program: package for program, package in programs.items() if not shutil.which(program)}
    if not missing:
        return
    why = f"missing: {', '.join(missing)} (Debian: {', '.join(missing.values())})"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        layer.not_run(name, why)
    with open(f"{tempfile.gettempdir()}/metatree-tests-apt.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = _installed(sorted(set(missing.values())))
    if not all(shutil.which(program) for program in programs):
        layer.not_run(name, f"{why}; could not be installed: {done[-200:]}")


def _installed(packages: list[str]) -> str:
    """What apt-get said last."""
    said = ""
    for arguments in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", *arguments],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
        )
        said = (done.stdout + done.stderr)[-500:]
    return said
