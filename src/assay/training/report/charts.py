"""The curves of a training run: accuracy, loss, learning rate and speed over epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from assay.evaluation.report.lines import SOLID, Plot, Series, plot
from assay.training.folder import Row

CLEAN, ROBUST, OTHER = 4, SOLID, SOLID  # kinds of line


@final
@dataclass(frozen=True, kw_only=True)
class Chart:
    """A curve, drawn once or at two sizes of the page.

    Args:
        name: what it shows.
        wide: the drawing for a wide page; None for a chart that is small on every page.
        narrow: the small drawing.
        keys: kind and name of each line, where there are several.
    """

    name: str
    wide: Plot | None
    narrow: Plot
    keys: list[tuple[int, str]]


def charts(history: list[Row], kept: int | None, quality: str | None = None) -> list[Chart]:
    """The charts of a run; the first is that of what was measured, where anything was.

    Args:
        history: one row per epoch.
        kept: the epoch whose network was kept, which is marked.
        quality: what is measured of a network that is no classifier.
    """
    if not history:
        return []
    found = []
    measured = [
        Series(name=name, style=style, points=points)
        for key, name, style in (
            ("clean", "clean", CLEAN),
            ("robust", "under PGD-10", ROBUST),
            ("quality", quality or "", ROBUST),
        )
        if (points := _points(history, key))
    ]
    if measured:
        mark = None if kept is None else (float(kept), "kept")
        sizes = [
            plot(measured, axis="epoch", width=width, height=height, shares=quality is None, whole=True, mark=mark)
            for width, height in ((720, 340), (340, 270))
        ]
        keys = [(each.style, each.name) for each in measured]
        what = f"{quality or 'Accuracy'} on held-out samples"
        found.append(Chart(name=what[:1].upper() + what[1:], wide=sizes[0], narrow=sizes[1], keys=keys))
    for key, name in (("loss", "Loss"), ("lr", "Learning rate"), ("images_per_second", "Images a second")):
        series = Series(name=name, style=OTHER, points=_points(history, key))
        small = plot([series], axis="epoch", width=300, height=200, shares=False, whole=True)
        found.append(Chart(name=name, wide=None, narrow=small, keys=[]))
    return found


def _points(history: list[Row], key: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[key]) for row in history if row[key] is not None]
