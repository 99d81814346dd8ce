"""Convex combinations of samples: how they are drawn, and taken."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from assay.rng import Keyed
from assay.threats.additive import column


def beta(rng: Keyed, a: float) -> Tensor:
    """One draw of Beta(a, a) for each sample: `(1 + T / sqrt(2a + T^2)) / 2` with T of Student's t, 2a degrees.

    T is drawn by the polar method from two uniform numbers, `T^2 / 2a = (U^(-1/a) - 1) cos^2(2 pi V)`, which is exact
    for every a > 0 and needs no rejection.

    Args:
        rng: one stream per sample.
        a: both parameters of the distribution, positive.

    Shapes:
        Returns `(b,)` of the stream's floating type.

    References:
        Bailey, "Polar generation of random variates with the t-distribution", Mathematics of Computation 62, 1994,
        https://doi.org/10.2307/2153537
        Devroye, "Random variate generation in one line of code", Winter Simulation Conference 1996 (Beta from T).

    Example:
        >>> draws = beta(Keyed(0, torch.arange(1000)), 1.0)
        >>> bool((draws.mean() - 0.5).abs() < 0.03)
        True
    """
    unit = rng.uniform(2).double()
    cosine = torch.cos(2 * math.pi * unit[:, 1])
    square = torch.expm1(-torch.log1p(-unit[:, 0]) / a) * cosine.square()  # T^2 / 2a
    rest = 1 / (1 + square)
    least = rest / (2 * (1 + (1 - rest).sqrt()))  # the nearer end's distance: exact where it is tiny
    return torch.where(cosine < 0, least, 1 - least).to(rng.dtype)


def permutation(rng: Keyed) -> Tensor:
    """A random order of the batch, `(b,)` int64; each sample's place hangs on its own draw.

    Example:
        >>> permutation(Keyed(0, torch.arange(4))).sort().values
        tensor([0, 1, 2, 3])
    """
    word = rng.words(2)
    return ((word[:, 0] >> 1) << 32 | word[:, 1]).argsort(stable=True)


def mix(x: Tensor, other: Tensor, lam: Tensor) -> Tensor:
    """`lam x + (1 - lam) other`, with one share a sample.

    Args:
        x: what the share `lam` counts, `(b, *shape)`.
        other: what the rest counts, `(b, *shape)`.
        lam: `(b,)`.

    Example:
        >>> mix(torch.ones(2, 1), torch.zeros(2, 1), torch.tensor([1.0, 0.25]))
        tensor([[1.0000],
                [0.2500]])
    """
    share = column(lam.to(x), x)
    return share * x + (1 - share) * other
