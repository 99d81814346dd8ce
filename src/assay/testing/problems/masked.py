"""A model whose gradient is zero everywhere, although it is easy to attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from assay.testing.problems.affine import Affine
from assay.testing.problems.base import Norm, Problem


class Staircase(nn.Module):
    """Rounds the margin of a two-class model to steps; the decision stays, the gradient becomes zero."""

    def __init__(self, model: nn.Module, step: float) -> None:
        super().__init__()
        self.model = model
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        """Scores (b, 2)."""
        z: Tensor = self.model(x)
        margin = ((z[:, 1] - z[:, 0]) / self.step).floor().add(0.5).mul(self.step)
        return torch.stack([-margin / 2, margin / 2], 1)


@final
@dataclass(frozen=True, kw_only=True)
class Masked(Problem):
    """A two-class affine model behind a staircase: gradients are zero, scores still tell which way is up.

    Gradient attacks fail at radii at which score-based ones win: what an evaluation must notice.

    Args:
        shape: The shape of one input.
        bounds: The box of valid inputs.
        step: The height of one stair; the margins of the inputs are of the order of 1.
        seed: Chooses the weights.

    Example:
        >>> problem = Masked(shape=(4,))
        >>> x, _ = problem.inputs(1)
        >>> value = problem.model()(x.requires_grad_())[0, 0]
        >>> torch.autograd.grad(value, x)[0]
        tensor([[0., 0., 0., 0.]])
    """

    shape: tuple[int, ...] = (3, 4, 4)
    bounds: tuple[float, float] = (0.0, 1.0)
    step: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        self._check()

    def model(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The classifier in evaluation mode."""
        return Staircase(self._affine().model(dtype), self.step).eval()

    def inputs(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """The inputs of the affine problem behind the stairs."""
        return self._affine().inputs(n, seed=seed, dtype=dtype)

    def distance(self, x: Tensor, y: Tensor, norm: Norm, targets: Tensor | None = None) -> Tensor:
        """The distance of the affine problem: the stairs do not move the decision boundary."""
        return self._affine().distance(x, y, norm, targets)

    def _affine(self) -> Affine:
        return Affine(shape=self.shape, classes=2, bounds=self.bounds, seed=self.seed)
