"""The last touch of a sparse attack: are fewer units enough than its best move changes?"""

from __future__ import annotations

import torch
from torch import Tensor

from assay.losses import margin
from assay.oracle import Oracle
from assay.threats import L0
from assay.threats.additive import column


def units(value: Tensor, threat: L0) -> Tensor:
    """Values of x's shape summed over each unit, in a shape to be broadcast to x's."""
    return value if threat.unit == "feature" else value.sum(dim=1, keepdim=True)


def try_fewer(oracle: Oracle, threat: L0) -> None:
    """Have moves of fewer units tried beside the best ones, and the number of units bisected.

    With the gradient g of the margin at the best move, the effect of a unit is what `g^T theta` holds of it when its
    features stand at their best ends of the box. Of each number m three moves are tried: the m most effective changed
    units at these ends, the same units as they are, and the m most effective of all units at their ends. On an affine
    margin the last is the fewest that are enough. A search by gradients alone may miss them, as it never tells units
    apart that have equal effects.

    It costs a gradient, and three forward passes for each bisection.

    Args:
        oracle: tracks the best moves, which are perturbations; the successes of this search go there.
        threat: the threat of the oracle's rows.
    """
    rows = oracle.best_distance.isfinite() & (oracle.best_distance > 1)
    if not bool(rows.any()):
        return
    part = oracle.at(rows)
    x, move, (low, high) = part.x, part.best_x - part.x, threat.bounds
    _, slope, _ = part.gradient(move, margin)
    end = torch.where(slope > 0, high - x, torch.where(slope < 0, low - x, 0))
    effect = units((slope * end).float(), threat)
    changed = units((move != 0).float(), threat) > 0
    of_changed, of_all = _ranks(effect.masked_fill(~changed, -torch.inf)), _ranks(effect)
    enough = part.best_distance.float()
    few = torch.zeros_like(enough)
    while bool(((enough - few > 1) & part.active).any()):
        count = ((enough + few) / 2).floor()
        kept, best = of_changed < column(count, effect), of_all < column(count, effect)
        part.scores(torch.stack([end * kept, move * kept, end * best], dim=1), rows=enough - few > 1)
        enough = part.best_distance.float()
        few = torch.where(enough > count, torch.maximum(few, count), few)


def _ranks(effect: Tensor) -> Tensor:
    """The place of each unit among those of its sample, the most effective first."""
    order = effect.flatten(1).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1).reshape(effect.shape)
