"""Training on clean inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from assay.training.recipes.base import Batch, Recipe, Views


@final
@dataclass(frozen=True, kw_only=True)
class Standard(Recipe):
    """Empirical risk minimisation: the mean of `CE(f(x), y)`.

    Example:
        >>> import torch
        >>> batch = Batch(x=torch.ones(2, 3), y=torch.tensor([0, 1]), index=torch.arange(2))
        >>> Standard().loss(torch.nn.Linear(3, 2), batch, {}).ndim
        0
    """

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Cross-entropy on the clean inputs."""
        return batch.cross_entropy(model(batch.x))
