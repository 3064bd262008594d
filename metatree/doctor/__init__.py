"""Tests on the user's own storage every guarantee that a tree relies on.

It needs no tree, and does not touch one that is there: it works in a folder that it removes afterwards. A test can show
that a guarantee does not hold, but not that it always holds: the notes of a report say what was not tested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import wal
from metatree.clock import Clock
from metatree.root import require_root

from . import advice, measures, races
from .contenders import ContenderError, Contenders
from .findings import Check, Finding, Fit, Report, Status, failure
from .place import Place

__all__ = ["Fit", "Report", "Status", "examine", "failure"]

Tell = Callable[[str], object]
_TROUBLE = (OSError, wal.WalError, ContenderError)


def examine(url: str, options: Mapping[str, Any], tell: Tell, clock: Clock | None = None) -> Report:
    """Run all tests; `tell` is called with the name of each before it begins.

    Raises FileNotFoundError, NotADirectoryError, ValueError, TypeError (no such place, or unknown options),
    UnsupportedError (a URL that cannot be opened). Later errors are in the report.
    """
    clock = clock or Clock()
    require_root(url)
    tell("opening it")
    place = Place(url, options, clock)
    report = Report(place.around.url, place.examined, place.around.capabilities)
    if place.examined != url:
        report.url, report.examined = _shown(url, place), place.around.url
    else:
        report.examined = place.around.url
    try:
        _examine(place, report, tell, clock)
    finally:
        tell("removing what was written")
        report.leftover = place.remove()
    report.notes += advice.notes(report.can) if report.writable else []
    return report


def _shown(url: str, place: Place) -> str:
    """The URL that was given, which does not exist, without its secrets."""
    missing = url.rstrip("/").removeprefix(place.examined.rstrip("/"))
    return url if missing == url else f"{place.around.url.rstrip('/')}/{missing.strip('/')}"


def _examine(place: Place, report: Report, tell: Tell, clock: Clock) -> None:
    def run(check: Check, trial: Callable[[], races.Verdict]) -> bool:
        tell(check.guarantee)
        report.findings.append(finding := _tried(check, trial, report.can.filesystem))
        return finding.status is Status.HOLDS

    if not run(advice.READING, lambda: _readable(place.around)):
        return
    can = report.can
    if not can.writable or not (can.append_log or can.slot_log):
        return
    made: list[wal.Storage] = []
    if not run(advice.SCRATCH, lambda: _made(place, made)):
        return
    storage = made[0]
    contenders = Contenders(place.url, place.options)
    try:
        _contend(races.Arena(storage, contenders, clock), run, report)
    except BaseException:
        contenders.close(kill=True)
        raise
    contenders.close()
    tell("the time of each operation")
    try:
        report.round_trips = measures.round_trips(storage, clock)
        report.clock = measures.clock_difference(storage, clock)
    except _TROUBLE as error:
        report.notes.append(f"times were not measured: {error}")


Run = Callable[[Check, Callable[[], races.Verdict]], bool]


def _contend(arena: races.Arena, run: Run, report: Report) -> None:
    can = report.can
    if can.fence is wal.Fence.VERSION:
        if _conditions(arena, run):  # if a condition is not honoured, a race shows nothing new
            run(advice.ABSENT, lambda: races.put_if_absent(arena))
            run(advice.VERSIONS, lambda: races.compare_and_set(arena))
    else:
        run(advice.ABSENT, lambda: races.put_if_absent(arena))
    if can.folders:
        run(advice.FOLDER_ONCE, lambda: races.folder_once(arena))
    if can.fence is wal.Fence.FOLDER:
        run(advice.FENCE, lambda: races.fence(arena))
    run(advice.FRESH, lambda: races.read_after_write(arena))
    run(advice.REPLACED, lambda: races.replace_whole(arena))
    run(advice.ATTRIBUTES, lambda: measures.attributes(arena.storage))
    if can.append_log:
        run(advice.LOCKS, lambda: races.locks_exclude(arena))
        run(advice.LOCKS_FREED, lambda: races.locks_freed(arena))


def _conditions(arena: races.Arena, run: Run) -> bool:
    """Add a finding for each condition, and one for an error; returns whether all conditions are honoured."""
    tried: list[tuple[wal.Condition, bool]] = []
    trouble: Exception | None = None
    try:
        tried.extend(wal.try_conditions(arena.storage, arena.clock))
    except _TROUBLE as error:
        trouble = error
    for condition, honoured in tried:
        seen = "refused as it must be" if honoured else "a request whose condition did not hold went through"
        run(advice.condition(condition), partial(_verdict, honoured, seen))
    if trouble is not None:
        run(advice.CONDITIONS, partial(_failed, trouble))
    return trouble is None and all(honoured for _, honoured in tried)


def _verdict(holds: bool, seen: str) -> races.Verdict:
    return holds, seen


def _failed(error: Exception) -> races.Verdict:
    raise error


def _tried(check: Check, trial: Callable[[], races.Verdict], filesystem: str) -> Finding:
    try:
        holds, seen = trial()
    except _TROUBLE as error:
        text = str(error) if isinstance(error, ContenderError) else f"{type(error).__name__}: {error}"
        return Finding(advice.after(check, error, filesystem), Status.UNKNOWN, text)
    return Finding(check, Status.HOLDS if holds else Status.FAILS, seen)


def _readable(storage: wal.Storage) -> races.Verdict:
    return True, f"names in it: {len(storage.list(''))}"


def _made(place: Place, made: list[wal.Storage]) -> races.Verdict:
    made.append(place.make())
    if not made[0].create("first", b"written"):
        return False, "a random name was taken"
    return made[0].read("first").data == b"written", "written and read back"
