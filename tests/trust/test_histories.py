"""Histories of real processes: serializable, in real time, in the order of the log; nothing lost, half done or twice.

Writers are killed and stopped while they work. `METATREE_HISTORY_SEED` repeats the choices of a run, not its timing.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torture_place import Place

from tests.figures import Layer
from tests.hosts.conftest import Shared, shared
from tests.tree.conftest import LEVELS
from tests.tree.conftest import fast_path as fast_path
from tests.trust.historian import Trouble, enough, history, start, transactions
from tests.trust.histories import assert_serializable, final_lists

SEED = int(os.environ.get("METATREE_HISTORY_SEED", str(random.randrange(1 << 32))))


@pytest.fixture
def somewhere(request: pytest.FixtureRequest, fast_path: Path) -> Iterator[Shared]:
    if request.param == "local":
        yield Shared("local", Place(str(fast_path / "local")), None)  # type: ignore[arg-type]
    else:
        yield from shared(request.param, request)


def live(
    place: Place, folder: Path, writers: int, readers: int, count: int, more: Callable[[int], bool], apply: str,
    pause: float,
) -> Trouble:  # fmt: skip
    """So many writers make so many transactions each, and go on as long as `more` is true of the number of those of all
    who read and write, though they are killed and stopped again and again."""
    with place.open(LEVELS):
        pass
    folder.mkdir()
    choose = random.Random(SEED)
    trouble = Trouble(choose, place, SEED, apply, folder)
    others = [start(place, "read", SEED, f"r{number}", folder / f"r{number}") for number in range(readers)]
    others.append(start(place, "keep house"))
    working = [trouble.writer(count) for _ in range(writers)]
    try:
        while any(writer.poll() is None for writer in working):
            time.sleep(choose.uniform(pause / 2, pause))
            if trouble.killed < 2 * writers:
                trouble.make(working, count)
            if trouble.killed and trouble.stopped and not more(transactions(folder)):
                enough(folder).touch()
        assert [writer.returncode for writer in working] == [0] * writers
        assert [other.poll() for other in others] == [None] * len(others), "a reader, or who keeps house, has failed"
    finally:
        for process in (*working, *others):
            process.kill()
            process.wait()
    return trouble


SIZES = {  # writers, readers, transactions of each writer and of all, seconds between two troubles; of all in a night
    "local": (8, 4, 100, 15_000, 0.5, 500_000),
    "mount": (4, 1, 60, 240, 1.0, 8_000),
    "seaweedfs": (4, 1, 20, 160, 1.0, 8_000),
    "hdfs": (4, 1, 15, 120, 1.0, 4_000),
}


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("somewhere", "apply"),
    [("local", "sync"), ("local", "background"), ("mount", "sync"), ("seaweedfs", "sync"), ("hdfs", "background")],
    indirect=["somewhere"],
)
def test_what_processes_do_at_once_is_serializable_though_some_are_killed_or_stopped(
    layer: Layer, somewhere: Shared, fast_path: Path, apply: str
) -> None:
    writers, readers, count, wanted, pause, night = SIZES[somewhere.kind]
    name, among = f"histories of processes, {somewhere.kind}", 2 if somewhere.kind == "local" else 1
    aims = {"floor": wanted, "night": night}
    place = Place(**{**vars(somewhere.place), "ttl": 2.0})
    trouble = live(
        place, fast_path / "journals", writers, readers, count,
        lambda done: layer.more(name, done, **aims, among=among), apply, pause,
    )  # fmt: skip
    with place.open() as tree:
        final = final_lists(tree)
        report = tree.check(deep=True)
    done, unknown = history(sorted((fast_path / "journals").iterdir()), final)
    print(
        f"{somewhere.kind}: {len(done)} transactions, {unknown} of unknown outcome, {trouble.killed} kills, "
        f"{trouble.stopped} stops; METATREE_HISTORY_SEED={SEED}"
    )
    assert_serializable(done, final)
    assert report.ok, str(report)
    assert trouble.killed and trouble.stopped and unknown, "nobody was killed or stopped at work"
    layer.report(name, len(done), **aims, unit="transactions", note=f"METATREE_HISTORY_SEED={SEED}")
