"""FAB: the fast adaptive boundary attack, which walks along the decision boundary towards the clean input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, cast, final

import torch
from torch import Tensor
from typing_extensions import Self

from assay.attacks.base import Attack
from assay.attacks.boundaries import Boundaries, class_goal, groups, logits, ranked, target_ahead
from assay.attacks.halfspace import Norm, boxed_move, nearest_boxed, size
from assay.errors import LossError, SettingError, ThreatError
from assay.goals import Goal, Targeted, Untargeted
from assay.losses import margin
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L1, L2, Linf, Threat
from assay.threats.additive import column

_RADIUS: dict[Norm, float] = {"linf": 0.3, "l2": 1.0, "l1": 5.0}  # of random starts where eps is None
_SECANTS = 3  # steps of a search along the segment from the clean input
_SHARE = 0.99  # of the way to where such a step expects the boundary
_PATIENCE = 2  # misses, or hits, in a row before the overshoot eta - 1 changes
_GROWTH = 1.5  # of the overshoot with each further miss, and its decay with each further hit
_MOST = 20.0  # times the overshoot, or that part of it, whatever the number


@final
@dataclass(frozen=True, kw_only=True)
class FAB(Attack):
    """Fast adaptive boundary attack: projections on the linearised boundary, biased towards the clean input.

    At the move `theta` the boundary of the nearest class is linearised. Where the decision has changed there, the move
    is noted, and the search goes back to `beta theta`. With `d_1` the least move from there to the hyperplane within
    the box, `d_2` that from the clean input (0), and `a = min(||d_1|| / (||d_1|| + ||d_2||), alpha_max)`:
    `theta <- clip((1 - a) (theta + eta d_1) + a eta d_2)`. After a run's first success and at last, three secant steps
    along the segment from the clean input look for the boundary nearer than the move found.

    Args:
        threat: `L2`, `Linf` or `L1`; with a number, a sample is done as soon as a move inside is found.
        steps: steps of each run.
        restarts: runs; the first starts at the clean input, the others at random moves, half as long as the best one
            known and at most eps / 2.
        targets: one run towards each of that many of the likeliest other classes, in turn, at one backward pass a step
            (FAB-T); None linearises the boundaries of all candidates at each step.
        candidates: how many of the likeliest classes count without `targets`, the right one included; None for all.
        alpha_max: the largest share a of the projection from the clean input.
        eta: by which factor projections are lengthened: more after misses in a row, less after hits in a row.
        beta: how far to go back towards the clean input after a success.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat is none of `L2`, `Linf` and `L1`.
        LossError: the goal or the model's output is not about classes.

    Deviations:
        The nearest class is chosen by distances within the box, where the paper takes those without it. With a targeted
        goal the boundary is that of the target against the strongest other class. The released code keeps shrinking
        moves that are inside eps already; here such a sample is done. Where eps is None the random starts have at most
        half the released code's default radius (Linf 0.3, L2 1, L1 5 for inputs in [0, 1]).

        The paper asks for the decision after each step, and linearises anew at beta theta, beta being 0.9. Here the
        next linearisation answers, once a run has had a success: a forward pass less for each step. Its hyperplane is
        that at theta, which is nearer to the boundary, and going back further costs less: beta is 0.8.

        The pull towards the clean input can keep a sample circling in front of the boundary for good. So after two
        misses in a row the overshoot `eta - 1` grows by a half with each further one, up to twenty times; with hits it
        decays likewise. In L1 nearly all of a projection ends at bounds, which leave no room for a longer move: there
        the gap is multiplied by eta, not the move. The paper searches along the segment at the end only; but a first
        success may be very far. The secant steps aim 1 % short of where they expect the boundary, so that rounding does
        not miss it.

    References:
        Croce, Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020,
        https://arxiv.org/abs/1907.02044
        Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML 2020, https://arxiv.org/abs/2003.01690 (FAB-T).

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]])})
        >>> FAB(threat=assay.L2(), steps=10)(model, torch.tensor([[0.75, 0.5]]), torch.tensor([0])).distance
        tensor([0.0500])
    """

    threat: Threat
    steps: int = 100
    restarts: int = 1
    targets: int | None = None
    candidates: int | None = None
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.8

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        for name in ("steps", "restarts", "targets"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError(f"{name} must be at least 1; got {value}.")
        if self.candidates is not None and self.candidates < 2:
            raise SettingError(f"candidates must be at least 2, the right class and another; got {self.candidates}.")
        if self.candidates is not None and self.targets is not None:
            raise SettingError("candidates are for runs without targets: give one of the two.")
        if not 0 <= self.alpha_max <= 1:
            raise SettingError(f"alpha_max must be between 0 and 1; got {self.alpha_max}.")
        if not 0 < self.eta < math.inf:
            raise SettingError(f"eta must be positive and finite; got {self.eta}.")
        if not 0 < self.beta <= 1:
            raise SettingError(f"beta must be above 0 and at most 1; got {self.beta}.")
        if not isinstance(self.threat, (L2, Linf, L1)):
            raise ThreatError(f"FAB works in L2, Linf and L1; got {self.threat!r}.")

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """Restarts for each target (or for all classes at once), then the final search."""
        best = _Best.empty(x)
        for boundaries in self._aims(oracle, goal):
            for restart in range(self.restarts):
                theta = self._random(x, best.size, rng) if restart else self.threat.identity(x)
                self._search(oracle, best, boundaries, theta)
                if oracle.finished:
                    return best.theta
        found = (oracle.active & best.size.isfinite()).nonzero().squeeze(1)
        if len(found) > 0:
            part, theta = oracle.at(found), best.theta[found]
            self._shorten(part, best, found, theta, part.value(theta, margin))
        return self.threat.project(x, best.theta)

    def _aims(self, oracle: Oracle, goal: Goal) -> list[Boundaries]:
        if self.targets is None or isinstance(goal, Targeted):
            return [Boundaries.of(oracle, goal, self.candidates)]
        if not isinstance(goal, Untargeted):
            raise LossError("FAB chooses the targets itself: give it labels, a Targeted goal, or targets=None.")
        targets = ranked(logits(oracle.clean()), goal)[:, : self.targets]
        towards = partial(Targeted, away=goal.classes, confidence=goal.confidence)
        return [Boundaries(towards(target), (target_ahead,)) for target in targets.unbind(1)]

    @property
    def _norm(self) -> Norm:
        return cast(Norm, self.threat.name)

    def _random(self, x: Tensor, best: Tensor, rng: Keyed) -> Tensor:
        """A random move of half the best size, or half of eps where that is less; clipped to the bounds."""
        low, high = self.threat.bounds
        shape = x.shape[1:]
        draw = rng.uniform(*shape, low=-1.0, high=1.0) if self._norm == "linf" else rng.normal(*shape)
        flat = draw.to(x).flatten(1)
        limit = (high - low) * _RADIUS[self._norm] if self.threat.eps is None else self.threat.budget(x)
        length = torch.minimum(best, torch.as_tensor(limit, dtype=x.dtype, device=x.device)) / 2
        scale = length / size(flat, self._norm).clamp_min(torch.finfo(x.dtype).tiny)
        return (flat * scale[:, None]).reshape(x.shape).clamp(low - x, high - x)

    def _search(self, oracle: Oracle, best: _Best, boundaries: Boundaries, theta: Tensor) -> None:
        """One run, in which samples that are done leave the batch."""
        part, places = oracle, torch.arange(len(theta), device=theta.device)
        met, streak = torch.zeros_like(oracle.active), torch.zeros_like(places)
        for step in range(1, self.steps + 1):
            left = part.active.nonzero().squeeze(1)
            if len(left) == 0:
                return
            if len(left) < len(places):
                part, boundaries, places = part.at(left), boundaries.at(left), places[left]
                theta, met, streak = theta[left], met[left], streak[left]
            steps = [
                self._step(part.at(rows), boundaries.at(rows), theta[rows], streak[rows])
                for rows in groups(part, boundaries)
            ]
            moved, streak = (torch.cat(found) for found in zip(*steps, strict=True))
            best.note(places, theta, self._length(theta), streak > 0)
            met, theta = met | (streak > 0), moved
            unsure = ~met if step < self.steps else torch.ones_like(met)
            if self.threat.eps is not None:  # inside it the sample is done, without another linearisation
                unsure = unsure | (self._length(theta) <= part.threat.budget(part.x))
            rows = (unsure & part.active).nonzero().squeeze(1)
            if len(rows) == 0:
                continue
            value, reached = self._look(part.at(rows), best, places[rows], theta[rows])
            first = reached & ~met[rows]
            met[rows] |= reached
            if step < self.steps and bool(first.any()):
                new = rows[first]
                theta[new] = self._shorten(part.at(new), best, places[new], theta[new], value[first])

    def _step(self, oracle: Oracle, boundaries: Boundaries, theta: Tensor, streak: Tensor) -> tuple[Tensor, Tensor]:
        """The biased step to the nearest hyperplane, and how many moves in a row hit the goal; below 0: missed it."""
        first, *others = boundaries.parts(theta)
        gap, normal, output = first.linearise(oracle, theta)
        reached = oracle.goal.reached(output)
        streak = torch.where(reached, streak.clamp_min(0) + 1, streak.clamp_max(0) - 1)
        flat = torch.where(column(reached, theta), self.beta * theta, theta).flatten(1)
        late = (streak.abs() - _PATIENCE).clamp_min(0) * -streak.sign()
        longer = self.eta + max(0.0, self.eta - 1) * ((_GROWTH ** late.to(gap)).clamp(1 / _MOST, _MOST) - 1)
        for_gap, for_move = (longer, 1) if self._norm == "l1" else (torch.ones_like(longer), longer[:, None])

        low, high = (bound - oracle.x.flatten(1) for bound in self.threat.bounds)
        from_theta = (theta.flatten(1) - flat, for_gap, low - flat, high - flat)
        here, w, gap = self._nearest(gap, normal, *from_theta)
        for part in others:
            gap_k, normal, _ = part.linearise(oracle, theta)
            found = self._nearest(gap_k, normal, *from_theta)
            nearer = size(found[0], self._norm) < size(here, self._norm)
            here, w = (torch.where(nearer[:, None], *pair) for pair in zip(found[:2], (here, w), strict=True))
            gap = torch.where(nearer, found[2], gap)
        from_clean = gap + (w * flat).sum(dim=1)
        side = torch.where(from_clean < 0, -1.0, 1.0).to(w)
        there, _ = boxed_move(w * side[:, None], for_gap * from_clean.abs(), low, high, self._norm)
        a_1, a_2 = size(here, self._norm), size(there, self._norm)
        share = (a_1 / (a_1 + a_2).clamp_min(torch.finfo(a_1.dtype).tiny)).clamp_max(self.alpha_max)[:, None]
        moved = (1 - share) * (flat + for_move * here) + share * for_move * there
        return torch.minimum(torch.maximum(moved, low), high).reshape(theta.shape), streak

    def _nearest(
        self, gap: Tensor, normal: Tensor, ahead: Tensor, for_gap: Tensor, low: Tensor, high: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The least move to the nearest of k hyperplanes, from a point that is `ahead` behind; its normal and gap."""
        gap = gap + (normal @ ahead[..., None]).squeeze(2)
        sign, want = torch.where(gap < 0, -1.0, 1.0).to(gap)[..., None], for_gap[:, None] * gap.abs()
        nearest, here = nearest_boxed(normal * sign, want, low, high, self._norm)
        rows = torch.arange(len(gap), device=gap.device)
        return here, normal[rows, nearest], gap[rows, nearest]

    def _shorten(self, oracle: Oracle, best: _Best, places: Tensor, far: Tensor, above: Tensor) -> Tensor:
        """Secant steps between the clean input and moves with these margins: the shortest that reached the goal."""
        near, goal = torch.zeros_like(far), class_goal(oracle.goal)
        below = margin(oracle.clean(), goal)
        for _ in range(_SECANTS):
            share = (above - goal.confidence) / (above - below).clamp_min(torch.finfo(above.dtype).tiny)
            middle = far + column((_SHARE * share.clamp(0, 1)).to(far), far) * (near - far)
            value, reached = self._look(oracle, best, places, middle)
            inside = column(reached, far)
            far, near = torch.where(inside, middle, far), torch.where(inside, near, middle)
            above, below = torch.where(reached, value, above), torch.where(reached, below, value)
        return far

    def _look(self, oracle: Oracle, best: _Best, places: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The margins of moves, and which of them reach the goal; these are noted."""
        output = oracle.scores(theta)
        reached = oracle.goal.reached(output)
        best.note(places, theta, self._length(theta), reached)
        return margin(output, class_goal(oracle.goal)), reached

    def _length(self, theta: Tensor) -> Tensor:
        return size(theta.flatten(1), self._norm)


@final
@dataclass(frozen=True, eq=False)
class _Best:
    """The smallest move of each sample that reached the goal, whether inside eps or not; else the last one.

    Attributes:
        theta: the moves, `(b, *m)`.
        size: their sizes `(b,)`; inf where none reached the goal.
    """

    theta: Tensor
    size: Tensor

    @classmethod
    def empty(cls, x: Tensor) -> Self:
        return cls(torch.zeros_like(x), x.new_full((len(x),), math.inf))

    def note(self, places: Tensor, theta: Tensor, size: Tensor, reached: Tensor) -> None:
        """Look at the moves of these samples."""
        known = self.size[places]
        better = reached & (size < known)
        keep = better | known.isinf()
        self.theta[places[keep]] = theta[keep]
        self.size[places[better]] = size[better]
