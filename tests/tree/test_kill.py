"""SIGKILL, a thousand times: nothing acknowledged is lost, nothing half done is seen. See tools/torture_kill.py."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from torture_verify import Journal, differences, expected, on_disk, shown, wanted
from torture_work import LEVELS, State, make, plan

from metatree import Metatree
from tests.figures import Layer
from tests.tree.conftest import assert_clean

TOOL = Path(__file__).resolve().parents[2] / "tools" / "torture_kill.py"
KILLS = 200  # of each number of writers


def torture(root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), str(root), *more], capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("writers", [1, 2, 3, 4, 5])
def test_a_thousand_kills_of_writers_lose_nothing_and_leave_nothing_half_done(
    layer: Layer, fast_path: Path, writers: int
) -> None:
    kills, in_flight, seeds, aims = 0, 0, [], {"floor": KILLS, "night": 4_000}
    while layer.more("kill -9", kills, **aims, among=5):
        root = fast_path / f"tree{kills}"
        done = torture(root, "--kills", str(KILLS), "--writers", str(writers), "--check-every", "100", "--json")
        assert done.returncode == 0, done.stderr[-6000:]
        summary = json.loads(done.stdout)
        assert summary["findings"] == []
        assert summary["acknowledged"] > summary["kills"]
        assert summary["rounds"] > 0, "never were all killed at once, so that somebody had to recover"
        assert_clean(root)
        shutil.rmtree(root)
        kills, in_flight = kills + summary["kills"], in_flight + summary["in_flight"]
        seeds.append(summary["seed"])
    assert in_flight >= 0.8 * kills, "too many of the kills hit idle writers"
    note = f"{100 * in_flight // kills} % of {writers} writers in flight, seed {seeds[0]}"
    layer.report("kill -9", kills, **aims, unit="kills", note=note)


# --- that it would be noticed ---------------------------------------------------------------------------------------


def journal(changes: int, begun: int | None = None) -> Journal:
    return Journal(True, changes, changes if begun is None else begun, False)


@pytest.fixture
def worked(fast_path: Path) -> Path:
    """A tree in which one writer made sixty changes."""
    root = fast_path / "tree"
    with Metatree(root, LEVELS) as tree:
        for node in ("shared/left", "shared/right", "shared/tally"):
            tree.put(node, b"", name="token")
            tree.update(node, n=0)
        for change in islice(plan("seed", "w1"), 60):
            make(tree, "w1", change)
    return root


def test_the_state_after_the_acknowledged_changes_is_accepted(worked: Path) -> None:
    with Metatree(worked) as tree:
        found = shown(tree, "w1")
    assert found == on_disk(worked / "w1")
    assert differences(found, expected("seed", "w1", journal(60))) is None
    assert differences(found, expected("seed", "w1", journal(59, begun=60))) is None, "one in flight may have committed"
    assert differences(found, expected("seed", "w1", journal(60, begun=61))) is None, "or not"


def test_a_lost_change_and_one_too_many_are_noticed(worked: Path) -> None:
    with Metatree(worked) as tree:
        found = shown(tree, "w1")
    states = [wanted(expected("seed", "w1", journal(count))[0]) for count in (57, 58, 59, 60, 61, 62, 63)]
    for count, state in zip((57, 58, 59, 60, 61, 62, 63), states, strict=True):
        wrong = differences(found, expected("seed", "w1", journal(count)))
        assert (wrong is None) == (state == states[3])


def test_what_was_changed_behind_the_librarys_back_is_noticed_on_disk(worked: Path) -> None:
    with Metatree(worked) as tree:
        found = shown(tree, "w1")
    assert found is not None
    name = next(name for name, version in found["versions"].items() if version["blobs"])
    blob = next(iter(found["versions"][name]["blobs"]))
    original = (worked / "w1" / name / blob).read_bytes()
    (worked / "w1" / name / blob).write_bytes(b"bit rot")
    assert on_disk(worked / "w1") != found
    (worked / "w1" / name / blob).write_bytes(original)
    (worked / "w1" / name / "stray").write_bytes(b"")
    assert on_disk(worked / "w1") != found


def test_a_plan_follows_from_its_seed_and_covers_every_kind_of_change() -> None:
    changes = list(islice(plan("seed", "w1"), 400))
    assert changes == list(islice(plan("seed", "w1"), 400)) != list(islice(plan("seed", "w2"), 400))
    kinds = {change[0] for change in changes}
    kinds |= {inner[0] for change in changes if change[0] == "transaction" for inner in change[2]}
    assert kinds >= {
        "put", "update", "unset", "delete", "delete blob", "move", "copy", "transaction", "tally", "checkpoint",
    }  # fmt: skip
    state = State()
    for change in changes:
        state.make(change)
    assert state.tallied == sum(change[0] == "tally" for change in changes)


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "somebodys").write_text("")
    done = torture(tmp_path)
    assert done.returncode == 2 and "no empty folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["somebodys"]
