"""Many blobs beside a directory blob, and many files in one: what a step costs does not depend on how many there are.
Steps are counted: every call of a function, of Python or of C."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from metatree import Metatree, downloads, foreign
from metatree.cli.repair import _text as told
from metatree.content import OpenBlob
from metatree.derive import derive
from metatree.facts import BlobFact, BlobGone, Fact, Inline, NodeFact
from metatree.fold import Effect, fold
from metatree.inner import InnerNames, prefixes
from metatree.reads import ReadSet
from metatree.view import View
from tests.tree.test_many_drops import Name
from wal import LocalStorage

FEW, MANY = 30, 240
SLACK = 1.2


def steps(work: Callable[[], object]) -> int:
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    gc.disable()  # a collection has steps of its own
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def costs(cost: Callable[[int], int]) -> tuple[int, int]:
    """Of few and of many, after what a process does only once has been done."""
    cost(FEW)
    return cost(FEW), cost(MANY)


def assert_flat(cost: Callable[[int], int]) -> None:
    few, many = costs(cost)
    assert many <= SLACK * few


def assert_linear(cost: Callable[[int], int]) -> None:
    few, many = costs(cost)
    assert many / MANY <= SLACK * few / FEW


Open = Callable[[], Metatree]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Opens a new tree for each cost."""
    number = iter(range(10))
    return lambda: Metatree(tmp_path / f"tree{next(number)}", ("model", "version"))


@pytest.fixture
def source(tmp_path: Path) -> Callable[[int], Path]:
    """A folder of so many files."""

    def make(files: int) -> Path:
        folder = tmp_path / f"source{files}"
        for number in range(files):
            file = folder / f"s{number % 3}" / f"f{number}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")
        return folder

    return make


# --- in a transaction -------------------------------------------------------------------------------------------------


def test_a_put_beside_a_directory_blob_does_not_look_at_the_blobs_before_it(
    opened: Open, source: Callable[[int], Path]
) -> None:
    def cost(blobs: int) -> int:
        with opened() as tree, tree.transaction():
            tree.put("m/v", source(1), name="d", recursive=True)
            for number in range(blobs):
                tree.put("m/v", b"", name=f"b{number}")
            return steps(lambda: tree.put("m/v", b"", name="last"))

    assert_flat(cost)


@pytest.mark.parametrize("before", ["nothing", "a blob", "a directory blob"])
def test_a_put_of_a_directory_blob_does_not_look_at_those_before_it(
    opened: Open, source: Callable[[int], Path], before: str
) -> None:
    def cost(blobs: int) -> int:
        with opened() as tree, tree.transaction():
            for number in range(blobs):
                tree.put("m/v", source(1), name=f"d{number}", recursive=True)
            if before != "nothing":
                tree.put("m/v", source(1) if before == "a directory blob" else b"", name="last", recursive=True)
            return steps(lambda: tree.put("m/v", source(1), name="last", recursive=True, force=True))

    assert_flat(cost)


