"""What threats share whose moves are limited in every coordinate by itself."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.rng import Keyed
from assay.threats.additive import column
from assay.threats.base import Threat


@dataclass(frozen=True, eq=False, repr=False)
class Boxed(Threat):
    """`max_i |theta_i| <= eps`, where theta is the move itself: angles, shifts, displacements.

    Steepest ascent: `theta + step * sign(grad)`. Projection: clipping, the nearest allowed move. Start: uniform.
    """

    @abstractmethod
    def _shape(self, x: Tensor) -> tuple[int, ...]:
        """Shape of one move for these inputs, which it checks."""

    def identity(self, x: Tensor) -> Tensor:
        """Zeros."""
        return x.new_zeros(len(x), *self._shape(x))

    def start(self, x: Tensor, rng: Keyed) -> Tensor:
        """Uniform among the allowed moves."""
        budget = self.budget(x)
        draw = rng.uniform(*self._shape(x), low=-1.0, high=1.0).to(x)
        return self.project(x, draw.mul_(column(budget, draw)))

    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        """Clipped to [-eps, eps]."""
        if self.eps is None:
            return theta
        if isinstance(self.eps, Tensor):
            eps = column(self.budget(x), theta)
            return torch.minimum(torch.maximum(theta, -eps), eps)
        return theta.clamp(-self.eps, self.eps)

    def ascend(self, x: Tensor, theta: Tensor, grad: Tensor, step: Tensor) -> Tensor:
        """Sign step."""
        return torch.addcmul(theta, grad.sign(), column(step, theta))

    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        """Largest coordinate."""
        return theta.flatten(1).abs().amax(dim=1)

    def slack(self, x: Tensor) -> float:
        """None: the move is measured itself."""
        return 0.0
