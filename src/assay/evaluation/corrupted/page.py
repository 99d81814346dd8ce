"""The page of a run over corruptions, and the sheet of all corruptions by severity that stands in it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from assay import __version__
from assay.corruptions import Corruption
from assay.drawing.sheet import laid_out
from assay.drawing.tiles import Tile, fitted
from assay.evaluation.corrupted.results import KIND, means, other_images
from assay.evaluation.corrupted.source import Cell, Source
from assay.evaluation.record import Record
from assay.evaluation.report.environment import fill
from assay.files import write_atomically

FILE, SHEET = "report.html", "corruptions.png"
_SIDE = 112  # pixels of a picture


def draw(source: Source, kinds: Sequence[type[Corruption]], severities: Sequence[int], path: Path) -> Path:
    """Write the picture sheet: the first image under each corruption, a row each, by severity.

    Args:
        source: where images come from.
        kinds: the corruptions.
        severities: the columns.
        path: the folder.

    Raises:
        StoreError: it cannot be written.
    """

    def tile(cell: Cell, words: str) -> Tile:
        head = "clean" if cell is None else f"severity {cell[1]}"
        x, _, _ = source.batch(cell, 0, 1, torch.device("cpu"))
        return Tile(head=head, image=fitted(x[0], _SIDE), words=words)

    rows = []
    for kind in kinds:
        cells: list[Cell] = [(kind, severity) for severity in severities]
        if source.has_clean:
            cells.insert(0, None)
        name = kind.slug.replace("_", " ")
        rows.append([tile(cell, "" if place else name) for place, cell in enumerate(cells)])
    content = io.BytesIO()
    laid_out(rows, accent=False).save(content, "PNG")
    write_atomically(path / SHEET, content.getvalue())
    return path / SHEET


def render(run: str | Path) -> Path:
    """Write `report.html` into the folder of a run: one page that needs no network and no other file.

    Args:
        run: the folder.

    Raises:
        StoreError: it holds no run over corruptions, or cannot be written.
    """
    record = Record.open(Path(run), KIND)
    settings, found = record.run["settings"], record.run["results"]
    sheet = record.path / SHEET
    picture = base64.b64encode(sheet.read_bytes()).decode("ascii") if found and sheet.exists() else ""
    page = fill(
        "corrupted.html.j2",
        "assay.evaluation.corrupted",
        run=record.run,
        settings=settings,
        results=found,
        compared=None if found is None else found.get("against"),
        means=_means(found),
        caution=_caution(found),
        picture=picture,
        version=__version__,
    )
    path = record.path / FILE
    write_atomically(path, page.encode("utf-8"))
    return path


def _caution(found: dict[str, Any] | None) -> str | None:
    """What a baseline on other images means for the errors; None without one."""
    compared = found and found.get("against")
    return other_images(compared) if compared and compared["other_images"] is not None else None


def _means(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Corruption errors in words; none without a baseline."""
    compared = found and found.get("against")
    if not compared:
        return []
    named = [(f"{name[0].upper()}{name[1:]}" if " " in name else name, mean) for name, mean in means(compared)]
    return [(name, f"{100 * mean:.1f}") for name, mean in named if mean is not None]
