"""Sigma-zero: gradient descent on a smooth count of changed features, with a threshold that adapts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from assay.attacks.base import Attack, smallest_found
from assay.attacks.fewer_units import try_fewer
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.losses import margin
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L0
from assay.threats.additive import column, widened

_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8  # of Adam
_LEAST_RATE = 0.1  # share of the learning rate at the end of the cosine
_LEAST_SLOPE = 1e-12  # gradients smaller than that are not blown up


@final
@dataclass(frozen=True, kw_only=True)
class SigmaZero(Attack):
    r"""Adam on `max(-margin, 0) + (1 / d) sum_i delta_i^2 / (delta_i^2 + sigma)`, small changes set to zero.

    The second term is a smooth count of changed features. Each step: the gradient g of the sum is divided by
    `||g||_inf`, Adam moves with a learning rate that falls along a cosine from `lr` to `lr / 10`, the result is clipped
    to the bounds, and changes below a threshold tau become zero. Tau rises by `t * lr_k` after a point that reached the
    goal and falls by as much after one that did not, within [0, 1]. The smallest change that reached the goal counts.

    Args:
        threat: `L0`, in features or pixels.
        steps: gradient evaluations.
        lr: the learning rate at the start.
        sigma: how smooth the count is: a change of its root counts as one half.
        tau: the threshold at the start.
        t: how fast the threshold adapts.

    Shapes:
        x `(b, *shape)`; for pixels `(b, c, height, width)`.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat is not `L0`.
        LossError: the goal is none on classes.

    Deviations:
        lr, tau and the root of sigma are shares of the width of the bounds, which in the paper is 1. For pixels, which
        the paper does not treat, a pixel's size `sqrt(sum_c delta_c^2)` takes the place of `|delta_i|` in the count and
        at the threshold. The released code divides the loss by the size of the batch; its gradient is normalised
        anyway. The last point, which it leaves unjudged, is judged here too, and at the end moves of fewer units are
        tried (`fewer_units`), without which features of equal weight stay together for good: about ten passes, which on
        a small convolutional network take 7 % of the features away (100 steps). A sample is done when a single
        unit is enough, and with a budget as soon as it is inside.

    References:
        Cina, Villani, Pintor, Schonherr, Biggio, Pelillo, "Sigma-zero: gradient-based optimization of l0-norm
        adversarial examples", ICLR 2025, https://arxiv.org/abs/2402.01879

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(4, 3)
        >>> attack = SigmaZero(threat=assay.L0(), steps=20)
        >>> attack(model, torch.full((2, 4), 0.5), torch.tensor([0, 1])).distance.shape
        torch.Size([2])
    """

    threat: L0
    steps: int = 1000
    lr: float = 1.0
    sigma: float = 1e-3
    tau: float = 0.3
    t: float = 0.01

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        if not isinstance(self.threat, L0):
            raise ThreatError(f"SigmaZero counts changed units: it needs L0() or L0(eps); got {self.threat!r}.")
        if self.steps < 1:
            raise SettingError(f"steps must be at least 1; got {self.steps}.")
        for name in ("lr", "sigma", "t"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingError(f"{name} must be positive; got {getattr(self, name)}.")
        if not 0 <= self.tau <= 1:
            raise SettingError(f"tau must be between 0 and 1, a share of the bounds' width; got {self.tau}.")

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """Descend, and let the oracle keep the smallest change."""
        oracle.track()
        self.threat.size(x[:1], torch.zeros_like(x[:1]))  # refuses inputs without pixels
        (low, high), kind = self.threat.bounds, x.dtype
        x = widened(x)
        tau = x.new_full((len(x),), self.tau)
        delta, mean, square = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)
        for step in range(1, self.steps + 1):
            improvable = oracle.best_distance > 1
            _, rise, output = oracle.gradient(delta.to(kind), _shortfall, rows=improvable)
            if oracle.finished or not bool(improvable.any()):
                break
            grad = self._count_slope(delta / (high - low)) - (high - low) * rise
            grad = grad / column(grad.flatten(1).abs().amax(dim=1).clamp_min(_LEAST_SLOPE), grad)
            mean.lerp_(grad, 1 - _BETA1)
            square.lerp_(grad.square(), 1 - _BETA2)
            descent = mean / (1 - _BETA1**step) / ((square / (1 - _BETA2**step)).sqrt() + _TINY)
            delta = (x + delta - (high - low) * self._rate(step - 1) * descent).clamp(low, high) - x
            tau = (tau + torch.where(goal.reached(output), self.t, -self.t) * self._rate(step)).clamp(0, 1)
            delta = delta * (self._sizes(delta) >= (high - low) * column(tau, delta))
        oracle.judge(delta.to(kind), rows=oracle.best_distance > 1)
        try_fewer(oracle, self.threat)
        return smallest_found(oracle, x.to(kind), delta.to(kind))

    def _rate(self, step: int) -> float:
        """The learning rate after so many steps: half a cosine."""
        return self.lr * (_LEAST_RATE + (1 - _LEAST_RATE) * (1 + math.cos(math.pi * step / self.steps)) / 2)

    def _sizes(self, delta: Tensor) -> Tensor:
        """The size of the change of each unit, to be broadcast to x's shape."""
        return self.threat.per_unit(delta.square()).sqrt()

    def _count_slope(self, delta: Tensor) -> Tensor:
        """The gradient of the share of changed units in its smooth form."""
        square = self.threat.per_unit(delta.square())
        return 2 * self.sigma / square[0].numel() * delta / (square + self.sigma).square()


def _shortfall(output: Any, goal: Any) -> Tensor:
    """By how much the goal is missed, as a number below 0; 0 where it is reached."""
    value: Tensor = (margin(output, goal) - goal.confidence).clamp(max=0)
    return value
