"""What all norms share: the move is the perturbation itself, and the moved input is clipped to the bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from assay.rng import Keyed
from assay.threats.base import Threat

HALF = (torch.float16, torch.bfloat16)  # their projections are computed in float32, where sums do not overflow


def column(value: Tensor, like: Tensor) -> Tensor:
    """`(b,)` shaped to multiply `(b, *m)`."""
    return value.reshape(-1, *[1] * (like.ndim - 1))


def widened(value: Tensor) -> Tensor:
    """Half precision as float32: squares, sums and products of gradients do not fit into it."""
    return value.float() if value.dtype in HALF else value


class _Clip(torch.autograd.Function):
    """Clamp to the bounds whose gradient passes unchanged.

    A projected move lies in the box up to one rounding error, and there torch's clamp would return a zero gradient,
    which freezes a pixel for good under sign steps.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], None, None


def clip(value: Tensor, low: float, high: float) -> Tensor:
    """Clamp, with a gradient that passes unchanged."""
    clipped: Tensor = _Clip.apply(value, low, high)  # type: ignore[no-untyped-call]
    return clipped


@dataclass(frozen=True, eq=False, repr=False)
class Additive(Threat):
    """A threat whose move is an additive perturbation of x's shape."""

    def identity(self, x: Tensor) -> Tensor:
        """No perturbation."""
        return torch.zeros_like(x)

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """The sum, clipped to the bounds."""
        return clip(x + theta, *self.bounds)

    def _room(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest perturbation that keep x inside the bounds."""
        low, high = self.bounds
        return low - x, high - x

    def _moved(self, x: Tensor, theta: Tensor) -> Tensor:
        """The perturbation that really reaches the model, flat."""
        return ((x + theta).clamp_(*self.bounds) - x).flatten(1)

    def _unit(self, x: Tensor) -> float:
        """Largest rounding error of one value of x + theta."""
        return float(torch.finfo(x.dtype).eps) / 2 * max(abs(b) for b in self.bounds)

    @staticmethod
    def _uniform(x: Tensor, rng: Keyed, low: float, high: float) -> Tensor:
        return rng.uniform(*x.shape[1:], low=low, high=high).to(x)
