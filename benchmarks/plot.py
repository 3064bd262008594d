"""One SVG for each workload: a dot for each round, a bar at the median, on a logarithmic scale; for light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from benchmarks.measure import Result, Workload
from benchmarks.table import METATREES, promise

LEFT, WIDTH, RIGHT = 290, 400, 330  # of names, of the scale, of what is said of each
TOP, ROW = 64, 22
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 } .soft { fill: #59636e } .line { stroke: #d1d9e0 }
.peer { fill: #57606a } .tree { fill: #0969da } .floor { fill: #9a6700 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .soft { fill: #9198a1 } .line { stroke: #3d444d }
  .peer { fill: #9198a1 } .tree { fill: #4493f8 } .floor { fill: #d29922 }
}
"""


def write(workload: Workload, results: Sequence[Result], folder: Path) -> Path:
    """Draw those who were measured."""
    target = folder / f"{workload.name.replace(' ', '-')}.svg"
    target.write_text(svg(workload, [result for result in results if result.rounds]))
    return target


def svg(workload: Workload, results: Sequence[Result]) -> str:
    scale = Scale([value for result in results for value in result.rounds])
    height = TOP + ROW * len(results) + 34
    size = f'width="{LEFT + WIDTH + RIGHT}" height="{height}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{escape(workload.title)}</title>']
    lines.append(f"<style>{STYLE}</style>")
    lines.append(_text(16, 24, f"{workload.name}: {workload.title}", "title"))
    lines.append(_text(16, 42, f"{workload.unit}, less is better; a dot for each round, a bar at the median", "soft"))
    for value in scale.marks():
        x = scale(value)
        lines.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - 28}"/>')
        lines.append(_text(x, height - 12, f"{value:,.10g}", "soft", "middle"))
    for number, result in enumerate(results):
        lines += _row(result, scale, TOP + ROW * number + ROW / 2)
    return "\n".join([*lines, "</svg>", ""])


class Scale:
    """From values to places, whole decades wide."""

    def __init__(self, values: Sequence[float]) -> None:
        above = [value for value in values if value > 0] or [1.0]
        self._first = math.floor(math.log10(min(above)))
        self._last = max(self._first + 1, math.ceil(math.log10(max(above))))

    def __call__(self, value: float) -> float:
        exponent = math.log10(max(value, 10.0**self._first))
        return LEFT + WIDTH * (exponent - self._first) / (self._last - self._first)

    def marks(self) -> list[float]:
        return [10.0**exponent for exponent in range(self._first, self._last + 1)]


def _row(result: Result, scale: Scale, y: float) -> Iterator[str]:
    kind = "tree" if result.peer in METATREES else "floor" if result.peer.startswith("floor") else "peer"
    yield _text(LEFT - 12, y + 4, result.name, "", "end")
    for value in result.rounds:
        yield f'<circle class="{kind}" cx="{scale(value):.1f}" cy="{y}" r="4" fill-opacity="0.45"/>'
    yield f'<rect class="{kind}" x="{scale(result.median) - 1.5:.1f}" y="{y - 8}" width="3" height="16"/>'
    said = f"{result.median:,.1f}" + (f" · durable: {promise(result)}" if promise(result) else "")
    yield _text(LEFT + WIDTH + 12, y + 4, said, "soft")


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
