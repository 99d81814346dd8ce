"""The smallest Euclidean move: a binary search over the constant."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from assay.attacks.carlini_wagner.descent import Descent, Plan
from assay.goals import Goal
from assay.oracle import Oracle

_GROWTH = 10
_LAST_AT_UPPER = 10  # from so many searches on, the last one repeats the smallest constant that has won


@final
class EuclideanDescent(Descent):
    """`||u||_2^2 + c f`, from the clean input for each of `searches` constants, which are bisected per sample."""

    def __init__(self, oracle: Oracle, x: Tensor, goal: Goal, plan: Plan, searches: int) -> None:
        super().__init__(oracle, x, goal, plan)
        self.searches = searches
        self.count = torch.zeros_like(self.c)
        self.lower, self.upper = torch.zeros_like(self.c), torch.full_like(self.c, torch.inf)  # none has won
        self.has_won = torch.zeros_like(self.done)  # with this constant

    @property
    def state(self) -> list[str]:
        """With the bracket of the constant."""
        return [*super().state, "count", "lower", "upper", "has_won"]

    def size(self, u: Tensor) -> Tensor:
        """The squared length."""
        return u.flatten(1).square().sum(dim=1)

    def penalty(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The squared length."""
        return self.size(u), 2 * u

    def follow(self, u: Tensor, grad: Tensor, loss: Tensor, won: Tensor, ended: Tensor) -> None:
        """Another constant where one is through: smaller after a success, larger after none."""
        self.has_won |= won
        if not bool(ended.any()):
            return
        found = self.has_won
        self.upper = torch.where(ended & found, torch.minimum(self.upper, self.c), self.upper)
        self.lower = torch.where(ended & ~found, torch.maximum(self.lower, self.c), self.lower)
        larger = (self.c * _GROWTH).minimum(self.most)
        new = torch.where(self.upper.isfinite(), (self.lower + self.upper) / 2, larger)
        self.count += ended
        if self.searches >= _LAST_AT_UPPER:
            new = torch.where(self.count == self.searches - 1, self.upper.minimum(self.most), new)
        self.c = torch.where(ended, new, self.c)
        self.done |= (self.count >= self.searches) | (ended & (self.lower >= self.most))
        self.has_won = found & ~ended
        self.restart(ended, self.w_0)
