"""Clouds: heights of a fractal landscape by the diamond-square algorithm, for many images at once."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.corruptions.draws import uniform
from assay.rng import Keyed


def plasma(rng: Keyed, side: int, decay: float) -> Tensor:
    """Heights from 0 to 1, `(b, side, side)`, which repeat beyond the edges.

    From one point on, the middles of squares and then those of diamonds get the mean of their four corners and a
    uniform draw, whose size is divided by the square of `decay` with every halving of the distance.

    Args:
        rng: one stream for each image.
        side: a power of two.
        decay: how fast fine structure fades.

    References:
        Fournier, Fussell, Carpenter, "Computer rendering of stochastic models", Communications of the ACM 1982,
        https://doi.org/10.1145/358523.358553
    """
    drawn = uniform(rng, side, side).mul_(2).sub_(1)
    height = torch.zeros_like(drawn)
    step, size = side, 1.0
    while step >= 2:
        half = step // 2
        corner = height[:, ::step, ::step]
        pairs = corner + corner.roll(-1, 1)
        middle = height[:, half::step, half::step]
        middle.copy_(_raised(pairs + pairs.roll(-1, 2), drawn[:, half::step, half::step], size))
        sides, others = middle + middle.roll(1, 1), middle + middle.roll(1, 2)
        right = height[:, ::step, half::step]
        right.copy_(_raised(sides + corner + corner.roll(-1, 2), drawn[:, ::step, half::step], size))
        below = height[:, half::step, ::step]
        below.copy_(_raised(others + corner + corner.roll(-1, 1), drawn[:, half::step, ::step], size))
        step, size = half, size / decay**2
    low, high = torch.aminmax(height.flatten(1), dim=1)
    return (height - low[:, None, None]).div_((high - low).clamp_min(torch.finfo(high.dtype).tiny)[:, None, None])


def _raised(four: Tensor, drawn: Tensor, size: float) -> Tensor:
    """The mean of four corners, given as their sum, and a draw."""
    return four.mul_(0.25).add_(drawn, alpha=size)
