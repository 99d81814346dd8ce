"""The geometry of the chart that shows how the smallest distances are spread."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from assay.evaluation.report.axis import Axis, Tick
from assay.evaluation.report.source import WRONG, Record
from assay.evaluation.report.words import count, size


@final
@dataclass(frozen=True, kw_only=True)
class Column:
    """The samples whose distance lies between two sizes: a column of the chart, and what it says."""

    x: float
    y: float
    width: float
    height: float
    words: str


@final
@dataclass(frozen=True, kw_only=True)
class Bars:
    """The chart at one size of the page, in the units of its own view box."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    columns: list[Column]
    ticks: list[Tick]
    levels: list[tuple[float, str]]


@final
@dataclass(frozen=True, kw_only=True)
class Histogram:
    """The chart, drawn wide and narrow, and how many distances lie beyond its end or were never found."""

    wide: Bars
    narrow: Bars
    beyond: int
    missed: int


def histogram(record: Record, end: float) -> Histogram | None:
    """Lay out the distances of the samples that are right at first; None where none was found.

    Args:
        record: The run.
        end: Where the axis ends, which is that of the curve.
    """
    distance = record.distance[record.outcome != WRONG]
    found = distance[np.isfinite(distance)]
    shown = found[found <= end * (1 + 1e-9)]
    if not len(shown) or end <= 0:
        return None
    return Histogram(
        wide=_bars(shown, end, width=720, height=230, most=36, most_ticks=8),
        narrow=_bars(shown, end, width=340, height=200, most=18, most_ticks=4),
        beyond=len(found) - len(shown),
        missed=len(distance) - len(found),
    )


def _bars(
    shown: np.ndarray[tuple[int], np.dtype[np.float64]],
    end: float,
    *,
    width: int,
    height: int,
    most: int,
    most_ticks: int,
) -> Bars:
    left, right, top, bottom = 54, width - 28, 10, height - 46
    whole = end > 1 and bool((shown == np.rint(shown)).all())
    step = max(1.0, math.ceil(end / most)) if whole else end / min(most, max(4, 2 * round(len(shown) ** 0.5)))
    number = math.ceil(end / step - 1e-9)
    # A column holds its upper end: (0, 1] the ones. Those of whole numbers are drawn around them, from 0.5 to 1.5.
    shift, last = (0.5, number * step + 0.5) if whole else (0.0, end)
    axis = Axis(start=shift, end=last, left=left, right=right, whole=whole)
    place = np.clip(np.ceil(shown / step - 1e-9) - 1, 0, number - 1).astype(int)
    counts = np.bincount(place, minlength=number)
    levels = _levels(int(counts.max()))
    columns = []
    for k, samples in enumerate(counts.tolist()):
        low, high = axis.place(k * step + shift), axis.place(min((k + 1) * step + shift, last))
        tall = round(samples / levels[-1] * (bottom - top), 2)
        column = Column(
            x=round(low + 0.5, 2),
            y=round(bottom - tall, 2),
            width=max(round(high - low - 1, 2), 0.5),
            height=tall,
            words=f"{_range(k * step, min((k + 1) * step, end), whole)}: {count(samples)}",
        )
        if samples:
            columns.append(column)
    return Bars(
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        columns=columns,
        ticks=axis.ticks(most_ticks),
        levels=[(round(bottom - level / levels[-1] * (bottom - top), 2), count(level)) for level in levels],
    )


def _range(low: float, high: float, whole: bool) -> str:
    """The sizes of a column in words; of whole numbers those that it holds."""
    first, last = (low + 1, math.floor(high)) if whole else (low, high)
    return size(last) if first == last else f"{size(first)} to {size(last)}"


def _levels(most: int) -> list[int]:
    """Round numbers from 0 up to the first that is not below ``most``.

    Example:
        >>> _levels(7), _levels(1), _levels(180)
        ([0, 2, 4, 6, 8], [0, 1], [0, 50, 100, 150, 200])
    """
    step = next(f * 10**p for p in range(12) for f in (1, 2, 5) if 4 * f * 10**p >= most)
    return [k * step for k in range(math.ceil(most / step) + 1)]
