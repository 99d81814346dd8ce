"""The last touch of a sparse attack: are fewer units enough than its best move changes?

The margin is linear to first order, and on an affine margin the fewest units that are enough are those that gain most
at the best end of the box. A search by gradients alone may miss them, as it never tells units apart that have equal
effects. `try_fewer` bisects their number once, below the smallest move that the referee knows; `with_fewer` begins at
any move that wins, inside the budget or not, and linearises anew wherever it gets.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from assay.goals import Goal
from assay.losses import ClassGoal, margin
from assay.oracle import Oracle
from assay.threats import L0
from assay.threats.additive import column, widened

_TRIED = 8  # sizes tried between what the linear model asks for and what is known


def try_fewer(oracle: Oracle, threat: L0) -> None:
    """Have moves of fewer units tried beside the best ones, and the number of units bisected.

    With the gradient g of the margin at the best move, the effect of a unit is what `g^T theta` holds of it when its
    features stand at their best ends of the box. Of each number m three moves are tried: the m most effective changed
    units at these ends, the same units as they are, and the m most effective of all units at their ends.

    It costs a gradient, and three forward passes for each bisection.

    Args:
        oracle: tracks the best moves, which are perturbations; the successes of this search go there.
        threat: the threat of the oracle's rows.
    """
    rows = oracle.best_distance.isfinite() & (oracle.best_distance > 1)
    if not bool(rows.any()):
        return
    part = oracle.at(rows)
    x, move = part.x, part.best_x - part.x
    _, slope, _ = part.gradient(move, margin)
    end = _best_end(slope, x, threat)
    effect = threat.per_unit((slope * end).float())
    changed = threat.per_unit((move != 0).float()) > 0
    of_changed, of_all = _ranks(effect.masked_fill(~changed, -torch.inf)), _ranks(effect)
    enough = part.best_distance.float()
    few = torch.zeros_like(enough)
    while bool(((enough - few > 1) & part.active).any()):
        count = ((enough + few) / 2).floor()
        kept, best = of_changed < column(count, effect), of_all < column(count, effect)
        part.scores(torch.stack([end * kept, move * kept, end * best], dim=1), rows=enough - few > 1)
        enough = part.best_distance.float()
        few = torch.where(enough > count, torch.maximum(few, count), few)


def with_fewer(
    oracle: Oracle, x: Tensor, goal: Goal, theta: Tensor, confidence: float, rounds: int, threat: L0
) -> Tensor:
    """Make moves that win sparser.

    Moves at the best end of the box with as many units as the linear model asks for, up to one less than are known to
    be enough, are tried at once, and the same among the units of the move, at this end and as they are; until none of
    them wins.

    Args:
        oracle: answers questions about moves.
        x: clean inputs.
        goal: what makes a move win.
        theta: the moves, `(b, *shape)`.
        confidence: the margin that a success needs.
        rounds: gradient evaluations, at most.
        threat: the threat of the oracle's rows.
    """
    many = 3 * _TRIED
    each = torch.arange(len(x), device=x.device)
    live = torch.ones_like(each, dtype=torch.bool)
    for _ in range(rounds):
        live = live & oracle.active
        if not bool(live.any()):
            break
        known = changed_units(theta, threat)
        value, grad, _ = oracle.gradient(theta, margin, rows=live)
        slope = widened(grad)
        best = _best_end(grad, x, threat)
        gain = threat.per_unit(slope * best)
        changed = threat.per_unit(theta.abs()) > 0
        among, as_is = gain * changed, threat.per_unit(slope * theta).masked_fill(~changed, -torch.inf)
        gap = confidence - value + (slope * theta).flatten(1).sum(dim=1)
        reach = gain.flatten(1).sort(dim=1, descending=True).values.cumsum(dim=1)
        least = (reach < gap[:, None]).sum(dim=1) + 1
        share = torch.linspace(0, 1, _TRIED, device=x.device)
        sizes = (least[:, None] + (known - 1 - least)[:, None] * share).round()
        sizes = torch.minimum(sizes.clamp_min(1), known[:, None] - 1)
        sizes = sizes.reshape(*sizes.shape, *[1] * (x.ndim - 1))
        kinds = (best, gain), (best, among), (theta, as_is)
        tried = torch.cat([move[:, None] * (_ranks(effect)[:, None] < sizes) for move, effect in kinds], dim=1)
        output = oracle.scores(tried, rows=live).flatten(0, 1)
        asked = goal.at(each.repeat_interleave(many))
        won = asked.reached(output) & (margin(output, cast(ClassGoal, asked)) >= confidence)
        count = changed_units(tried.flatten(0, 1), threat).masked_fill(~won, math.inf).reshape(-1, many)
        fewest, place = count.min(dim=1)
        live = live & (fewest < known)
        theta = torch.where(column(live, theta), tried[each, place], theta)
    return theta


def changed_units(theta: Tensor, threat: L0) -> Tensor:
    """The number of changed units, `(n,)` float32."""
    return (threat.per_unit(theta.abs()) > 0).flatten(1).sum(dim=1).float()


def _best_end(slope: Tensor, x: Tensor, threat: L0) -> Tensor:
    """The moves to the end of the box at which each feature gains most; none where it gains nothing."""
    low, high = threat.bounds
    return torch.where(slope > 0, high - x, torch.where(slope < 0, low - x, 0))


def _ranks(effect: Tensor) -> Tensor:
    """The place of each unit among those of its sample, the most effective first."""
    order = effect.flatten(1).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1).reshape(effect.shape)
