"""Training on clean inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Recipe, Views


@final
@dataclass(frozen=True, kw_only=True)
class Standard(Recipe):
    """Empirical risk minimisation: the mean of `CE(f(x) / T, y)`.

    Args:
        temperature: T, by which the logits are divided; the teacher of a distillation is trained so.

    Raises:
        SettingError: the temperature is not positive.

    Example:
        >>> import torch
        >>> batch = Batch(x=torch.ones(2, 3), y=torch.tensor([0, 1]), index=torch.arange(2))
        >>> Standard().loss(torch.nn.Linear(3, 2), batch, {}).ndim
        0
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, "temperature", above=True)

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Cross-entropy on the clean inputs."""
        return batch.cross_entropy(model(batch.x) / self.temperature)
