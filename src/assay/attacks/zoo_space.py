"""What ZOO optimises over: small pictures of changes, enlarged to the input, in its own values or before a tanh."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

_INSIDE = 0.99  # where the bounds lie in the range of tanh: values at them can still be moved
_REGIONS = 8  # along each axis, of equal probability each
_FLOOR = 0.01  # of the mean probability: what a region keeps that has not changed


@final
class Space:
    r"""Modifiers `m`, `(n, c, s, t)`, and the moves u that they stand for, in units of the width of the bounds.

    With the input at `p` in [-1/2, 1/2] and the modifier enlarged bilinearly to its size, $u = clip(p + m) - p$, or
    with tanh $u = clip(tanh(artanh(2 p a) + m) / 2 a) - p$ for a = 0.99.

    Args:
        x: clean inputs, `(b, c, h, w)`.
        bounds: of valid inputs.
        tanh: whether the change of variables is used.
        side: rows and columns of a modifier, at most; None for those of the input.
    """

    def __init__(self, x: Tensor, bounds: tuple[float, float], *, tanh: bool, side: int | None) -> None:
        c, *size = x.shape[1:]
        self._size, self._tanh = size, tanh
        self.shape = (c, *size) if side is None else (c, *(min(side, n) for n in size))
        self.place = ((x - bounds[0]) / (bounds[1] - bounds[0]) - 0.5).clamp_(-0.5, 0.5)
        self._base = (2 * _INSIDE * self.place).atanh() if tanh else self.place

    @property
    def count(self) -> int:
        """Coordinates of a modifier."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def at(self, rows: Tensor) -> Space:
        """That of a part of the batch."""
        part = object.__new__(Space)
        part._size, part._tanh, part.shape = self._size, self._tanh, self.shape
        part.place, part._base = self.place[rows], self._base[rows]
        return part

    def move(self, modifier: Tensor) -> Tensor:
        """The moves u of modifiers `(n, k, count)`, `(n, k, c, h, w)`."""
        n, k = modifier.shape[:2]
        small = modifier.reshape(n * k, *self.shape)
        if list(self.shape[1:]) != self._size:
            small = F.interpolate(small, size=self._size, mode="bilinear", align_corners=False)
        moved = self._base[:, None] + small.reshape(n, k, self.shape[0], *self._size)
        if self._tanh:
            moved = moved.tanh_().div_(2 * _INSIDE)
        return moved.clamp_(-0.5, 0.5).sub_(self.place[:, None])

    def limits(self) -> tuple[Tensor, Tensor]:
        """How far each coordinate may go, `(n, count)`; anywhere before a tanh, else as the bounds allow."""
        n = len(self.place)
        if self._tanh:
            far = self.place.new_full((n, self.count), torch.inf)
            return -far, far
        if list(self.shape[1:]) != self._size:
            far = self.place.new_ones(n, self.count)
            return -far, far
        flat = self.place.flatten(1)
        return -0.5 - flat, 0.5 - flat

    def enlarged(self, modifier: Tensor, side: int) -> tuple[Space, Tensor]:
        """The space with more rows and columns, and these modifiers `(n, count)` in it."""
        larger = object.__new__(Space)
        larger._size, larger._tanh, larger.place, larger._base = self._size, self._tanh, self.place, self._base
        larger.shape = (self.shape[0], *(min(side, n) for n in self._size))
        small = modifier.reshape(-1, *self.shape)
        grown = F.interpolate(small, size=larger.shape[1:], mode="bilinear", align_corners=False)
        return larger, grown.flatten(1)

    def importance(self, modifier: Tensor) -> Tensor:
        """The probability of each coordinate, `(n, count)`: the largest change in its region of its channel."""
        change = modifier.reshape(-1, *self.shape).abs()
        block = [max(1, n // _REGIONS) for n in self.shape[1:]]
        pooled = F.max_pool2d(change, block, ceil_mode=True)
        spread = pooled.repeat_interleave(block[0], dim=2).repeat_interleave(block[1], dim=3)
        chance = spread[:, :, : self.shape[1], : self.shape[2]].flatten(1)
        mean = chance.mean(dim=1, keepdim=True)
        chance = torch.where(mean > 0, chance + _FLOOR * mean, 1.0)
        return chance / chance.sum(dim=1, keepdim=True)
