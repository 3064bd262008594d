"""A curve as SVG: logarithmic axes, readable on light and on dark ground. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.growth.curve import Measured

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 76, 40, 64, 52  # margins
STYLE = """
svg { --ink: #1f2328; --pale: #d1d9e0; --line: #0969da; --hint: #59636e; font: 12px system-ui, sans-serif }
@media (prefers-color-scheme: dark) { svg { --ink: #f0f6fc; --pale: #3d444d; --line: #4493f8; --hint: #9198a1 } }
text { fill: var(--ink) } .title { font-size: 13px; font-weight: 600 } .hint { fill: var(--hint) }
.grid { stroke: var(--pale) } .fit { stroke: var(--hint); stroke-dasharray: 4 4; fill: none }
.line { stroke: var(--line); stroke-width: 2; fill: none } .dot { fill: var(--line) } .range { stroke: var(--line) }
"""


@dataclass(frozen=True, slots=True)
class Axis:
    """A logarithmic axis over whole decades."""

    low: int  # exponents of ten
    high: int
    begin: float  # pixels
    end: float

    @staticmethod
    def over(values: Sequence[float], begin: float, end: float) -> Axis:
        low = math.floor(math.log10(min(values)))
        return Axis(low, max(low + 1, math.ceil(math.log10(max(values)))), begin, end)

    def place(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return round(self.begin + share * (self.end - self.begin), 1)

    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self.low, self.high + 1)]


def svg(measured: Measured) -> str:
    """The whole document."""
    every = [cost for rounds in measured.rounds for cost in rounds]
    x = Axis.over(measured.sizes, LEFT, WIDTH - RIGHT)
    y = Axis.over(every, HEIGHT - BOTTOM, TOP)
    fit, title = measured.fit, escape(f"{measured.curve.name}: {measured.curve.title}")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{title}</title><style>{STYLE}</style>",
        f'<text class="title" x="8" y="20">{title}</text>',
        f'<text class="hint" x="8" y="37">{fit.growth.words}: exponent {fit.exponent:.2f}, '
        f"at the end {fit.end:.2f}; expected: {measured.curve.expected.words}</text>",
        *_grid(x, y),
        f'<text class="hint" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">'
        f"{escape(measured.curve.x)}</text>",
        f'<text class="hint" x="8" y="{TOP - 8}">{measured.curve.unit}</text>',
        *_fitted(measured, x, y),
        *_points(measured, x, y),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _grid(x: Axis, y: Axis) -> Iterator[str]:
    for value in x.ticks():
        place = x.place(value)
        yield f'<line class="grid" x1="{place}" x2="{place}" y1="{y.begin}" y2="{y.end}"/>'
        yield f'<text x="{place}" y="{y.begin + 18}" text-anchor="middle">{value:,.0f}</text>'
    for value in y.ticks():
        place = y.place(value)
        yield f'<line class="grid" x1="{x.begin}" x2="{x.end}" y1="{place}" y2="{place}"/>'
        yield f'<text x="{LEFT - 8}" y="{place + 4}" text-anchor="end">{value:,.12g}</text>'


def _fitted(measured: Measured, x: Axis, y: Axis) -> Iterator[str]:
    """The fit over all sizes, through the middle of the points."""
    slope = measured.fit.exponent
    middles = [sum(map(math.log10, values)) / len(values) for values in (measured.sizes, measured.costs)]
    ends = [measured.sizes[0], measured.sizes[-1]]
    places = [(x.place(size), y.place(10 ** (middles[1] + slope * (math.log10(size) - middles[0])))) for size in ends]
    yield f'<polyline class="fit" points="{_joined(places)}"/>'


def _points(measured: Measured, x: Axis, y: Axis) -> Iterator[str]:
    places = [(x.place(size), y.place(cost)) for size, cost in zip(measured.sizes, measured.costs, strict=True)]
    yield f'<polyline class="line" points="{_joined(places)}"/>'
    for (across, down), rounds in zip(places, measured.rounds, strict=True):
        top, bottom = y.place(max(rounds)), y.place(min(rounds))
        yield f'<line class="range" x1="{across}" x2="{across}" y1="{top}" y2="{bottom}"/>'
        yield f'<circle class="dot" cx="{across}" cy="{down}" r="3.5"/>'


def _joined(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{across},{down}" for across, down in places)
