"""TRADES: clean accuracy traded for answers that stay the same around each input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.attacks import Attack
from assay.threats.additive import widened
from assay.training.goals import Divergence
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Recipe, Views, mode


@final
@dataclass(frozen=True, kw_only=True)
class TRADES(Recipe):
    """TRADES: `CE(f(x), y) + beta KL(p(x) || p(x'))` with `x'` the input near x where this divergence is largest.

    The divergence is a sum over the classes and a mean over the batch, and its gradient flows through both answers.
    Mixed and smoothed labels count in the cross-entropy; the divergence and the search for `x'` know no labels. The
    attack's passes run in eval mode; the loss takes two forward passes, one for x and one for x', in the mode that the
    network is in.

    Args:
        attack: the search for `x'`; it works on the divergence, whose gradient vanishes at x itself: it needs a random
            start.
        beta: weight of the divergence.

    Raises:
        SettingError: beta is negative.

    Deviations:
        Under L2 the released code searches with another optimizer (SGD on the perturbation along unit gradients of
        length `2 eps / steps`); here each threat's steepest ascent serves, as in any other recipe.

    References:
        Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan, "Theoretically principled trade-off between robustness and accuracy",
        ICML 2019, https://arxiv.org/abs/1901.08573 (10 steps of 0.007 at eps 0.031 from x + 0.001 N(0, 1), beta 6).

    Example:
        >>> import assay
        >>> assay.grammar.recipe("trades", "linf:0.031", ["beta=3"]).attack.start_noise
        0.001
    """

    attack: Attack
    beta: float = 6.0

    def __post_init__(self) -> None:
        check_range(self, "beta")

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The moved inputs."""
        with mode(model, train=False), torch.no_grad():
            clean = widened(model(batch.x)).softmax(dim=1)
        return {"x_adv": batch.perturb(model, self.attack, Divergence(clean))}

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Cross-entropy on the clean inputs, and the divergence of the answers to the moved ones."""
        clean, moved = widened(model(batch.x)), widened(model(views["x_adv"]))
        # Two logarithms: their difference and its gradient stay finite where a probability is 0.
        divergence = F.kl_div(
            moved.log_softmax(dim=1), clean.log_softmax(dim=1), reduction="batchmean", log_target=True
        )
        return batch.cross_entropy(clean) + self.beta * divergence
