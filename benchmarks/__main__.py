"""python -m benchmarks [--only W1,W4] [--rounds N] [--full] [--folder DIR] [--json FILE]

Prints, for each workload, what one operation needs, how many times as fast Metatree is, whether each peer keeps the
promise, and which targets are met. Put the folder on the kind of disk that matters to you (default: the checkout's
disk; a tmpfs would make every flush free and every figure wrong).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.durable import Proofs
from benchmarks.machine import has_journal, machine
from benchmarks.measure import Result, Workload, run
from benchmarks.table import table
from benchmarks.targets import verdicts
from benchmarks.workloads import workloads
from benchmarks.workloads.sizes import FULL, USUAL

RESULTS = Path(__file__).resolve().parent / "results"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of workloads, with commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="1,000,000 nodes, 1 GiB: an hour, and 30 GB of disk")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the stores are made")
    parser.add_argument("--json", type=Path, default=RESULTS / "last.json")
    return parser.parse_args()


def measure(chosen: Sequence[Workload], folder: Path, rounds: int) -> list[Result]:
    """Run, print and collect."""
    everything: list[Result] = []
    proofs = Proofs(folder / "proofs")
    for workload in chosen:
        results = [
            replace(result, durable=proofs(result.peer, workload.verb)) if workload.verb and result.rounds else result
            for result in run(workload, folder, rounds)
        ]
        print(*table(workload, results), sep="\n")
        for line in verdicts(workload.name, results, journal=has_journal(folder)):
            print(f"    {line}", flush=True)
        everything += results
    return everything


def main() -> None:
    given = arguments()
    given.folder.mkdir(parents=True, exist_ok=True)
    chosen = workloads(FULL if given.full else USUAL)
    if given.only:
        wanted = set(given.only.split(","))
        chosen = [workload for workload in chosen if workload.name.split()[0] in wanted]
    about = machine(given.folder)
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n")
    # removed at the end only: mass deletes slow the creation of files for minutes
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="stores-") as folder:
        everything = measure(chosen, Path(folder), given.rounds)
    document = {"machine": about, "results": [asdict(result) for result in everything]}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
