"""What is durable before what. No crash of a process shows a flush that is missing: the order itself is looked at."""

from __future__ import annotations

import re

import pytest

from metatree import Metatree
from tests.tree.model import BIG, LEVELS, ROOT
from wal.storage.memory import MemoryPosix, MemoryStorage
from wal.testing import Recorder


def steps(recorder: Recorder) -> list[str]:
    """The calls, with names relative to the root; names of transactions and numbers of files are left out."""
    unique = re.compile(r"(?<=staged/)[^/]+|\d{20}")
    return [f"{method} {unique.sub('N', path[len(ROOT) + 1 :])}" for method, path in recorder.trace()]


def recorded() -> tuple[Recorder, Metatree]:
    posix = MemoryPosix()
    posix.mkdir(ROOT)
    recorder = Recorder(posix)
    tree = Metatree(MemoryStorage(recorder), LEVELS)
    tree.put("m/v1", b"small", name="b")
    recorder.calls.clear()
    return recorder, tree


@pytest.mark.parametrize("packed", [False, True], ids=["a blob of its own", "a pack of small ones"])
def test_what_a_record_names_is_durable_with_its_folder_before_the_record_is_written(packed: bool) -> None:
    recorder, tree = recorded()
    with tree.transaction():
        for number in range(8 if packed else 1):
            tree.put("m/v1", BIG[:60_000] if packed else BIG, name=f"b{number}")
    found = steps(recorder)
    record = next(place for place, step in enumerate(found) if step == "pwrite .wal/N.log")
    before = found[:record]
    staged = [step for step in before if step.startswith("fdatasync .wal/staged/N/")]
    assert len(staged) == 1
    content = before.index(staged[0])
    assert max(place for place, step in enumerate(before) if step == staged[0].replace("fdatasync", "pwrite")) < content
    assert before.index("fsync .wal/staged/N") < before.index("fsync .wal/staged") < before.index("fsync .wal")
    assert found.index("fdatasync .wal/N.log") > record
    tree.close()


def test_a_checkpoint_syncs_the_files_before_its_mark_and_clears_away_after_it() -> None:
    recorder, tree = recorded()
    tree.put("m/v1", BIG, name="big")
    tree.delete("m/v1/b")
    recorder.calls.clear()
    tree.checkpoint()
    found = steps(recorder)
    mark = found.index("rename .wal/checkpoint.json")
    gone = [place for place, step in enumerate(found) if step.startswith(("unlink .wal/staged/", "unlink .wal/trash/"))]
    assert found.index("syncfs ") < mark < found.index("fsync .wal", mark) < min(gone)
    assert len(gone) == 2
    tree.close()


def test_files_whose_whole_content_is_in_the_log_are_not_flushed_before_a_checkpoint() -> None:
    recorder, tree = recorded()
    tree.put("m/v1", b"more", name="c")
    tree.put("m/v1", b"other", name="b", force=True)
    tree.update("m/v1", n=1)
    tree.put("m/v2", b"second", name="b")
    flushed = {step for step in steps(recorder) if step.startswith(("fsync", "fdatasync", "syncfs"))}
    assert flushed == {"fdatasync .wal/N.log"}
    tree.close()


def test_a_metadata_json_that_no_record_holds_whole_is_flushed_before_it_takes_its_name() -> None:
    """A small one need not be: recovery writes it again from the log."""
    recorder, tree = recorded()
    tree.update("m", text="x" * 20_000)
    tree.flush()
    recorder.calls.clear()
    tree.put("m/v2", b"second", name="b")
    tree.flush()
    taken = next(call for call in recorder.calls if call.path == f"{ROOT}/m/metadata.json" and call.method == "rename")
    assert ("fdatasync", taken.arguments[0]) in recorder.trace()[: recorder.calls.index(taken)]
    tree.close()
