"""FMN: the fast minimum-norm attack, which follows a margin inside a ball that it fits to the boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast, final

import torch
from torch import Tensor
from typing_extensions import Self

from assay.attacks.base import Attack, smallest_found
from assay.attacks.fewer_units import try_fewer
from assay.attacks.guides import Guide, boundary_distance, check_runs, farthest, follow_guides
from assay.attacks.halfspace import Norm
from assay.attacks.memory import carried
from assay.attacks.polish import polish_best
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.losses import Loss, resolve
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L0, L1, L2, Linf, Threat

_STEP = {"linf": 0.7, "l2": 2.0, "l1": 2.0, "l0": 0.3}  # first step, as a share of the radius (see `rel_step`)
_SHARE = {"linf": 0.1, "l2": 0.1, "l1": 0.1, "l0": 0.2}  # by which the radius changes at first
_FARTHEST = 3.0  # first radius over the linearised boundary's distance
_LAST_STEP = 0.01  # of the first one
_LAST_SHARE = 0.02


@final
@dataclass(frozen=True, kw_only=True)
class FMN(Attack):
    r"""Fast minimum-norm attack: a step up the margin, then the projection onto a ball of a size that adapts.

    At the move $\delta_k$ the radius of each sample becomes $\min((1 - \gamma_k) \epsilon, \|\delta_{best}\|)$ where it
    is adversarial and $(1 + \gamma_k) \epsilon$ where it is not; before its first success $\|\delta_k\|$ plus `reach`
    times the distance of the linearised boundary. Then
    $\delta_{k+1} = P_\epsilon(\mathrm{ascend}(\delta_k, g_k, \alpha_k \epsilon))$ with g the gradient of the margin and
    P the projection on ball and box. $\alpha$ falls along a cosine to 1/100 and $\gamma$ to 1/50 of its first value.
    In L0 the radius is a number of units and changes by at least one.

    Args:
        threat: `Linf`, `L2`, `L1` or `L0`; with a number, a sample is done as soon as a move inside is found.
        steps: gradient steps of each run.
        targets: further runs, each along the difference to one class, the nearest linearised boundaries first; 0 for
            one run along the margin alone.
        loss: "margin", "ce", a callable, or None for the soft margin: the direction of cross-entropy. It leads the
            first run.
        gamma: first change of the radius; 0.1 (L0: 0.2) when None.
        rel_step: length of the first step as a share of the radius; when None 0.7 in Linf (sign steps), 2 in L2, 0.3
            in L0 (exchanged units), and 2 in L1, there of the Euclidean length of the move.
        alpha: length of the first step in the Euclidean norm whatever the threat, as in the paper, in units of the
            range of the bounds; in place of `rel_step`.
        reach: the first radius over the distance of the linearised boundary; when None 3, or what a quarter of all
            changes of the radius can take back if that is less.
        give_up: half-way through a run samples leave it whose radius is still above that multiple of their best
            distance; None keeps them.
        polish: gradients spent at last on making the best move smaller, at most; 0 for none. In L0 it is one gradient
            and a bisection of the number of units. With a budget there is none.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat is none of `Linf`, `L2`, `L1` and `L0`.
        LossError: the goal or the model's output is not about classes.

    Deviations:
        The paper's own search is `FMN(steps=1000, targets=0, loss="margin", gamma=0.05, alpha=1.0, reach=1.0,
        give_up=None, polish=0)`. The defaults find smaller moves in fewer passes: steps that fit radius and norm, a
        search that comes from outside, several runs, and a last stretch along the linearised boundary. In every form
        the projection is the exact one on the intersection of ball and box, where the paper projects on the ball and
        clips. In L0 the first radius is the number of units that the linear model asks for (the paper begins with
        one), and without `alpha` the steps are those of `L0.ascend` along gradients that are carried on. The
        linearised boundary's distance is that inside the box, which the paper takes without it. Before the first
        success the radius never falls, and with a budget it stays below it. Starts at adversarial inputs are left out:
        each run starts at the clean input.

    References:
        Pintor, Roli, Brendel, Biggio, "Fast minimum-norm adversarial attacks through adaptive norm constraints",
        NeurIPS 2021, https://arxiv.org/abs/2102.12827

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]])})
        >>> FMN(threat=assay.L2())(model, torch.tensor([[0.75, 0.5]]), torch.tensor([0])).distance
        tensor([0.0500])
    """

    threat: Threat
    steps: int = 100
    targets: int = 4
    loss: str | Loss | None = None
    gamma: float | None = None
    rel_step: float | None = None
    alpha: float | None = None
    reach: float | None = None
    give_up: float | None = 1.5
    polish: int = 20

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        check_runs(steps=self.steps, targets=self.targets, give_up=self.give_up, polish=self.polish)
        if self.gamma is not None and not 0 < self.gamma < 1:
            raise SettingError(f"gamma must be between 0 and 1; got {self.gamma}.")
        for name in ("rel_step", "alpha", "reach"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SettingError(f"{name} must be positive and finite; got {value}.")
        if self.alpha is not None and self.rel_step is not None:
            raise SettingError("alpha and rel_step both give the length of steps: set one of the two.")
        if not isinstance(self.threat, (Linf, L2, L1, L0)):
            raise ThreatError(f"FMN works in Linf, L2, L1 and L0; got {self.threat!r}.")
        resolve(self.loss)

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """One run for each guide."""
        oracle.track()
        theta = follow_guides(oracle, goal, resolve(self.loss), self.targets, self._search)
        if self.threat.eps is None and self.polish:
            self._polish(oracle, goal)
        return smallest_found(oracle, x, theta)

    def _polish(self, oracle: Oracle, goal: Goal) -> None:
        """The last stretch from the best move of each sample to the boundary; in L0 the search for fewer units."""
        if isinstance(self.threat, L0):
            try_fewer(oracle, self.threat)
            return
        polish_best(oracle, goal, self.polish, cast(Norm, self.threat.name))

    def _search(self, oracle: Oracle, guide: Guide) -> Tensor:
        """One run from the clean input, in which samples that are done leave the batch; its last moves."""
        walk = _Walk.start(oracle, guide)
        last, places = walk.theta.clone(), torch.arange(len(walk.theta), device=walk.theta.device)
        for k in range(self.steps):
            left = (walk.oracle.active & self._hopeful(walk, k)).nonzero().squeeze(1)
            if len(left) == 0:
                return last
            if len(left) < len(walk.theta):
                walk, places = walk.at(left), places[left]
            cosine = (1 + math.cos(math.pi * k / self.steps)) / 2
            _, grad, output = walk.oracle.gradient(walk.theta, walk.guide.loss)
            self._resize(walk, grad, output, cosine)
            self._step(walk, grad, cosine)
            last[places] = walk.theta
        walk.oracle.judge(walk.theta)
        return last

    def _hopeful(self, walk: _Walk, k: int) -> Tensor:
        """Who goes on at step k of this run."""
        if k != self.steps // 2 or self.give_up is None:
            return torch.ones_like(walk.oracle.active)
        return walk.radius <= self.give_up * walk.oracle.best_distance

    def _resize(self, walk: _Walk, grad: Tensor, output: Any, cosine: float) -> None:
        """The next radius of each sample."""
        threat, x, theta = self.threat, walk.oracle.x, walk.theta
        whole = isinstance(threat, L0)
        gamma = self._gamma * (_LAST_SHARE + (1 - _LAST_SHARE) * cosine)
        smaller, larger = walk.radius * (1 - gamma), walk.radius * (1 + gamma)
        if whole:
            smaller, larger = smaller.floor().minimum(walk.radius - 1), larger.floor().maximum(walk.radius + 1)
        size, reached = threat.size(x, theta), walk.oracle.goal.reached(output)
        walk.best = torch.where(reached, torch.minimum(size, walk.best), walk.best)
        searching = (~reached & walk.best.isinf()).nonzero().squeeze(1)
        if len(searching):
            gap = walk.guide.gap(output).to(theta.dtype).abs()
            ahead = boundary_distance(threat, *(v[searching] for v in (x, grad, gap)))
            first = size[searching] + (self._reach * ahead).clamp_max(torch.finfo(size.dtype).max)
            larger[searching] = larger[searching].maximum(first.ceil() if whole else first)
        walk.radius = torch.where(reached, smaller.minimum(walk.best), larger).clamp_min(0).minimum(walk.most)

    @property
    def _gamma(self) -> float:
        return _SHARE[self.threat.name] if self.gamma is None else self.gamma

    @property
    def _reach(self) -> float:
        """As far as a quarter of all changes of the radius can take back."""
        if self.reach is not None:
            return self.reach
        return min(_FARTHEST, math.exp(self.steps * self._gamma / 4))

    def _step(self, walk: _Walk, grad: Tensor, cosine: float) -> None:
        """The next move: a step, then the projection on ball and box."""
        threat, x, theta = self.threat.with_eps(walk.radius), walk.oracle.x, walk.theta
        decay = _LAST_STEP + (1 - _LAST_STEP) * cosine
        rel_step = _STEP[threat.name] if self.rel_step is None else self.rel_step
        if self.alpha is not None:
            low, high = threat.bounds
            stepped = _euclidean(
                threat, x, theta, grad, torch.full_like(walk.radius, decay * self.alpha * (high - low))
            )
        elif isinstance(threat, L1):
            scale = torch.linalg.vector_norm(theta.flatten(1), dim=1).maximum(walk.radius / math.sqrt(x[0].numel()))
            stepped = _euclidean(threat, x, theta, grad, decay * rel_step * scale)
        elif isinstance(threat, L0):
            walk.trail = carried(walk.trail, grad, threat.memory)
            stepped = threat.ascend(x, threat.project(x, theta), walk.trail, decay * rel_step * walk.radius)
        else:
            stepped = threat.ascend(x, theta, grad, decay * rel_step * walk.radius)
        walk.theta = threat.project(x, stepped)


@final
@dataclass(eq=False)
class _Walk:
    """One run over the samples that are still worth asking about.

    Attributes:
        oracle: answers for these samples.
        guide: what the run follows.
        theta: where it is, `(b, *m)`.
        trail: gradients carried on (L0), `(b, *m)`.
        radius: of each sample's ball, `(b,)`; 0 before the first step.
        best: the smallest size that this run found to reach the goal, `(b,)`, within eps or not.
        most: the largest radius that makes sense, `(b,)`: eps, or what takes every value to its farther bound.
    """

    oracle: Oracle
    guide: Guide
    theta: Tensor
    trail: Tensor
    radius: Tensor
    best: Tensor
    most: Tensor

    @classmethod
    def start(cls, oracle: Oracle, guide: Guide) -> Self:
        """At the clean inputs."""
        x, threat = oracle.x, oracle.threat
        theta, zero = threat.identity(x), x.new_zeros(len(x))
        best, most = torch.full_like(zero, math.inf), farthest(threat, x)
        return cls(oracle, guide, theta, torch.zeros_like(theta), zero, best, most)

    def at(self, rows: Tensor) -> Self:
        """The part of it that belongs to these samples."""
        tensors = {name: getattr(self, name)[rows] for name in ("theta", "trail", "radius", "best", "most")}
        return replace(self, oracle=self.oracle.at(rows), guide=self.guide.at(rows), **tensors)


def _euclidean(threat: Threat, x: Tensor, theta: Tensor, grad: Tensor, length: Tensor) -> Tensor:
    """A step of this Euclidean length along the gradient."""
    return L2(bounds=threat.bounds).ascend(x, theta, grad, length)
