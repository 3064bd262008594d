"""How fast a cost grows: the slope of log(cost) over log(size). Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

FLAT = 0.1  # exponents up to which a cost counts as flat: over three decades, twice as much ...
LINEAR = 1.15  # ... and as linear; what grows less than linearly is called linear too
_END = 3  # sizes at the large end, fitted once more: there a fixed cost does not hide the growth any longer


class Growth(IntEnum):
    """From the best to the worst."""

    FLAT = 0
    LINEAR = 1
    WORSE = 2

    @property
    def words(self) -> str:
        """As the report says it."""
        return ("flat", "linear", "worse than linear")[self]


@dataclass(frozen=True, slots=True)
class Fit:
    """How a cost grows."""

    exponent: float  # over all sizes
    end: float  # over the largest sizes
    ratio: float  # last cost ÷ first cost

    @property
    def growth(self) -> Growth:
        """The verdict, by the greater exponent."""
        greater = max(self.exponent, self.end)
        return Growth.FLAT if greater <= FLAT else Growth.LINEAR if greater <= LINEAR else Growth.WORSE


def fit(sizes: Sequence[float], costs: Sequence[float]) -> Fit:
    """Of costs at growing sizes, two or more; all are positive."""
    end = slice(-_END, None)
    return Fit(slope(sizes, costs), slope(sizes[end], costs[end]), costs[-1] / costs[0])


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """k of the cost = c · size^k that fits best."""
    return statistics.linear_regression([math.log(x) for x in sizes], [math.log(y) for y in costs]).slope
