"""Curvature regularisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from assay.errors import SettingError, ThreatError
from assay.threats import L1, L2, Linf, Threat
from assay.threats.additive import column
from assay.threats.base import need_budget
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Recipe, Views, mode, warmed_threat
from assay.training.recipes.slopes import inner, slopes

_ORDER: dict[type[Any], float] = {Linf: math.inf, L2: 2, L1: 1}


@final
@dataclass(frozen=True, kw_only=True)
class CURE(Recipe):
    """Curvature regularisation: the mean of `CE(f(x), y) + weight ||g(x + h z) - g(x)||_2^2`, g the loss's gradient.

    The step `h z` goes along `sign(g(x))`, to which no gradient flows; one flows through both gradients. Each sample's
    g is that of its own loss, and does not shrink as the batch grows.

    Args:
        threat: what to defend against: a budget of Linf, L2 or L1.
        weight: of the penalty.
        h: length of the step in this norm, as a multiple of eps; several are those of the first, second, ... epoch, the
            last one that of all later ones.
        squared: the squared norm; the norm itself, as in the released code, when False.
        train_mode: take the penalty's gradients in train mode, where batch norm makes each hang on the whole batch.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat is another, or has no budget.

    Deviations:
        The paper's h is the Euclidean length of the step, 1.5 on CIFAR-10; under Linf this is `h eps sqrt(d)`, so that
        1.5 is 0.86 at 8/255. Like the paper's, the step is not held inside the bounds, and the penalty is not divided
        by `h^2`. The released code penalises the norm without the square, of gradients that are divided by the size of
        the batch: there `squared=False` and a weight of 4 divided by that size. It trains a network on that has
        converged on clean images, with steps of 0.1, 0.4, 0.8, 1.8 and then 3 on standardised ones.

    References:
        Moosavi-Dezfooli, Fawzi, Uesato, Frossard, "Robustness via curvature regularization, and vice versa", CVPR 2019,
        https://arxiv.org/abs/1811.09716

    Example:
        >>> import assay
        >>> assay.grammar.recipe("cure", "linf:0.1", ["h=(0.25, 0.5, 1)"]).step(epoch=1.5)
        0.5
    """

    second_order: ClassVar[bool] = True
    threat: Threat
    weight: float = 4.0
    h: float | tuple[float, ...] = 1.0
    squared: bool = True
    train_mode: bool = False

    def __post_init__(self) -> None:
        check_range(self, "weight")
        steps = self.h if isinstance(self.h, (tuple, list)) else (self.h,)
        if not steps or not all(isinstance(h, (int, float)) and 0 < h < math.inf for h in steps):
            raise SettingError(
                f"h of CURE must be a positive number, or one for each of the first epochs; got {self.h}."
            )
        if isinstance(self.h, list):
            object.__setattr__(self, "h", tuple(self.h))
        need_budget(self.threat, type(self).__name__)
        if type(self.threat) not in _ORDER:
            raise ThreatError(f"CURE takes its step under Linf, L2 or L1, not {self.threat!r}.")

    def step(self, epoch: float) -> float:
        """The multiple of eps in force after so many epochs."""
        return self.h[min(int(epoch), len(self.h) - 1)] if isinstance(self.h, tuple) else self.h

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Clean cross-entropy, and the change of its gradient."""
        clean = batch.cross_entropy(model(batch.x))
        with mode(model, train=self.train_mode):
            _, here = slopes(model, batch, batch.x)
            _, there = slopes(model, batch, batch.x + self._step(batch, here.detach()))
        change = there - here
        penalty = inner(change, change) if self.squared else torch.linalg.vector_norm(change.flatten(1), dim=1)
        return clean + self.weight * penalty.mean()

    def _step(self, batch: Batch, grad: Tensor) -> Tensor:
        """`h z`: along the signs, with the wanted length in the threat's norm; 0 where the gradient is."""
        sign = grad.sign()
        norm = torch.linalg.vector_norm(sign.flatten(1), ord=_ORDER[type(self.threat)], dim=1).clamp_min(1)
        length = self.step(batch.epoch) * warmed_threat(self.threat, batch.eps_share).budget(batch.x)
        return sign * column(length / norm, sign)
