"""The page of a run: certified accuracy over the radius, as a curve and a table."""

from __future__ import annotations

from pathlib import Path

import torch

from assay import __version__
from assay.evaluation.record import Record, RunKind
from assay.evaluation.report.environment import fill
from assay.evaluation.report.lines import SOLID, Plot, Series, plot
from assay.files import write_atomically

FILE = "report.html"
KIND = RunKind("certification", 1, "assay certify")
_POINTS = 200  # of the curve, at most
_SIZE = (680, 320)


def render(run: str | Path) -> Path:
    """Write `report.html` of a run, as far as it got.

    Args:
        run: the folder of the run.

    Raises:
        StoreError: it holds no run of this kind, or cannot be written.
    """
    record = Record.open(Path(run), KIND)
    page = fill(
        "certified.html.j2",
        "assay.certification",
        run=record.run,
        settings=record.run["settings"],
        results=record.run["results"],
        chart=_chart(record),
        version=__version__,
    )
    path = record.path / FILE
    write_atomically(path, page.encode("utf-8"))
    return path


def _chart(record: Record) -> Plot | None:
    """Share of the samples that are right and certified, over the radius; None before the first part is done."""
    parts = record.parts
    if not parts:
        return None
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    right = columns["prediction"] == columns["label"]
    radius = torch.where(right, columns["radius"], -1.0)
    most = max(float(radius.max()), record.run["settings"]["sigma"])
    places = torch.linspace(0, most, _POINTS, dtype=torch.float64)
    shares = (radius[:, None] >= places).double().mean(dim=0)
    points = list(zip(places.tolist(), shares.tolist(), strict=True))
    width, height = _SIZE
    return plot([Series(name="certified", points=points, style=SOLID)], axis="L2 radius", width=width, height=height)
