"""DeepFool: step after step to the nearest linearised decision boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast, final

import torch
from torch import Tensor

from assay.attacks.base import Attack
from assay.attacks.boundaries import Boundaries, groups
from assay.attacks.halfspace import Norm, dual_size, free_move, nearest_free, nearest_open
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L2, Linf, Threat
from assay.threats.additive import column, widened

_NUDGE = 1e-4  # added to the length of each step, in units of the range of valid inputs
_LIKELY = 0.85  # share of the way to the linearised boundary from which a changed decision is looked for


@final
@dataclass(frozen=True, kw_only=True)
class DeepFool(Attack):
    """Steps to the nearest linearised decision boundary until the decision changes.

    With `f_k = z_k - z_y` and its gradient `w_k`, both at `x + (1 + overshoot) r`, each step adds to r the least move
    that reaches the nearest of the hyperplanes `f_k + <w_k, delta> = 0`: for L2 of length `|f_k| / ||w_k||_2` along
    `w_k`, for Linf `|f_k| / ||w_k||_1` along `sign(w_k)`. A sample whose decision has changed leaves the batch. On a
    linear model a single step ends `overshoot` beyond the smallest move: by default 2 %, and 4 % where the bounds make
    further steps necessary. Towards a target there is one hyperplane, that
    of the target against the strongest other class.

    Args:
        threat: `L2` or `Linf`; with a number, a sample counts if the point found is inside.
        steps: steps at most.
        candidates: how many of the likeliest classes count, the right one included.
        overshoot: by which share the sum of all steps is lengthened.
        clip: clip the sum of all steps to the bounds after each one, and pass over classes towards which the bounds
            stop nearly the whole step; the paper does neither.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat is neither `L2` nor `Linf`.
        LossError: the goal or the model's output is not about classes.

    Deviations:
        The paper's search may leave the bounds. With `clip=False` the sum r is not clipped here either, but the model
        is asked, the gradients are taken and the move is measured at the point clipped to the bounds, as only such
        inputs are allowed. In both forms further steps have to make up for values that a bound stops. With `clip=True`
        a class is passed over for a further one where the step to it, clipped, gains less than a twentieth of the gap:
        such a class can hold a sample in its place. The released code adds 1e-4 to the length of each step whatever the
        scale of the inputs; here it is 1e-4 of the range of the bounds for L2, and divided by the square root of the
        number of values, the same Euclidean length, for Linf. The candidates are the likeliest classes at each point,
        in the paper those at the clean input. Targets are an addition.

    References:
        Moosavi-Dezfooli, Fawzi, Frossard, "DeepFool: a simple and accurate method to fool deep neural networks",
        CVPR 2016, https://arxiv.org/abs/1511.04599

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]])})
        >>> DeepFool(threat=assay.L2())(model, torch.tensor([[0.75, 0.5]]), torch.tensor([0])).distance
        tensor([0.0511])
    """

    threat: Threat
    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02
    clip: bool = True

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingError(f"steps must be at least 1; got {self.steps}.")
        if self.candidates < 2:
            raise SettingError(f"candidates must be at least 2, the right class and another; got {self.candidates}.")
        if not 0 <= self.overshoot < math.inf:
            raise SettingError(f"overshoot must be finite and not negative; got {self.overshoot}.")
        if not isinstance(self.threat, (L2, Linf)):
            raise ThreatError(f"DeepFool works in L2 and Linf; got {self.threat!r}. FAB takes L1 as well.")

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """Steps of those whose decision has not changed yet."""
        theta = self.threat.identity(x)
        boundaries = Boundaries.of(oracle, goal, self.candidates)
        part, total, places = oracle, widened(theta), torch.arange(len(x), device=x.device)
        left = oracle.active & ~oracle.goal.reached(oracle.clean())
        for _ in range(self.steps):
            part, boundaries, total, places = part.at(left), boundaries.at(left), total[left], places[left]
            if len(places) == 0:
                return self.threat.project(x, theta)
            steps = [self._step(part.at(rows), boundaries.at(rows), total[rows]) for rows in groups(part, boundaries)]
            total, left, enough = (torch.cat(found) for found in zip(*steps, strict=True))
            theta[places] = ((1 + self.overshoot) * total).to(x.dtype)
            # Where the bounds stop most of the step, it is the next step's question that judges this one.
            crossed = enough & part.goal.reached(part.scores(theta[places], rows=left & enough))
            left &= part.active & ~crossed
        part.judge(theta[places], rows=left & ~enough)
        return self.threat.project(x, theta)

    def _step(self, oracle: Oracle, boundaries: Boundaries, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sum of steps with the next one; who still needed it; whether it may well be enough, as far as allowed."""
        x, (low, high) = widened(oracle.x), self.threat.bounds
        now = (1 + self.overshoot) * total
        gap, normal, output = boundaries.linearise(oracle, now.to(oracle.x.dtype))
        gap, normal = widened(gap), widened(normal)
        left = ~oracle.goal.reached(output)
        norm = cast(Norm, self.threat.name)
        nudge = _NUDGE * (high - low) / (1 if norm == "l2" else math.sqrt(x[0].numel()))
        if self.clip:
            here = (x + now).clamp(low, high).flatten(1)
            nearest = nearest_open(normal, gap, low - here, high - here, norm)
        else:
            nearest = nearest_free(normal, gap, norm)
        rows = torch.arange(len(x), device=x.device)
        w, gap = normal[rows, nearest], gap[rows, nearest]
        new = total + free_move(w, gap + nudge * dual_size(w, norm), norm).reshape(x.shape)
        if self.clip:
            new = (x + new).clamp(low, high) - x
        new = torch.where(column(left, x), new, total)
        moved = (x + (1 + self.overshoot) * new).clamp(low, high) - (x + now).clamp(low, high)
        return new, left, (w * moved.flatten(1)).sum(dim=1) >= _LIKELY * gap
