"""A model that no attack can change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from assay.errors import SettingError
from assay.testing.problems.base import Norm, Problem, candidates


class ConstantModel(nn.Module):
    """The same scores for every input; part of the graph, with a gradient of zero."""

    scores: Tensor

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.register_buffer("scores", scores)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (b, classes)."""
        return self.scores + 0 * x.flatten(1).sum(1, keepdim=True)


@final
@dataclass(frozen=True, kw_only=True)
class Constant(Problem):
    """A model whose scores do not depend on the input: no move changes it, and every success is false.

    Args:
        shape: The shape of one input.
        classes: The number of classes; the last one always wins.
        bounds: The box of valid inputs.
        seed: Chooses the inputs, with the seed of `inputs`.

    Example:
        >>> problem = Constant(shape=(2,))
        >>> problem.distance(*problem.inputs(2), "l2")
        tensor([inf, inf], dtype=torch.float64)
    """

    shape: tuple[int, ...] = (3, 4, 4)
    classes: int = 3
    bounds: tuple[float, float] = (0.0, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        self._check()
        if self.classes < 2:
            raise SettingError(f"classes must be at least 2, got {self.classes}")

    def model(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The classifier in evaluation mode."""
        return ConstantModel(torch.linspace(0, 1, self.classes, dtype=dtype)).eval()

    def inputs(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """The first n inputs of the sequence `seed` and their label, the last class."""
        generator = torch.Generator().manual_seed(1000 * self.seed + seed)
        x = candidates(self.shape, self.bounds, generator, n).reshape(n, *self.shape)
        return x.to(dtype), torch.full((n,), self.classes - 1)

    def distance(self, x: Tensor, y: Tensor, norm: Norm, targets: Tensor | None = None) -> Tensor:
        """Inf, or 0 where the one prediction is already what the goal asks for."""
        last = self.classes - 1
        reached = y != last if targets is None else targets == last
        return torch.where(reached, 0.0, torch.inf).double()
