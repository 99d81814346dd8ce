"""Projected gradient ascent and the named attacks that are settings of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attacks.base import Attack, best_of
from assay.attacks.memory import carried
from assay.attacks.transferable import Gradients, Transferable
from assay.errors import SettingError
from assay.goals import Goal
from assay.losses import Loss, resolve
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import Threat
from assay.threats.base import need_budget


@final
@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient ascent on the goal's loss, from a random start.

    `theta <- P(ascend(theta, g, step))`, where `ascend` is the steepest ascent of the threat's geometry (for Linf
    `theta + step * sign(g)`), P the projection on the threat, and `g` the gradient of the loss, or with momentum mu the
    running sum `g <- mu * g + grad / ||grad||_1`. Under `L0` this sum is the rule, since a sparse move holds nothing of
    what the gradients said about all other features.

    After gradients 1, 2, 4, 8, ... the point `P(ascend(theta, g, 2 eps))`, where steps along this direction would end,
    is judged as well. It costs a forward pass each time and saves the steps towards it: on a network without defense
    a quarter to more than half of the gradients. The search itself goes on unchanged.

    The last settings make moves that work on other models, too (`Transfer`), and cost gradients: `scales` times
    `neighbours + 1` in each step. With `nesterov` and `diverse` these are gradients at other inputs, and every point is
    judged by one more forward pass.

    Args:
        threat: which moves are allowed; it needs a budget eps.
        steps: gradient steps of each run.
        rel_step: length of a step as a share of eps; 2.5 / steps when None.
        random_start: start at a random allowed move in place of the clean input; under L2, where nearly all moves are
            as long as eps, at `u` times one, u uniform in [0, 1].
        start_noise: the standard deviation of normal numbers that make the random start, a move near the clean input
            then; None for one from all over the threat.
        restarts: runs from different random starts; the best one counts for each sample.
        momentum: decay mu of the accumulated gradient; 0 for none, the threat's own (`L0`: 0.9, else 0) when None.
        loss: "ce", "margin", "dlr", a callable, or None for the goal's own (cross-entropy).
        look_ahead: judge the far points too.
        nesterov: take gradients where the running sum would lead, as `NIFGSM` does.
        diverse: probability of a view that is resized and padded, as for `DIFGSM`; 0 for none.
        scales: average over so many ever darker copies, as `SINIFGSM` does.
        neighbours: moves nearby that tune the gradient's variance, as for `VMIFGSM`; 0 for none.
        reach: how far away these are, as a multiple of eps.
        kernel_radius: pixels to every side over which gradients are smoothed, as for `TIFGSM`; 0 for none.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension; images or signals for `diverse` and `kernel_radius`.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat has no budget, or moves that cannot be smoothed.

    Deviations:
        The paper's step is absolute (0.01 at eps 0.3 and 40 steps); here it is a share of eps, and its default reaches
        across the ball with a factor of 2.5 to spare, as the paper's authors use it in later work. The paper judges the
        last point alone, here every point on the way counts, and the far ones (`look_ahead`).

    References:
        Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards deep learning models resistant to adversarial attacks",
        ICLR 2018, https://arxiv.org/abs/1706.06083
        Croce, Hein, "Sparse and imperceivable adversarial attacks", ICCV 2019, https://arxiv.org/abs/1909.05040
        (projected gradients under L0).

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(4, 3)
        >>> attack = PGD(threat=assay.Linf(0.3), steps=10)
        >>> attack(model, torch.full((2, 4), 0.5), torch.tensor([0, 1])).x_adv.shape
        torch.Size([2, 4])
    """

    threat: Threat
    steps: int = 40
    rel_step: float | None = None
    random_start: bool = True
    start_noise: float | None = None
    restarts: int = 1
    momentum: float | None = None
    loss: str | Loss | None = None
    look_ahead: bool = True
    nesterov: bool = False
    diverse: float = 0.0
    scales: int = 1
    neighbours: int = 0
    reach: float = 1.5
    kernel_radius: int = 0

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingError(f"steps must be at least 1; got {self.steps}.")
        if self.restarts < 1:
            raise SettingError(f"restarts must be at least 1; got {self.restarts}.")
        if self.restarts > 1 and not self.random_start:
            raise SettingError("restarts > 1 repeat the same run unless random_start is True.")
        if self.start_noise is not None and not (self.random_start and self.start_noise > 0):
            raise SettingError(f"start_noise makes a random start and is positive; got {self.start_noise}.")
        if self.rel_step is not None and self.rel_step <= 0:
            raise SettingError(f"rel_step must be positive; got {self.rel_step}.")
        if self.momentum is not None and self.momentum < 0:
            raise SettingError(f"momentum must not be negative; got {self.momentum}.")
        need_budget(self.threat, type(self).__name__)
        resolve(self.loss)
        self._transferable.check(self.threat)

    @property
    def _transferable(self) -> Transferable:
        return Transferable(**{each.name: getattr(self, each.name) for each in fields(Transferable)})

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """Restarts of `_climb`."""
        return best_of(oracle, [partial(self._climb, oracle, x, rng)] * self.restarts)

    def _climb(self, oracle: Oracle, x: Tensor, rng: Keyed) -> Tensor:
        eps = self.threat.budget(x)
        step = eps * (2.5 / self.steps if self.rel_step is None else self.rel_step)
        theta = self._start(x, rng)
        momentum = self.threat.memory if self.momentum is None else self.momentum
        loss, direction = resolve(self.loss), torch.zeros_like(theta)
        other = None if self._transferable.plain else Gradients(self._transferable, oracle, x, self.threat, loss, rng)
        for taken in range(self.steps):
            if other is None:
                _, grad, _ = oracle.gradient(theta, loss)
            else:
                grad = other.at(theta, direction, momentum * step)
            direction = carried(direction, grad, momentum)
            if self.look_ahead and oracle.referee and taken & (taken + 1) == 0:
                oracle.judge(self.threat.project(x, self.threat.ascend(x, theta, direction, 2 * eps)))
            theta = self.threat.project(x, self.threat.ascend(x, theta, direction, step))
            if oracle.finished:
                return theta
        oracle.judge(theta)
        return theta

    def _start(self, x: Tensor, rng: Keyed) -> Tensor:
        if self.random_start and self.start_noise is None:
            theta = self.threat.start(x, rng)
            return theta * rng.uniform(*[1] * (theta.ndim - 1)).to(theta) if self.threat.hollow else theta
        theta = self.threat.identity(x)
        if self.start_noise is None:
            return theta
        return self.threat.project(x, theta + self.start_noise * rng.normal(*theta.shape[1:]).to(theta))


