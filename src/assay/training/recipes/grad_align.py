"""Gradient alignment: what keeps single-step adversarial training from overfitting to its step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from assay.attacks import FGSM, Attack
from assay.rng import Keyed, derive
from assay.threats import Threat
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Recipe, Views, mode, warmed_threat
from assay.training.recipes.slopes import inner, slopes


@final
@dataclass(frozen=True, kw_only=True)
class GradAlign(Recipe):
    """Gradient alignment: the mean of `CE(f(x'), y) + weight (1 - cos(g(x), g(x + u)))`, g the loss's gradient.

    The move u is a random one of the threat. The gradients are taken in the mode that the network is in; samples one of
    whose gradients vanishes do not count in the mean of the penalty.

    Args:
        attack: the search for `x'`, a single step.
        weight: of the penalty.
        train_mode: run the attack's passes in train mode, where batch norm uses the batch and moves its statistics.
        stop: let no gradient flow through g(x), as in the released code; one flows through both gradients when False.

    Raises:
        SettingError: the weight is negative.

    Deviations:
        `x + u` stays inside the bounds. With an attack from a random start, the released code takes the first gradient
        there; here it is always that at x. It also uses this gradient again for the attack's step, and so does this
        where the two are the same: for `FGSM` in train mode, without label smoothing.

    References:
        Andriushchenko, Flammarion, "Understanding and improving fast adversarial training", NeurIPS 2020,
        https://arxiv.org/abs/2007.02617

    Example:
        >>> import assay
        >>> assay.grammar.recipe("grad-align", "linf:8/255").attack.steps
        1
    """

    second_order: ClassVar[bool] = True
    attack: Attack
    weight: float = 0.2
    train_mode: bool = True
    stop: bool = False

    def __post_init__(self) -> None:
        check_range(self, "weight")

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The moved inputs, the randomly moved ones, and the slopes at the clean ones where they led to the former."""
        threat = warmed_threat(self.attack.threat, batch.eps_share)
        dtype = torch.float64 if batch.x.dtype == torch.float64 else torch.float32
        with torch.no_grad():
            move = threat.start(batch.x, Keyed(derive(batch.seed, "align"), batch.index, dtype=dtype))
            near = threat.apply(batch.x, move)
        if not self._along_slopes(batch):
            return {"x_adv": batch.perturb(model, self.attack, train_mode=self.train_mode), "x_near": near}
        with mode(model, train=True):
            _, here = slopes(model, batch, batch.x, graph=not self.stop)
        return {"x_adv": _full_step(threat, batch.x, here.detach()), "x_near": near, "slope": here}

    def _along_slopes(self, batch: Batch) -> bool:
        """Whether the attack's one gradient is the one that the penalty takes at the clean inputs."""
        alike = self.train_mode and batch.same_weights and batch.label_smoothing == 0
        return alike and self.attack == FGSM(threat=self.attack.threat)

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Cross-entropy on the moved inputs, and how far gradients turn."""
        moved = batch.cross_entropy(model(views["x_adv"]))
        here = views["slope"] if "slope" in views else slopes(model, batch, batch.x, graph=not self.stop)[1]
        _, there = slopes(model, batch, views["x_near"])
        return moved + self.weight * _turn(here, there)


def _full_step(threat: Threat, x: Tensor, slope: Tensor) -> Tensor:
    """The inputs after a step of eps along slopes at the clean ones that are known already, as `FGSM` makes it."""
    with torch.enable_grad():
        theta = threat.identity(x).requires_grad_()
        (grad,) = torch.autograd.grad(threat.apply(x, theta), theta, slope)
    with torch.no_grad():
        theta = threat.ascend(x, theta.detach(), grad, threat.budget(x))
        return threat.apply(x, threat.project(x, theta))


def _turn(a: Tensor, b: Tensor) -> Tensor:
    """The mean of `1 - cos(a, b)` over the samples for which it is defined."""
    norms = [torch.linalg.vector_norm(each.flatten(1), dim=1) for each in (a, b)]
    rows = ((norms[0] > 0) & (norms[1] > 0)).nonzero().squeeze(1)
    cosine = inner(a[rows], b[rows]) / norms[0][rows] / norms[1][rows]
    turned: Tensor = (1 - cosine).sum() / max(len(rows), 1)
    return turned
