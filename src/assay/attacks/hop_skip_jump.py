"""HopSkipJump: steps along an estimated normal of the decision boundary, from decisions alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attacks.base import Attack, smallest_found
from assay.attacks.bisection import to_boundary
from assay.attacks.decisions import wins
from assay.attacks.starts import find_near_start
from assay.attacks.survey import probe, unit_each
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L2, Linf, Threat
from assay.threats.additive import column

_FIRST_DELTA = 0.1  # radius of the first probes, in units of the range of the bounds
_START_TOLERANCE = 1e-3  # of the share of the start in its blend with the clean input
_HALVINGS = 25  # of a step, at most


@final
@dataclass(frozen=True, kw_only=True)
class HopSkipJump(Attack):
    r"""Estimate the normal of the boundary from decisions at random probes, step along it, come back by bisection.

    At a point $x_t$ of the boundary, $B_t = \min(B_0 \sqrt t, B_{max})$ probes $x_t + \delta_t u_i$ give the normal
    $v_t \propto \sum_i (\phi_i - \bar\phi) u_i$ with $\phi_i = \pm 1$ for a probe that reaches the goal or does not;
    $u_i$ are of unit length, Gaussian in L2 and uniform in Linf. The step goes to $x_t + \xi_t v_t$ (Linf: the sign of
    $v_t$) with $\xi_t = \|x_t - x\| / \sqrt t$ halved until it reaches the goal, and a bisection between there and x
    leads to $x_{t+1}$: along the line in L2, by clipping in Linf. The probes' radius $\delta_t$ is the distance before
    this bisection over d, the number of features; bisections end at $\theta = \gamma d^{-3/2}$ (Linf: $d^{-2}$).

    Args:
        threat: `L2` or `Linf`; with a number, a sample is done as soon as a move inside is found.
        steps: iterations.
        probes: $B_0$, probes of the first iteration.
        max_probes: $B_{max}$.
        gamma: scales the ends of bisections and the probes' radius.
        starts: inputs that are tried for a start, at least: of each wrong class among them one is brought to the
            boundary, and the search begins at the nearest; 1 begins at the first input that wins.
        start: inputs to start from, `(n, *shape)`, the nearest tried first; for targets, samples of that class. Random
            noise is tried after them.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat is neither `L2` nor `Linf`.
        InputError: at use, `start` does not hold inputs like x.

    Deviations:
        Starts that uniform noise does not give are sought in other noise and in blends of it, 100 in all, where the
        released code draws uniform noise alone, up to 10,000 times. It begins at the first start, and a search seldom
        leaves the class of its start: with the nearest of several, distances on 20 images of 28x28 pixels were 14 %
        smaller in the geometric mean after 1,000 queries, 10 % after 2,500 and 2 % after 8,000. Bisections end at a
        thousandth at the latest (below 100 features the paper's end is coarser), in Linf relative to the distance, as
        in the released code. A step is halved 25 times at most, which the released code does without end; a sample
        whose step never wins stays where it is. The best move seen counts, probes included.

    References:
        Chen, Jordan, Wainwright, "HopSkipJumpAttack: a query-efficient decision-based attack", IEEE S&P 2020,
        https://arxiv.org/abs/1904.02144

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]])})
        >>> attack = HopSkipJump(threat=assay.L2(), steps=8)
        >>> distance = attack(model, torch.tensor([[0.75, 0.5]]), torch.tensor([0])).distance
        >>> bool(0.05 <= distance <= 0.0505)
        True
    """

    threat: Threat
    steps: int = 64
    probes: int = 100
    max_probes: int = 10_000
    gamma: float = 1.0
    starts: int = 16
    start: Tensor | None = field(default=None, repr=False, compare=False)

    access: ClassVar[Access] = Access.LABELS

    def __post_init__(self) -> None:
        for name in ("steps", "probes", "max_probes", "starts"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if not 0 < self.gamma < math.inf:
            raise SettingError(f"gamma must be positive and finite; got {self.gamma}.")
        if not isinstance(self.threat, (L2, Linf)):
            raise ThreatError(f"HopSkipJump works in L2 and Linf; got {self.threat!r}.")

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """A start for each sample, then the walk of those that have one."""
        oracle.track()
        theta, found = find_near_start(
            oracle, rng.named("start"), self.start, tried=self.starts, tolerance=_START_TOLERANCE
        )
        rows = (found & oracle.active).nonzero().squeeze(1)
        if len(rows):
            self._walk(oracle.at(rows), theta[rows], rng.at(rows))
        return smallest_found(oracle, x, theta)

    def _walk(self, oracle: Oracle, theta: Tensor, rng: Keyed) -> None:
        """All iterations, on ever smaller tensors while samples finish."""
        linf, d = isinstance(self.threat, Linf), theta[0].numel()
        tolerance = min(self.gamma / d**2 if linf else self.gamma / d**1.5, _START_TOLERANCE)
        if linf:
            theta = to_boundary(oracle, theta, _START_TOLERANCE, clipping=False)
        before = self._size(theta)
        theta = to_boundary(oracle, theta, tolerance, clipping=linf)
        low, high = self.threat.bounds
        for t in range(1, self.steps + 1):
            left = oracle.active.nonzero().squeeze(1)
            if len(left) == 0:
                return
            if len(left) < len(theta):
                oracle, rng, theta, before = oracle.at(left), rng.at(left), theta[left], before[left]
            first = torch.full_like(before, _FIRST_DELTA * (high - low))
            delta = first if t == 1 else self.gamma * before / d
            count = min(int(self.probes * math.sqrt(t)), self.max_probes)
            normal = self._normal(oracle, theta, delta, count, rng.named("probes", t))
            theta = self._stepped(oracle, theta, normal.sign() if linf else normal, self._size(theta) / math.sqrt(t))
            before = self._size(theta)
            theta = to_boundary(oracle, theta, tolerance, clipping=linf)

    def _normal(self, oracle: Oracle, theta: Tensor, delta: Tensor, count: int, rng: Keyed) -> Tensor:
        """The estimated normal at the moved inputs, pointing to the goal's side."""
        x, (low, high) = oracle.x, self.threat.bounds

        def propose(rows: Tensor, drawn: Keyed, k: int) -> tuple[Tensor, Tensor]:
            shape = (k, *x.shape[1:])
            linf = isinstance(self.threat, Linf)
            noise = (drawn.uniform(*shape, low=-1.0, high=1.0) if linf else drawn.normal(*shape)).to(x)
            place, radius = (x[rows] + theta[rows])[:, None], column(delta[rows], noise)
            probes = (place + radius * unit_each(noise)).clamp(low, high)
            return probes - x[rows][:, None], (probes - place) / radius

        return probe(oracle, rng, count, propose).normal(baseline=True)

    def _stepped(self, oracle: Oracle, theta: Tensor, direction: Tensor, length: Tensor) -> Tensor:
        """The moves after a step that still wins, the longest of those tried."""
        open_, x, (low, high) = oracle.active.clone(), oracle.x, self.threat.bounds
        for _ in range(_HALVINGS):
            if not bool((open_ & oracle.active).any()):
                break
            moved = (x + theta + column(length, x) * direction).clamp(low, high) - x
            won = wins(oracle, moved, open_)
            theta = torch.where(column(won, x), moved, theta)
            open_, length = open_ & ~won, length / 2
        return theta

    def _size(self, theta: Tensor) -> Tensor:
        """The norm of each move, `(b,)`; never 0."""
        order = torch.inf if isinstance(self.threat, Linf) else 2
        size: Tensor = torch.linalg.vector_norm(theta.flatten(1), order, dim=1)
        return size.clamp_min(torch.finfo(theta.dtype).tiny)
