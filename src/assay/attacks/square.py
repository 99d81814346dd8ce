"""Square attack: random search with square windows, from scores alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attacks.base import Attack
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.losses import Loss, resolve
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L2, Linf, Threat
from assay.threats.base import need_budget

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which the window's share is halved
_SCHEDULE_LENGTH = 10_000
_DRAWS_AT_ONCE = 50  # iterations whose random numbers are drawn together
_NARROW_AT = 0.7  # share of samples left at which the working tensors are narrowed


@final
@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search: change one square window of the perturbation, keep it when the loss improves.

    Linf: start with vertical stripes of +-eps; a window gets one value of +-eps per channel. L2: start with a 5 x 5
    tiling of bumps; a window gets a bump of random sign and orientation, together with the budget that is left and the
    mass taken out of a second window. The window holds a share `p` of the pixels, halved after 10, 50, 200, 500, 1000,
    2000, 4000, 6000 and 8000 queries.

    Args:
        threat: `Linf` or `L2` with a budget eps.
        queries: model evaluations of the search, the start included.
        p: share of the pixels in the first windows.
        rescale: stretch the schedule of `p` from 10,000 queries to `queries`.
        loss: what must improve: "margin", "ce", "dlr", a callable, or None for the goal's own.

    Shapes:
        x `(b, channels, height, width)`; `(b, d)` counts as one row of d pixels, `(b, c, d)` as c channels of them.

    Raises:
        ThreatError: the threat is neither Linf nor L2, has no budget, or the inputs are not images.
        SettingError: a setting is out of range.

    Deviations:
        Windows are drawn for each sample, where the released code shares one place in the batch, and they reach the
        last row and column, which its exclusive upper bound leaves out. Targeted goals use the margin too, where the
        released code takes the cross-entropy. Windows are at least 1 (L2: 3) pixels wide and as wide as the image
        allows.

    References:
        Andriushchenko, Croce, Flammarion, Hein, "Square attack: a query-efficient black-box adversarial attack via
        random search", ECCV 2020, https://arxiv.org/abs/1912.00049

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        >>> attack = Square(threat=assay.Linf(0.3), queries=50)
        >>> result = attack(model, torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1]))
        >>> bool((result.backwards == 0).all())
        True
    """

    threat: Threat
    queries: int = 5000
    p: float = 0.8
    rescale: bool = False
    loss: str | Loss | None = "margin"

    access: ClassVar[Access] = Access.SCORES

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise SettingError(f"queries must be at least 1; got {self.queries}.")
        if not 0 < self.p <= 1:
            raise SettingError(f"p is a share of the pixels, above 0 and at most 1; got {self.p}.")
        need_budget(self.threat, type(self).__name__)
        if not isinstance(self.threat, (Linf, L2)):
            raise ThreatError(f"Square works in Linf and L2; got {self.threat!r}.")
        resolve(self.loss)

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """The search, on ever smaller tensors while samples finish."""
        shape, threat, loss = x.shape[1:], self.threat, resolve(self.loss)
        x = x.reshape(len(x), *_image_shape(x))
        windows: _Windows = _LinfWindows() if isinstance(threat, Linf) else _L2Windows()
        best = threat.project(x, windows.start(threat.budget(x)[:, None, None, None], x, rng))
        value = oracle.value(best.reshape(-1, *shape), loss)
        result, place = best.clone(), torch.arange(len(x), device=x.device)
        draws: list[Tensor] = []
        for query in range(1, self.queries):
            alive = oracle.active
            left = int(alive.sum())
            if left == 0:
                break
            if left <= _NARROW_AT * len(alive):
                result[place] = best
                rows = alive.nonzero().squeeze(1)
                oracle, rng, threat, place = oracle.at(rows), rng.at(rows), threat.at(rows), place[rows]
                x, best, value, draws = x[rows], best[rows], value[rows], [d[rows] for d in draws]
            if not draws:
                draws = list(rng.uniform(_DRAWS_AT_ONCE, windows.draws(x.shape[1])).unbind(1))
            move = windows.move(best, threat.budget(x)[:, None, None, None], draws.pop(), self._share(query))
            move = threat.project(x, move)
            tried = oracle.value(move.reshape(-1, *shape), loss)
            better = tried > value
            best = torch.where(better[:, None, None, None], move, best)
            value = torch.where(better, tried, value)
        result[place] = best
        return result.reshape(-1, *shape)

    def _share(self, query: int) -> float:
        """The window's share of the pixels at this query."""
        at = query * _SCHEDULE_LENGTH // self.queries if self.rescale else query
        halvings = sum(at > limit for limit in _HALVINGS)
        return self.p * float(0.5**halvings)


class _Windows(ABC):
    """How a norm's perturbation starts and how one window of it is changed, on `(b, c, h, w)` tensors."""

    @abstractmethod
    def start(self, eps: Tensor, x: Tensor, rng: Keyed) -> Tensor:
        """The first perturbation, before projection."""

    @abstractmethod
    def draws(self, channels: int) -> int:
        """Uniform numbers that one move needs."""

    @abstractmethod
    def move(self, best: Tensor, eps: Tensor, draws: Tensor, share: float) -> Tensor:
        """The best perturbation with one window changed, before projection."""


@final
class _LinfWindows(_Windows):
    """Vertical stripes, then squares of one value of +-eps per channel."""

    def start(self, eps: Tensor, x: Tensor, rng: Keyed) -> Tensor:
        _, c, h, w = x.shape
        return (eps * _signs(rng.uniform(c, 1, w), x)).expand(-1, -1, h, -1)

    def draws(self, channels: int) -> int:
        return 2 + channels

    def move(self, best: Tensor, eps: Tensor, draws: Tensor, share: float) -> Tensor:
        h, w = best.shape[2:]
        _, _, inside = _place(draws[:, 0], draws[:, 1], _sides(share, h, w, least=1), h, w)
        return torch.where(inside, eps * _signs(draws[:, 2:, None, None], best), best)


