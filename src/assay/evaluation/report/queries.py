"""The geometry of the success-over-queries chart, and its numbers in words, for attacks that used no gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

from assay.evaluation.report.axis import Tick
from assay.evaluation.report.lines import AFTER, BELOW, LEFT, STYLES, TOP, Line, Plot, share_levels
from assay.evaluation.report.words import count, interval, percent, rate

_UNKNOWN = "\N{EN DASH}"


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """One stage in the table: its median and mean, and its success at each number of queries with the interval."""

    name: str
    style: int
    median: str
    mean: str
    at: list[tuple[str, str]]


@final
@dataclass(frozen=True, kw_only=True)
class QueryChart:
    """The chart, drawn wide and narrow, the table, and the numbers of queries that head its columns."""

    wide: Plot
    narrow: Plot
    rows: list[Row]
    at: list[str]


def query_chart(stages: list[dict[str, Any]]) -> QueryChart | None:
    """Lay out the stages that have queries; None where there is none.

    Args:
        stages: ``results.stages`` of run.json.
    """
    known = [stage for stage in stages if stage.get("queries")]
    if not known:
        return None
    most = max(max(stage["queries"]["curve"]["queries"]) for stage in known)
    return QueryChart(
        wide=_plot(known, most, width=720, height=300),
        narrow=_plot(known, most, width=340, height=240),
        rows=[_row(stage, number % STYLES) for number, stage in enumerate(known)],
        at=[count(number) for number in known[0]["queries"]["at"]["queries"]],
    )


def _row(stage: dict[str, Any], style: int) -> Row:
    found = stage["queries"]
    at = found["at"]
    return Row(
        name=stage["name"],
        style=style,
        median=_UNKNOWN if found["median"] is None else rate(found["median"]),
        mean=_UNKNOWN if found["mean"] is None else rate(found["mean"]),
        at=[
            (_UNKNOWN, "not known") if share is None else (percent(share), interval(low, high))
            for share, low, high in zip(at["success"], at["low"], at["high"], strict=True)
        ],
    )


def _plot(stages: list[dict[str, Any]], most: int, *, width: int, height: int) -> Plot:
    left, right, top, bottom = LEFT, width - AFTER, TOP, height - BELOW
    decades = max(1, math.ceil(math.log10(max(most, 2)) - 1e-9))

    def x(queries: float) -> float:
        return round(left + math.log10(max(queries, 1)) / decades * (right - left), 2)

    def y(share: float) -> float:
        return round(bottom - share * (bottom - top), 2)

    lines = []
    for number, stage in enumerate(stages):
        curve = stage["queries"]["curve"]
        places: list[tuple[float, float]] = []
        for queries, share in zip(curve["queries"], curve["success"], strict=True):
            if places:
                places.append((x(queries), places[-1][1]))
            places.append((x(queries), y(share)))
        points = " ".join(f"{across},{up}" for across, up in places)
        lines.append(Line(name=stage["name"], style=number % STYLES, points=points))
    return Plot(
        width=width, height=height, left=left, right=right, top=top, bottom=bottom,
        lines=lines,
        ticks=[Tick(at=x(10**power), text=count(10**power), below="") for power in range(decades + 1)],
        levels=share_levels(bottom, top),
        axis="queries for each sample",
    )  # fmt: skip
