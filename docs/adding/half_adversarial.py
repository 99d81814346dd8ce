"""A small recipe of one's own, from the page `docs/adding/recipe.md`: the mean of clean and adversarial loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from assay.attacks import Attack
from assay.errors import SettingError
from assay.training.recipes import Batch, Recipe, Views


@final
@dataclass(frozen=True, kw_only=True)
class HalfAdversarial(Recipe):
    """The mean of `(1 - share) CE(f(x), y) + share CE(f(x'), y)`, with `x'` what the attack makes of x.

    Args:
        attack: the search for `x'`.
        share: weight of the adversarial half.

    Raises:
        SettingError: the share is not one.
    """

    attack: Attack
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise SettingError(f"share must lie between 0 and 1; got {self.share}.")

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The moved inputs."""
        return {"x_adv": batch.perturb(model, self.attack)}

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Both halves."""
        clean = batch.cross_entropy(model(batch.x))
        moved = batch.cross_entropy(model(views["x_adv"]))
        return (1 - self.share) * clean + self.share * moved
