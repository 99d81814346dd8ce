"""The geometry of the robust-accuracy-over-eps chart; the template only draws what stands here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

from assay.evaluation.report.threat import Facts
from assay.evaluation.report.words import fraction, interval, percent, quantity

MOST_POINTS = 400
"""More points than this cannot be told apart on the page: the curve is thinned to them."""


@final
@dataclass(frozen=True, kw_only=True)
class Tick:
    """One labelled place on the eps axis; ``below`` is the second line of its label."""

    at: float
    text: str
    below: str


@final
@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of the curve, on the page and in words."""

    x: float
    y: float
    eps: str
    value: str
    interval: str


@final
@dataclass(frozen=True, kw_only=True)
class Chart:
    """The curve at one size of the page: everything in the units of its own view box."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    points: list[Point]
    line: str
    band: str
    ticks: list[Tick]
    levels: list[tuple[float, str]]
    budget: float | None


@final
@dataclass(frozen=True, kw_only=True)
class Curve:
    """The curve of a run, drawn wide and narrow; ``budget`` is its last point where it ends at the budget."""

    wide: Chart
    narrow: Chart
    rows: list[Point]
    budget: Point | None
    note: str
    exact: bool


def draw(curve: dict[str, Any] | None, threat: Facts) -> Curve | None:
    """Lay out the curve of run.json; None where the run recorded none that could be drawn.

    Args:
        curve: ``results.curve`` of run.json.
        threat: The run's threat, whose budget is marked.
    """
    if not curve:
        return None
    rows = [
        row
        for row in zip(curve["eps"], curve["robust_accuracy"], curve["low"], curve["high"], strict=True)
        if all(isinstance(value, (int, float)) and math.isfinite(value) for value in row)
    ]
    rows.sort(key=lambda row: row[0])
    if len(rows) < 2 or rows[-1][0] <= rows[0][0]:
        return None
    if len(rows) > MOST_POINTS:
        rows = [rows[round(i * (len(rows) - 1) / (MOST_POINTS - 1))] for i in range(MOST_POINTS)]
    linf = threat.name.lower() == "linf"
    wide = _chart(rows, threat.eps, linf, width=720, height=340, most_ticks=8)
    narrow = _chart(rows, threat.eps, linf, width=340, height=270, most_ticks=4)
    every = max(1, math.ceil(len(rows) / 26))
    listed = wide.points[::every] + ([wide.points[-1]] if (len(rows) - 1) % every else [])
    ends_at_budget = threat.eps is not None and math.isclose(rows[-1][0], threat.eps, rel_tol=1e-5)
    return Curve(
        wide=wide,
        narrow=narrow,
        rows=listed,
        budget=wide.points[-1] if ends_at_budget else None,
        note=str(curve.get("note") or ""),
        exact=bool(curve.get("exact")),
    )


def _chart(
    rows: list[tuple[float, float, float, float]],
    eps: float | None,
    linf: bool,
    *,
    width: int,
    height: int,
    most_ticks: int,
) -> Chart:
    pixels = linf and fraction(eps if eps is not None else rows[-1][0]) is not None
    left, right, top, bottom = 54, width - 28, 14, height - (62 if pixels else 46)
    start, end = rows[0][0], rows[-1][0]

    def x(value: float) -> float:
        return round(left + (value - start) / (end - start) * (right - left), 2)

    def y(share: float) -> float:
        return round(bottom - min(max(share, 0.0), 1.0) * (bottom - top), 2)

    points = [
        Point(x=x(at), y=y(value), eps=_eps_words(at, linf), value=percent(value), interval=interval(low, high))
        for at, value, low, high in rows
    ]
    upper = [f"{x(row[0])},{y(row[3])}" for row in rows]
    lower = [f"{x(row[0])},{y(row[2])}" for row in reversed(rows)]
    return Chart(
        width=width, height=height, left=left, right=right, top=top, bottom=bottom,
        points=points,
        line=" ".join(f"{point.x},{point.y}" for point in points),
        band=" ".join(upper + lower),
        ticks=[Tick(at=x(value), text=text, below=below) for value, text, below in _ticks(
            start, end, most_ticks, pixels)],
        levels=[(y(share / 4), f"{25 * share}") for share in range(5)],
        budget=x(eps) if eps is not None and start <= eps <= end * (1 + 1e-9) else None,
    )  # fmt: skip


def _eps_words(eps: float, linf: bool) -> str:
    short = fraction(eps) if linf else None
    return f"{short} ({quantity(eps)})" if short else quantity(eps)


def _ticks(start: float, end: float, most: int, pixels: bool) -> list[tuple[float, str, str]]:
    """Round places between start and end: multiples of a pixel step where the budget is k/255."""
    unit = 1 / 255 if pixels else 10.0 ** math.floor(math.log10(end - start)) / 10
    steps = (factor * 10**power for power in range(9) for factor in (1, 2, 5))
    if pixels:
        steps = (2**power for power in range(9))
    step = next((s * unit for s in steps if (end - start) / (s * unit) <= most), end - start)
    ticks = []
    for k in range(math.ceil(start / step - 1e-6), math.floor(end / step + 1e-6) + 1):
        value = k * step
        if pixels:
            ticks.append((value, f"{round(value * 255)}/255" if k else "0", quantity(value) if k else ""))
        else:
            ticks.append((value, quantity(round(value, 12)) if k else "0", ""))
    return ticks
