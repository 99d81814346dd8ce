"""The picture of ``assay attack --picture``: the first samples that the attack moved."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, final

import torch

from assay.attacks import Result
from assay.drawing import picture
from assay.drawing.tiles import fitted
from assay.files import write_atomically

if TYPE_CHECKING:
    from assay.cli.search import Columns
    from assay.data import Data
    from assay.threats import Threat

_MOST = 4
_SHOWN = ("x", "x_adv", "success", "distance", "prediction", "forwards", "backwards", "theta", "before")


@final
class Picture:
    """Collects samples while an attack goes on.

    Args:
        path: the PNG file.
        threat: that of the attack.
        data: the samples.

    Raises:
        InputError: the inputs can not be drawn.
    """

    def __init__(self, path: Path, threat: Threat, data: Data) -> None:
        self._path, self._threat, self._classes = path, threat, data.classes
        self._kept: list[Columns] = []
        fitted(data.batch(0, 1)[0][0])

    def take(self, columns: Columns) -> None:
        """Keep what is shown of a chunk, and take its moves out of it."""
        moved = (columns["success"] & columns["begun"]).nonzero().flatten()
        moved = moved[: _MOST - sum(len(kept["x"]) for kept in self._kept)]
        self._kept.append({name: columns[name][moved] for name in _SHOWN})
        del columns["theta"]

    @property
    def moved(self) -> bool:
        """Whether there is something to show."""
        return any(len(kept["x"]) for kept in self._kept)

    def write(self) -> None:
        """Write the file.

        Raises:
            InputError: nothing was moved.
            StoreError: it cannot be written.
        """
        shown = {name: torch.cat([kept[name] for kept in self._kept]) for name in _SHOWN}
        before = shown.pop("before")
        x = shown.pop("x").to(shown["x_adv"].dtype)
        drawn = picture(self._threat, x, Result(**shown), before=before, classes=self._classes, most=_MOST)
        buffer = io.BytesIO()
        drawn.save(buffer, format="PNG", optimize=True)
        write_atomically(self._path, buffer.getvalue())
