"""ZOO's coordinate descent for one constant: symmetric differences of a few coordinates, then Adam or Newton steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from assay import losses
from assay.attacks.zoo_space import Space
from assay.oracle import Oracle
from assay.rng import Keyed
from assay.threats.additive import column, widened

_BETAS, _TINY = (0.9, 0.999), 1e-8  # Adam's
_FLAT = 0.1  # second derivatives below are taken to be this
_PROGRESS = 0.9999  # a loss above this share of the last look's is no progress
_CHECKS = 10  # looks at the progress within `steps`
_REFRESH = 10  # steps after which probabilities follow the changes
_VALUES_AT_ONCE = 1 << 24  # values of candidate moves held together


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The numbers of one descent; as the settings of `ZOO`, whose names they have."""

    solver: Literal["adam", "newton"]
    steps: int
    coordinates: int
    lr: float
    h: float
    growth: tuple[tuple[int, int], ...]
    importance: Literal["uniform", "periodic", "resize"]
    reset_adam: bool
    abort_early: bool
    confidence: float


@final
class CoordinateDescent:
    """Minimise `||u||^2 + c max(0, confidence - margin)` over modifiers, from the clean input.

    Args:
        oracle: for the samples that take part.
        rng: their random numbers.
        space: of their modifiers.
        c: their constants, `(n,)`.
        plan: the numbers.
    """

    def __init__(self, oracle: Oracle, rng: Keyed, space: Space, c: Tensor, plan: Plan) -> None:
        self.oracle, self.rng, self.space, self.plan = oracle, rng, space, plan
        self.c, self.rows = c, torch.arange(len(c), device=c.device)
        self.found = torch.zeros(len(c), dtype=torch.bool, device=c.device)  # of all who took part
        self.won, self.ended = self.found.clone(), self.found.clone()  # of who is left
        self.seen = torch.full_like(c, torch.inf)
        self.chance: Tensor | None = None
        self._clear(c.new_zeros(len(c), space.count))

    def run(self) -> Tensor:
        """All steps, or fewer where they bring nothing; which samples have won with this constant."""
        sides = dict(self.plan.growth)
        for step in range(self.plan.steps):
            self._narrow()
            if len(self.rows) == 0 or self.oracle.finished:
                break
            if step in sides:
                self.space, modifier = self.space.enlarged(self.modifier, sides[step])
                self._clear(modifier)
            if step in sides or (self.plan.importance == "periodic" and step % _REFRESH == 0):
                self.chance = None if self.plan.importance == "uniform" else self.space.importance(self.modifier)
            chosen = self._choose()
            value, penalty, slope, bend = self._ask(chosen)
            self._follow(step, value, penalty)
            self._update(chosen, slope, bend)
        self.found[self.rows] = self.won
        return self.found

    def _clear(self, modifier: Tensor) -> None:
        """Go on from these modifiers, nothing known of their coordinates."""
        self.modifier = modifier
        self.first, self.second, self.beat = (torch.zeros_like(modifier) for _ in range(3))

    def _narrow(self) -> None:
        """Leave those who are through."""
        live = self.oracle.active & ~self.ended
        if bool(live.all()):
            return
        self.found[self.rows] = self.won
        kept = live.nonzero().squeeze(1)
        for name in ("rows", "c", "won", "ended", "seen", "modifier", "first", "second", "beat"):
            setattr(self, name, getattr(self, name)[kept])
        self.chance = None if self.chance is None else self.chance[kept]
        self.oracle, self.rng, self.space = self.oracle.at(kept), self.rng.at(kept), self.space.at(kept)

    def _choose(self) -> Tensor:
        """Coordinates, `(n, k)`: without repeats, each with its probability."""
        k = min(self.plan.coordinates, self.space.count)
        if self.chance is None:
            return self.rng.choice(self.space.count, k)
        noise = self.rng.uniform(self.space.count).to(self.chance).clamp_min(torch.finfo(self.chance.dtype).tiny)
        return (self.chance.log() - (-noise.log()).log()).topk(k, dim=1).indices

    def _ask(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Hinge and squared length of the modifiers, and first and second derivatives along the coordinates.

        The squared length is known, so that its differences need no question and have no rounding of the whole sum.
        """
        each = (2 * chosen.shape[1] + 1) * self.space.place[0].numel()
        groups = torch.split(torch.arange(len(chosen), device=chosen.device), max(1, _VALUES_AT_ONCE // each))
        parts = [self._ask_some(rows, chosen[rows]) for rows in groups]
        value, penalty, slope, bend = (torch.cat(part) for part in zip(*parts, strict=True))
        return value, penalty, slope, bend

    def _ask_some(self, rows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        n, k, h = *chosen.shape, self.plan.h
        space, oracle, c = self.space.at(rows), self.oracle.at(rows), self.c[rows, None]
        now, (low, high) = self.modifier[rows], (limit.gather(1, chosen) for limit in space.limits())
        middle = now.gather(1, chosen).clamp(low + h, high - h)  # a difference at a bound is one just inside it
        points = now[:, None].repeat(1, 2 * k + 1, 1)
        for side, offset in ((0, h), (1, -h)):
            points[:, 1 + side :: 2].scatter_(2, chosen[:, :, None], (middle + offset)[:, :, None])
        u = space.move(points)
        width = oracle.threat.bounds[1] - oracle.threat.bounds[0]
        moves = (u * width).to(oracle.x).reshape(n, 2 * k + 1, *oracle.x.shape[1:])
        margin = widened(oracle.value(moves, losses.margin)).nan_to_num(-torch.inf)
        hinge = (self.plan.confidence - margin).clamp_min(0)
        here, above, below = u[:, :1], u[:, 1::2], u[:, 2::2]
        longer = _sum((above - below) * (above + below))
        curved = _sum((above - here) * (above + here) + (below - here) * (below + here))
        slope = (longer + c * (hinge[:, 1::2] - hinge[:, 2::2])) / (2 * h)
        bend = (curved + c * (hinge[:, 1::2] - 2 * hinge[:, :1] + hinge[:, 2::2])) / (h * h)
        bend = torch.where(middle == now.gather(1, chosen), bend, 1.0)
        return margin[:, 0], _sum(here.square())[:, 0], slope.nan_to_num(0, 0, 0), bend.nan_to_num(1, 1, 1)

    def _follow(self, step: int, margin: Tensor, penalty: Tensor) -> None:
        """Note who has won, start Adam anew where that is new, and end what brings no progress."""
        won = (margin > 0) & (margin >= self.plan.confidence)
        if self.plan.reset_adam:
            fresh = column(won & ~self.won, self.modifier)
            for memory in (self.first, self.second, self.beat):
                memory.masked_fill_(fresh, 0)
        self.won |= won
        loss = penalty + self.c * (self.plan.confidence - margin).clamp_min(0)
        if self.plan.abort_early and step % max(1, self.plan.steps // _CHECKS) == 0:
            self.ended = ~(loss <= _PROGRESS * self.seen)
            self.seen = loss

    def _update(self, chosen: Tensor, slope: Tensor, bend: Tensor) -> None:
        """One step of these coordinates, each with its own count of steps."""
        if self.plan.solver == "newton":
            change = self.plan.lr * slope / torch.where(bend < 0, 1.0, bend.clamp_min(_FLAT))
        else:
            first = torch.lerp(slope, self.first.gather(1, chosen), _BETAS[0])
            second = torch.lerp(slope.square(), self.second.gather(1, chosen), _BETAS[1])
            beat = self.beat.gather(1, chosen) + 1
            for memory, value in ((self.first, first), (self.second, second), (self.beat, beat)):
                memory.scatter_(1, chosen, value)
            unit = (1 - _BETAS[1] ** beat).sqrt() / (1 - _BETAS[0] ** beat)
            change = self.plan.lr * unit * first / (second.sqrt() + _TINY)
        low, high = (limit.gather(1, chosen) for limit in self.space.limits())
        self.modifier.scatter_(1, chosen, (self.modifier.gather(1, chosen) - change).clamp(low, high))


def _sum(value: Tensor) -> Tensor:
    """Over each move of `(n, k, c, h, w)`."""
    total: Tensor = value.flatten(2).sum(dim=2)
    return total
