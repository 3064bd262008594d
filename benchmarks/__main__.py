"""python -m benchmarks [--only W1,W4] [--rounds N] [--full] [--folder DIR] [--json FILE] [--plots DIR]

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

from benchmarks import plot
from benchmarks.durable import Proofs
from benchmarks.machine import has_journal, machine
from benchmarks.measure import Result, Workload, run
from benchmarks.table import table
from benchmarks.targets import verdicts
from benchmarks.workloads import workloads
from benchmarks.workloads.sizes import FULL, USUAL, Sizes

RESULTS = Path(__file__).resolve().parent / "results"


def chosen(wanted: str | None, sizes: Sizes) -> list[Workload]:
    """The workloads of these names, or all."""
    everything = workloads(sizes)
    names = {workload.name.split()[0] for workload in everything}
    selected = set(wanted.split(",")) if wanted else names
    if selected - names:
        raise SystemExit(f"no such workload: {', '.join(sorted(selected - names))}")
    return [workload for workload in everything if workload.name.split()[0] in selected]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of workloads, with commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="1,000,000 nodes, 1 GiB: an hour, and 30 GB of disk")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the stores are made")
    parser.add_argument("--json", type=Path, default=RESULTS / "last.json")
    parser.add_argument("--plots", type=Path, default=RESULTS, help="where an SVG of each workload is written")
    return parser.parse_args()


def measure(selected: Sequence[Workload], folder: Path, rounds: int, plots: Path) -> list[Result]:
    """Run, print, draw and collect."""
    everything: list[Result] = []
    proofs = Proofs(folder / "proofs")
    for workload in selected:
        results = [
            replace(result, durable=proofs(result.peer, workload.verb)) if workload.verb and result.rounds else result
            for result in run(workload, folder, rounds)
        ]
        print(*table(workload, results), sep="\n")
        for line in verdicts(workload.name, results, journal=has_journal(folder)):
            print(f"    {line}", flush=True)
        plot.write(workload, results, plots)
        everything += results
    return everything


def main() -> None:
    given = arguments()
    selected = chosen(given.only, FULL if given.full else USUAL)
    for folder in (given.folder, given.plots, given.json.parent):
        folder.mkdir(parents=True, exist_ok=True)
    about = machine(given.folder)
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n")
    # removed at the end only: mass deletes slow the creation of files for minutes
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="stores-") as stores:
        everything = measure(selected, Path(stores), given.rounds, given.plots)
    document = {"machine": about, "results": [asdict(result) for result in everything]}
    given.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
