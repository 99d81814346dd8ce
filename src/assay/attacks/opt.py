"""OPT and Sign-OPT: descent on the distance of the decision boundary over directions, from decisions alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attacks.base import Attack, smallest_found
from assay.attacks.rays import Rays, asking, first_rays, lengths, line_search
from assay.attacks.survey import probe, unit_each
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L2, Threat
from assay.threats.additive import column

_LEAST_STEP, _NEXT_STEP = 1e-4, 1.0  # a shorter step means that probes are too far away: they come nearer
_NEARER = 0.1
_LEAST_BETA = 1e-8
_OF_BETA = 500.0  # the tolerance of lengths is this part of beta


class _RayDescent(Attack):
    """What both share: the first rays, the line search, and probes that come nearer when no step helps."""

    threat: Threat
    steps: int
    directions: int
    probes: int
    alpha: float
    beta: float
    start: Tensor | None
    first_tolerance: ClassVar[float]
    access: ClassVar[Access] = Access.LABELS

    def __post_init__(self) -> None:
        for name in ("steps", "directions", "probes"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("alpha", "beta"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingError(f"{name} must be above 0 and at most 1; got {getattr(self, name)}.")
        if not isinstance(self.threat, L2):
            raise ThreatError(f"{type(self).__name__} works in L2; got {self.threat!r}. HopSkipJump takes Linf too.")

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """First rays, then the descent of those samples that have one."""
        oracle.track()
        low, high = self.threat.bounds
        tolerance = self.first_tolerance * (high - low)
        rays = first_rays(oracle, rng.named("rays"), self.directions, tolerance, self.start)
        rows = (rays.length.isfinite() & oracle.active).nonzero().squeeze(1)
        if len(rows):
            self._descend(oracle.at(rows), rays.at(rows), rng.at(rows))
        return smallest_found(oracle, x, self.threat.identity(x))

    def _descend(self, oracle: Oracle, rays: Rays, rng: Keyed) -> None:
        """All iterations, on ever smaller tensors while samples finish."""
        low, high = self.threat.bounds
        step, beta = torch.full_like(rays.length, self.alpha), torch.full_like(rays.length, self.beta)
        for t in range(self.steps):
            left = (oracle.active & (beta >= _LEAST_BETA)).nonzero().squeeze(1)
            if len(left) == 0:
                return
            if len(left) < len(beta):
                oracle, rays, rng, step, beta = oracle.at(left), rays.at(left), rng.at(left), step[left], beta[left]
            tolerance = beta * (high - low) / _OF_BETA
            slope, probed = self._slope(oracle, rays, beta, tolerance, rng.named("probes", t))
            found, step, helped = line_search(oracle, rays, slope, step, tolerance)
            if probed is not None:
                found = found.better(probed.direction, probed.length.masked_fill(helped, torch.inf))
            rays, stuck = found, step < _LEAST_STEP
            step, beta = step.masked_fill(stuck, _NEXT_STEP), torch.where(stuck, beta * _NEARER, beta)

    @abstractmethod
    def _slope(
        self, oracle: Oracle, rays: Rays, beta: Tensor, tolerance: Tensor, rng: Keyed
    ) -> tuple[Tensor, Rays | None]:
        """The estimated slope of the length over directions, and the shortest rays that were probed on the way."""


@final
@dataclass(frozen=True, kw_only=True)
class SignOPT(_RayDescent):
    r"""Descent on the boundary's distance over directions, with one decision for the sign of each slope.

    Let $g(\theta)$ be the distance at which the decision changes along $\theta$. The slope is
    $\hat g = \frac1K \sum_i \mathrm{sign}(g(\theta + \beta u_i) - g(\theta)) u_i$ with Gaussian $u_i$ of unit length;
    each sign is one decision, at distance $g(\theta)$ along $\theta + \beta u_i$. The step against it is doubled while
    that makes $g$ smaller, or else divided by 4 until it does; $\beta$ falls to a tenth when it comes below 1e-4.

    Args:
        threat: `L2`; with a number, a sample is done as soon as a move inside is found.
        steps: iterations, at most.
        directions: Gaussian directions of which the shortest is the first.
        probes: K, decisions for each slope.
        alpha: the first step.
        beta: how far probes are from a direction of unit length.
        start: inputs to start from in place of Gaussian directions, `(n, *shape)`, up to 100 and the shortest; for
            targets, samples of that class.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat is not `L2`.
        InputError: at use, `start` does not hold inputs like x.

    Deviations:
        Targets are taken too. A direction that is no better at the present length is not measured, as its length would
        not be used; the bracket of one that is better shrinks by 1 %, 2 %, 4 %, ... instead of 1 % each. Where no
        Gaussian direction wins, other noise and blends are tried, 100 in all. Lengths are those of moves before they
        are clipped to the bounds; the referee measures the clipped ones. The released code's momentum and SVM-OPT are
        left out.

    References:
        Cheng, Singh, Chen, Chen, Liu, Hsieh, "Sign-OPT: a query-efficient hard-label adversarial attack", ICLR 2020,
        https://arxiv.org/abs/1909.10773

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]])})
        >>> attack = SignOPT(threat=assay.L2(), steps=10, probes=20)
        >>> distance = attack(model, torch.tensor([[0.75, 0.5]]), torch.tensor([0])).distance
        >>> bool(0.05 <= distance <= 0.0505)
        True
    """

    threat: Threat
    steps: int = 1000
    directions: int = 100
    probes: int = 200
    alpha: float = 0.2
    beta: float = 1e-3
    start: Tensor | None = field(default=None, repr=False, compare=False)

    first_tolerance: ClassVar[float] = 1e-3

    def _slope(
        self, oracle: Oracle, rays: Rays, beta: Tensor, tolerance: Tensor, rng: Keyed
    ) -> tuple[Tensor, Rays | None]:
        """The mean of probes' directions, with the sign - where they win at the present length."""

        def propose(rows: Tensor, drawn: Keyed, k: int) -> tuple[Tensor, Tensor]:
            probes = unit_each(drawn.normal(k, *oracle.x.shape[1:]).to(oracle.x))
            directions = unit_each(rays.direction[rows][:, None] + column(beta[rows], probes) * probes)
            return column(rays.length[rows], probes) * directions, probes

        found = probe(oracle, rng, self.probes, propose)
        return -found.signed / found.count, None


