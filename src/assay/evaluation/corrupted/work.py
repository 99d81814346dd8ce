"""The work of a run over corruptions: predictions on every part of every cell, each kept once it is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from assay.evaluation.chunks import confidence
from assay.evaluation.corrupted.display import Display
from assay.evaluation.corrupted.results import CLEAN_CELL
from assay.evaluation.corrupted.source import Cell, Source
from assay.evaluation.record import Record
from assay.evaluation.stages import DRAWS
from assay.goals import Untargeted
from assay.oracle import Access, Oracle, granted_access, is_stochastic
from assay.rng import derive
from assay.threats import Linf


def cell_name(cell: Cell) -> str:
    """What a cell is called in files and on the screen."""
    return CLEAN_CELL if cell is None else f"{cell[0].slug}-{cell[1]}"


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """Computes what a run has not got yet.

    Attributes:
        record: where it is kept.
        source: where images come from.
        model: the model, in the mode in which it is evaluated.
        device: where the model is.
        dtype: what images are converted to; None leaves them as they are.
    """

    record: Record
    source: Source
    model: Any
    device: torch.device
    dtype: torch.dtype | None

    def all(self, cells: list[Cell], *, show: bool) -> dict[str, int]:
        """Images of each cell that are classified rightly."""
        settings = self.record.run["settings"]
        counts = dict.fromkeys(map(cell_name, cells), 0)
        starts = range(0, settings["samples"], settings["chunk"])
        try:
            with Display(len(cells) * len(starts), show=show) as display:
                for cell, start in self._order(cells, starts):
                    stop = min(start + settings["chunk"], settings["samples"])
                    right = self._part(cell, start, stop)
                    counts[cell_name(cell)] += right
                    display.update(cell_name(cell), *((right, stop - start) if cell else ()))
        except BaseException:
            self.record.save("interrupted")
            raise
        return counts

    def _order(self, cells: list[Cell], starts: Iterable[int]) -> list[tuple[Cell, int]]:
        if self.source.by_cell:
            return [(cell, start) for cell in cells for start in starts]
        return [(cell, start) for start in starts for cell in cells]

    def _part(self, cell: Cell, start: int, stop: int) -> int:
        """Images of one part that are classified rightly."""
        found = self.record.find(start, cell_name(cell))
        if found is None:
            x, y, index = self.source.batch(cell, start, stop, self.device)
            prediction, sure = self._asked(x.to(self.device, self.dtype or x.dtype), y.to(self.device), index)
            found = {"index": index, "label": y.cpu(), "prediction": prediction.cpu(), "confidence": sure}
            self.record.write(start, found, cell_name(cell))
        return int((found["prediction"] == found["label"]).sum())

    def _asked(self, x: Tensor, y: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The model's decisions and how sure it is of them; of a model that draws random numbers, as in evaluations."""
        access, seed = granted_access(self.model), derive(self.record.run["settings"]["seed"], 0)
        draws = DRAWS if is_stochastic(self.model) else None
        oracle = Oracle(
            self.model, x, Untargeted(y), Linf(0.0), access=access, eot=draws, seed=seed, index=index.to(self.device)
        )
        with torch.no_grad():
            oracle.judge_clean()
            prediction = oracle.record.prediction
            return prediction, confidence(oracle.clean() if access > Access.LABELS else prediction)
