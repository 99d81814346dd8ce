"""Gradients estimated from scores, at pairs of points on opposite sides."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from assay.losses import Loss
from assay.oracle import Oracle
from assay.rng import Keyed
from assay.threats.additive import column, widened

_VALUES_AT_ONCE = 1 << 25  # values of candidate moves in one question
_BITS = 32  # of a random word

Draw = Callable[[Keyed, Tensor], Tensor]  # one direction for each sample, shaped like its move


def estimate(
    oracle: Oracle, theta: Tensor, rng: Keyed, draw: Draw, *, pairs: int, radius: float, loss: Loss | None
) -> tuple[Tensor, Tensor]:
    r"""The mean of `(f(theta + r u) - f(theta - r u)) / (2 r) u` over pairs, and the mean of all these f.

    Every one of the `2 pairs` points is asked about and judged. Rows that are not asked about get zeros. Directions are
    drawn and added up pair by pair, so that the result does not depend on how many are asked about at once.

    Args:
        oracle: answers.
        theta: moves, `(b, *m)`.
        rng: random numbers for the same samples.
        draw: draws one direction u for each sample.
        pairs: pairs of points.
        radius: r, in units of the move.
        loss: f; the guide's own when None.

    Returns:
        The gradient, shaped like theta, and the mean loss `(b,)`, both at least in single precision.
    """
    wide = widened(theta)
    grad, mean = torch.zeros_like(wide), wide.new_zeros(len(theta))
    together = max(1, _VALUES_AT_ONCE // (2 * max(1, theta.numel())))
    for start in range(0, pairs, together):
        if oracle.finished:
            break
        ways = [draw(rng, theta) for _ in range(min(together, pairs - start))]
        points = torch.stack([theta + side * radius * way for way in ways for side in (1, -1)], dim=1)
        found = widened(oracle.value(points, loss)).nan_to_num(0.0)
        mean += found.sum(dim=1)
        slopes = (found[:, ::2] - found[:, 1::2]) / (2 * radius)
        for way, slope in zip(ways, slopes.unbind(1), strict=True):
            grad += column(slope, wide) * way
    return grad / pairs, mean / (2 * pairs)


def gaussian(rng: Keyed, theta: Tensor) -> Tensor:
    """Standard normal directions."""
    return rng.normal(*theta.shape[1:]).to(theta)


def rademacher(rng: Keyed, theta: Tensor) -> Tensor:
    """Directions of independent signs, 32 from each random word."""
    d = theta[0].numel()
    words = rng.words(-(-d // _BITS))
    bits = (words[:, :, None] >> torch.arange(_BITS, device=words.device)) & 1
    return (2 * bits.flatten(1)[:, :d] - 1).to(theta).reshape(theta.shape)
