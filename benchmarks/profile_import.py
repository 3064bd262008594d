"""Where the time of `import metatree` goes: Python's own library, orjson, and this one.

Each import is that of a process of its own, with its bytecode cached. The shares are those of `python -X importtime`,
which makes every import slower, but all of them alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping

from benchmarks.children import CHECKOUT, environment
from benchmarks.workloads.opening import import_

MODULE, FLOOR = "metatree", "orjson"
OTHERS = "Python's library"
PACKAGES = {"metatree": "metatree", "wal": "wal", "orjson": "orjson"}
"""The parts that are looked for; all others are Python's library."""


def shares(report: str) -> Mapping[str, int]:
    """The microseconds of each part, from what `-X importtime` printed, without what Python imports by itself."""
    parts: Counter[str] = Counter(dict.fromkeys((OTHERS, *PACKAGES.values()), 0))
    started = False
    for line in report.splitlines():
        own, _, module = line.removeprefix("import time:").split("|")
        name = module.strip()
        if started:
            parts[PACKAGES.get(name.split(".")[0], OTHERS)] += int(own)
        started = started or name == "site"  # the last that Python imports by itself
    return parts


def profile_import(seconds: float, module: str = MODULE) -> list[str]:
    """The lines of one table, from as many processes as take about `seconds`."""
    python = [sys.executable]
    import_(python, module, 0)  # writes the bytecode
    times = max(3, int(seconds * 5))
    took, least = (statistics.median(import_(python, each, 0).value for _ in range(times)) for each in (module, FLOOR))
    command = [*python, "-X", "importtime", "-c", f"import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, env=environment(), check=True)
    parts = shares(done.stderr)
    whole = sum(parts.values())
    rows = (f"    {part:32}{own / whole:6.0%}{own / whole * took:10,.1f} us" for part, own in parts.items())
    return [f"W8  import {module}: {took:,.1f} us", *rows, f"    {f'import {FLOOR}':38}{least:10,.1f} us", ""]
