"""EAD: the elastic-net attack, sparse moves by shrinkage steps on a penalty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from assay import losses
from assay.attacks.base import Attack
from assay.attacks.boundaries import class_goal
from assay.attacks.other_boundaries import try_boundaries
from assay.attacks.polish import polish
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L1
from assay.threats.additive import column, widened

_CHECKS = 10  # looks at the progress within `steps`
_PROGRESS = 0.9999  # a loss above this share of the last look's is no progress
_NARROW_AT = 0.75  # share of samples left at which the working tensors are narrowed
_GROWTH = 10.0  # of the constant before the first success


@final
@dataclass(frozen=True, kw_only=True)
class EAD(Attack):
    """Elastic-net attack: the smallest L1 move on the way to `min c f + ||u||_2^2 + beta ||u||_1`.

    With the move `u = theta / (high - low)` and `f = max(0, confidence - margin)`, FISTA goes from y, the clean input
    at first, with S the shrinkage by beta within the bounds:

    - `u_{k+1} = S(y_k - rate_k grad(c f + ||y||_2^2)(y_k))`, `rate_k = lr sqrt(1 - k / steps)`,
    - `y_{k+1} = u_{k+1} + k / (k + 3) (u_{k+1} - u_k)`.

    For each sample this is done for `search_steps` constants c: ten times larger until one wins, then bisected. Those
    that could not move anything, `c |df/du_i| <= beta / lr` for all i, are passed over and do not count, so that flat
    logits need no other settings. The smallest winning move of all steps counts, in the L1 norm (the paper's L1
    decision rule). At last it is polished.

    Args:
        threat: `L1`; without eps the smallest move is looked for, with it any inside is enough.
        beta: shrinkage of a step in units of the range, which is the weight of the L1 norm; 0.001 or 0.01 in the paper.
        steps: gradients for each constant, at most.
        search_steps: constants tried.
        lr: the first step length.
        initial_c: the first constant.
        confidence: the margin of logits (kappa) that a success needs.
        accelerate: extrapolate as FISTA does; without it y is u (ISTA).
        abort_early: leave a constant when it brought no progress (0.01 %) for a tenth of `steps`.
        polish: gradients spent after the search to make the best move smaller, at most; 0 for the search alone.
        targets: boundaries to further classes that are tried then, those that look nearest first, with at most 10
            gradients and a polish for each.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension.

    Raises:
        ThreatError: the threat is not L1.
        SettingError: a setting is out of range.
        LossError: the goal is not about classes.

    Deviations:
        The elastic-net decision rule keeps the least `||u||_2^2 + beta ||u||_1`; the size of a move is the threat's
        business, so there is the L1 rule alone. Every sample has its own schedule and leaves when it is done, where the
        released code stops early when the batch as a whole stops improving. Only the points y are asked and judged,
        within the bounds; the released code asks u as well, for twice the forward passes. The polish and the further
        boundaries are none of the paper's: elastic-net moves spread over more values than the smallest L1 move does,
        and the margin leads to one class, whose boundary may be 1.5 times as far as the nearest on affine problems with
        ten classes.

    References:
        Chen, Sharma, Zhang, Yi, Hsieh, "EAD: elastic-net attacks to deep neural networks via adversarial examples",
        AAAI 2018, https://arxiv.org/abs/1709.04114

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]])})
        >>> attack = EAD(threat=assay.L1(), steps=100, search_steps=5)
        >>> attack(model, torch.tensor([[0.75, 0.5]]), torch.tensor([0])).distance
        tensor([0.0625])
    """

    threat: L1
    beta: float = 1e-2
    steps: int = 1000
    search_steps: int = 9
    lr: float = 1e-2
    initial_c: float = 1e-3
    confidence: float = 0.0
    accelerate: bool = True
    abort_early: bool = True
    polish: int = 20
    targets: int = 4

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        if not isinstance(self.threat, L1):
            raise ThreatError(f"EAD looks for small moves in L1; got {self.threat!r}.")
        for name in ("steps", "search_steps"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("lr", "initial_c"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingError(f"{name} must be positive and finite; got {getattr(self, name)}.")
        for name in ("beta", "confidence"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingError(f"{name} must be finite and not negative; got {getattr(self, name)}.")
        for name in ("polish", "targets"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name} must not be negative; got {getattr(self, name)}.")

    def aim(self, goal: Goal) -> Goal:
        """The goal, with the confidence that a success needs."""
        goal = class_goal(goal)
        return goal.with_confidence(max(self.confidence, goal.confidence))

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """The search over constants, the last stretch, and other boundaries."""
        theta, found = _Search(self, oracle, x, goal).run()
        rows = (found & oracle.active).nonzero().squeeze(1)
        theta[rows] = self._touch(oracle.at(rows), goal.at(rows), theta[rows])
        if self.polish:
            theta = try_boundaries(oracle, goal, theta, found, self.targets, self._touch)
        return self.threat.project(x, theta)

    def _touch(self, oracle: Oracle, goal: Goal, theta: Tensor) -> Tensor:
        """Moves that win, made smaller."""
        return polish(oracle, oracle.x, goal, theta, class_goal(goal).confidence, self.polish, norm="l1")


class _Search:
    """The state of every sample that is left: where it is, and which constants are known to win or to fail."""

    def __init__(self, attack: EAD, oracle: Oracle, x: Tensor, goal: Goal) -> None:
        self.attack, self.oracle, self.goal = attack, oracle, goal
        self.low, self.high = oracle.threat.bounds
        self.confidence, self.dtype = class_goal(goal).confidence, x.dtype
        self.x = widened(x)
        self.result, self.found = torch.zeros_like(x), torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.place = torch.arange(len(x), device=x.device)
        self.u, self.y = torch.zeros_like(self.x), torch.zeros_like(self.x)
        self.c = self.x.new_full((len(x),), attack.initial_c)
        self.lower, self.upper = torch.zeros_like(self.c), torch.full_like(self.c, torch.inf)
        self.step, self.searched = torch.zeros_like(self.c), torch.zeros_like(self.c)
        self.seen = torch.full_like(self.c, torch.inf)  # the loss at the last look
        self.won = torch.zeros_like(self.c, dtype=torch.bool)  # with this constant
        self.best, self.least = torch.zeros_like(self.x), torch.full_like(self.c, torch.inf)

    def run(self) -> tuple[Tensor, Tensor]:
        """Search until every sample is done: the smallest moves that won, else the last ones, and which have won."""
        while True:
            live = self.oracle.active & (self.searched < self.attack.search_steps)
            left = int(live.sum())
            if left <= _NARROW_AT * len(live):
                self._narrow(live.nonzero().squeeze(1))
                live = torch.ones_like(self.won)
            if left == 0:
                return self.result, self.found
            ended = self._advance(live)
            if bool(ended.any()):
                self._next_constant(ended)

    def _advance(self, live: Tensor) -> Tensor:
        """One gradient and one step for everyone; who is through with a constant."""
        attack, width = self.attack, self.high - self.low
        margin, grad, output = self.oracle.gradient((self.y * width).to(self.dtype), losses.margin, rows=live)
        reached, length = live & self.goal.reached(output), self.y.flatten(1).abs().sum(dim=1)
        self.won |= reached
        better = reached & (length < self.least)
        self.best[better], self.least[better] = self.y[better], length[better]
        shortfall = (self.confidence - margin.to(self.c)).nan_to_num(0)
        self._raise(grad * width, live & (self.step == 0) & (shortfall > 0))
        loss = self.c * shortfall.clamp_min(0) + self.y.flatten(1).square().sum(dim=1) + attack.beta * length
        pull = torch.where(shortfall > 0, self.c * width, 0)
        slope = 2 * self.y - column(pull, self.y) * grad.to(self.y)
        rate = attack.lr * (1 - self.step / attack.steps).clamp_min(0).sqrt()
        ahead = self.y - column(rate, self.y) * slope
        shrunk = self._boxed(ahead.sign() * (ahead.abs() - attack.beta).clamp_min(0))
        push = self.step / (self.step + 3) if attack.accelerate else torch.zeros_like(self.step)
        self.y = self._boxed(shrunk + column(push, shrunk) * (shrunk - self.u))
        self.u = shrunk
        self.step += 1
        ended = self.step >= attack.steps
        if attack.abort_early:
            look = self.step % max(attack.steps // _CHECKS, 1) == 0
            ended |= look & ~(loss <= _PROGRESS * self.seen)
            self.seen = torch.where(look, loss, self.seen)
        return ended

    def _raise(self, grad: Tensor, rows: Tensor) -> None:
        """The first power of ten times the constant that moves anything away from the clean input, before a success."""
        low, high = self.low - self.x, self.high - self.x
        steepest = torch.where((grad > 0) & (high > 0) | (grad < 0) & (low < 0), grad.abs(), 0).flatten(1).amax(dim=1)
        more = (self.attack.beta / self.attack.lr / (self.c * steepest.to(self.c))).log10().ceil().clamp_min(0)
        rows = rows & self.upper.isinf() & more.isfinite()
        self.c = torch.where(rows, self.c * _GROWTH**more, self.c)

    def _boxed(self, u: Tensor) -> Tensor:
        """Within the bounds."""
        width = self.high - self.low
        return torch.minimum(torch.maximum(u, (self.low - self.x) / width), (self.high - self.x) / width)

    def _next_constant(self, ended: Tensor) -> None:
        """Grow or bisect the constant, and begin anew from the clean input."""
        self.upper = torch.where(ended & self.won, torch.minimum(self.upper, self.c), self.upper)
        self.lower = torch.where(ended & ~self.won, torch.maximum(self.lower, self.c), self.lower)
        following = torch.where(self.upper.isfinite(), (self.lower + self.upper) / 2, self.c * _GROWTH)
        self.c = torch.where(ended, following, self.c)
        self.searched += ended
        self.won &= ~ended
        self.step = self.step.masked_fill(ended, 0)
        self.seen = self.seen.masked_fill(ended, torch.inf)
        wide = column(ended, self.y)
        self.u, self.y = self.u.masked_fill(wide, 0), self.y.masked_fill(wide, 0)

    def _narrow(self, rows: Tensor) -> None:
        """Go on with these rows alone."""
        found = self.least.isfinite()
        kept = torch.where(column(found, self.u), self.best, self.u)
        self.result[self.place], self.found[self.place] = (kept * (self.high - self.low)).to(self.dtype), found
        for name in ("place", "x", "u", "y", "best", "c", "lower", "upper", "step", "searched", "seen", "won", "least"):
            setattr(self, name, getattr(self, name)[rows])
        self.oracle, self.goal = self.oracle.at(rows), self.goal.at(rows)
