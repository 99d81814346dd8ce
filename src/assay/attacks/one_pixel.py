"""One-pixel attack: differential evolution over the places and values of a few pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attacks.base import Attack
from assay.attacks.remaining import Remaining
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.losses import Loss, resolve
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L0, Threat
from assay.threats.base import need_budget

_TOGETHER = 50  # candidates in one question, at most: a sample leaves after those that break it
_PARENTS = 3  # that a child is made of


@final
@dataclass(frozen=True, kw_only=True)
class OnePixel(Attack):
    r"""Differential evolution over as many pixels as the threat allows: where they are, and what they become.

    A candidate holds for each pixel its row and column, as real numbers, and its values. Child i of the next
    generation is $v_{r_1} + F (v_{r_2} - v_{r_3})$ with three different random candidates, without crossover; it
    takes the place of candidate i where its loss is larger.

    `L0(1, unit="pixel")` is the attack of the title; 3 and 5 are the paper's others. With `unit="feature"` single
    values are changed.

    Args:
        threat: `L0` with a budget eps, the number of pixels.
        generations: generations after the first.
        population: candidates.
        factor: F.
        loss: "margin", "ce", "dlr", a callable, or None for the goal's own (cross-entropy).

    Shapes:
        x `(b, c, height, width)` where the threat counts pixels, else `(b, *shape)` of any shape.

    Raises:
        ThreatError: the threat is not `L0` or has no budget, or inputs have no pixels.
        SettingError: a setting is out of range.

    Deviations:
        The paper stops when the target has 90 % of the probability, or the right class less than 5 %; here the first
        success ends the search of a sample. Its first values are normal, of mean and deviation one half of the range,
        as in the paper, and clipped. What leaves the image or the bounds is reflected, on which the paper is silent.
        The default loss is the margin, since probabilities near 1 are all the same in floating point.

    References:
        Su, Vargas, Sakurai, "One pixel attack for fooling deep neural networks", IEEE Transactions on Evolutionary
        Computation 23, 2019, https://arxiv.org/abs/1710.08864

    Example:
        >>> import torch, assay
        >>> attack = OnePixel(threat=assay.L0(1, unit="pixel"), generations=2, population=10)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
        >>> result = attack(model, torch.full((2, 3, 4, 4), 0.5), torch.tensor([0, 1]))
        >>> int(result.forwards.max()) <= 1 + 3 * 10
        True
    """

    threat: L0
    generations: int = 100
    population: int = 400
    factor: float = 0.5
    loss: str | Loss | None = "margin"

    access: ClassVar[Access] = Access.SCORES

    def __post_init__(self) -> None:
        need_budget(self.threat, "OnePixel")
        if not isinstance(self.threat, L0):
            raise ThreatError(f"OnePixel works in L0, such as L0(1, unit='pixel'); got {self.threat!r}.")
        if self.generations < 0:
            raise SettingError(f"generations must not be negative; got {self.generations}.")
        if self.population <= _PARENTS:
            raise SettingError(f"population must be at least {_PARENTS + 1}; got {self.population}.")
        if not 0 < self.factor <= 2:
            raise SettingError(f"factor must be above 0 and at most 2; got {self.factor}.")
        resolve(self.loss)

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """Generation after generation."""
        nothing, left = self.threat.identity(x), Remaining(oracle, rng)
        form = _Form.of(x, self.threat)
        if form.units == 0:
            return nothing
        held = self._first(form, rng)
        value = self._ask(left, form, held)
        for _ in range(self.generations):
            nothing, held, value = left.narrow(nothing, held, value)
            if left.oracle.finished:
                break
            children = form.reflected(self._children(held, left.rng))
            found = self._ask(left, form, children)
            better = found > value
            held, value = torch.where(better[:, :, None, None], children, held), torch.where(better, found, value)
        best = held[torch.arange(len(held), device=held.device), value.argmax(dim=1)]
        return left.moves(form.moves(left.x, best[:, None], left.threat)[:, 0])

    def _first(self, form: _Form, rng: Keyed) -> Tensor:
        """Places anywhere, values around the middle, `(b, population, units, numbers)`."""
        drawn = rng.uniform(self.population, form.units, len(form.sizes))  # half precision rounds places, and up to 1
        places = drawn * form.ends(drawn)[0][: len(form.sizes)]
        low, high = form.bounds
        values = rng.normal(self.population, form.units, form.values) * ((high - low) / 2) + (high + low) / 2
        return torch.cat([places, values.clamp(low, high)], dim=3)

    def _children(self, held: Tensor, rng: Keyed) -> Tensor:
        """One child in the place of each candidate, of three different ones."""
        n = held.shape[1]
        chosen: list[Tensor] = []
        for k in range(_PARENTS):
            pick = rng.integers(0, n - k, n)
            chosen.append(pick)
            for other in torch.stack(chosen)[:-1].sort(dim=0).values:  # of those that are left, as one of all
                chosen[-1] = chosen[-1] + (chosen[-1] >= other).long()
        rows = torch.arange(len(held), device=held.device)[:, None]
        one, two, three = (held[rows, pick] for pick in chosen)
        return one + self.factor * (two - three)

    def _ask(self, left: Remaining, form: _Form, held: Tensor) -> Tensor:
        """The loss of each candidate, `(b, population)`; -inf where nobody was asked."""
        values, rows = [], left.threat.budget(left.x) >= 1
        for some in torch.split(held, _TOGETHER, dim=1):
            moves = form.moves(left.x, some, left.threat)
            values.append(left.oracle.value(moves, resolve(self.loss), rows).nan_to_num(-torch.inf))
        return torch.cat(values, dim=1)


@final
@dataclass(frozen=True)
class _Form:
    """What the numbers of a candidate mean: for each unit its place along each axis, then its values.

    Attributes:
        units: units of a candidate.
        sizes: places along each axis.
        values: values of a unit.
        bounds: of valid values.
    """

    units: int
    sizes: tuple[int, ...]
    values: int
    bounds: tuple[float, float]

    @classmethod
    def of(cls, x: Tensor, threat: L0) -> _Form:
        """The form for these inputs: as many units as any sample is allowed."""
        threat.per_unit(x[:1])  # refuses inputs without pixels
        sizes, values = (tuple(x.shape[2:]), x.shape[1]) if threat.unit == "pixel" else (tuple(x.shape[1:]), 1)
        return cls(min(int(threat.budget(x).max()), math.prod(sizes)), sizes, values, threat.bounds)

    def ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The upper and the lower end of each number."""
        low, high = self.bounds
        upper = [float(n) for n in self.sizes] + [high] * self.values
        lower = [0.0] * len(self.sizes) + [low] * self.values
        return torch.tensor(upper).to(like), torch.tensor(lower).to(like)

    def reflected(self, held: Tensor) -> Tensor:
        """Numbers beyond their ends, thrown back by as much."""
        upper, lower = self.ends(held)
        inside = torch.where(held > upper, 2 * upper - held, torch.where(held < lower, 2 * lower - held, held))
        return torch.minimum(torch.maximum(inside, lower), upper)

    def moves(self, x: Tensor, held: Tensor, threat: Threat) -> Tensor:
        """The moves of candidates `(b, k, units, numbers)`, each with as many units as its sample is allowed."""
        b, k = held.shape[:2]
        flat = x.reshape(b, 1, self.values, math.prod(self.sizes))
        move = torch.zeros_like(flat).expand(b, k, -1, -1).contiguous()
        allowed = threat.budget(x).long()
        for j in range(self.units):
            place = torch.zeros(b, k, dtype=torch.int64, device=x.device)
            for axis, n in enumerate(self.sizes):
                place = place * n + held[:, :, j, axis].floor().long().clamp(0, n - 1)
            at = place[:, :, None, None].expand(-1, -1, self.values, 1)
            new = held[:, :, j, len(self.sizes) :, None].to(x) - flat.expand_as(move).gather(3, at)
            new = torch.where((j < allowed)[:, None, None, None], new, move.gather(3, at))
            move = move.scatter(3, at, new)
        return move.reshape(b, k, *x.shape[1:])
