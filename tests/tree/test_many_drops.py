"""Many drops in one pass of the committer: each is looked at once, not compared with the others."""

from __future__ import annotations

from pathlib import Path

from metatree import Metatree, apply
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
