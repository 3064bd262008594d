"""python -m benchmarks.count_requests [--old PYTHON] [--server s3,hdfs] [--only committers,...]

Prints what a tree on a server asks for, on a SeaweedFS and an HDFS started for it: requests and bytes of each
operation, commits of one slot while processes contend, commits where requests take 30 ms, and reads of many nodes. With
`--old`, metatreedb 0.2.3 stands beside it; PYTHON is an interpreter that has it:

    python -m venv /tmp/old && /tmp/old/bin/pip install metatreedb==0.2.3 s3fs requests
    python -m benchmarks.count_requests --old /tmp/old/bin/python

Requests are counted in the client, retries and redirects included; bytes are those of bodies. `create` asks an S3
server once whether it honours conditions; the answer is kept in the user's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.count_requests import committers, distance, parallel
from benchmarks.count_requests.servers import CHECKOUT, SERVERS, Place
from benchmarks.count_requests.wire import Wire

OPERATIONS = Path(__file__).with_name("operations.py")
STEPS = (
    "create",
    "open",
    "put",
    "put in the background",
    "find",
    "find + metadata",
    "get",
    "update",
    "update in the background",
    "1,000 puts, until committed",
    "1,000 puts, files in place",
)


def operations(place: Place, old: str | None) -> Iterator[str]:
    """Requests and bytes of each operation."""
    found = {"metatree": count(sys.executable, "new", f"{place.url}/new", place.options)}
    if old:
        found["metatreedb 0.2.3"] = count(old, "old", f"{place.old_url}/old", place.old_options)
    yield f"\n{place.name}: requests, bytes sent, bytes received"
    yield f"{'each':<28}" + "".join(f"{name:>36}" for name in found)
    for step in STEPS:
        yield f"{step:<28}" + "".join(figures(results.get(step, "cannot")) for results in found.values())


def figures(result: Any) -> str:
    if isinstance(result, str):
        return f"{result[:34]:>36}"
    return f"{result[0]:>12,.1f}{result[1]:>12,.0f}{result[2]:>12,.0f}"


def count(python: str, which: str, url: str, options: dict[str, Any]) -> dict[str, Any]:
    """What one library needs."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT) if which == "new" else ""}
    with tempfile.TemporaryDirectory() as folder:  # the checkout's `metatree` must not be found from where it runs
        done = subprocess.run(
            [python, str(OPERATIONS), which, url, json.dumps(options)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
            check=True,
        )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def contention(place: Place, _: str | None) -> Iterator[str]:
    """Commits and slots while processes contend."""
    trip = committers.round_trip(place.url, place.options)
    yield f"\n{place.name}: committers of one tree, in the background; a slot alone takes {trip * 1000:.1f} ms"
    yield (
        f"{'processes':>10}{'threads each':>14}{'commits a second':>18}{'slots a second':>16}"
        f"{'commits a slot':>16}{'commits a round trip':>22}{'lost':>6}"
    )
    for each in committers.contend(place.url, place.options):
        yield (
            f"{each.processes:>10}{each.threads:>14}{each.commits:>18,.1f}{each.slots:>16,.1f}"
            f"{each.carried:>16,.2f}{each.commits * trip:>22,.2f}{each.lost:>6}"
        )


def far(place: Place, _: str | None) -> Iterator[str]:
    """Commits where each request takes its time."""
    yield f"\n{place.name}: one process, in the background, each request {distance.DELAY * 1000:.0f} ms later"
    yield f"{'threads':>10}{'commits a second':>18}{'slots a second':>16}{'puts applied a second':>24}"
    for each in distance.commit(f"{place.url}/far", place.options):
        yield f"{each.threads:>10}{each.commits:>18,.1f}{each.slots:>16,.1f}{each.applied:>24,.1f}"


def reads(place: Place, _: str | None) -> Iterator[str]:
    """Reads of many nodes."""
    yield f"\n{place.name}: the metadata of {parallel.NODES:,} nodes, by a handle that has read none"
    yield f"{'':<24}{'requests':>10}{'seconds':>10}{'÷ as many plain reads':>24}"
    wire = Wire()
    wire.watch()
    for each in parallel.read(f"{place.url}/parallel", place.options, wire):
        yield f"{each.way:<24}{each.requests:>10,}{each.seconds:>10.2f}{each.ratio:>24.2f}"


TABLES: dict[str, Callable[[Place, str | None], Iterator[str]]] = {
    "operations": operations,
    "committers": contention,
    "distance": far,
    "parallel": reads,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", help="a Python that has metatreedb 0.2.3")
    parser.add_argument("--server", default=",".join(SERVERS), help="which servers, with commas")
    parser.add_argument("--only", default=",".join(TABLES), help="which tables, with commas")
    given = parser.parse_args()
    print(platform.platform(), f"Python {platform.python_version()}", f"{os.cpu_count()} cpus", sep=", ")
    for name in given.server.split(","):
        with tempfile.TemporaryDirectory() as folder, SERVERS[name](Path(folder)) as place:
            for table in given.only.split(","):
                for line in TABLES[table](place, given.old):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
