"""Charts of several lines: what they look like on the page, at any size of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from assay.evaluation.report.axis import Axis, Tick
from assay.evaluation.report.curve import Mark
from assay.evaluation.report.words import SPACE, quantity

STYLES = 6
"""Kinds of line that can be told apart; further ones begin again."""
SOLID = 6
"""One more kind, plain and in the colour of what withstands."""
LEFT, TOP, BELOW, AFTER = 54, 14, 46, 28
"""Room around a chart: for the labels of levels, above, for the axis, and on the right."""
LEVELS = [(share / 4, f"{25 * share}{SPACE}%" if share == 4 else f"{25 * share}") for share in range(5)]
"""Heights of shares and what stands at them."""


@final
@dataclass(frozen=True, kw_only=True)
class Series:
    """Values to draw: places along the axis and heights, in their own units, and what stands at each."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0
    texts: Sequence[str] = ()


@final
@dataclass(frozen=True, kw_only=True)
class Line:
    """One line as the points of a polyline; ``style`` is the number of its kind, ``dots`` and ``texts`` lie on it."""

    name: str
    style: int
    points: str
    dots: tuple[tuple[float, float], ...] = ()
    texts: tuple[tuple[float, float, str], ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class Plot:
    """A chart at one size of the page, in the units of its own view box."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    lines: list[Line]
    ticks: list[Tick]
    levels: list[tuple[float, str]]
    axis: str
    mark: Mark | None = None


def share_levels(bottom: float, top: float) -> list[tuple[float, str]]:
    """Levels of a chart of shares: where they lie, and what stands at them."""
    return [(round(bottom - share * (bottom - top), 2), label) for share, label in LEVELS]


def plot(
    series: Sequence[Series],
    *,
    axis: str,
    width: int,
    height: int,
    shares: bool = True,
    whole: bool = False,
    decades: bool = False,
    dots: bool = False,
    mark: tuple[float, str] | None = None,
    ends: tuple[float, float] | None = None,
) -> Plot:
    """Lay lines out.

    Args:
        series: the lines; each has at least one point.
        axis: what the places along the axis are.
        width: of the chart.
        height: of the chart.
        shares: heights are shares, drawn from 0 to 100 %; otherwise from 0 to a round number above the largest.
        whole: places are whole numbers.
        decades: the axis is logarithmic.
        dots: a dot at each point.
        mark: a place to mark, and its name.
        ends: where the axis begins and ends; at the outermost places when None.
    """
    left, right, top, bottom = LEFT, width - AFTER, TOP, height - BELOW
    most = 1.0 if shares else _above(max(value for each in series for _, value in each.points))

    def scale(at: float) -> float:
        return math.log10(at) if decades else at

    places = [scale(at) for each in series for at, _ in each.points] if ends is None else list(ends)
    start, end = min(places), max(places)
    line = Axis(start=start, end=end if end > start else start + 1, left=left, right=right, whole=whole)

    def put(point: tuple[float, float]) -> tuple[float, float]:
        return line.place(scale(point[0])), round(bottom - point[1] / most * (bottom - top), 2)

    count = 8 if width > 400 else 4
    known = sorted({at for each in series for at, _ in each.points})
    ticks = [Tick(at=put((at, 0))[0], text=_label(at), below="") for at in known] if decades else line.ticks(count)
    quarters = [most * k / 4 for k in range(5)]
    marked = None
    if mark is not None:
        at = put((mark[0], 0))[0]
        marked = Mark(at=at, name=mark[1], before=at > (left + right) / 2)
    return Plot(
        width=width, height=height, left=left, right=right, top=top, bottom=bottom,
        lines=[_line(each, put, dots) for each in series],
        ticks=ticks,
        levels=share_levels(bottom, top) if shares else [(put((0, v))[1], _label(v)) for v in quarters],
        axis=axis,
        mark=marked,
    )  # fmt: skip


def _line(series: Series, put: Callable[[tuple[float, float]], tuple[float, float]], dots: bool) -> Line:
    places = tuple(put(point) for point in series.points)
    return Line(
        name=series.name,
        style=series.style,
        points=" ".join(f"{x},{y}" for x, y in places),
        dots=places if dots or len(places) == 1 else (),
        texts=tuple((x, y, text) for (x, y), text in zip(places, series.texts, strict=False) if text),
    )


def _above(value: float) -> float:
    """The smallest of 1, 2, 4 and 8 times a power of ten that is not below a value: quarters of it are short.

    Example:
        >>> _above(0.0019), _above(2.42), _above(1740)
        (0.002, 4.0, 2000.0)
    """
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(round(factor * power, 12) for factor in (1, 2, 4, 8, 10) if factor * power >= value * (1 - 1e-9))


def _label(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else quantity(number)