def test_deletes_of_files_of_a_directory_blob_list_it_once(opened: Open, source: Callable[[int], Path]) -> None:
    def cost(files: int) -> int:
        with opened() as tree:
            tree.put("m/v", source(files), name="d", recursive=True)
            with tree.transaction():
                for number in range(files // 2):
                    tree.delete(f"m/v/d/s{number % 3}/f{number}")
                return steps(lambda: tree.delete(f"m/v/d/s{(files - 1) % 3}/f{files - 1}"))

    assert_flat(cost)


def test_a_directory_blob_that_was_replaced_is_not_listed_again(opened: Open, source: Callable[[int], Path]) -> None:
    def cost(files: int) -> int:
        with opened() as tree:
            tree.put("m/v", source(files), name="d", recursive=True)
            with tree.transaction():
                tree.put("m/v", source(1), name="d", recursive=True, force=True)
                return steps(lambda: tree.delete("m/v/d/s0/f0"))

    assert_flat(cost)


def test_a_single_delete_looks_at_each_file_once(opened: Open, source: Callable[[int], Path]) -> None:
    def cost(files: int) -> int:
        with opened() as tree:
            tree.put("m/v", source(files), name="d", recursive=True)
            return steps(lambda: tree.delete("m/v/d/s0/f0"))

    assert_linear(cost)


def test_a_commit_of_directory_blobs_and_of_deletes_of_their_files_is_linear(
    opened: Open, source: Callable[[int], Path]
) -> None:
    def put(blobs: int) -> int:
        with opened() as tree:
            tree.put("m/v", b"", name="first")

            def work() -> None:
                with tree.transaction():
                    for number in range(blobs):
                        tree.put("m/v", source(1), name=f"d{number}", recursive=True)
                        tree.put("m/v", b"", name=f"b{number}")

            return steps(work)

    def delete(files: int) -> int:
        with opened() as tree:
            tree.put("m/v", source(files), name="d", recursive=True)

            def work() -> None:
                with tree.transaction():
                    for number in range(files):
                        tree.delete(f"m/v/d/s{number % 3}/f{number}")

            return steps(work)

    assert_linear(put)
    assert_linear(delete)


def test_what_is_dropped_with_a_file_is_known_after_every_change_of_the_draft(
    opened: Open, source: Callable[[int], Path]
) -> None:
    with opened() as tree:
        tree.put("m/v", source(4), name="d", recursive=True)  # s0/f0, s0/f3, s1/f1, s2/f2
        with tree.transaction():
            tree.delete("m/v/d/s0/f0")
            tree.delete("m/v/d/s0/f3")
            assert not tree.exists("m/v/d/s0") and tree.exists("m/v/d/s1/f1")
            tree.put("m/v", source(2), name="d", recursive=True, force=True)  # s0/f0, s1/f1
            tree.delete("m/v/d/s1/f1")
            assert tree.exists("m/v/d/s0/f0") and not tree.exists("m/v/d/s1")
            tree.move("m/v/d/s0/f0", "m/v/e")
            assert tree.list("m/v") == ["e"]
            tree.put("m/v", source(2), name="d", recursive=True)
            tree.delete("m/v/d/s1", recursive=True)
            tree.delete("m/v", recursive=True)
            tree.put("m/v", source(2), name="d", recursive=True)
            tree.delete("m/v/d/s0", recursive=True)
            assert tree.exists("m/v/d/s1/f1") and not tree.exists("m/v/d/s0")
            tree.delete("m/v/d/s1/f1")
            assert tree.list("m/v") == []
        assert tree.list("m/v") == [] and tree.check().ok


# --- folding and asking -----------------------------------------------------------------------------------------------


def blob(name: str) -> BlobFact:
    return BlobFact((), name, 0, "0" * 64, Inline(b""))


LOGS: dict[str, Callable[[int], list[Fact]]] = {
    "blobs beside a directory blob": lambda n: [blob("d/x"), *(blob(f"b{i}") for i in range(n))],
    "directory blobs": lambda n: [blob(f"d{i}/x") for i in range(n)],
    "files that come and go": lambda n: [
        *(blob(f"d/s/{i}") for i in range(n)),
        *(BlobGone((), f"d/s/{i}") for i in range(n)),
    ],
    "a directory blob replaced": lambda n: [
        fact for i in range(n) for fact in (BlobGone((), "d"), blob("d/x"), blob(f"d/{i}"))
    ],
}


@pytest.mark.parametrize("what", LOGS)
def test_a_log_with_directory_blobs_is_folded_in_linear_time(what: str) -> None:
    facts = {number: LOGS[what](number) for number in (FEW, MANY)}
    assert_linear(lambda number: steps(lambda: fold(facts[number])))


@pytest.mark.parametrize("what", LOGS)
def test_a_question_about_one_blob_does_not_look_at_the_others(what: str) -> None:
    effects = {number: fold(LOGS[what](number)) for number in (FEW, MANY)}
    for ask in (lambda e: e.blob_below("d9"), lambda e: e.over_blob_files("d9", {"d9/x"}), lambda e: e.blob("d9/y")):
        assert_flat(lambda number, ask=ask: steps(lambda: ask(effects[number])))  # type: ignore[misc]


def test_a_folder_of_which_only_drops_are_known_has_no_file_that_the_window_put() -> None:
    effect = fold([blob("d/x"), blob("e/x"), BlobGone((), "d/x")])
    assert not effect.blob_below("d") and effect.blob_below("e")
    effect.apply(BlobGone((), "d"))
    assert effect.blobs == {"e/x": blob("e/x"), "d": None}


def test_names_in_folders() -> None:
    names = InnerNames(["top", "d/x", "d/s/y", "e/s/y"])
    names.add("d/s/t/z")
    assert names.below("d") == {"d/x", "d/s/y", "d/s/t/z"} and names.below("d/s") == {"d/s/y", "d/s/t/z"}
    assert names.below("top") == names.below("e/x") == names.below("") == frozenset()
    for name in ("d/s/t/z", "d/s/y", "d/s/never", "never/x", "top"):
        names.discard(name)
    assert names.below("d") == {"d/x"} and not names.below("d/s") and names.below("e/s") == {"e/s/y"}
    assert [*prefixes("d/s/y")] == ["d", "d/s"] and [*prefixes("top")] == []


# --- elsewhere --------------------------------------------------------------------------------------------------------


class Standing:
    """A view of a node `()` with these children."""

    def __init__(self, children: Sequence[str]) -> None:
        self._children = dict.fromkeys(children, True)

    def metadata(self, path: object) -> tuple[dict[str, Any], int, bool]:
        return {}, 0, False

    def stands(self, path: object) -> bool:
        return True

    def children(self, path: object) -> dict[str, bool]:
        return self._children


def test_children_that_are_dropped_are_not_compared_with_all_that_are_there() -> None:
    names = [Name(f"v{number}") for number in range(MANY)]
    delta = Effect()
    for name in names[1:]:
        delta.drop_node(name)
    Name.compared = 0
    facts, _ = derive(delta, cast(View, Standing(names)))
    assert facts[-1] == NodeFact((), {}, ("v0",)) and Name.compared < 10 * MANY


def test_foreign_files_are_not_compared_with_all_that_the_window_put(tmp_path: Path) -> None:
    def cost(files: int) -> int:
        for number in range(files):
            file = tmp_path / f"aside{files}" / f"f{number}"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"")
        (tmp_path / "node").mkdir(exist_ok=True)
        ours = frozenset(f"f{number}" for number in range(files))
        with closing(LocalStorage(tmp_path)) as storage:
            return steps(lambda: foreign.restore(storage, f"aside{files}", "node", None, ours))

    assert_linear(cost)
    assert not any((tmp_path / "node").iterdir())