@final
@dataclass(frozen=True, kw_only=True)
class OPT(_RayDescent):
    r"""Descent on the boundary's distance over directions, with slopes from measured distances.

    Let $g(\theta)$ be the distance at which the decision changes along $\theta$, found by bisection. The slope is
    $\hat g = \frac1q \sum_i \frac{g(\theta + \beta u_i) - g(\theta)}{\beta} u_i$ with Gaussian $u_i$ of unit length.
    The step against it is doubled while that makes $g$ smaller, or else divided by 4 until it does; where none does,
    the best probe is taken if it is better. $\beta$ falls to a tenth when the step comes below 1e-4.

    Args:
        threat: `L2`; with a number, a sample is done as soon as a move inside is found.
        steps: iterations, at most.
        directions: Gaussian directions of which the shortest is the first.
        probes: q, measured distances for each slope.
        alpha: the first step.
        beta: how far probes are from a direction of unit length; distances are measured to 1/500 of it.
        start: inputs to start from in place of Gaussian directions, `(n, *shape)`, up to 100 and the shortest; for
            targets, samples of that class.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat is not `L2`.
        InputError: at use, `start` does not hold inputs like x.

    Deviations:
        Distances are in units of the range of the bounds in the slope. Brackets grow and shrink by 1 %, 2 %, 4 %, ...
        instead of 1 % each, up to twice the present distance. In the line search a direction that is no better at the
        present distance is not measured. The released code also takes a probe that is better than a step that helped.
        Where no Gaussian direction wins, other noise and blends are tried, 100 in all. Lengths are those of moves
        before they are clipped to the bounds; the referee measures the clipped ones. One first step serves both
        kinds of goal, where the released code begins targeted searches at 0.1.

    References:
        Cheng, Le, Chen, Yi, Zhang, Hsieh, "Query-efficient hard-label black-box attack: an optimization-based
        approach", ICLR 2019, https://arxiv.org/abs/1807.04457

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]])})
        >>> attack = OPT(threat=assay.L2(), steps=10)
        >>> distance = attack(model, torch.tensor([[0.75, 0.5]]), torch.tensor([0])).distance
        >>> bool(0.05 <= distance <= 0.0505)
        True
    """

    threat: Threat
    steps: int = 1000
    directions: int = 100
    probes: int = 10
    alpha: float = 0.2
    beta: float = 1e-3
    start: Tensor | None = field(default=None, repr=False, compare=False)

    first_tolerance: ClassVar[float] = 1e-5

    def _slope(
        self, oracle: Oracle, rays: Rays, beta: Tensor, tolerance: Tensor, rng: Keyed
    ) -> tuple[Tensor, Rays | None]:
        """The mean of probes' directions, weighted by the measured differences; the shortest probe."""
        shape, (low, high) = oracle.x.shape[1:], self.threat.bounds
        probes = unit_each(rng.normal(self.probes, *shape).to(oracle.x))
        directions = unit_each(rays.direction[:, None] + column(beta, probes) * probes)
        guess = rays.length[:, None].expand(-1, self.probes)
        rows = oracle.active[:, None].expand_as(guess)
        length = lengths(asking(oracle, directions), guess, tolerance[:, None].expand_as(guess), rows)
        weight = (length - guess) / (beta[:, None] * (high - low))
        slope = torch.einsum("bk,bkd->bd", weight, probes.flatten(2)).reshape(rays.direction.shape) / self.probes
        least, place = length.min(dim=1)
        return slope, Rays(directions[torch.arange(len(place), device=place.device), place], least)
