"""Adversarial logit pairing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from assay.attacks import Attack
from assay.goals import Targeted
from assay.rng import Keyed, derive
from assay.threats.additive import widened
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Recipe, Views, mode


@final
@dataclass(frozen=True, kw_only=True)
class ALP(Recipe):
    """Adversarial logit pairing: `(CE(f(x), y) + CE(f(x'), y)) / 2 + weight ||z(x) - z(x')||_2^2`, a batch's mean.

    Clean and moved inputs go through the network as one batch, whose halves share the statistics of batch norm.

    Kept for study: it makes gradients small, and long attacks with restarts leave little of what it seems to gain.

    Args:
        attack: the search for `x'`.
        weight: of the squared distance of the logits z.
        targeted: the attack works towards a random wrong class, drawn for each sample and step; away from y when False.

    Raises:
        SettingError: the weight is negative.

    Deviations:
        The paper's weight is 1 on MNIST and 0.5 on ImageNet. The released code divides the squared distance by the
        number of classes, too: there, take its weight divided by that number.

    References:
        Kannan, Kurakin, Goodfellow, "Adversarial logit pairing", 2018, https://arxiv.org/abs/1803.06373
        Engstrom, Ilyas, Athalye, "Evaluating and understanding the robustness of adversarial logit pairing", 2018,
        https://arxiv.org/abs/1807.10272 (0.6 % of ImageNet is left).

    Example:
        >>> import assay
        >>> ALP(attack=assay.attacks.PGD(threat=assay.Linf(0.1), steps=10)).weight
        1.0
    """

    attack: Attack
    weight: float = 1.0
    targeted: bool = True

    def __post_init__(self) -> None:
        check_range(self, "weight")

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The moved inputs."""
        goal = Targeted(_wrong_classes(model, batch), away=batch.y) if self.targeted else None
        return {"x_adv": batch.perturb(model, self.attack, goal)}

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Cross-entropy of both halves, and the distance of their logits."""
        clean, moved = widened(model(torch.cat([batch.x, views["x_adv"]]))).chunk(2)
        both = (batch.cross_entropy(clean) + batch.cross_entropy(moved)) / 2
        paired: Tensor = both + self.weight * (clean - moved).square().sum(dim=1).mean()
        return paired


def _wrong_classes(model: nn.Module, batch: Batch) -> Tensor:
    """A random class other than the label for each sample; one pass tells how many classes there are."""
    with mode(model, train=False), torch.no_grad():
        classes = model(batch.x[:1]).shape[1]
    drawn = Keyed(derive(batch.seed, "alp"), batch.index).integers(0, classes - 1, 1).squeeze(1)
    return drawn + (drawn >= batch.y)
