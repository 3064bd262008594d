"""The bytes of every file of a tree, damaged: it opens to what it held, or refuses by name, or check() says where.

Larger than the sweeps of tests/wal/test_log_every_byte.py (a log alone) and tests/tree/test_damaged_trees.py (real
files). `METATREE_DAMAGE_SEED` repeats a run; a failure prints its kind, file, change and place.
"""

from __future__ import annotations

import os
import random
import warnings
from collections import Counter

import pytest

import wal
from metatree import ApplyPendingWarning, CorruptionError, Metatree, MetatreeError
from tests.figures import Layer
from tests.tree.model import State, dump
from tests.trust.damage import CHANGES, Original, in_turn, written

SEED = int(os.environ.get("METATREE_DAMAGE_SEED", "0")) or random.randrange(1, 2**31)
KINDS = [(kind, closed) for kind in ("append", "slots", "objects") for closed in (True, False)]
NAME = "damaged bytes"
CASES, NIGHT = 1_700, 100_000  # of each kind


def verdict(original: Original, name: str, broken: bytes | None) -> str:
    """What became of a tree with one damaged file: "right", "reported", "refused" or, where a blob that no record names
    any more is gone, "absent". Fails for all else."""
    names = original.names_of(name)
    report = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ApplyPendingWarning)
            with Metatree(original.damaged(name, broken)) as tree:
                report = tree.check(deep=True)
                try:
                    seen = dump(tree)
                except MetatreeError as error:
                    assert not report.ok or _is_gone(name, broken), f"an error that check() does not see: {error}"
                    seen = None
    except MetatreeError as error:  # at the end too, if the files cannot follow the log
        assert _names(str(error), names) or (report is not None and not report.ok), f"names no file: {error}"
        return "refused"
    if seen == original.state:
        return "right" if report.ok else "reported"
    if report.ok and _is_gone(name, broken):
        assert seen is None or _all_but(original.state, name) == seen, f"silently {seen}"
        return "absent"
    assert not report.ok, f"silently {seen}"
    told = any(_names(f"{finding.path} {finding.reason}", names) for finding in (*report.problems, *report.notes))
    assert told, f"check() does not name the file: {report}"
    return "reported"


def _is_gone(name: str, broken: bytes | None) -> bool:
    """A blob that is gone altogether: once its record is trimmed, nothing but its own file tells that it was."""
    return broken is None and not name.startswith(".") and not name.endswith("metadata.json")


def _all_but(state: State, blob: str) -> State:
    left = {}
    for path, (keys, children, blobs) in state.items():
        prefix = f"{path}/" if path else ""
        left[path] = keys, children, {name: data for name, data in blobs.items() if prefix + name != blob}
    return left


def _names(text: str, names: set[str]) -> bool:
    """Whether a message leads a person to the file; of the log, whose parts explain each other, to its folder."""
    return any(name in text or (name.startswith(".wal/") and ".wal" in text) for name in names)


@pytest.mark.parametrize(("kind", "closed"), KINDS)
def test_no_damaged_byte_is_a_silent_change_or_a_raw_error(kind: str, closed: bool, layer: Layer) -> None:
    original = Original(kind, closed=closed)
    chooser = random.Random(SEED)
    sizes = {name: written(name, data) for name, data in original.files.items()}
    counts: Counter[str] = Counter()

    def hurt(name: str, change: str, at: int) -> None:
        broken = CHANGES[change](original.files[name], at)
        if broken != original.files[name]:
            counts[_tried(original, name, broken, f"{change} at {at}, seed {SEED}")] += 1

    for name in sizes:
        counts[_tried(original, name, None, "file gone")] += 1
    every = sum(sizes.values()) * len(CHANGES)
    aims = {"floor": min(CASES, every // 2), "night": min(NIGHT, every)}  # some changes change nothing
    for name, change, at in in_turn(sizes, chooser):
        if not layer.more(NAME, counts.total(), **aims, among=len(KINDS)):
            break
        hurt(name, change, at)
    note = f"{kind}: {', '.join(f'{count} {result}' for result, count in sorted(counts.items()))}"
    layer.report(NAME, counts.total(), **aims, unit="cases", note=note)


def _tried(original: Original, name: str, broken: bytes | None, case: str) -> str:
    try:
        return verdict(original, name, broken)
    except AssertionError as error:
        raise AssertionError(f"{name}: {case}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{name}: {case}: a raw {type(error).__name__}: {error}") from error


def without_its_last_slot(kind: str) -> wal.Storage:
    original = Original(kind, closed=False)
    return original.damaged(max(name for name in original.files if name.endswith(".rec")), None)


@pytest.mark.parametrize("kind", ["slots", "objects"])
def test_a_log_of_slots_that_ends_before_what_was_applied_is_a_problem_and_takes_no_more_commits(kind: str) -> None:
    storage = without_its_last_slot(kind)
    with Metatree(storage, read_only=True) as tree:
        assert any("the log ends before slot" in finding.reason for finding in tree.check().problems)
    with pytest.raises(CorruptionError, match="the log ends before slot"):
        Metatree(storage)


def test_check_reports_a_damaged_slot_instead_of_stopping_at_it() -> None:
    original = Original("objects", closed=False)
    slots = sorted(name for name in original.files if name.endswith(".rec"))
    storage = original.damaged(slots[-3], bytes(100))
    with Metatree(storage, read_only=True) as tree:
        report = tree.check(deep=True)
        assert any(slots[-3] in finding.reason for finding in report.problems), report
