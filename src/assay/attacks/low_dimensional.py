"""Searches for moves of a few numbers, such as rotations: every point of a grid, and the worst of random draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attacks.base import Attack
from assay.errors import SettingError
from assay.goals import Goal, Targeted, Untargeted
from assay.losses import Loss, margin, resolve
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import Threat
from assay.threats.base import need_budget

_MOST = 1_000_000  # points of a grid
_FAR = 1e8  # a coordinate beyond all budgets
_TOGETHER = 32  # candidates in one question, at most
_GROWN, _SHRUNK = 1.5, 0.8  # factors of the radius after a step that was better, and after one that was not


@final
@dataclass(frozen=True, kw_only=True)
class GridSearch(Attack):
    r"""Every point of a grid over the allowed moves, the farthest from the clean input first.

    The grid spans a box with `points` values along each coordinate, from one end to the other of what the threat allows
    where nothing else moves; points outside the set are projected. It asks for decisions alone, in groups of 1, 2, 4,
    ... 32 moves, and a sample leaves after the group that breaks it.

    Args:
        threat: which moves are allowed; it needs a budget eps, and moves of a few numbers.
        points: values along each coordinate: one number for all, or one for each, such as (5, 5, 31) for
            `Combined(Translation(3), Rotation(30))`. With an odd number the grid holds the middle.

    Shapes:
        x of any shape that the threat takes.

    Raises:
        SettingError: `points` is not positive; at use, it names another number of coordinates than moves have, or the
            grid has more than a million points.
        ThreatError: the threat has no budget.

    Deviations:
        The paper takes the point with the largest loss. Here any that breaks the sample counts, which is as good for
        robust accuracy and needs neither scores nor all points. In training it is the point with the largest margin
        (for other goals than classes: with their own loss); of a model that tells decisions only, the first that breaks
        the sample, or else the last of the grid, the nearest to the middle.

    References:
        Engstrom, Tran, Tsipras, Schmidt, Madry, "Exploring the landscape of spatial robustness", ICML 2019,
        https://arxiv.org/abs/1712.02779 (5 by 5 translations and 31 rotations).

    Example:
        >>> import torch, assay
        >>> attack = GridSearch(threat=assay.Rotation(30), points=31)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
        >>> result = attack(model, torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1]))
        >>> int(result.forwards.max()) <= 32
        True
    """

    threat: Threat
    points: int | tuple[int, ...] = 31

    access: ClassVar[Access] = Access.LABELS

    def __post_init__(self) -> None:
        counts = self.points if isinstance(self.points, (tuple, list)) else (self.points,)
        object.__setattr__(self, "points", tuple(counts) if isinstance(self.points, list) else self.points)
        if not counts or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in counts):
            raise SettingError(f"points must be a whole number from 1 on, or one for each coordinate; got {counts}.")
        need_budget(self.threat, type(self).__name__)

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """All points, until everybody is decided; in training the worst of all."""
        last, units, (low, high) = self.threat.identity(x), self._units(x), self._box(x)
        if not oracle.referee and oracle.access >= Access.SCORES:
            loss = margin if isinstance(goal, (Untargeted, Targeted)) else None
            groups = _groups(len(units))
            return _worst(oracle, x, (self._moves(x, low, high, units[g.start : g.stop]) for g in groups), loss)[0]
        broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for group in _groups(len(units)):
            if oracle.finished or bool(broken.all()):
                break
            moves = self._moves(x, low, high, units[group.start : group.stop])
            labels = oracle.labels(moves, ~broken)
            wins = torch.stack([goal.reached_labels(one) for one in labels.unbind(1)], dim=1) & (labels >= 0)
            best = torch.where(wins.any(dim=1), wins.long().argmax(dim=1), labels.shape[1] - 1)
            picked = moves[torch.arange(len(x), device=x.device), best]
            last = torch.where(broken.reshape(-1, *[1] * (last.ndim - 1)), last, picked)
            broken |= wins.any(dim=1)
        return last

    def _units(self, x: Tensor) -> Tensor:
        """The points of the grid in [-1, 1], `(n, d)`, the farthest from the middle first."""
        d = self.threat.identity(x[:1])[0].numel()
        counts = self.points if isinstance(self.points, tuple) else (self.points,) * d
        if len(counts) != d:
            raise SettingError(f"points has {len(counts)} numbers for moves of {d}: give one for each, or one for all.")
        if sum(map(math.log, counts)) > math.log(_MOST):
            raise SettingError(
                f"a grid with {counts[0]} points along each of {d} coordinates cannot be searched: GridSearch is for "
                "moves of a few numbers, such as Rotation(30). Use fewer points, or RandomSearch."
            )
        axes = [torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in counts]
        units = torch.cartesian_prod(*axes).reshape(-1, d)
        far = units.abs().amax(dim=1).mul(1e4).round()  # rounding orders nothing
        return units[far.argsort(descending=True, stable=True)].to(x)

    def _box(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest and largest value of each coordinate where the others are at rest, `(b, *m)`."""
        nothing = self.threat.identity(x)
        far = min(torch.finfo(x.dtype).max ** 0.5, _FAR)
        ends = []
        for sign in (-1, 1):
            end = nothing.flatten(1).clone()
            for i in range(end.shape[1]):
                alone = nothing.flatten(1).clone()
                alone[:, i] += sign * far
                end[:, i] = self.threat.project(x, alone.reshape(nothing.shape)).flatten(1)[:, i]
            ends.append(end.reshape(nothing.shape))
        return ends[0], ends[1]

    def _moves(self, x: Tensor, low: Tensor, high: Tensor, units: Tensor) -> Tensor:
        """These points of every sample's own grid, `(b, k, *m)`."""
        middle, half = (low + high) / 2, (high - low) / 2
        return torch.stack(
            [self.threat.project(x, middle + unit.reshape(half.shape[1:]) * half) for unit in units], dim=1
        )


