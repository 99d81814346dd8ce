"""The least largest change: a cap on every pixel's change that is lowered after each success."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from assay.attacks.carlini_wagner.descent import Descent, Plan
from assay.goals import Goal
from assay.oracle import Oracle
from assay.threats.additive import column, widened

_LOWERED = 0.9  # the next cap, as a share of the one that was kept
_WITHIN = 0.99  # of a budget: the first cap where there is one
_FINEST = 1 / 256  # of the range: no cap below
_SOLVED = 1e-4  # share of c that the loss of a success may have left


@final
class CappedDescent(Descent):
    """`sum_i max(0, |u_i| - tau) + c f`, with a tau of each sample's own that falls until no c up to `max_c` wins."""

    def __init__(self, oracle: Oracle, x: Tensor, goal: Goal, plan: Plan) -> None:
        super().__init__(oracle, x, goal, plan)
        self.tau = torch.ones_like(self.c)
        if oracle.threat.eps is not None:
            self.tau = (_WITHIN * widened(oracle.threat.budget(x)) / self.width).clamp_max(1)

    @property
    def state(self) -> list[str]:
        """With the caps."""
        return [*super().state, "tau"]

    def size(self, u: Tensor) -> Tensor:
        """The largest change."""
        return u.flatten(1).abs().amax(dim=1)

    def penalty(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """What exceeds the cap."""
        over = u.abs() - column(self.tau, u)
        return over.clamp_min(0).flatten(1).sum(dim=1), torch.where(over > 0, u.sign(), 0)

    def follow(self, u: Tensor, grad: Tensor, loss: Tensor, won: Tensor, ended: Tensor) -> None:
        """A lower cap from where a sample has won; a larger constant where it has not."""
        kept = won & (loss < _SOLVED * self.c)
        if bool(kept.any()):
            self.tau = torch.where(kept, _LOWERED * torch.minimum(self.tau, self.least), self.tau)
            self.done |= kept & (self.tau < _FINEST)
            self.restart(kept, self.asked)
        self.double(ended & ~kept)
