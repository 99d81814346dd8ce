"""The moves that an attack returns in training, where the oracle keeps moved inputs and no moves."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from assay.oracle import Oracle


@final
class Kept:
    """The smallest moves that reach the goal, else the last that were looked at.

    The attack has called `oracle.track()` before its first question.

    Args:
        theta: the moves that change nothing, `(b, *m)`.
    """

    def __init__(self, theta: Tensor) -> None:
        self.theta = theta
        self.size = torch.full((len(theta),), torch.inf, device=theta.device)
        self.rows = torch.arange(len(theta), device=theta.device)

    def at(self, rows: Tensor) -> None:
        """The samples that `note` is told about from now on."""
        self.rows = rows

    def note(self, oracle: Oracle, theta: Tensor) -> None:
        """Look at the moves that were judged last."""
        known = oracle.best_distance.to(self.size)
        keep = (known < self.size[self.rows]) | known.isinf()
        self.theta[self.rows[keep]] = theta[keep]
        self.size[self.rows] = known
