"""A defense in a page: rounding to a few levels, with noise before it."""

from __future__ import annotations

from typing import final

from torch import Tensor

from assay.defenses import InputDefense
from assay.rng import stream


@final
class Dithered(InputDefense):
    """Rounding to `levels` steps after uniform noise of half a step: `round(levels x + u) / levels`."""

    stochastic = True
    differentiable = False
    gradient = "straight-through"

    def __init__(self, levels: int = 7) -> None:
        super().__init__()
        self.levels = levels

    def transform(self, x: Tensor) -> Tensor:
        """The rounded inputs."""
        noise = stream(x).uniform(*x.shape[1:], low=-0.5, high=0.5).to(x)
        return (self.levels * x + noise).round().clamp(0, self.levels) / self.levels
