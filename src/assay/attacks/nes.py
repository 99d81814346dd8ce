"""NES and SPSA: projected ascent on gradients that are estimated from scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attacks.base import Attack
from assay.attacks.estimates import estimate, gaussian, rademacher
from assay.attacks.remaining import Remaining
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.losses import Loss, resolve
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L0, L1, L2, Linf, Threat
from assay.threats.additive import widened
from assay.threats.base import need_budget

_PLATEAU = 5  # means of the loss that are compared: the newest with the oldest
_SMALLEST = 1 / 200  # of the first step: none is below
_BETAS, _TINY = (0.9, 0.999), 1e-8  # Adam's
_REL_STEP = 0.1  # of SPSA in norms that the paper does not have, as a share of eps


@final
@dataclass(frozen=True, kw_only=True)
class NES(Attack):
    r"""Projected ascent along gradients of the loss under Gaussian noise, estimated from scores.

    $\hat g = \frac1n \sum_{i=1}^{n} \frac{1}{\sigma} f(\theta + \sigma u_i) u_i$ with normal $u_i$ in pairs
    $\pm u$ ; $g \leftarrow \mu g + (1 - \mu) \hat g$ and $\theta \leftarrow P(ascend(\theta, g, step))$, which is
    $\theta + step \cdot sign(g)$ in Linf. The step of a sample is halved, down to 1/200 of the first, when the mean
    loss of its draws is below that of four steps before.

    Args:
        threat: `Linf`, `L2`, `L1` or `L0` with a budget eps.
        steps: steps, each of `samples + 1` queries.
        samples: points at which the loss is asked for one gradient; even.
        sigma: standard deviation of the noise, as a share of the bounds' width.
        rel_step: length of the first steps as a share of eps.
        momentum: mu.
        loss: f: "margin", "ce", "dlr", a callable, or None for the goal's own (cross-entropy).

    Shapes:
        x `(b, *shape)` of any shape.

    Raises:
        ThreatError: the threat is another, or has no budget.
        SettingError: a setting is out of range.

    Deviations:
        The paper's step is 0.01 at an eps of 0.05, here the same share of any eps, and it works in Linf; the other
        norms take their own steepest step. f is the margin, as differences of the paper's cross-entropy vanish where a
        class is sure (`loss="ce"` broke 5 of 16 images of 28x28 pixels where the margin broke 9). Noisy points are
        clipped to the bounds, which the released code lets them leave. Every point counts where it wins inside the
        threat, and the step's own end is asked about too, which the released code does not count. The paper allows a
        million queries, the released code by default 10,000, as here.

    References:
        Ilyas, Engstrom, Athalye, Lin, "Black-box adversarial attacks with limited queries and information", ICML 2018,
        https://arxiv.org/abs/1804.08598

    Example:
        >>> import torch, assay
        >>> attack = NES(threat=assay.Linf(0.3), steps=3, samples=20)
        >>> result = attack(torch.nn.Linear(4, 3), torch.full((2, 4), 0.5), torch.tensor([0, 1]))
        >>> int(result.forwards.max()) <= 1 + 3 * 21
        True
    """

    threat: Threat
    steps: int = 200
    samples: int = 50
    sigma: float = 1e-3
    rel_step: float = 0.2
    momentum: float = 0.9
    loss: str | Loss | None = "margin"

    access: ClassVar[Access] = Access.SCORES

    def __post_init__(self) -> None:
        _check(self.threat, "NES", self.steps, self.samples)
        for name in ("sigma", "rel_step"):
            if getattr(self, name) <= 0:
                raise SettingError(f"{name} must be positive; got {getattr(self, name)}.")
        if not 0 <= self.momentum < 1:
            raise SettingError(f"momentum must be at least 0 and below 1; got {self.momentum}.")
        resolve(self.loss)

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """The ascent, for each sample with a step of its own."""
        left, loss, radius = Remaining(oracle, rng), resolve(self.loss), self.sigma * _width(self.threat)
        theta = self.threat.identity(x)
        carried, step = torch.zeros_like(widened(x)), self.threat.budget(x) * self.rel_step
        history, count = carried.new_zeros(len(x), _PLATEAU), torch.zeros_like(step)
        for _ in range(self.steps):
            theta, carried, step, history, count = left.narrow(theta, carried, step, history, count)
            if left.oracle.finished:
                break
            grad, mean = estimate(
                left.oracle, theta, left.rng, gaussian, pairs=self.samples // 2, radius=radius, loss=loss
            )
            carried = self.momentum * carried + (1 - self.momentum) * grad
            history, count = torch.cat([history[:, 1:], mean[:, None]], dim=1), count + 1
            worse = (count >= _PLATEAU) & (history[:, -1] < history[:, 0])
            least = left.threat.budget(left.x) * (self.rel_step * _SMALLEST)
            step, count = torch.where(worse, (step / 2).maximum(least), step), count.masked_fill(worse, 0)
            theta = left.threat.project(left.x, left.threat.ascend(left.x, theta, carried.to(theta), step))
            left.oracle.judge(theta)
        return left.moves(theta)


@final
@dataclass(frozen=True, kw_only=True)
class SPSA(Attack):
    r"""Adam along gradients estimated from scores at random corners of a small cube, with projections.

    $\hat g = \frac1n \sum_{i=1}^{n} \frac{f(\theta + \delta v_i) - f(\theta - \delta v_i)}{2 \delta} v_i$ with
    independent signs $v_i$; $\theta \leftarrow P(\theta + Adam(\hat g))$.

    Args:
        threat: `Linf`, `L2`, `L1` or `L0` with a budget eps.
        steps: steps, each of `samples + 1` queries.
        samples: points at which the loss is asked for one gradient, two for each v; even.
        delta: half of the cube's side, as a share of the bounds' width.
        lr: Adam's step length in Linf, as a share of the bounds' width.
        loss: f: "margin", "ce", "dlr", a callable, or None for the goal's own.

    Shapes:
        x `(b, *shape)` of any shape.

    Raises:
        ThreatError: the threat is another, or has no budget.
        SettingError: a setting is out of range.

    Deviations:
        The paper works in Linf. In other norms the mean gradient of Adam is followed by their own steepest ascent, in
        steps of a tenth of eps. The paper takes up to 8,192 points for a gradient; the default is that of its authors'
        implementation. Points are clipped to the bounds; each counts where it wins inside the threat.

    References:
        Uesato, O'Donoghue, van den Oord, Kohli, "Adversarial risk and the dangers of evaluating against weak attacks",
        ICML 2018, https://arxiv.org/abs/1802.05666
        Spall, "Multivariate stochastic approximation using a simultaneous perturbation gradient approximation", IEEE
        Transactions on Automatic Control 37, 1992.

    Example:
        >>> import torch, assay
        >>> attack = SPSA(threat=assay.Linf(0.3), steps=3, samples=20)
        >>> result = attack(torch.nn.Linear(4, 3), torch.full((2, 4), 0.5), torch.tensor([0, 1]))
        >>> int(result.forwards.max()) <= 1 + 3 * 21
        True
    """

    threat: Threat
    steps: int = 100
    samples: int = 128
    delta: float = 0.01
    lr: float = 0.01
    loss: str | Loss | None = "margin"

    access: ClassVar[Access] = Access.SCORES

    def __post_init__(self) -> None:
        _check(self.threat, "SPSA", self.steps, self.samples)
        for name in ("delta", "lr"):
            if getattr(self, name) <= 0:
                raise SettingError(f"{name} must be positive; got {getattr(self, name)}.")
        resolve(self.loss)

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """The steps."""
        left, loss, radius = Remaining(oracle, rng), resolve(self.loss), self.delta * _width(self.threat)
        theta = self.threat.identity(x)
        mean = square = torch.zeros_like(widened(x))
        for taken in range(1, self.steps + 1):
            theta, mean, square = left.narrow(theta, mean, square)
            if left.oracle.finished:
                break
            grad, _ = estimate(
                left.oracle, theta, left.rng, rademacher, pairs=self.samples // 2, radius=radius, loss=loss
            )
            mean = torch.lerp(grad, mean, _BETAS[0])
            square = torch.lerp(grad.square(), square, _BETAS[1])
            theta = self._moved(left.x, theta, left.threat, mean, square, taken)
            left.oracle.judge(theta)
        return left.moves(theta)

    def _moved(self, x: Tensor, theta: Tensor, threat: Threat, mean: Tensor, square: Tensor, taken: int) -> Tensor:
        """The next moves."""
        if isinstance(threat, Linf):
            root = (square / (1 - _BETAS[1] ** taken)).sqrt()
            length = self.lr * _width(threat) / (1 - _BETAS[0] ** taken)
            return threat.project(x, theta + (length * mean / (root + _TINY)).to(theta))
        return threat.project(x, threat.ascend(x, theta, mean.to(theta), _REL_STEP * threat.budget(x)))


def _width(threat: Threat) -> float:
    return threat.bounds[1] - threat.bounds[0]


def _check(threat: Threat, who: str, steps: int, samples: int) -> None:
    """Refuse what neither of the two can use."""
    need_budget(threat, who)
    if not isinstance(threat, (Linf, L2, L1, L0)):
        raise ThreatError(f"{who} works in Linf, L2, L1 and L0; got {threat!r}.")
    if steps < 1:
        raise SettingError(f"steps must be at least 1; got {steps}.")
    if samples < 2 or samples % 2:
        raise SettingError(f"samples must be an even number from 2 on, as points come in pairs; got {samples}.")
