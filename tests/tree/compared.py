"""A name that counts how often it is compared, for tests of what work grows with."""

from __future__ import annotations


class Name(str):
    """Counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__
