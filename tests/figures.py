"""What the layers of trust did, in figures: a table at the end of a run, with the floor that each had to reach.

A test that belongs to a layer takes the fixture `layer` and reports what it did; that marks it `trust` as well: so
`pytest -m trust` runs the layers alone, each up to its floor. `METATREE_TORTURE=MINUTES` (`make torture TIME=MINUTES`)
makes them larger: beyond its floor each goes on until its share of the minutes is spent, or a night's work is done. So
all of them together take about the minutes that were given, or as long as the floors take if that is longer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import NoReturn

import pytest

MINUTES = float(os.environ.get("METATREE_TORTURE", "0"))
TORTURE = MINUTES > 0
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
# What each layer takes of the minutes times the workers: what a night (480 minutes, two workers) needs for its aim, at
# the rates of an ordinary machine. What is left is for the layers whose size is fixed.
SHARES = {
    "allocations that fail": 0.015,
    "another's life": 0.008,
    "damaged bytes": 0.06,
    "double crash": 0.01,
    "double crash of a log": 0.001,
    "errors in memory": 0.01,
    "fuzzed decoders": 0.075,
    "histories of processes, hdfs": 0.015,
    "histories of processes, local": 0.06,
    "histories of processes, mount": 0.015,
    "histories of processes, seaweedfs": 0.015,
    "kill -9": 0.04,
    "machine of a tree and a dictionary": 0.05,
    "machine of hosts and a dictionary": 0.03,
    "mutants": 0.11,
    "power cuts": 0.08,
    "power cuts under real filesystems": 0.07,
    "real processes, error at the N-th system call": 0.04,
    "real processes, kill at the N-th system call": 0.005,
    "schedules of a log of slots": 0.08,
    "schedules of committers of a tree": 0.04,
    "schedules of committers, epochs": 0.04,
    "schedules of committers, lease": 0.02,
    "storms on HDFS": 0.01,
}
PATIENCE = 1200  # seconds that a long test, or one that asks a server, may take on a busy machine
SERVERS = {"moto", "seaweedfs", "hdfs"}  # fixtures, and the parameters that lead to them
_PROPERTY = "figure of a layer"


@dataclass(frozen=True, slots=True)
class Figure:
    """One row; rows of one layer and unit are added up."""

    layer: str
    unit: str  # what is counted
    done: int
    floor: int  # fewer is a failure
    night: int  # what is aimed at in a night
    note: str = ""  # a seed, a sum that was not reached, why it did not run
    ran: bool = True


class Layer:
    """How large this run is, and where its figures go."""

    torture = TORTURE

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties, self._began = properties, time.monotonic()

    def more(self, layer: str, done: int, *, floor: int, night: int, among: int = 1) -> bool:
        """Whether to go on: up to the floor, and then until the time is spent or the aim of a night is reached."""
        return done < floor or (done < night and self.seconds(layer, among) > 0)

    def seconds(self, layer: str, among: int = 1) -> float:
        """How much is left of this test's time, if so many tests share that of the layer; 0 in an ordinary run."""
        share = min(1.0, SHARES[layer] * WORKERS / among)  # a test runs on one worker: never longer than all may take
        return max(0.0, MINUTES * 60 * share - (time.monotonic() - self._began)) if TORTURE else 0.0

    def report(self, layer: str, done: int, *, floor: int, night: int, unit: str, note: str = "") -> None:
        """What was done. Fails below the floor: a layer that did less has shown nothing."""
        self._properties.append((_PROPERTY, asdict(Figure(layer, unit, done, floor, night, note))))
        assert done >= floor, f"{layer}: {done} {unit}, at least {floor} are asked for"

    def not_run(self, layer: str, why: str) -> NoReturn:
        """Here it cannot run; the table says so."""
        self._properties.append((_PROPERTY, asdict(Figure(layer, "", 0, 0, 0, why, ran=False))))
        pytest.skip(why)


@pytest.fixture
def layer(request: pytest.FixtureRequest) -> Layer:
    return Layer(request.node.user_properties)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        trust = "layer" in getattr(item, "fixturenames", ())
        if trust:
            item.add_marker("trust")
        if (trust or is_long(item)) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(0 if TORTURE else PATIENCE))


def is_long(item: pytest.Item) -> bool:
    """Whether it is marked so, or asks a server: when the machine is busy, both take many times as long."""
    parameters = getattr(item, "callspec", None)
    asked = {value for value in (parameters.params.values() if parameters else ()) if isinstance(value, str)}
    return item.get_closest_marker("slow") is not None or bool(SERVERS & {*asked, *getattr(item, "fixturenames", ())})


_figures: list[tuple[Figure, bool]] = []  # of the tests that ended, and whether they passed


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        for name, value in report.user_properties:
            if name == _PROPERTY and isinstance(value, dict):
                _figures.append((Figure(**value), report.outcome != "failed"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures:
        terminalreporter.section("layers of trust")
        for line in table(_figures):
            terminalreporter.write_line(line)


def table(figures: list[tuple[Figure, bool]]) -> Iterator[str]:
    """One line a layer and unit."""
    rows: dict[tuple[str, str], list[tuple[Figure, bool]]] = {}
    for figure, passed in sorted(figures, key=lambda row: (row[0].layer, row[0].unit)):
        rows.setdefault((figure.layer, figure.unit if figure.ran else "not run"), []).append((figure, passed))
    yield f"{'layer':<44} {'done':>12} {'floor':>12} {'night':>14}  unit"
    for (layer, unit), several in rows.items():
        notes = "; ".join(dict.fromkeys(figure.note for figure, _ in several if figure.note))
        if not several[0][0].ran:
            yield f"{layer:<44} {'not run':>12} {'':>12} {'':>14}  {notes}"
            continue
        done = sum(figure.done for figure, _ in several)
        floor, night = sum(figure.floor for figure, _ in several), sum(figure.night for figure, _ in several)
        failed = "" if all(passed for _, passed in several) else "  FAILED"
        yield f"{layer:<44} {done:>12,} {floor:>12,} {night:>14,}  {unit}{failed}{f' ({notes})' if notes else ''}"
