"""Many drops, in a transaction and in one pass of the committer: none is compared with all the others."""

from __future__ import annotations

from collections.abc import ItemsView
from pathlib import Path

from metatree import Metatree, apply
from metatree.facts import BlobFact, Inline
from metatree.fold import Effect

MANY = 100


class Name(str):
    """Counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_drops_are_not_compared_with_each_other(tmp_path: Path) -> None:
    with Metatree(tmp_path, ("model", "version")) as tree:
        with tree.transaction():
            for number in range(MANY):
                tree.put(f"m/v{number}", b"", name="w")
        effect = Effect()
        model = effect.at(("m",))
        for number in range(MANY):
            model.drop_node(Name(f"v{number}"))
        Name.compared = 0
        outcome = apply.apply(tree._engine.storage, effect, tree.lsn, tree.lsn)
        assert (outcome.removed, outcome.failed) == (MANY, {})
        assert Name.compared < 10 * MANY
        tree.delete("m", recursive=True)
        assert tree.check().ok


class Passed(dict[str, BlobFact | None]):
    """Counts how often all of it is gone through."""

    times = 0

    def items(self) -> ItemsView[str, BlobFact | None]:  # type: ignore[override]
        Passed.times += 1
        return super().items()


def test_a_blob_that_goes_is_not_compared_with_those_that_went_before() -> None:
    effect = Effect()
    effect.blobs = Passed()
    Passed.times = 0
    for number in range(MANY):
        assert effect.over_blob_files(f"b{number}", set()) == set()
        effect.drop_blob(f"b{number}")
    assert Passed.times == 0


def test_a_file_of_a_directory_blob_that_went_is_not_among_its_files() -> None:
    effect = Effect()
    effect.drop_blob("d/one")
    assert effect.over_blob_files("d", {"d/one", "d/two"}) == {"d/two"}
    effect.put_blob(BlobFact((), "d/three", 0, "0" * 64, Inline(b"")))
    assert effect.over_blob_files("d", {"d/one", "d/two"}) == {"d/two", "d/three"}
