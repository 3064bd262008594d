"""python -m benchmarks [--rounds N] [--steps N] [--folder DIR] [--only W1,W4] [--json FILE]

Prints, for each workload, what one operation needs and how many times as fast Metatree is. Put the folder on the kind
of disk that matters to you (default: the checkout's disk; a tmpfs would make every flush free and every figure wrong).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks import processes, reads, writes
from benchmarks.measure import Result, Workload, ratio, run

HERE = Path(__file__).resolve().parent


def machine() -> dict[str, object]:
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def table(workload: Workload, results: list[Result]) -> Iterator[str]:
    yield f"\n{workload.name}  {workload.title}"
    yield f"    {'':<22}{'median µs':>11}{'spread':>18}{'metatree is':>14}{'background is':>16}"
    for result in results:
        spread = f"{min(result.rounds):,.1f} – {max(result.rounds):,.1f}"
        first, second = (times(results, name, result) for name in ("metatree", "metatree background"))
        yield f"    {result.contestant:<22}{result.micros:>11,.1f}{spread:>18}{first:>14}{second:>16}"


def times(results: list[Result], name: str, other: Result) -> str:
    faster = ratio(results, name, other.contestant)
    return "" if faster is None or other.contestant.startswith("metatree") else f"{faster:.2f} ×"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100, help="operations of one round")
    parser.add_argument("--folder", type=Path, default=HERE / "results", help="where the stores are made")
    parser.add_argument("--only", help="names of workloads, with commas")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/last.json")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    given.folder.mkdir(parents=True, exist_ok=True)
    chosen = [each for family in (writes, reads, processes) for each in family.workloads(given.steps)]
    wanted = set(given.only.split(",")) if given.only else {workload.name for workload in chosen}
    everything: list[Result] = []
    print(*(f"{name}: {value}" for name, value in machine().items()), sep="\n")
    # removed at the end only: mass deletes slow the creation of files for minutes
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="stores-") as folder:
        for workload in chosen:
            if workload.name in wanted:
                results = run(workload, Path(folder), given.rounds)
                print(*table(workload, results), sep="\n", flush=True)
                everything += results
    target = given.json or HERE / "results" / "last.json"
    target.parent.mkdir(exist_ok=True)
    document = {"machine": machine(), "results": [asdict(result) for result in everything]}
    target.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
