"""stAdv: flows that are adversarial and smooth, by L-BFGS or Adam."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor

from assay.attacks.adam import AdamSearch
from assay.attacks.base import Attack
from assay.attacks.kept import Kept
from assay.attacks.lbfgs import minimise
from assay.errors import LossError, SettingError, ThreatError
from assay.goals import Goal, Targeted, Untargeted
from assay.losses import margin
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import Flow, Threat
from assay.threats.additive import widened

_OPTIMIZERS = ("lbfgs", "adam")
_FIRST = 0.5  # pixels: the longest displacement in the first step of L-BFGS
_TOLERANCE = 1e-5  # relative decrease of the objective that counts as progress
_LESS = 0.1  # factor of tau where a search found nothing


@final
@dataclass(frozen=True, kw_only=True)
class StAdv(Attack):
    r"""A smooth flow that moves pixels to where the decision changes.

    Minimises $\max(-margin(x'), -\kappa) + \tau \sum_p \sum_{q \in N(p)} \sqrt{\|f_p - f_q\|_2^2 + 10^{-8}}$ over the
    flow f, in pixels, with $x'(p) = x(p + f_p)$ and N(p) the neighbours above, below, left and right. It starts at no
    flow and is done by L-BFGS (every sample with a memory and a line search of its own) or by Adam. A sample without
    success goes on with a tenth of tau.

    Which of the winning flows is kept is the threat's business: `Flow(measure="roughness")` keeps the smoothest,
    `Flow()` the one whose largest displacement is smallest, and `Flow(eps)` the first inside.

    Args:
        threat: `Flow`, with or without a budget.
        tau: weight of the roughness, in logits for each pixel of it.
        confidence: the margin of logits (kappa) that a success needs.
        optimizer: "lbfgs" or "adam".
        steps: gradients of each search, at most.
        searches: how often a sample without success is searched for, each time with a tenth of tau.
        memory: pairs of steps and gradients that L-BFGS remembers.
        lr: Adam's step in pixels.

    Shapes:
        x `(b, c, height, width)`.

    Raises:
        ThreatError: the threat is another; at use, the inputs are not images.
        SettingError: a setting is out of range.
        LossError: the goal is not about classes.

    Deviations:
        Bounds on displacements are for projections of the trial points, and places stay inside the image. The best flow
        met on the way counts, as the referee saw it, and not the last. A search whose tau was too large is followed by
        others; the paper has one tau. Adam is an alternative of this library.

    References:
        Xiao, Zhu, Li, He, Liu, Song, "Spatially transformed adversarial examples", ICLR 2018,
        https://arxiv.org/abs/1801.02612

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2, bias=False))
        >>> ramp = torch.linspace(-0.5, 0.5, 4).repeat(4)
        >>> with torch.no_grad():
        ...     _ = model[1].weight.copy_(torch.stack([ramp, -ramp]))
        >>> x = torch.tensor([0.0, 0.0, 1.0, 0.0]).repeat(1, 1, 4, 1)  # a bar right of the middle
        >>> StAdv(threat=assay.Flow(measure="roughness"), steps=30)(model, x, torch.tensor([0])).success
        tensor([True])
    """

    threat: Threat
    tau: float = 0.05
    confidence: float = 0.0
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    steps: int = 100
    searches: int = 3
    memory: int = 10
    lr: float = 0.02

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        if not isinstance(self.threat, Flow):
            raise ThreatError(f"StAdv looks for flows: it needs Flow() or Flow(eps); got {self.threat!r}.")
        if self.optimizer not in _OPTIMIZERS:
            raise SettingError(f"optimizer must be 'lbfgs' or 'adam'; got {self.optimizer!r}.")
        for name in ("steps", "searches", "memory"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("tau", "confidence"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingError(f"{name} must be finite and not negative; got {getattr(self, name)}.")
        if not 0 < self.lr < math.inf:
            raise SettingError(f"lr must be positive and finite; got {self.lr}.")

    def aim(self, goal: Goal) -> Goal:
        """The goal, with the confidence that a success needs."""
        if not isinstance(goal, (Untargeted, Targeted)):
            raise LossError(f"StAdv needs a goal on classes; got {type(goal).__name__}.")
        return goal.with_confidence(max(self.confidence, goal.confidence))

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """Searches with ever smaller tau, for those that the ones before did not win."""
        oracle.track()
        last, kept = self.threat.identity(x), Kept(self.threat.identity(x))
        for search in range(self.searches):
            left = oracle.active & oracle.best_distance.isinf()
            rows = left.nonzero().squeeze(1)
            if len(rows) == 0:
                break
            part, tau = oracle.at(rows), self.tau * _LESS**search
            if self.optimizer == "adam":
                last[rows] = self._adam(part, tau, rng.at(rows))
            else:
                objective = partial(self._objective, tau=tau, rows=rows, kept=kept)
                found = minimise(
                    part,
                    widened(last[rows]),
                    objective,
                    steps=self.steps,
                    memory=self.memory,
                    first=_grid(_FIRST, x),
                    tolerance=_TOLERANCE,
                )
                last[rows] = found.to(last)
        return torch.where(kept.size.isfinite()[:, None, None, None], kept.theta, last)

    def _objective(
        self, oracle: Oracle, theta: Tensor, place: Tensor, asked: Tensor, *, tau: float, rows: Tensor, kept: Kept
    ) -> tuple[Tensor, Tensor]:
        """What is minimised, `(n,)`, and its gradient; in float32 at least, whatever the model's type."""
        given = theta.to(oracle.x.dtype)
        value, grad, _ = oracle.gradient(given, _won, asked)
        kept.at(rows[place])
        kept.note(oracle, given)
        with torch.enable_grad():
            flow = theta.detach().requires_grad_()
            rough = oracle.threat.roughness(oracle.x, flow)
            (slope,) = torch.autograd.grad(rough.sum(), flow)
        return tau * rough.detach() - widened(value), tau * slope - widened(grad)

    def _adam(self, oracle: Oracle, tau: float, rng: Keyed) -> Tensor:
        """The same objective by Adam, which asks for a budget but steps in pixels; the oracle's threat holds."""
        search = AdamSearch(
            threat=Flow(2.0, bounds=self.threat.bounds),
            steps=self.steps,
            lr=_grid(self.lr, oracle.x),
            smoothness_weight=tau,
            loss=_won,
        )
        return search.run(oracle, oracle.x, oracle.goal, rng)


def _won(output: Any, goal: Any) -> Tensor:
    """The margin, up to what a success needs."""
    return margin(output, goal).clamp(max=goal.confidence)


def _grid(pixels: float, x: Tensor) -> float:
    """A displacement along the longer side in the unit of flows."""
    return 2 * pixels / max(x.shape[2] - 1, x.shape[3] - 1, 1)
