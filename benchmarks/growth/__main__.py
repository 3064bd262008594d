"""python -m benchmarks.growth [--only NAME,…] [--quick] [--folder DIR] [--json FILE] [--svg DIR]

Prints what one operation costs as something grows, and whether that is flat, linear or worse, beside what is expected.
Put the folder on the kind of disk that matters to you (default: the checkout's).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.growth import changes, directories, memory, openings, processes, reads
from benchmarks.growth.curve import Curve, Measured, measure
from benchmarks.growth.plot import svg
from benchmarks.growth.report import as_json, summary, table
from benchmarks.growth.trees import Trees
from benchmarks.machine import machine

RESULTS = Path(__file__).resolve().parents[1] / "results"


def all_curves() -> dict[str, Curve]:
    families = (changes, directories, reads, openings, processes, memory)
    return {each.name: each for family in families for each in family.curves()}


def arguments(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"names of curves, with commas: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs: the figures say nothing")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the trees are made")
    parser.add_argument("--json", type=Path, help="where the result is written")
    parser.add_argument("--svg", type=Path, help="a folder for one plot of each curve")
    given = parser.parse_args()
    unknown = set(given.only.split(",")) - set(names) if given.only else ()
    if unknown:
        parser.error(f"no such curve: {', '.join(sorted(unknown))}")
    return given


def main() -> None:
    curves = all_curves()
    given = arguments(list(curves))
    wanted = given.only.split(",") if given.only else list(curves)
    given.folder.mkdir(parents=True, exist_ok=True)
    print(*(f"{name}: {value}" for name, value in machine(given.folder).items()), sep="\n")
    everything: list[Measured] = []
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="growth-") as folder:
        trees = Trees(Path(folder))
        for name in wanted:
            measured = measure(curves[name], trees, quick=given.quick)
            print(*table(measured), sep="\n", flush=True)
            everything.append(measured)
            if given.svg:
                given.svg.mkdir(parents=True, exist_ok=True)
                (given.svg / f"{name}.svg").write_text(svg(measured), encoding="utf-8")
        print(*summary(everything), sep="\n", flush=True)  # before the trees are removed, which takes long
        if given.json:
            document = {"machine": machine(given.folder), "curves": [as_json(measured) for measured in everything]}
            given.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
