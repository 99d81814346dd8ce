"""A model that looks at few features, with a known answer in the L0 'norm'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from assay.errors import SettingError
from assay.testing import halfspace
from assay.testing.problems.base import Norm, Problem, candidates


@final
@dataclass(frozen=True, kw_only=True)
class Sparse(Problem):
    r"""Class 1 wins where the $2k - 1$ features that count sum to more than $k - 1/2$ box widths.

    In every input these features are all at the lower bound (class 0) or all at the upper one (class 1), so
    that exactly `needed` = k of them must cross the whole box, or nearly: the $L_0$ distance, counted in
    features, is k. The other norms follow from the same half-space.

    Args:
        shape: The shape of one input, of at least 2 k - 1 features.
        needed: k.
        bounds: The box of valid inputs.
        seed: Chooses the features that count.

    Example:
        >>> problem = Sparse(shape=(3, 4, 4), needed=2)
        >>> problem.distance(*problem.inputs(3), "l0")
        tensor([2., 2., 2.], dtype=torch.float64)
    """

    shape: tuple[int, ...] = (3, 4, 4)
    needed: int = 3
    bounds: tuple[float, float] = (0.0, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        self._check()
        if not 1 <= 2 * self.needed - 1 <= torch.Size(self.shape).numel():
            raise SettingError(f"needed={self.needed} asks for {2 * self.needed - 1} features, shape is {self.shape}")

    def counting(self) -> Tensor:
        """The places (2 k - 1,) of the features that count."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(torch.Size(self.shape).numel(), generator=generator)[: 2 * self.needed - 1]

    def model(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The classifier in evaluation mode: `Sequential(Flatten, Linear)`."""
        w, b = self._score()
        linear = nn.Linear(len(w), 2, dtype=dtype)
        linear.load_state_dict(
            {
                "weight": torch.stack([torch.zeros_like(w), w]),
                "bias": torch.tensor([0.0, b], dtype=torch.float64),
            }
        )
        return nn.Sequential(nn.Flatten(), linear).eval()

    def inputs(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """The first n inputs of the sequence `seed` and their labels, 0 and 1 in turn."""
        generator = torch.Generator().manual_seed(1000 * self.seed + seed)
        x = candidates(self.shape, self.bounds, generator, n)
        y = torch.arange(n) % 2
        x[:, self.counting()] = torch.tensor(self.bounds, dtype=torch.float64)[y][:, None]
        return x.reshape(n, *self.shape).to(dtype), y

    def distance(self, x: Tensor, y: Tensor, norm: Norm, targets: Tensor | None = None) -> Tensor:
        """The size of the smallest move that reaches the goal; targeted, that the target wins."""
        w, b = self._score()
        flat, (low, high) = x.flatten(1).double(), self.bounds
        to = 1 - y if targets is None else targets
        toward = (2 * to - 1)[:, None] * w
        gap = -((toward * flat).sum(1) + (2 * to - 1) * b)
        return halfspace.smallest(toward.abs(), torch.where(toward > 0, high - flat, flat - low), gap, norm)[0]

    def _score(self) -> tuple[Tensor, float]:
        low, high = self.bounds
        w = torch.zeros(torch.Size(self.shape).numel(), dtype=torch.float64)
        counting = self.counting()
        w[counting] = 1 / (high - low)
        return w, -(self.needed - 0.5) - len(counting) * low / (high - low)
