"""A curve as numbers for a page to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Point = tuple[float, float]
"""A step, and the loss there."""
POINTS = 500
"""Points drawn of a curve; the page stays small after a million steps."""


def chart(given: Mapping[str, Sequence[Point]], what: str) -> dict[str, Any] | None:
    """A curve for the page, in hundredths of its width and height; None where there is nothing to draw."""
    drawn = {name: finite(points) for name, points in given.items()}
    steps, losses = ([point[axis] for points in drawn.values() for point in points] for axis in (0, 1))
    if not steps:
        return None
    end, up = max(steps) or 1, ticks(min(losses), max(losses))
    across = [tick for tick in ticks(0, end) if tick <= end]

    def place(point: Point) -> Point:
        return 100 * point[0] / end, 100 - 100 * (point[1] - up[0]) / (up[-1] - up[0])

    def spoken(name: str, points: Sequence[Point]) -> str:
        (start, one), (end, other) = points[0], points[-1]
        return f"{name} {what} {one:.3g} at step {start:g}, {other:.3g} at step {end:g}"

    return {
        "lines": {name: [place(point) for point in thin(points)] for name, points in drawn.items() if points},
        "across": [(place((tick, up[0]))[0], f"{tick:,g}" if tick < 1e5 else f"{tick:.0e}") for tick in across],
        "up": [(place((0, tick))[1], f"{tick:.6g}") for tick in up],
        "told": "; ".join(spoken(name, points) for name, points in drawn.items() if points),
    }


def ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers around a range."""
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - abs(low) / 2, high + abs(high) / 2 or 1.0
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * size for size in (1, 2, 5, 10) if unit * size >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def finite(points: Sequence[Point]) -> list[Point]:
    return [(step, loss) for step, loss in points if math.isfinite(loss)]


def thin(points: Sequence[Point]) -> list[Point]:
    """At most about `POINTS` of the points: of each stretch the lowest and the highest, so that no spike is lost."""
    stretch = math.ceil(2 * len(points) / POINTS)
    if stretch <= 2:
        return list(points)
    cuts = [points[at : at + stretch] for at in range(0, len(points), stretch)]
    return [point for cut in cuts for point in sorted({min(cut, key=lambda p: p[1]), max(cut, key=lambda p: p[1])})]
