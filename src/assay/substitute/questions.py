"""Questions to a target whose number is limited: decisions, counted, and never more than were allowed."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from assay.attacks.base import evaluating
from assay.errors import ModelError, QueriesSpent
from assay.models.target import Target, decisions

_TOGETHER = 256  # inputs in one call


@final
class Questions:
    """Asks a target for its decisions.

    Args:
        target: a module or callable that returns labels or scores.
        most: inputs that it may be asked about.
        place: where it takes its inputs.
        dtype: their type; as they are when None.
    """

    def __init__(self, target: Any, most: int, place: torch.device, dtype: torch.dtype | None) -> None:
        self._target, self._place, self._dtype = target, place, dtype
        self._most, self.asked, self._open = most, 0, True

    @property
    def left(self) -> int:
        """How many more it may be asked about."""
        return self._most - self.asked

    def allow(self, more: int) -> None:
        """Raise the limit, unless the target has set one itself."""
        self._most += more if self._open else 0

    def answer(self, x: Tensor) -> Tensor:
        """The decisions on the first of these inputs, as many as are still allowed; `(n,)` int64, n <= len(x).

        Raises:
            ModelError: the target answers with something else than labels or scores.
        """
        found = []
        with evaluating(self._target), torch.no_grad():
            for part in torch.split(x[: self.left], _TOGETHER):
                if len(part) == 0:
                    break  # a split of nothing is one part of nothing, and some targets refuse it
                try:
                    labels = self._labels(part.to(self._place, self._dtype or part.dtype))
                except QueriesSpent:
                    self._most, self._open = self.asked, False  # the target has a limit of its own
                    break
                self.asked += len(part)
                found.append(labels.to(x.device))
        return torch.cat(found) if found else torch.empty(0, dtype=torch.int64, device=x.device)

    def _labels(self, x: Tensor) -> Tensor:
        if isinstance(self._target, Target):
            return self._target.labels(x)
        output = self._target(x)
        if not isinstance(output, Tensor) or output.ndim != (2 if output.is_floating_point() else 1):
            raise ModelError(
                f"the target answers with {type(output).__name__}; a substitute learns from labels (b,) of whole "
                "numbers or from scores (b, classes)."
            )
        return decisions(output)
