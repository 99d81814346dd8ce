"""Random values for every pixel, by tables over 16 random bits: cheap, and fine enough for 8-bit images."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from assay.rng import Keyed

_BITS = 16
_COARSER = 4  # bits that Poisson tables do without: one of them is kept for every brightness


def uniform(rng: Keyed, *shape: int) -> Tensor:
    """Uniform on (0, 1), the middles of 2**16 steps, `(b, *shape)`."""
    return rng.coarse(*shape).float().add_(0.5).mul_(2.0**-_BITS)


def normal(rng: Keyed, *shape: int) -> Tensor:
    """Standard normal, rounded to 2**16 quantiles, at most 4.3 from 0, `(b, *shape)`."""
    return _looked_up(_quantiles(), rng.coarse(*shape))


def poisson(rng: Keyed, x: Tensor, photons: float) -> Tensor:
    """Counts with the mean `photons * x`, x rounded to whole 255ths, like x.

    The distribution at each of 256 brightnesses is a table of 2**12 quantiles.
    """
    level = x.mul(255).round_().to(torch.int32)
    place = level.mul_(1 << (_BITS - _COARSER)).add_(rng.coarse(*x.shape[1:]) >> _COARSER)
    return _looked_up(_counts(float(photons)), place)


def _looked_up(table: Tensor, place: Tensor) -> Tensor:
    found: Tensor = table.to(place.device).index_select(0, place.flatten())
    return found.reshape(place.shape)


def _middles(bits: int) -> Tensor:
    return (torch.arange(1 << bits, dtype=torch.float64) + 0.5) / (1 << bits)


@cache
def _quantiles() -> Tensor:
    """Quantiles of the standard normal distribution, scaled to a variance of exactly 1."""
    found: Tensor = torch.special.ndtri(_middles(_BITS))
    return (found / found.square().mean().sqrt()).float()


@cache
def _counts(photons: float) -> Tensor:
    """Quantiles of the Poisson distributions with means from 0 to `photons` in 256 steps, one after the other."""
    mean = photons * torch.arange(256, dtype=torch.float64)[:, None] / 255
    most = int(photons + 8 * math.sqrt(photons) + 16)
    count = torch.arange(most, dtype=torch.float64)
    logarithm = torch.xlogy(count, mean) - mean - torch.lgamma(count + 1)
    below = logarithm.exp().cumsum(dim=1)
    middles = _middles(_BITS - _COARSER).expand(256, -1).contiguous()
    return torch.searchsorted(below, middles).float().flatten()
