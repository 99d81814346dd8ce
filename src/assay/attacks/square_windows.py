"""Windows of the Square attack: how a norm's perturbation starts and how one window of it is changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from assay.rng import Keyed

_L1_REACH = 3.0  # times eps before projection: what the bounds refuse is then used elsewhere


class Windows(ABC):
    """How a norm's perturbation starts and how one window of it is changed, on `(b, c, h, w)` tensors."""

    @abstractmethod
    def start(self, eps: Tensor, x: Tensor, rng: Keyed) -> Tensor:
        """The first perturbation, before projection."""

    @abstractmethod
    def draws(self, channels: int) -> int:
        """Uniform numbers that one move needs."""

    @abstractmethod
    def move(self, best: Tensor, eps: Tensor, draws: Tensor, share: float) -> Tensor:
        """The best perturbation with one window changed, before projection."""


@final
class Stripes(Windows):
    """Vertical stripes, then squares of one value of +-eps per channel."""

    def start(self, eps: Tensor, x: Tensor, rng: Keyed) -> Tensor:
        """One sign for each channel and column."""
        _, c, h, w = x.shape
        return (eps * _signs(rng.uniform(c, 1, w), x)).expand(-1, -1, h, -1)

    def draws(self, channels: int) -> int:
        """A place, and a sign for each channel."""
        return 2 + channels

    def move(self, best: Tensor, eps: Tensor, draws: Tensor, share: float) -> Tensor:
        """A square takes one value per channel."""
        h, w = best.shape[2:]
        _, _, inside = _place(draws[:, 0], draws[:, 1], _sides(share, h, w, least=1), h, w)
        return torch.where(inside, eps * _signs(draws[:, 2:, None, None], best), best)


@final
class Bumps(Windows):
    """A tiling of bumps, then bumps that take over the mass of a second window and the unused budget.

    Args:
        order: 2 where masses are squared lengths, 1 where they are sums of sizes.
    """

    def __init__(self, order: int) -> None:
        self._order = order
        self._reach = _L1_REACH if order == 1 else 1.0

    def start(self, eps: Tensor, x: Tensor, rng: Keyed) -> Tensor:
        """A tiling of bumps, upright or lying, of random signs."""
        _, c, h, w = x.shape
        side = max(1, min(h, w) // 5)
        down, across = h // side, w // side
        bump = _bump(side, side, x, self._order)
        draws = rng.uniform(c + 1, down, across)
        upright = _tile(draws[:, :1], side) < 0.5
        bumps = torch.where(upright, bump.repeat(down, across), bump.T.repeat(down, across))
        field = bumps * _signs(_tile(draws[:, 1:], side), x)
        delta = torch.zeros_like(x)
        delta[:, :, : down * side, : across * side] = field
        return delta * (self._reach * eps / _norm(delta, (1, 2, 3), self._order))

    def draws(self, channels: int) -> int:
        """Two places, a turn, and a sign for each channel."""
        return 5 + channels

    def move(self, best: Tensor, eps: Tensor, draws: Tensor, share: float) -> Tensor:
        """A bump takes over what a second window held."""
        p, (c, h, w) = self._order, best.shape[1:]
        sides = _sides(share, h, w, least=3)
        row, column, first = _place(draws[:, 0], draws[:, 1], sides, h, w)
        _, _, second = _place(draws[:, 2], draws[:, 3], sides, h, w)
        bump = _bump(*sides, best, p)
        if sides[0] == sides[1]:
            bump = torch.where(draws[:, 4, None, None] < 0.5, bump, bump.T)
        placed = bump.expand(len(best), *sides)[
            torch.arange(len(best), device=best.device)[:, None, None],
            row.clamp(0, sides[0] - 1)[:, :, None],
            column.clamp(0, sides[1] - 1)[:, None, :],
        ][:, None]
        old = best * first
        fresh = (placed * _signs(draws[:, 5:, None, None], best) + old / _norm(old, (2, 3), p)) * first
        mass = best.abs().pow(p)
        unused = (eps.pow(p) - mass.sum(dim=(1, 2, 3), keepdim=True)).clamp_min(0) / c
        taken = (mass * (first | second)).sum(dim=(2, 3), keepdim=True)
        fresh = fresh / _norm(fresh, (2, 3), p) * (unused + taken).pow(1 / p)
        delta = torch.where(first, fresh, best.masked_fill(second, 0))
        return delta * (self._reach * eps / _norm(delta, (1, 2, 3), p))


def _sides(share: float, h: int, w: int, *, least: int) -> tuple[int, int]:
    """Height and width of a window with about this share of the pixels, a square where the image allows it."""
    area = share * h * w
    side = max(least, round(area**0.5))
    high = min(side, h)
    wide = min(max(least, round(area / high)) if high < side else side, w)
    if wide == w and wide < side:
        high = min(max(high, round(area / wide)), h)
    return high, wide


def _place(u: Tensor, v: Tensor, sides: tuple[int, int], h: int, w: int) -> tuple[Tensor, Tensor, Tensor]:
    """A window at a random place of each sample: every pixel's row and column in it, and whether it is inside."""
    top = (u * (h - sides[0] + 1)).floor()[:, None]
    left = (v * (w - sides[1] + 1)).floor()[:, None]
    row = (torch.arange(h, device=u.device) - top).long()
    column = (torch.arange(w, device=u.device) - left).long()
    in_rows, in_columns = (row >= 0) & (row < sides[0]), (column >= 0) & (column < sides[1])
    return row, column, (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def _signs(u: Tensor, like: Tensor) -> Tensor:
    return torch.where(u < 0.5, -1.0, 1.0).to(like)


def _tile(v: Tensor, side: int) -> Tensor:
    """Each value of `(b, n, rows, columns)` as a square of side x side pixels."""
    tiled: Tensor = v.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)
    return tiled


def _norm(delta: Tensor, dims: tuple[int, ...], order: int) -> Tensor:
    """The norm over some dimensions, never zero."""
    least = max(1e-12, torch.finfo(delta.dtype).tiny)
    return delta.abs().pow(order).sum(dim=dims, keepdim=True).pow(1 / order).clamp_min(least)


def _bump(high: int, wide: int, like: Tensor, order: int) -> Tensor:
    """The paper's window: two opposite pyramids, one above the other, of unit norm; `(high, wide)`."""
    upper = high // 2
    return _unit(torch.cat([_pyramid(upper, wide, like, order), -_pyramid(high - upper, wide, like, order)]), order)


def _pyramid(high: int, wide: int, like: Tensor, order: int) -> Tensor:
    """At Chebyshev distance m from the centre the value is the sum of 1 / (j + 1)^2 over j from m to the border."""
    row = (torch.arange(high, device=like.device) - high // 2).abs()
    column = (torch.arange(wide, device=like.device) - wide // 2).abs()
    rings = 1 / torch.arange(1, max(high // 2, wide // 2) + 2, device=like.device, dtype=like.dtype).square()
    outward = rings.flip(0).cumsum(0).flip(0)
    return _unit(outward[torch.maximum(row[:, None], column[None, :])], order)


def _unit(window: Tensor, order: int) -> Tensor:
    return window / _norm(window, (0, 1), order)
