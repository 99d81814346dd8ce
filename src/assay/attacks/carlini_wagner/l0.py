"""The fewest changed units: the Euclidean attack on ever fewer of them."""

from __future__ import annotations

import math
from typing import cast, final

import torch
from torch import Tensor

from assay import losses
from assay.attacks.carlini_wagner.descent import Descent, Plan, column, widened
from assay.goals import Goal
from assay.oracle import Oracle

_GROWTH = 2
_ROOTS = 0.3  # units frozen after a success, in square roots of those changed
_MATTERS = 0.01  # freezing ends after a unit whose change matters more than this
_CHANGED = 1e-4  # of the range: a smaller change does not count
_TRIED = 8  # sizes tried between what the linear model asks for and what is known


def per_unit(value: Tensor, pixels: bool) -> Tensor:
    """Values summed over the channels of each pixel, where pixels count; `(b, 1, ...)` or as it was."""
    return value.sum(dim=1, keepdim=True) if pixels else value


@final
class SparseDescent(Descent):
    """`||u||_2^2 + c f` over the units that are still free; after each success those that matter least are frozen."""

    slack = 0.01

    def __init__(self, oracle: Oracle, x: Tensor, goal: Goal, plan: Plan, *, pixels: bool) -> None:
        super().__init__(oracle, x, goal, plan)
        self.pixels = pixels
        self.free = torch.ones_like(per_unit(x, pixels), dtype=torch.bool)

    @property
    def state(self) -> list[str]:
        """With the units that are free."""
        return [*super().state, "free"]

    def allowed(self, value: Tensor) -> Tensor:
        """Nothing for frozen units."""
        return value * self.free

    def size(self, u: Tensor) -> Tensor:
        """The number of changed units."""
        return _count(u, self.pixels).to(u)

    def penalty(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The squared length."""
        return u.flatten(1).square().sum(dim=1), 2 * u

    def follow(self, u: Tensor, grad: Tensor, loss: Tensor, won: Tensor, ended: Tensor) -> None:
        """Fewer units from where a sample has won; a larger constant where it has not."""
        if bool(won.any()):
            self._freeze(u, grad, won)
            self.done |= won & ~self.free.flatten(1).any(dim=1)
            self.restart(won, self.asked)
        lost = ended & ~won
        if bool(lost.any()):
            self.c = torch.where(lost, _GROWTH * self.c, self.c)
            self.done |= lost & (self.c >= self.plan.max_c)
            self.again(lost)

    def _freeze(self, u: Tensor, grad: Tensor, rows: Tensor) -> None:
        """Freeze what did not move, and the units with the least `|u_i| |g_i|` of the rest."""
        size = per_unit(u.abs(), self.pixels).flatten(1)
        worth = size * per_unit((grad * self.width).abs(), self.pixels).flatten(1)
        moved = self.free.flatten(1) & (size > 0)
        most = _ROOTS * (size >= _CHANGED).sum(dim=1, keepdim=True).sqrt()
        ranked, order = worth.masked_fill(~moved, torch.inf).sort(dim=1, stable=True)
        before = torch.arange(ranked.shape[1], device=u.device)
        mattered = torch.nn.functional.pad(ranked[:, :-1] > _MATTERS, (1, 0))
        frozen = (before < most) & ~mattered | (before == 0)
        kept = moved & ~torch.zeros_like(moved).scatter(1, order, frozen)
        self.free = torch.where(column(rows, self.free), kept.reshape(self.free.shape), self.free)


def fewer(
    oracle: Oracle, x: Tensor, goal: Goal, theta: Tensor, confidence: float, rounds: int, *, pixels: bool
) -> Tensor:
    """Make moves that win sparser.

    At such a move the margin is linear to first order: there the fewest units are those that gain most at the best end
    of the box. Such moves with as many units as the linear model asks for, up to one less than are known to be enough,
    are tried at once, and the same among the units of the move; until none of them wins.

    Args:
        oracle: answers questions about moves.
        x: clean inputs.
        goal: what makes a move win.
        theta: the moves, `(b, *shape)`.
        confidence: the margin that a success needs.
        rounds: gradient evaluations, at most.
        pixels: whether units are pixels.
    """
    low, high = oracle.threat.bounds
    many = 2 * _TRIED
    each = torch.arange(len(x), device=x.device)
    live = torch.ones_like(each, dtype=torch.bool)
    for _ in range(rounds):
        live = live & oracle.active
        if not bool(live.any()):
            break
        known = _count(theta, pixels)
        margin, grad, _ = oracle.gradient(theta, losses.margin, rows=live)
        slope = widened(grad)
        best = torch.where(grad > 0, high - x, torch.where(grad < 0, low - x, 0))
        gain = per_unit(slope * best, pixels)
        among = gain * (per_unit(theta.abs(), pixels) > 0)
        gap = confidence - margin + (slope * theta).flatten(1).sum(dim=1)
        reach = gain.flatten(1).sort(dim=1, descending=True).values.cumsum(dim=1)
        least = (reach < gap[:, None]).sum(dim=1) + 1
        share = torch.linspace(0, 1, _TRIED, device=x.device)
        sizes = (least[:, None] + (known - 1 - least)[:, None] * share).round()
        sizes = torch.minimum(sizes.clamp_min(1), known[:, None] - 1)
        sizes = sizes.reshape(*sizes.shape, *[1] * (x.ndim - 1))
        tried = best[:, None] * torch.cat([_rank(value)[:, None] < sizes for value in (gain, among)], dim=1)
        output = oracle.scores(tried, rows=live).flatten(0, 1)
        asked = goal.at(each.repeat_interleave(many))
        won = asked.reached(output) & (losses.margin(output, cast(losses.ClassGoal, asked)) >= confidence)
        count = _count(tried.flatten(0, 1), pixels).masked_fill(~won, math.inf).reshape(-1, many)
        fewest, place = count.min(dim=1)
        live = live & (fewest < known)
        theta = torch.where(column(live, theta), tried[each, place], theta)
    return theta


def _count(theta: Tensor, pixels: bool) -> Tensor:
    """The number of changed units, `(n,)` float32."""
    return (per_unit(theta.abs(), pixels) > 0).flatten(1).sum(dim=1).float()


def _rank(value: Tensor) -> Tensor:
    """The place of each value in its row, 0 for the largest."""
    order = value.flatten(1).argsort(dim=1, descending=True, stable=True)
    place = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, place).reshape(value.shape)
