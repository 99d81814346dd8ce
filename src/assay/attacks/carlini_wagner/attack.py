"""Carlini and Wagner's attacks: the smallest move whose margin is large enough, by gradient descent on a penalty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from assay.attacks.base import Attack
from assay.attacks.boundaries import class_goal
from assay.attacks.carlini_wagner.descent import Descent, Plan
from assay.attacks.carlini_wagner.l0 import SparseDescent
from assay.attacks.carlini_wagner.l2 import EuclideanDescent
from assay.attacks.carlini_wagner.linf import CappedDescent
from assay.attacks.fewer_units import with_fewer
from assay.attacks.other_boundaries import try_boundaries
from assay.attacks.polish import polish
from assay.errors import LossError, SettingError, ThreatError
from assay.goals import Goal, Targeted, Untargeted
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L0, L2, Linf, Threat

_PAPER: dict[str, tuple[int, float, float, float]] = {  # steps, lr, initial_c, max_c of the released code
    "l2": (10_000, 1e-2, 1e-3, 1e10),
    "linf": (1000, 5e-3, 1e-5, 20.0),
    "l0": (1000, 1e-2, 1e-3, 2e6),
}


@final
@dataclass(frozen=True, kw_only=True)
class CarliniWagner(Attack):
    """The smallest move whose margin is large enough, with a change of variables that keeps it inside the bounds.

    With `x' = (high + low) / 2 + (high - low) / 2 * tanh(w) / 0.99`, clipped to the bounds, the move
    `u = (x' - x) / (high - low)` and `f = max(0, confidence - margin(x'))`, Adam minimises over w, for each sample
    apart:

    - L2: `||u||_2^2 + c f`, from `x' = x` for each of `search_steps` constants c: ten times larger until one wins, then
      bisected.
    - Linf: `sum_i max(0, |u_i| - tau) + c f`, on from the last success: tau is lowered to 0.9 of the largest change
      after each success, down to 1/256, and c is doubled where there is none.
    - L0: `||u||_2^2 + c f` on the units (features or pixels) that are still free: after each success those with the
      least `|u_i| |df/dx_i|` are frozen, at most 0.3 times the root of the number that changed, and the first that
      exceeds 0.01 is the last; c is doubled where there is no success. With `L0(unit="pixel")` both factors are
      summed over the channels, as in the paper.

    All constants are relative to the logits' scale where these are too flat for them: multiplied by `c* / 10`, where
    `c* = 2 f / ||df/du||_2^2` is what a linear model at x asks for, if that is above 1.

    The defaults are those of the released code and thorough: up to 90,000 gradients an image in L2. Much cheaper
    settings that end at nearly the same distances, since the last stretch is polished:
    `CarliniWagner(threat=L2(), steps=30, search_steps=5, lr=0.1, initial_c=0.1)`,
    `CarliniWagner(threat=Linf(), steps=30, lr=0.02, initial_c=0.1)` and
    `CarliniWagner(threat=L0(), steps=30, lr=0.1, initial_c=0.1, max_c=1000)`: 100 to 500 gradients an image.

    Args:
        threat: `L2`, `Linf` or `L0`; without eps the smallest move is looked for, with it any inside is enough.
        steps: gradients for each constant, at most; 10,000 in L2, 1,000 in the others when None.
        search_steps: constants tried in L2.
        lr: Adam's learning rate in the space of w; 0.01, in Linf 0.005, when None.
        initial_c: the first constant; 1e-3, in Linf 1e-5, when None.
        max_c: where the constants end; 1e10 in L2, 20 in Linf, 2e6 in L0 when None.
        confidence: the margin of logits (kappa) that a success needs.
        abort_early: leave a constant when it brought no progress (0.01 %) for a tenth of `steps`.
        polish: gradients spent after the search to make the best move smaller, at most (10 to 40 are mostly enough); 0
            for the search alone.
        targets: boundaries to further classes that are tried then, those that look nearest first, with at most 10
            gradients and a polish for each.

    Shapes:
        x `(b, *shape)` of any shape; `(b, c, height, width)` where L0 counts pixels.

    Raises:
        ThreatError: the threat is another.
        SettingError: a setting is out of range.
        LossError: the goal is not about classes.

    Deviations:
        The box takes 0.99 of the range of tanh, clipped, where the released code takes 0.999999: there values exactly
        at the bounds need hundreds of steps before they move, here tens. Every sample has its own schedule: it starts
        its next constant, or leaves, when it is ready, where the released code stops early when the batch as a whole
        stops improving, and in Linf and L0 never before a success. The smallest winning move of all steps counts, in
        Linf for the next tau too, and with a budget tau starts at it. Afterwards the move is polished: in L2 and Linf
        by steps towards the least move of the problem linearised there, taken where they win; in L0 by trying the
        units that gain most in that linear model. The margin leads to one class only, whose boundary
        may be up to 1.4 times as far as the nearest on affine problems with ten classes; so `targets` of the others
        are tried, too. L0 ranks units by the gradient of f with respect to x', as the paper
        says (the code: of the whole objective with respect to w), sums the sizes of changes over channels (the code:
        takes the size of their sum), and freezes at once what did not move. Adam is the published one; TensorFlow's
        adds its epsilon before the bias is corrected.

    References:
        Carlini, Wagner, "Towards evaluating the robustness of neural networks", IEEE S&P 2017,
        https://arxiv.org/abs/1608.04644

    Example:
        >>> import torch, assay
        >>> attack = CarliniWagner(threat=assay.L2(), steps=30, search_steps=4, lr=0.1, initial_c=0.1)
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> attack(model, torch.tensor([[0.7, 0.3]]), torch.tensor([0])).distance
        tensor([0.2829])
    """

    threat: Threat
    steps: int | None = None
    search_steps: int = 9
    lr: float | None = None
    initial_c: float | None = None
    max_c: float | None = None
    confidence: float = 0.0
    abort_early: bool = True
    polish: int = 50
    targets: int = 4

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        if not isinstance(self.threat, (L2, Linf, L0)):
            raise ThreatError(f"CarliniWagner works in L2, Linf and L0; got {self.threat!r}.")
        for name in ("steps", "search_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError(f"{name} must be at least 1; got {value}.")
        for name in ("lr", "initial_c", "max_c"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SettingError(f"{name} must be positive and finite; got {value}.")
        if not 0 <= self.confidence < math.inf:
            raise SettingError(f"confidence must be finite and not negative; got {self.confidence}.")
        for name in ("polish", "targets"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name} must not be negative; got {getattr(self, name)}.")

    def aim(self, goal: Goal) -> Goal:
        """The goal, with the confidence that a success needs."""
        if not isinstance(goal, (Untargeted, Targeted)):
            raise LossError(f"CarliniWagner needs a goal on classes; got {type(goal).__name__}.")
        return goal.with_confidence(max(self.confidence, goal.confidence))

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """The search of the threat's norm, the last stretch, and other boundaries."""
        theta, found = self._descent(oracle, x, goal, self._plan(goal)).run()
        rows = found.nonzero().squeeze(1)
        theta[rows] = self._touch(oracle.at(rows), goal.at(rows), theta[rows])
        if self.polish:
            theta = try_boundaries(oracle, goal, theta, found, self.targets, self._touch)
        return self.threat.project(x, theta)

    def _touch(self, oracle: Oracle, goal: Goal, theta: Tensor) -> Tensor:
        """Moves that win, made smaller."""
        part = oracle, oracle.x, goal, theta, class_goal(goal).confidence, self.polish
        if isinstance(oracle.threat, L0):
            return with_fewer(*part, oracle.threat)
        return polish(*part, norm="l2" if isinstance(self.threat, L2) else "linf")

    def _descent(self, oracle: Oracle, x: Tensor, goal: Goal, plan: Plan) -> Descent:
        if isinstance(self.threat, L2):
            return EuclideanDescent(oracle, x, goal, plan, searches=self.search_steps)
        if isinstance(self.threat, L0):
            return SparseDescent(oracle, x, goal, plan, self.threat)
        return CappedDescent(oracle, x, goal, plan)

    def _plan(self, goal: Goal) -> Plan:
        """The paper's numbers where none were given."""
        steps, lr, initial_c, max_c = _PAPER[self.threat.name]
        return Plan(
            steps=steps if self.steps is None else self.steps,
            lr=lr if self.lr is None else self.lr,
            initial_c=initial_c if self.initial_c is None else self.initial_c,
            max_c=max_c if self.max_c is None else self.max_c,
            confidence=max(self.confidence, getattr(goal, "confidence", 0.0)),
            abort_early=self.abort_early,
        )
