"""Adam on the moves of any threat, and the named attacks that are settings of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attacks.base import Attack, best_of
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.losses import Loss, resolve
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L0, L1, Combined, Threat
from assay.threats.base import need_budget

_DECAYS = (0.9, 0.999)  # of the running means of gradients and of their squares
_FLOOR = 1e-8  # of the denominator, as a share of its largest value in the sample


@final
@dataclass(frozen=True, kw_only=True)
class AdamSearch(Attack):
    r"""Adam on the move itself, projected on the threat after every step, with a penalty on uneven moves.

    It climbs $loss(model(apply(x, \theta))) - w \cdot roughness(\theta)$ with w the `smoothness_weight`. With g the
    gradient of this sum, $m \leftarrow 0.9 m + 0.1 g$ and $v \leftarrow 0.999 v + 0.001 g^2$, step t (from 1) is
    $\theta \leftarrow P(\theta + lr \cdot \frac{m / (1 - 0.9^t)}{\sqrt{v / (1 - 0.999^t)} + \delta})$. Every coordinate
    of a move has a step of its own, about lr long at most, so that moves whose parts count in unlike units (colour
    grids, displacements, perturbations) are searched side by side. All state belongs to single samples.

    Args:
        threat: which moves are allowed; it needs a budget eps.
        steps: steps of each run.
        rel_lr: length of a step in each coordinate as a share of the budget (in a combination, of that of its part);
            2.5 / steps when None.
        lr: the same in units of the move (pixel values for perturbations, degrees for rotations), in place of rel_lr.
        smoothness_weight: w, how much the threat's roughness counts; 0 leaves the loss alone. For `Combined` it may be
            a weight for each part.
        random_start: start at a random allowed move in place of the clean input.
        restarts: runs from different random starts; the best one counts for each sample.
        loss: "ce", "margin", "dlr", a callable, or None for the goal's own (cross-entropy).

    Shapes:
        x `(b, *shape)` of any shape that the threat takes.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat has no budget, or is L1 or L0: steps in every coordinate do not lead to sparse moves.

    Deviations:
        The number $\delta$ that keeps Adam's denominator from 0 is 1e-8 of the denominator's largest value in the
        sample, not 1e-8: multiplying a model's scores by a constant changes nothing.

    References:
        Kingma, Ba, "Adam: a method for stochastic optimization", ICLR 2015, https://arxiv.org/abs/1412.6980

    Example:
        >>> import torch, assay
        >>> attack = AdamSearch(threat=assay.Linf(0.3), steps=20)
        >>> attack(torch.nn.Linear(4, 3), torch.full((2, 4), 0.5), torch.tensor([0, 1])).x_adv.shape
        torch.Size([2, 4])
    """

    threat: Threat
    steps: int = 100
    rel_lr: float | None = None
    lr: float | None = None
    smoothness_weight: float | tuple[float, ...] = 0.0
    random_start: bool = False
    restarts: int = 1
    loss: str | Loss | None = None

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingError(f"steps must be at least 1; got {self.steps}.")
        if self.lr is not None and self.rel_lr is not None:
            raise SettingError(f"give lr or rel_lr, not both; got {self.lr} and {self.rel_lr}.")
        for name, length in (("lr", self.lr), ("rel_lr", self.rel_lr)):
            if length is not None and not 0 < length < float("inf"):
                raise SettingError(f"{name} must be positive and finite; got {length}.")
        if self.restarts < 1:
            raise SettingError(f"restarts must be at least 1; got {self.restarts}.")
        if self.restarts > 1 and not self.random_start:
            raise SettingError("restarts > 1 repeat the same run unless random_start is True.")
        need_budget(self.threat, type(self).__name__)
        self._check_weight()
        if isinstance(self.threat, (L0, L1)):
            raise ThreatError(
                f"AdamSearch steps in every coordinate, which does not lead to the sparse moves of {self.threat!r}: "
                "use PGD or APGD, whose steps follow the threat's geometry."
            )
        resolve(self.loss)

    def _check_weight(self) -> None:
        weight = self.smoothness_weight
        if isinstance(weight, (tuple, list)):
            parts = len(self.threat.parts) if isinstance(self.threat, Combined) else 1
            if not isinstance(self.threat, Combined) or len(weight) != parts:
                raise SettingError(
                    f"smoothness_weight holds {len(weight)} weights for the {parts} part{'s' * (parts != 1)} of "
                    f"{self.threat!r}: give one number, or one for each part of a Combined threat."
                )
            object.__setattr__(self, "smoothness_weight", tuple(float(w) for w in weight))
        for w in weight if isinstance(weight, (tuple, list)) else [weight]:
            if not 0 <= w < float("inf"):
                raise SettingError(f"smoothness_weight must be finite and not negative; got {weight}.")

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """Restarts of `_climb`."""
        return best_of(oracle, [partial(self._climb, oracle, x, rng)] * self.restarts)

    def _climb(self, oracle: Oracle, x: Tensor, rng: Keyed) -> Tensor:
        """One run, in which samples that are decided leave the batch; its last moves."""
        theta = self.threat.start(x, rng) if self.random_start else self.threat.identity(x)
        mean, square, loss = torch.zeros_like(theta), torch.zeros_like(theta), resolve(self.loss)
        last, places = theta, torch.arange(len(x), device=x.device)
        for t in range(1, self.steps + 1):
            _, grad, _ = oracle.gradient(theta, loss)
            if oracle.referee and not bool((still := oracle.active).all()):
                last = last.index_copy(0, places, theta)
                if oracle.finished:
                    return last
                oracle, places = oracle.at(still), places[still]
                theta, mean, square, grad = theta[still], mean[still], square[still], grad[still]
            grad = grad - self._penalty_slope(oracle, theta)
            mean = torch.lerp(grad, mean, _DECAYS[0])
            square = torch.lerp(grad.square(), square, _DECAYS[1])
            step = self._length(oracle) * _direction(mean / (1 - _DECAYS[0] ** t), square / (1 - _DECAYS[1] ** t))
            theta = oracle.threat.project(oracle.x, theta + step)
        oracle.judge(theta)
        return last.index_copy(0, places, theta)

    def _length(self, oracle: Oracle) -> Tensor | float:
        """Of a step in each coordinate, shaped to multiply a move."""
        if self.lr is not None:
            return self.lr
        return oracle.threat.scale(oracle.x) * (2.5 / self.steps if self.rel_lr is None else self.rel_lr)

    def _penalty_slope(self, oracle: Oracle, theta: Tensor) -> Tensor:
        """The gradient of the weighted roughness, shaped like theta."""
        weight, threat = self.smoothness_weight, oracle.threat
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            if isinstance(weight, tuple) and isinstance(threat, Combined):
                penalty = (threat.part_roughness(oracle.x, theta) * torch.tensor(weight).to(theta)).sum()
            elif not isinstance(weight, tuple) and weight:
                penalty = weight * threat.roughness(oracle.x, theta).sum()
            else:
                return torch.zeros_like(theta)
            if not penalty.requires_grad:  # a threat whose moves have no neighbourhood
                return torch.zeros_like(theta)
            (slope,) = torch.autograd.grad(penalty, theta)
        return slope


def _direction(mean: Tensor, square: Tensor) -> Tensor:
    """Mean over root of mean square, coordinate by coordinate; 0 where a sample has had no gradient."""
    root = square.sqrt()
    floor = (_FLOOR * root.flatten(1).amax(dim=1)).clamp_min(torch.finfo(root.dtype).tiny)
    return mean / (root + floor.reshape(-1, *[1] * (root.ndim - 1)))


def ReColorAdv(  # noqa: N802
    *,
    threat: Threat,
    steps: int = 100,
    lr: float | None = 1e-3,
    smoothness_weight: float | tuple[float, ...] = 0.05,
    random_start: bool = False,
    loss: str | Loss | None = "margin",
) -> AdamSearch:
    """The functional attack on colours: Adam on the margin minus the roughness of the colour map.

    With `Combined(Recolor(0.06), Flow(0.05), Linf(8/255))` it is the combined attack of the same paper, whose code
    counts the roughness of flows in half sides of the image where `Flow` counts pixels: give
    `smoothness_weight=(0.05, 0.05 * 2 / (width - 1), 0)`.

    Args:
        threat: which moves are allowed: `Recolor(0.06)`, or a combination that holds one; it needs a budget eps.
        steps: steps of the run.
        lr: length of a step in each coordinate, in units of the move; 2.5 / steps of the budget when None.
        smoothness_weight: how much the threat's roughness counts against the margin; for `Combined` one number, or one
            for each part.
        random_start: start at a random allowed move in place of the clean input.
        loss: "ce", "margin" (not clipped, as in the paper), "dlr", a callable, or None for the goal's own.

    Deviations:
        The authors return the move with the best penalised loss of each run; here every move on the way is judged and
        the first that reaches the goal counts. `Recolor` says how its set differs from theirs.

    References:
        Laidlaw, Feizi, "Functional adversarial attacks", NeurIPS 2019, https://arxiv.org/abs/1906.00001

    Example:
        >>> import assay
        >>> ReColorAdv(threat=assay.Linf(0.06)).smoothness_weight
        0.05
    """
    return AdamSearch(
        threat=threat,
        steps=steps,
        lr=lr,
        smoothness_weight=smoothness_weight,
        random_start=random_start,
        loss=loss,
    )
