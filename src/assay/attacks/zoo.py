"""ZOO: Carlini and Wagner's objective in L2, minimised by scores alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from assay.attacks.base import Attack, smallest_found
from assay.attacks.images import image_shape
from assay.attacks.zoo_descent import CoordinateDescent, Plan
from assay.attacks.zoo_space import Space
from assay.errors import LossError, SettingError, ThreatError
from assay.goals import Goal, Targeted, Untargeted
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L2, Threat
from assay.threats.additive import widened

_UNBOUNDED = 1e10  # no constant has won
_GROWTH = 10.0  # of the constant while none has won
_LAST_AT_UPPER = 10  # searches from which on the last one repeats the smallest constant that won


@final
@dataclass(frozen=True, kw_only=True)
class ZOO(Attack):
    r"""The smallest move whose margin is large enough, by descent along single coordinates with scores alone.

    With the move u in units of the width of the bounds it minimises $\|u\|_2^2 + c \max(0, -margin)$ for each of
    `search_steps` constants c: ten times larger until one wins, then bisected. A step draws some coordinates, takes for
    each the symmetric difference $g_i = (F(m + h e_i) - F(m - h e_i)) / 2h$, and moves it by Adam, whose memory
    and count of steps each coordinate has for itself, or by Newton's step `lr g_i / h_i` with the second difference
    $h_i$ (1 where it is negative, at least 0.1). That is `2 * coordinates + 1` queries a step, 257 by default.

    The margin of logits is the difference of log-probabilities of the paper. Settings of the paper: as here for small
    images; for ImageNet `tanh=True, lr=2e-3, search_steps=1, initial_c=10, side=32, growth=((2000, 64), (10000, 128)),
    importance="periodic", steps=1500`, or 50,000 for targets.

    Args:
        threat: `L2`; without eps the smallest move is looked for, with it any inside is enough.
        solver: "adam" or "newton".
        steps: steps for each constant, at most.
        search_steps: constants tried.
        coordinates: coordinates in one step.
        lr: Adam's step length, or the factor of Newton's.
        h: distance of the differences.
        initial_c: the first constant.
        tanh: optimise before a tanh that ends at the bounds; else values are clipped to them, as the paper does for
            images whose values mostly lie at a bound.
        side: rows and columns of the modifier, which is enlarged bilinearly; those of the input when None.
        growth: pairs `(step, side)`: from that step on the modifier has more rows and columns.
        importance: coordinates are drawn "uniform", or where changes are large, in 8 by 8 regions: "periodic" looks at
            them every 10 steps, as the paper says, "resize" only when the modifier grows, as the released code does.
        reset_adam: forget Adam's memory at the first success with a constant.
        abort_early: leave a constant when it brought no progress (0.01 %) for a tenth of `steps`.

    Shapes:
        x images `(b, c, h, w)`, or signals `(b, d)`, `(b, c, d)`.

    Raises:
        ThreatError: the threat is not L2, or the inputs have more axes.
        SettingError: a setting is out of range.
        LossError: the goal is not about classes.

    Deviations:
        All points are asked about together and judged, so that a difference can win too; they stay inside the bounds
        (a difference at a bound is taken just inside). The squared length is known: only the margin is asked for. The
        released code counts 128 queries a step, as if differences had one side, and no success longer than 20; here
        all queries count. Before the tanh bounds lie at 0.99 of its range in place of 0.999999, where values at them
        hardly move. Regions that have not changed keep a hundredth of the mean probability. Every sample ends a
        constant by its own progress.

    References:
        Chen, Zhang, Sharma, Yi, Hsieh, "ZOO: zeroth order optimization based black-box attacks to deep neural networks
        without training substitute models", AISec 2017, https://arxiv.org/abs/1708.03999

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(2, 2, bias=False).double()
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> attack = ZOO(threat=assay.L2(), steps=300, search_steps=5, initial_c=1.0)
        >>> result = attack(model, torch.tensor([[0.7, 0.3]], dtype=torch.float64), torch.tensor([0]))
        >>> bool(result.distance < 1.01 * 0.4 / 2**0.5), bool(result.forwards <= 1 + 5 * 300 * 5)
        (True, True)
    """

    threat: Threat
    solver: Literal["adam", "newton"] = "adam"
    steps: int = 1000
    search_steps: int = 9
    coordinates: int = 128
    lr: float = 0.01
    h: float = 1e-4
    initial_c: float = 0.01
    tanh: bool = False
    side: int | None = None
    growth: tuple[tuple[int, int], ...] = ()
    importance: Literal["uniform", "periodic", "resize"] = "uniform"
    reset_adam: bool = False
    abort_early: bool = True

    access: ClassVar[Access] = Access.SCORES

    def __post_init__(self) -> None:
        if not isinstance(self.threat, L2):
            raise ThreatError(f"ZOO works in L2; got {self.threat!r}.")
        if self.solver not in ("adam", "newton"):
            raise SettingError(f"solver must be 'adam' or 'newton'; got {self.solver!r}.")
        if self.importance not in ("uniform", "periodic", "resize"):
            raise SettingError(f"importance must be 'uniform', 'periodic' or 'resize'; got {self.importance!r}.")
        for name in ("steps", "search_steps", "coordinates"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("lr", "h", "initial_c"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingError(f"{name} must be positive and finite; got {getattr(self, name)}.")
        if self.side is not None and self.side < 1:
            raise SettingError(f"side must be at least 1; got {self.side}.")
        object.__setattr__(self, "growth", tuple((int(step), int(side)) for step, side in self.growth))
        sides = [0 if self.side is None else self.side, *(side for _, side in self.growth)]
        if self.growth and (self.side is None or any(a >= b for a, b in pairwise(sides))):
            raise SettingError(
                f"growth enlarges a modifier of fewer rows: give side and larger ones; got {self.growth}."
            )
        if self.importance == "resize" and not self.growth:
            raise SettingError("importance='resize' looks at changes when the modifier grows: give growth.")

    def aim(self, goal: Goal) -> Goal:
        """The goal, if it is on classes."""
        if not isinstance(goal, (Untargeted, Targeted)):
            raise LossError(f"ZOO needs a goal on classes; got {type(goal).__name__}.")
        return goal

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """The search over constants."""
        oracle.track()
        image = widened(x).reshape(len(x), *image_shape(x, "ZOO"))
        space = Space(image, self.threat.bounds, tanh=self.tanh, side=self.side)
        c = image.new_full((len(x),), self.initial_c)
        lower, upper = torch.zeros_like(c), torch.full_like(c, _UNBOUNDED)
        plan = self._plan(goal)
        for search in range(self.search_steps):
            if oracle.finished:
                break
            if search == self.search_steps - 1 and self.search_steps >= _LAST_AT_UPPER:
                c = upper
            turn = rng.at(torch.arange(len(x), device=x.device))
            turn.draw = search * self.steps
            found = CoordinateDescent(oracle, turn, space, c, plan).run()
            upper = torch.where(found, torch.minimum(upper, c), upper)
            lower = torch.where(found, lower, torch.maximum(lower, c))
            c = torch.where(upper < _UNBOUNDED, (lower + upper) / 2, _GROWTH * c)
        return smallest_found(oracle, x, torch.zeros_like(x))

    def _plan(self, goal: Goal) -> Plan:
        return Plan(
            solver=self.solver,
            steps=self.steps,
            coordinates=self.coordinates,
            lr=self.lr,
            h=self.h,
            growth=self.growth,
            importance=self.importance,
            reset_adam=self.reset_adam,
            abort_early=self.abort_early,
            confidence=getattr(goal, "confidence", 0.0),
        )
