"""What a run says: each curve's table and verdict, the curves that grow faster than expected, and all of it as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.growth.curve import MICROS, Measured


def table(measured: Measured) -> Iterator[str]:
    """Lines for people."""
    curve, fit = measured.curve, measured.fit
    rate = f"{'a second':>14}" if curve.unit == MICROS else ""
    yield f"\n{curve.name}  {curve.title}"
    yield f"    {curve.x:>32}{'median ' + curve.unit:>16}{'spread':>32}{rate}"
    for size, cost, rounds in zip(measured.sizes, measured.costs, measured.rounds, strict=True):
        spread = f"{min(rounds):,.1f} – {max(rounds):,.1f}"
        rate = f"{1e6 / cost:>14,.0f}" if curve.unit == MICROS else ""
        yield f"    {size:>32,}{cost:>16,.1f}{spread:>32}{rate}"
    exponents = f"exponent {fit.exponent:.2f}, at the end {fit.end:.2f}, last ÷ first {fit.ratio:,.2f}"
    yield f"    {fit.growth.words} ({exponents})"
    yield f"    expected: {curve.expected.words}, for {curve.why}{'' if measured.met else '  <-- NOT MET'}"


def summary(all_measured: Sequence[Measured]) -> Iterator[str]:
    """Which curves do not meet what is expected of them."""
    missed = [measured for measured in all_measured if not measured.met]
    yield f"\n{len(all_measured) - len(missed)} of {len(all_measured)} curves grow as expected or less"
    for measured in missed:
        expected, found = measured.curve.expected.words, measured.fit.growth.words
        yield f"    {measured.curve.name}: {found}, expected: {expected}"


def as_json(measured: Measured) -> dict[str, object]:
    """For programs."""
    curve, fit = measured.curve, measured.fit
    return {
        "name": curve.name,
        "title": curve.title,
        "x": curve.x,
        "unit": curve.unit,
        "sizes": measured.sizes,
        "costs": measured.costs,
        "rounds": measured.rounds,
        "exponent": fit.exponent,
        "end": fit.end,
        "growth": fit.growth.words,
        "expected": curve.expected.words,
        "met": measured.met,
    }