@final
class _L2Windows(_Windows):
    """A tiling of bumps, then bumps that take over the mass of a second window and the unused budget."""

    def start(self, eps: Tensor, x: Tensor, rng: Keyed) -> Tensor:
        _, c, h, w = x.shape
        side = max(1, min(h, w) // 5)
        down, across = h // side, w // side
        bump = _bump(side, side, x)
        draws = rng.uniform(c + 1, down, across)
        upright = _tile(draws[:, :1], side) < 0.5
        bumps = torch.where(upright, bump.repeat(down, across), bump.T.repeat(down, across))
        field = bumps * _signs(_tile(draws[:, 1:], side), x)
        delta = torch.zeros_like(x)
        delta[:, :, : down * side, : across * side] = field
        return delta * (eps / _norm(delta, (1, 2, 3)))

    def draws(self, channels: int) -> int:
        return 5 + channels

    def move(self, best: Tensor, eps: Tensor, draws: Tensor, share: float) -> Tensor:
        c, h, w = best.shape[1:]
        sides = _sides(share, h, w, least=3)
        row, column, first = _place(draws[:, 0], draws[:, 1], sides, h, w)
        _, _, second = _place(draws[:, 2], draws[:, 3], sides, h, w)
        bump = _bump(*sides, best)
        if sides[0] == sides[1]:
            bump = torch.where(draws[:, 4, None, None] < 0.5, bump, bump.T)
        placed = bump.expand(len(best), *sides)[
            torch.arange(len(best), device=best.device)[:, None, None],
            row.clamp(0, sides[0] - 1)[:, :, None],
            column.clamp(0, sides[1] - 1)[:, None, :],
        ][:, None]
        old = best * first
        fresh = (placed * _signs(draws[:, 5:, None, None], best) + old / _norm(old, (2, 3))) * first
        unused = (eps.square() - best.square().sum(dim=(1, 2, 3), keepdim=True)).clamp_min(0) / c
        taken = (best.square() * (first | second)).sum(dim=(2, 3), keepdim=True)
        fresh = fresh / _norm(fresh, (2, 3)) * (unused + taken).sqrt()
        delta = torch.where(first, fresh, best.masked_fill(second, 0))
        return delta * (eps / _norm(delta, (1, 2, 3)))


def _image_shape(x: Tensor) -> tuple[int, int, int]:
    if x.ndim == 4:
        return x.shape[1], x.shape[2], x.shape[3]
    if x.ndim == 3:
        return x.shape[1], 1, x.shape[2]
    if x.ndim == 2:
        return 1, 1, x.shape[1]
    raise ThreatError(f"Square works on images (b, c, h, w) or signals; got inputs of shape {tuple(x.shape)}.")


def _sides(share: float, h: int, w: int, *, least: int) -> tuple[int, int]:
    """Height and width of a window with about this share of the pixels, a square where the image allows it."""
    area = share * h * w
    side = max(least, round(area**0.5))
    high = min(side, h)
    wide = min(max(least, round(area / high)) if high < side else side, w)
    if wide == w and wide < side:
        high = min(max(high, round(area / wide)), h)
    return high, wide


def _place(u: Tensor, v: Tensor, sides: tuple[int, int], h: int, w: int) -> tuple[Tensor, Tensor, Tensor]:
    """A window at a random place of each sample: every pixel's row and column in it, and whether it is inside."""
    top = (u * (h - sides[0] + 1)).floor()[:, None]
    left = (v * (w - sides[1] + 1)).floor()[:, None]
    row = (torch.arange(h, device=u.device) - top).long()
    column = (torch.arange(w, device=u.device) - left).long()
    in_rows, in_columns = (row >= 0) & (row < sides[0]), (column >= 0) & (column < sides[1])
    return row, column, (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def _signs(u: Tensor, like: Tensor) -> Tensor:
    return torch.where(u < 0.5, -1.0, 1.0).to(like)


def _tile(v: Tensor, side: int) -> Tensor:
    """Each value of `(b, n, rows, columns)` as a square of side x side pixels."""
    tiled: Tensor = v.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)
    return tiled


def _norm(delta: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Euclidean norm over some dimensions, never zero."""
    return delta.square().sum(dim=dims, keepdim=True).sqrt().clamp_min(1e-12)


def _bump(high: int, wide: int, like: Tensor) -> Tensor:
    """The paper's window: two opposite pyramids, one above the other, of unit norm; `(high, wide)`."""
    upper = high // 2
    return _unit(torch.cat([_pyramid(upper, wide, like), -_pyramid(high - upper, wide, like)]))


def _pyramid(high: int, wide: int, like: Tensor) -> Tensor:
    """At Chebyshev distance m from the centre the value is the sum of 1 / (j + 1)^2 over j from m to the border."""
    row = (torch.arange(high, device=like.device) - high // 2).abs()
    column = (torch.arange(wide, device=like.device) - wide // 2).abs()
    rings = 1 / torch.arange(1, max(high // 2, wide // 2) + 2, device=like.device, dtype=like.dtype).square()
    outward = rings.flip(0).cumsum(0).flip(0)
    return _unit(outward[torch.maximum(row[:, None], column[None, :])])


def _unit(window: Tensor) -> Tensor:
    return window / window.square().sum().sqrt().clamp_min(1e-12)