@final
@dataclass(frozen=True, kw_only=True)
class RandomSearch(Attack):
    r"""The worst of some random moves, and, where asked for, of a random walk from there.

    Draws are those of the threat's `start`. Afterwards `refine` steps each try $P(\theta + r \cdot u)$ with $\theta$
    the best move so far, u another draw and r a radius of its own for each sample, which grows by half after a step
    that was better and shrinks by a fifth after one that was not.

    Args:
        threat: which moves are allowed; it needs a budget eps. Few numbers are searched well: angles, shifts.
        draws: random moves, k in "worst of k".
        refine: steps of the walk.
        loss: what is worst: "margin", "ce", "dlr", a callable, or None for the goal's own.

    Shapes:
        x of any shape that the threat takes.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat has no budget.

    Deviations:
        The paper draws 10 and has no walk. It takes the draw with the largest cross-entropy; here any that breaks the
        sample counts, the largest margin leads the walk, and a sample leaves once it is broken.

    References:
        Engstrom, Tran, Tsipras, Schmidt, Madry, "Exploring the landscape of spatial robustness", ICML 2019,
        https://arxiv.org/abs/1712.02779

    Example:
        >>> import torch, assay
        >>> attack = RandomSearch(threat=assay.Translation(3), draws=10)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
        >>> result = attack(model, torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1]))
        >>> int(result.forwards.max()) <= 11
        True
    """

    threat: Threat
    draws: int = 10
    refine: int = 0
    loss: str | Loss | None = "margin"

    access: ClassVar[Access] = Access.SCORES

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise SettingError(f"draws must be at least 1; got {self.draws}.")
        if self.refine < 0:
            raise SettingError(f"refine must not be negative; got {self.refine}.")
        need_budget(self.threat, type(self).__name__)
        resolve(self.loss)

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """The draws, then the walk."""
        loss, groups = resolve(self.loss), _groups(self.draws)
        draws = (torch.stack([self.threat.start(x, rng) for _ in group], dim=1) for group in groups)
        best, value = _worst(oracle, x, draws, loss)
        radius = torch.full_like(value, 0.5)
        for _ in range(self.refine):
            if oracle.finished:
                break
            ahead = best + radius.reshape(-1, *[1] * (best.ndim - 1)) * self.threat.start(x, rng)
            ahead = self.threat.project(x, ahead)
            tried = oracle.value(ahead, loss).nan_to_num(-torch.inf).to(value)
            radius = (radius * torch.where(tried > value, _GROWN, _SHRUNK)).clamp_max(1).to(radius)
            best, value = _better(best, value, ahead, tried)
        return best


def _groups(count: int) -> Iterator[range]:
    """Numbers 0 to count - 1 in groups of 1, 2, 4, ... 32, the same for every batch."""
    start, length = 0, 1
    while start < count:
        yield range(start, min(start + length, count))
        start, length = start + length, min(2 * length, _TOGETHER)


def _worst(oracle: Oracle, x: Tensor, groups: Iterable[Tensor], loss: Loss | None) -> tuple[Tensor, Tensor]:
    """Of groups of moves `(b, k, *m)` the one with the largest loss of each sample, and that loss."""
    best, value = oracle.threat.identity(x), x.new_full((len(x),), -torch.inf)
    for moves in groups:
        if oracle.finished:
            break
        most, place = oracle.value(moves, loss).nan_to_num(-torch.inf).max(dim=1)
        best, value = _better(best, value, moves[torch.arange(len(x), device=x.device), place], most.to(value))
    return best, value


def _better(best: Tensor, value: Tensor, move: Tensor, tried: Tensor) -> tuple[Tensor, Tensor]:
    """Of two moves of each sample the one with the larger loss, and that loss."""
    wins = tried > value
    return torch.where(wins.reshape(-1, *[1] * (best.ndim - 1)), move, best), torch.where(wins, tried, value)
