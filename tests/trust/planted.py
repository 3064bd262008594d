"""The planted bugs: what each breaks, and the tests that catch it. `python -m tests.trust.planted` prints the table."""

from __future__ import annotations

from tests.trust.planted_between_hosts import BETWEEN_HOSTS
from tests.trust.planted_in_the_log import IN_THE_LOG
from tests.trust.planted_in_the_tree import IN_THE_TREE
from tests.trust.planting import Planted

PLANTED: tuple[Planted, ...] = (*IN_THE_LOG, *BETWEEN_HOSTS, *IN_THE_TREE)


def table() -> list[str]:
    """One line a bug."""
    width = max(len(bug.name) for bug in PLANTED)
    lines = [f"{'planted bug':<{width}}  breaks  caught by"]
    for bug in PLANTED:
        lines += [f"{bug.name:<{width}}  {bug.breaks:<6}  {bug.caught_by[0]}"]
        lines += [f"{'':<{width}}  {'':<6}  {other}" for other in bug.caught_by[1:]]
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
