"""The fewest changed units: the Euclidean attack on ever fewer of them."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from assay.attacks.carlini_wagner.descent import Descent, Plan
from assay.attacks.fewer_units import changed_units
from assay.goals import Goal
from assay.oracle import Oracle
from assay.threats import L0
from assay.threats.additive import column

_ROOTS = 0.3  # units frozen after a success, in square roots of those changed
_MATTERS = 0.01  # freezing ends after a unit whose change matters more than this
_CHANGED = 1e-4  # of the range: a smaller change does not count


@final
class SparseDescent(Descent):
    """`||u||_2^2 + c f` over the units that are still free; after each success those that matter least are frozen."""

    slack = 0.01

    def __init__(self, oracle: Oracle, x: Tensor, goal: Goal, plan: Plan, threat: L0) -> None:
        super().__init__(oracle, x, goal, plan)
        self.threat = threat
        self.free = torch.ones_like(threat.per_unit(x), dtype=torch.bool)

    @property
    def state(self) -> list[str]:
        """With the units that are free."""
        return [*super().state, "free"]

    def allowed(self, value: Tensor) -> Tensor:
        """Nothing for frozen units."""
        return value * self.free

    def size(self, u: Tensor) -> Tensor:
        """The number of changed units."""
        return changed_units(u, self.threat).to(u)

    def penalty(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The squared length."""
        return u.flatten(1).square().sum(dim=1), 2 * u

    def follow(self, u: Tensor, grad: Tensor, loss: Tensor, won: Tensor, ended: Tensor) -> None:
        """Fewer units from where a sample has won; a larger constant where it has not."""
        if bool(won.any()):
            self._freeze(u, grad, won)
            self.done |= won & ~self.free.flatten(1).any(dim=1)
            self.restart(won, self.asked)
        self.double(ended & ~won)

    def _freeze(self, u: Tensor, grad: Tensor, rows: Tensor) -> None:
        """Freeze what did not move, and the units with the least `|u_i| |g_i|` of the rest."""
        size = self.threat.per_unit(u.abs()).flatten(1)
        worth = size * self.threat.per_unit((grad * self.width).abs()).flatten(1) * self.scale[:, None]
        moved = self.free.flatten(1) & (size > 0)
        most = _ROOTS * (size >= _CHANGED).sum(dim=1, keepdim=True).sqrt()
        ranked, order = worth.masked_fill(~moved, torch.inf).sort(dim=1, stable=True)
        before = torch.arange(ranked.shape[1], device=u.device)
        mattered = torch.nn.functional.pad(ranked[:, :-1] > _MATTERS, (1, 0))
        frozen = (before < most) & ~mattered | (before == 0)
        kept = moved & ~torch.zeros_like(moved).scatter(1, order, frozen)
        self.free = torch.where(column(rows, self.free), kept.reshape(self.free.shape), self.free)