def FGSM(*, threat: Threat, loss: str | Loss | None = None) -> PGD:  # noqa: N802
    """One full step from the clean input: `x + eps * sign(grad)` for Linf.

    Args:
        threat: which moves are allowed; it needs a budget eps.
        loss: "ce", "margin", "dlr", a callable, or None for the goal's own (cross-entropy).

    References:
        Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015,
        https://arxiv.org/abs/1412.6572

    Example:
        >>> import assay
        >>> FGSM(threat=assay.Linf(0.1)).steps
        1
    """
    return PGD(threat=threat, steps=1, rel_step=1.0, random_start=False, momentum=0.0, loss=loss, look_ahead=False)


def BIM(*, threat: Threat, steps: int = 10, rel_step: float | None = None, loss: str | Loss | None = None) -> PGD:  # noqa: N802
    """Iterated FGSM from the clean input, clipped to the ball and the bounds after every step.

    Args:
        threat: which moves are allowed; it needs a budget eps.
        steps: gradient steps.
        rel_step: length of a step as a share of eps; 1.25 / steps when None.
        loss: "ce", "margin", "dlr", a callable, or None for the goal's own (cross-entropy).

    Deviations:
        The paper's step is 1/255 and its number of steps `min(255 eps + 4, 1.25 * 255 eps)`; the default share gives
        that step at that number for eps up to 16/255.

    References:
        Kurakin, Goodfellow, Bengio, "Adversarial examples in the physical world", ICLR workshop 2017,
        https://arxiv.org/abs/1607.02533

    Example:
        >>> import assay
        >>> BIM(threat=assay.Linf(8 / 255)).random_start
        False
    """
    share = 1.25 / max(steps, 1) if rel_step is None else rel_step  # PGD refuses steps below 1
    return PGD(
        threat=threat, steps=steps, rel_step=share, random_start=False, momentum=0.0, loss=loss, look_ahead=False
    )


def MIFGSM(  # noqa: N802
    *, threat: Threat, steps: int = 10, momentum: float = 1.0, loss: str | Loss | None = None
) -> PGD:
    """Momentum iterative FGSM: steps of eps / steps along a running sum of L1-normalised gradients.

    Args:
        threat: which moves are allowed; it needs a budget eps.
        steps: gradient steps.
        momentum: decay of the accumulated gradient.
        loss: "ce", "margin", "dlr", a callable, or None for the goal's own (cross-entropy).

    References:
        Dong, Liao, Pang, Su, Zhu, Hu, Li, "Boosting adversarial attacks with momentum", CVPR 2018,
        https://arxiv.org/abs/1710.06081

    Example:
        >>> import assay
        >>> MIFGSM(threat=assay.Linf(8 / 255)).momentum
        1.0
    """
    share = 1.0 / max(steps, 1)
    return PGD(
        threat=threat, steps=steps, rel_step=share, random_start=False, momentum=momentum, loss=loss, look_ahead=False
    )
