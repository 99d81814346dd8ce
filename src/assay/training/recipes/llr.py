"""Local linearity regularisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from assay.errors import SettingError
from assay.rng import Keyed, derive
from assay.threats import Threat
from assay.threats.base import need_budget
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Recipe, Views, mode, warmed_threat
from assay.training.recipes.slopes import inner, slopes


@final
@dataclass(frozen=True, kw_only=True)
class LLR(Recipe):
    """Local linearity regularisation: the mean of `l(x) + weight gamma(d) + slope_weight |d g|` with `g = grad l(x)`.

    `gamma(d) = |l(x + d) - l(x) - d g|` is how far the loss `l(x) = CE(f(x), y)` is from its linear part. The move d is
    where a few steps of projected gradient ascent on gamma end; no gradient flows to d, one flows through g.

    Args:
        threat: what to defend against; it needs a budget eps.
        weight: lambda, of the distance from the linear part.
        slope_weight: mu, of what the linear part itself does.
        steps: steps of the ascent, from a random start.
        rel_step: length of a step as a share of eps.
        train_mode: search and take the penalties in train mode, where batch norm uses the batch.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat has no budget.

    Deviations:
        The lengths of the paper's steps follow a schedule of their own. With the penalties in eval mode, each sample's
        are its own; `l(x)` is taken in the mode that the network is in, by a pass of its own, after them.

    References:
        Qin, Martens, Gowal, Krishnan, Dvijotham, Fawzi, De, Stanforth, Kohli, "Adversarial robustness through local
        linearization", NeurIPS 2019, https://arxiv.org/abs/1907.02610 (CIFAR-10: lambda 4, mu 3; ImageNet: 2 steps).

    Example:
        >>> import assay
        >>> assay.grammar.recipe("llr", "linf:8/255").slope_weight
        3.0
    """

    second_order: ClassVar[bool] = True
    threat: Threat
    weight: float = 4.0
    slope_weight: float = 3.0
    steps: int = 2
    rel_step: float = 0.5
    train_mode: bool = False

    def __post_init__(self) -> None:
        check_range(self, "weight")
        check_range(self, "slope_weight")
        check_range(self, "rel_step", above=True)
        if self.steps < 1:
            raise SettingError(f"steps must be at least 1; got {self.steps}.")
        need_budget(self.threat, type(self).__name__)

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The inputs where the loss is least linear, and the losses and slopes at the clean ones that led there."""
        threat, x = warmed_threat(self.threat, batch.eps_share), batch.x
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        step = self.rel_step * threat.budget(x)
        with mode(model, train=self.train_mode), torch.no_grad():
            here = slopes(model, batch, x, graph=batch.same_weights)
            value, grad = (each.detach() for each in here)
            theta = threat.start(x, Keyed(derive(batch.seed, "llr"), batch.index, dtype=dtype))
            for _ in range(self.steps):
                with torch.enable_grad():
                    theta.requires_grad_()
                    moved = threat.apply(x, theta)
                    far = _gamma(model, batch, moved, value, inner(moved - x, grad))
                    (ascent,) = torch.autograd.grad(far.sum(), theta)
                theta = threat.project(x, threat.ascend(x, theta.detach(), ascent, step))
            found = {"x_adv": threat.apply(x, theta)}
        return found | dict(zip(("value", "slope"), here, strict=True)) if batch.same_weights else found

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Clean cross-entropy and both penalties."""
        moved = views["x_adv"]
        with mode(model, train=self.train_mode):
            known = "slope" in views
            value, grad = (views["value"], views["slope"]) if known else slopes(model, batch, batch.x)
            linear = inner(moved - batch.x, grad)
            far = _gamma(model, batch, moved, value, linear)
        penalty = (self.weight * far + self.slope_weight * linear.abs()).mean()
        return batch.cross_entropy(model(batch.x)) + penalty  # last, since it moves the statistics of batch norm


def _gamma(model: nn.Module, batch: Batch, moved: Tensor, value: Tensor, linear: Tensor) -> Tensor:
    """How far each loss at the moved input is from the linear part at the clean one."""
    return (batch.cross_entropy(model(moved), reduction="none") - value - linear).abs()