def test_a_download_compares_each_commit_that_was_made_meanwhile_once(
    tmp_path: Path, source: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared, conflict, download = 0, ReadSet.conflict, downloads.download

    def counted(self: ReadSet, changes: Any) -> str | None:
        nonlocal compared
        compared += 1
        return conflict(self, changes)

    def between(found: OpenBlob, target: str) -> None:
        monkeypatch.setattr(downloads, "download", download)
        download(found, target)
        for number in range(FEW):
            writer.update("m", number=number)
        monkeypatch.setattr(ReadSet, "conflict", counted)

    monkeypatch.setattr(downloads, "download", between)
    with Metatree(tmp_path / "tree", ("model", "version")) as tree, Metatree(tmp_path / "tree") as writer:
        tree.put("m/v", source(FEW), name="d", recursive=True)
        tree.get("m/v/d", tmp_path / "out", recursive=True)
    assert FEW <= compared < 4 * FEW


# --- in a repair ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edits", ["adopt", None])
def test_what_a_repair_and_its_report_cost_for_each_lost_file_does_not_depend_on_how_many_are_lost(
    opened: Open, source: Callable[[int], Path], edits: str | None
) -> None:
    """Each is named and given up, or restored from the log."""

    def cost(files: int) -> int:
        with opened() as tree:
            tree.put("m/v", source(files), name="d", recursive=True)
            if edits == "adopt":
                tree.checkpoint()
            tree.flush()
            paths = [f"m/v/d/s{number % 3}/f{number}" for number in range(files)]
            shutil.rmtree(Path(tree.root) / "m/v/d")
            done = tree.repair(edits=edits, paths=paths, dry_run=True)
            assert len(done.steps) == files
            count = steps(lambda: tree.repair(edits=edits, paths=paths))
            for number in range(files):
                done.failed[f"m/v/e{number}"] = "of no step"
            done.remains = tree.check()
            return count + steps(lambda: told(tree.root, done))

    assert_linear(cost)
