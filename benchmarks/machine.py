"""What the figures depend on."""

from __future__ import annotations

import os
import platform
import sqlite3
from pathlib import Path


def machine(folder: Path) -> dict[str, object]:
    """`folder`: where the stores are made."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "disk": disk(folder),
    }


def disk(folder: Path) -> str:
    """The filesystem, and for ext4 whether it has a journal: it is what a flush costs."""
    kind = _filesystem(folder.resolve())
    journal = has_journal(folder)
    return kind if journal is None else f"{kind} {'with' if journal else 'without'} a journal"


def has_journal(folder: Path) -> bool | None:
    """Whether an ext4 has one; None: another filesystem, or it cannot be told."""
    if _filesystem(folder.resolve()) != "ext4" or not Path("/proc/fs/jbd2").exists():
        return None
    number = folder.stat().st_dev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    return device.exists() and any(Path("/proc/fs/jbd2").glob(f"{device.resolve().name}-*"))


def _filesystem(folder: Path) -> str:
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    found = {place: kind for _, place, kind, *_ in map(str.split, mounts.read_text().splitlines())}
    return next(found[str(place)] for place in (folder, *folder.parents) if str(place) in found)
