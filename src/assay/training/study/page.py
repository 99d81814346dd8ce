"""The figure and the page of a study."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from assay import __version__, grammar
from assay.evaluation.report.environment import fill
from assay.evaluation.report.lines import SOLID, STYLES, Plot, Series, plot
from assay.files import write_atomically
from assay.training.study.plan import Plan
from assay.training.study.record import Record, Row

FILE, FIGURE = "report.html", "study.svg"
_STYLES = (4, SOLID, 0, 3, 2, 1, 5)  # kinds of line, those that are told apart best first
_SIZE = (340, 280)
_ERRORS = (
    ("clean_error", "Clean error"),
    ("adversarial_error", "Adversarial error"),
    ("difference", "Adversarial minus clean error"),
)


def render(run: str | Path) -> Path:
    """Write `study.svg` and `report.html` of a study, as far as it got.

    Args:
        run: the folder of the study.

    Raises:
        StoreError: it holds no study, or cannot be written.
    """
    record = Record.open(Path(run))
    settings = record.content["settings"]
    plan = Plan(
        threat=grammar.threat(settings["threat"]),
        recipes=tuple(settings["recipes"]),
        eps=tuple(settings["eps"]),
        samples=tuple(settings["samples"]),
        all=settings["train_samples"],
    )
    panels = charts(plan, record.rows)
    keys = [(_style(number), recipe) for number, recipe in enumerate(plan.recipes)]
    width, height = _SIZE
    figure = fill(
        "study.svg.j2",
        "assay.training.study",
        panels=[(name, chart, _place(number)) for number, (name, chart) in enumerate(panels)],
        keys=keys,
        width=2 * width,
        height=2 * (height + 24) + 28,
    )
    write_atomically(record.path / FIGURE, figure.encode("utf-8"))
    page = fill(
        "study.html.j2",
        "assay.training.study",
        settings=settings,
        rows=record.rows,
        left=len(plan.points) - len(record.rows),
        panels=panels,
        keys=keys,
        version=__version__,
    )
    path = record.path / FILE
    write_atomically(path, page.encode("utf-8"))
    return path


def charts(plan: Plan, rows: list[Row]) -> list[tuple[str, Plot]]:
    """The charts of a study: errors over the number of samples, and the frontier; those without a point are left out.

    Args:
        plan: of the study.
        rows: the networks so far.
    """
    known: dict[Any, Row] = {(row["recipe"], row["eps"], row["samples"]): row for row in rows}
    width, height = _SIZE

    def series(points: Callable[[str], Any], at: Callable[[Row], tuple[float, float]], named: bool) -> list[Series]:
        found = []
        for number, recipe in enumerate(plan.recipes):
            own = [known[k] for p in points(recipe) if (k := (p.recipe, p.eps, p.samples)) in known]
            if own:
                texts = [f"{row['eps']:g}" for row in own] if named else ()
                found.append(Series(name=recipe, style=_style(number), points=[at(row) for row in own], texts=texts))
        return found

    def over(key: str) -> Callable[[Row], tuple[float, float]]:
        return lambda row: (row["samples"], row[key])  # type: ignore[literal-required]

    found = []
    for key, name in _ERRORS:
        lines = series(plan.over_samples, over(key), named=False)
        if lines:
            drawn = plot(lines, axis="training samples", width=width, height=height, decades=True, dots=True)
            found.append((name, drawn))
    lines = series(plan.over_eps, lambda row: (100 * row["clean_accuracy"], row["robust_accuracy"]), named=True)
    if lines:
        least = min(at for line in lines for at, _ in line.points)
        ends = (min(90.0, math.floor(least / 10) * 10.0), 100.0)
        drawn = plot(lines, axis="clean accuracy in %", width=width, height=height, dots=True, ends=ends)
        found.append(("Robust over clean accuracy, by training eps", drawn))
    return found


def _style(number: int) -> int:
    return _STYLES[number % (STYLES + 1)]


def _place(number: int) -> Markup:
    width, height = _SIZE
    x, y = number % 2 * width, number // 2 * (height + 24) + 24
    return Markup(f' x="{x}" y="{y}" width="{width}" height="{height}"')
