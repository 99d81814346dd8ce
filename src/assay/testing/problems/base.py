"""What every problem with a known answer offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from assay.errors import SettingError

Norm: TypeAlias = Literal["linf", "l2", "l1", "l0"]


class Problem(ABC):
    """A classifier, inputs for it, and the exact size of the smallest move that changes its decision.

    Everything is drawn in float32 and kept in float64, so that the float32 and the float64 model of one
    problem are the same function up to rounding, and the answers hold for both.
    """

    shape: tuple[int, ...]
    bounds: tuple[float, float]
    seed: int

    @abstractmethod
    def model(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The classifier in evaluation mode."""

    @abstractmethod
    def inputs(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """The first n inputs of a fixed sequence, inside the bounds, and their labels, the model's own."""

    @abstractmethod
    def distance(self, x: Tensor, y: Tensor, norm: Norm, targets: Tensor | None = None) -> Tensor:
        """The size of the smallest move in the bounds that reaches the goal, float64; inf if none does."""

    def _check(self) -> None:
        low, high = self.bounds
        if not low < high:
            raise SettingError(f"bounds must be (low, high) with low < high, got {self.bounds}")
        if not self.shape or min(self.shape) < 1:
            raise SettingError(f"shape must have at least one axis and no empty one, got {self.shape}")


def candidates(
    shape: tuple[int, ...], bounds: tuple[float, float], generator: torch.Generator, n: int, edge: float = 0.2
) -> Tensor:
    """Flat inputs (n, d), uniform in the bounds; a share `edge` of all values lies exactly at one of them."""
    low, high = bounds
    draws = torch.rand(n, 2, torch.Size(shape).numel(), generator=generator)  # one draw: few are a part of many
    value, pick = draws[:, 0].mul(high - low).add(low).clamp(low, high), draws[:, 1]
    value = torch.where(pick < edge / 2, torch.full_like(value, low), value)
    return torch.where(pick > 1 - edge / 2, torch.full_like(value, high), value).double()
