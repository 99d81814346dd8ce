"""MART: adversarial training that leans on the samples which the network gets wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.attacks import Attack
from assay.threats.additive import widened
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Recipe, Views

_MARGIN = 1.0001  # in place of 1, so that the logarithm stays finite
_WEIGHT = 1.0000001  # in place of 1, so that no weight is quite 0


@final
@dataclass(frozen=True, kw_only=True)
class MART(Recipe):
    """MART: `BCE(p(x'), y) + beta KL(p(x) || p(x')) (1 - p_y(x))`, a mean over the batch.

    `BCE = CE(f(x'), y) - log(1 - max_{k != y} p_k(x'))`. The gradient flows through everything in this formula, the
    weight `1 - p_y(x)` of misclassified inputs included. The attack, which maximises the cross-entropy, runs in eval
    mode; the loss takes two forward passes, one for x and one for x', in the mode that the network is in. Mixed and
    smoothed labels count in the cross-entropy; the margin and the weight take y as it is, of mixed inputs the label of
    the larger part.

    Args:
        attack: the search for `x'`.
        beta: weight of the divergence; 5 in the paper's script, 6 in its code.

    Raises:
        SettingError: beta is negative.

    Deviations:
        As in the released code, 1.0001 and 1.0000001 stand for the two ones. Where that adds 1e-12 to a probability
        before its logarithm, here the logarithm of the softmax is taken.

    References:
        Wang, Zou, Yi, Bailey, Ma, Gu, "Improving adversarial robustness requires revisiting misclassified examples",
        ICLR 2020, https://openreview.net/forum?id=rklOg6EFwS

    Example:
        >>> import assay
        >>> assay.grammar.recipe("mart", "linf:0.031").beta
        5.0
    """

    attack: Attack
    beta: float = 5.0

    def __post_init__(self) -> None:
        check_range(self, "beta")

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The moved inputs."""
        return {"x_adv": batch.perturb(model, self.attack)}

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Boosted cross-entropy on the moved inputs, and the weighted divergence."""
        clean, moved = widened(model(batch.x)), widened(model(views["x_adv"]))
        log_p, log_p_adv = clean.log_softmax(dim=1), moved.log_softmax(dim=1)
        label = batch.y[:, None]
        other = log_p_adv.scatter(1, label, -torch.inf).amax(dim=1).exp()
        boosted = batch.cross_entropy(moved, reduction="none") - torch.log(_MARGIN - other)
        divergence = F.kl_div(log_p_adv, log_p, reduction="none", log_target=True).sum(dim=1)
        weight = _WEIGHT - log_p.gather(1, label).squeeze(1).exp()
        loss: Tensor = (boosted + self.beta * divergence * weight).mean()
        return loss
