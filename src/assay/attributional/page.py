"""The page of a run: the table, and images with their maps before and after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from assay import __version__, grammar
from assay.attributional.comparison import METRICS
from assay.attributional.summary import WEAK, weak
from assay.drawing.heat import heat_map
from assay.drawing.tiles import shares
from assay.evaluation.record import Record, RunKind
from assay.evaluation.report.environment import fill
from assay.evaluation.report.gallery import LARGEST_SIDE, address, png
from assay.files import write_atomically

FILE = "report.html"
KIND = RunKind("attributions", 1, "assay attribute")
MOST = 12  # images in the gallery
_SMALL = 96


@final
@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture of a row."""

    caption: str
    address: str
    small: bool


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """One image: what it is called, and its pictures."""

    number: int
    label: str
    top_k: float
    panels: tuple[Panel, ...]


def render(run: str | Path) -> Path:
    """Write `report.html` of a run, as far as it got.

    Args:
        run: the folder of the run.

    Raises:
        StoreError: it holds no run of this kind, or cannot be written.
    """
    record = Record.open(Path(run), KIND)
    settings, results = record.run["settings"], record.run["results"]
    parts = record.parts
    page = fill(
        "attributional.html.j2",
        "assay.attributional",
        run=record.run,
        settings=settings,
        results=results,
        metrics=METRICS,
        rows=rows(parts, settings),
        weak=WEAK if results and weak(results) else None,
        version=__version__,
    )
    path = record.path / FILE
    write_atomically(path, page.encode("utf-8"))
    return path


def rows(parts: list[dict[str, Tensor]], settings: dict[str, Any]) -> list[Row]:
    """The images that the parts kept; none where they cannot be drawn."""
    bounds = grammar.threat(settings["threat"]).bounds
    found: list[Row] = []
    for part in parts:
        for i in range(len(part.get("example_x", ()))):
            x, adv = (shares(part[f"example_{name}"][i], bounds) for name in ("x", "adv"))
            if len(found) == MOST or x.ndim != 3 or x.shape[0] not in (1, 3):
                return found
            label = int(part["label"][i])
            classes = settings["classes"]
            found.append(
                Row(
                    number=int(part["index"][i]),
                    label=classes[label] if label < len(classes) else f"class {label}",
                    top_k=float(part["found_top_k"][i]),
                    panels=(
                        _image("image", x),
                        _map("its map", part["example_before"][i]),
                        _image("moved image", adv),
                        _map("its map", part["example_after"][i]),
                        _map("map of a random move", part["example_random"][i]),
                    ),
                )
            )
    return found


def _image(caption: str, share: Tensor) -> Panel:
    return Panel(caption=caption, address=png(share.numpy()), small=max(share.shape[-2:]) <= _SMALL)


def _map(caption: str, values: Tensor) -> Panel:
    drawn = heat_map(torch.as_tensor(values))
    if max(drawn.size) > LARGEST_SIDE:
        drawn.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return Panel(caption=caption, address=address(drawn), small=max(values.shape) <= _SMALL)
