"""The geometry of the robust-accuracy-over-eps chart; the template only draws what stands here."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, final

from assay.evaluation.report.axis import Axis, Tick, eps_words
from assay.evaluation.report.threat import Facts
from assay.evaluation.report.words import fraction, interval, percent, size

MOST_POINTS = 400
"""More points than this cannot be told apart on the page: the curve is thinned to them."""
Row = tuple[float, float, float, float]
"""Eps, robust accuracy, and the ends of its interval."""


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
class Mark:
    """A size that the chart marks: its place, its name, and whether the name stands before or after the line."""

    at: float
    name: str
    before: bool


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
    mark: Mark | None


@final
@dataclass(frozen=True, kw_only=True)
class Curve:
    """The curve of a run, drawn wide and narrow; ``budget`` is its last point where it ends at the budget.

    ``end`` is where the drawing ends, and ``farthest`` the largest distance where that lies beyond.
    """

    wide: Chart
    narrow: Chart
    rows: list[Point]
    budget: Point | None
    note: str
    exact: bool
    end: float
    farthest: str


def draw(curve: dict[str, Any] | None, threat: Facts, median: float | None = None) -> Curve | None:
    """Lay out the curve of run.json; None where the run recorded none that could be drawn.

    An exact curve steps down at each of its points, and where few samples lie far beyond the others the drawing ends
    before them.

    Args:
        curve: ``results.curve`` of run.json.
        threat: The run's threat, whose budget is marked.
        median: The median distance, which is marked where there is no budget.
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
    linf, exact, farthest = threat.name.lower() == "linf", bool(curve.get("exact")), rows[-1][0]
    if exact:
        rows = _without_tail(rows)
    mark = (threat.eps, "budget") if threat.eps is not None else (median, "median") if median is not None else None
    pixels = linf and fraction(threat.eps if threat.eps is not None else rows[-1][0]) is not None
    wide = _chart(rows, mark, linf, pixels, exact, width=720, height=400 if exact else 340, most_ticks=8)
    narrow = _chart(rows, mark, linf, pixels, exact, width=340, height=300 if exact else 270, most_ticks=4)
    every = max(1, math.ceil(len(rows) / 26))
    listed = wide.points[::every] + ([wide.points[-1]] if (len(rows) - 1) % every else [])
    ends_at_budget = threat.eps is not None and math.isclose(rows[-1][0], threat.eps, rel_tol=1e-5)
    return Curve(
        wide=wide,
        narrow=narrow,
        rows=listed,
        budget=wide.points[-1] if ends_at_budget else None,
        note=str(curve.get("note") or ""),
        exact=exact,
        end=rows[-1][0],
        farthest=size(farthest) if farthest > rows[-1][0] else "",
    )


def _without_tail(rows: list[Row]) -> list[Row]:
    """The rows up to twice the 95th percentile of the distances; the last one goes on to that place."""
    end = 2 * rows[math.ceil(0.95 * (len(rows) - 1))][0]
    kept = [row for row in rows if row[0] <= end]
    return rows if len(kept) == len(rows) else [*kept, (end, *kept[-1][1:])]


def _steps(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners of a line that keeps its height up to the next place."""
    corners = places[:1]
    for (_, before), (x, y) in itertools.pairwise(places):
        corners += [(x, before), (x, y)]
    return corners


def _chart(
    rows: list[Row],
    mark: tuple[float, str] | None,
    linf: bool,
    pixels: bool,
    exact: bool,
    *,
    width: int,
    height: int,
    most_ticks: int,
) -> Chart:
    start, end = rows[0][0], rows[-1][0]
    left, right, top, bottom = 54, width - 28, 14, height - (62 if pixels else 46)
    whole = end > 1 and all(row[0] == round(row[0]) for row in rows)
    axis = Axis(start=start, end=end, left=left, right=right, pixels=pixels, whole=whole)
    x = axis.place

    def y(share: float) -> float:
        return round(bottom - min(max(share, 0.0), 1.0) * (bottom - top), 2)

    points = [
        Point(x=x(at), y=y(value), eps=eps_words(at, linf), value=percent(value), interval=interval(low, high))
        for at, value, low, high in rows
    ]
    corners = _steps if exact else list[tuple[float, float]]
    line = corners([(point.x, point.y) for point in points])
    upper = corners([(x(row[0]), y(row[3])) for row in rows])
    lower = corners([(x(row[0]), y(row[2])) for row in rows])
    inside = mark is not None and start <= mark[0] <= end * (1 + 1e-9)
    return Chart(
        width=width, height=height, left=left, right=right, top=top, bottom=bottom,
        points=points,
        line=_path(line),
        band=_path(upper + lower[::-1]),
        ticks=axis.ticks(most_ticks),
        levels=[(y(share / 4), f"{25 * share}") for share in range(5)],
        mark=Mark(at=x(mark[0]), name=mark[1], before=x(mark[0]) > left + 60) if mark and inside else None,
    )  # fmt: skip


def _path(places: list[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)
