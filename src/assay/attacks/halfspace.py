"""The least move to a half-space `{delta: <w, delta> >= gap}`, in L2, Linf and L1, with and without a box.

Without a box it is given by the dual norm. In a box every coordinate moves in its own best direction, up to its room
`r`: `t = min(s, r)` for Linf and `t = min(s |w|, r)` for L2, where the scale s makes the gain `<|w|, t>` equal to the
gap; for L1 the steepest coordinates are filled one after the other. Everything works on rows `(n, d)`, each for
itself, and is scaled by the row's largest weight first, so that tiny gradients do not vanish when they are squared.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

Norm: TypeAlias = Literal["linf", "l2", "l1"]

_ORDER = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}
_OPEN = 0.05  # share of the gap that a clipped move has to gain, else the way is blocked
_DUAL = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}


def size(move: Tensor, norm: Norm) -> Tensor:
    """Length of moves `(..., d)`: `(...)`."""
    length: Tensor = torch.linalg.vector_norm(move, _ORDER[norm], dim=-1)
    return length


def dual_size(w: Tensor, norm: Norm) -> Tensor:
    """Length of normals `(..., d)` in the dual norm: the gain of the best move of length 1."""
    unit, peak = _unit(w)
    length: Tensor = torch.linalg.vector_norm(unit, _DUAL[norm], dim=-1)
    return length * peak


def free_move(w: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """The least move that gains `gap`: `gap / ||w||_dual` along the steepest direction; zero where w is.

    Args:
        w: normals, `(n, d)`.
        gap: what has to be gained, `(n,)`; nothing moves where it is not positive.
        norm: in which the move is least.

    Example:
        >>> import torch
        >>> free_move(torch.tensor([[3.0, -4.0]]), torch.tensor([10.0]), "l2")
        tensor([[ 1.2000, -1.6000]])
    """
    unit, peak = _unit(w)
    gap = _scaled_gap(gap, peak)[:, None]
    if norm == "linf":
        return unit.sign() * gap / unit.abs().sum(dim=1, keepdim=True).clamp_min(1)
    if norm == "l2":
        return unit * (gap / unit.square().sum(dim=1, keepdim=True).clamp_min(1))
    steepest = unit.abs().argmax(dim=1, keepdim=True)
    return torch.zeros_like(unit).scatter_(1, steepest, unit.gather(1, steepest).sign() * gap)


def boxed_move(w: Tensor, gap: Tensor, low: Tensor, high: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """The least move in a box that gains `gap`, and whether there is one; where not, the move that gains the most.

    Args:
        w: normals, `(n, d)`.
        gap: what has to be gained, `(n,)`; nothing moves where it is not positive.
        low: the least allowed move, `(n, d)`, at most 0.
        high: the largest allowed move, `(n, d)`, at least 0.
        norm: in which the move is least.

    Example:
        >>> import torch
        >>> w, low, high = torch.tensor([[3.0, -4.0]]), torch.tensor([[-1.0, -1.0]]), torch.tensor([[4.0, 1.0]])
        >>> boxed_move(w, torch.tensor([10.0]), low, high, "l2")
        (tensor([[ 2., -1.]]), tensor([True]))
    """
    unit, peak = _unit(w)
    weight, gap = unit.abs(), _scaled_gap(gap, peak)
    room = torch.where(unit > 0, high, -low).clamp_min(0).masked_fill(unit == 0, 0)
    if norm == "l1":
        t = _filled(weight, room, gap)
    else:
        t = _scaled(weight, weight if norm == "l2" else (weight > 0).to(weight), room, gap)
    return t * unit.sign(), (weight * room).sum(dim=1) >= gap


def nearest_free(w: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """Which of k half-spaces is the nearest, `(n,)`.

    Args:
        w: normals, `(n, k, d)`.
        gap: what has to be gained, `(n, k)`.
        norm: in which distances are measured.
    """
    return _distance(w, gap, norm).argmin(dim=1)


def nearest_open(w: Tensor, gap: Tensor, low: Tensor, high: Tensor, norm: Norm) -> Tensor:
    """Which of k half-spaces is the nearest without the box, `(n,)`, if that does not block the way.

    It does where the least move without it, clipped to the box, gains less than a twentieth of the gap. Where all ways
    are blocked, they count as if none was.

    Args:
        w: normals, `(n, k, d)`.
        gap: what has to be gained, `(n, k)`.
        low: the least allowed move, `(n, d)`.
        high: the largest allowed move, `(n, d)`.
        norm: in which distances are measured.

    Example:
        >>> import torch
        >>> w, gap = torch.tensor([[[0.0, 2.0], [1.0, 0.0]]]), torch.tensor([[1.0, 1.0]])
        >>> nearest_open(w, gap, torch.zeros(1, 2), torch.tensor([[1.0, 0.01]]), "l2")
        tensor([1])
    """
    blocked = torch.stack(
        [_blocked(*half, low, high, norm) for half in zip(w.unbind(1), gap.unbind(1), strict=True)], 1
    )
    return _distance(w, gap, norm).masked_fill(blocked & ~blocked.all(dim=1, keepdim=True), torch.inf).argmin(dim=1)


def nearest_boxed(w: Tensor, gap: Tensor, low: Tensor, high: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """Which of k half-spaces is the nearest within the box, `(n,)`, and the least move to it, `(n, d)`.

    The distance without a box is never larger than that within it. So the half-spaces are tried in this order, and only
    while they can still be nearer than the best found: mostly one or two. Where the box meets none, it is the one that
    is nearest without it.

    Args:
        w: normals, `(n, k, d)`.
        gap: what has to be gained, `(n, k)`.
        low: the least allowed move, `(n, d)`.
        high: the largest allowed move, `(n, d)`.
        norm: in which distances are measured.
    """
    order = (bound := _distance(w, gap, norm)).argsort(dim=1, stable=True)
    nearest = order[:, 0].clone()
    move, least = torch.zeros_like(low), torch.full_like(bound[:, 0], torch.inf)
    for rank in range(w.shape[1]):
        rows = (bound.gather(1, order[:, rank : rank + 1]).squeeze(1) < least).nonzero().squeeze(1)
        if rank == 0:
            rows = torch.arange(len(w), device=w.device)
        if len(rows) == 0:
            break
        pick = order[rows, rank]
        found, reaches = boxed_move(w[rows, pick], gap[rows, pick], low[rows], high[rows], norm)
        length = torch.where(reaches, size(found, norm), torch.inf)
        better = (length < least[rows]) | (rank == 0)
        rows = rows[better]
        move[rows], least[rows], nearest[rows] = found[better], length[better], pick[better]
    return nearest, move


def _unit(w: Tensor) -> tuple[Tensor, Tensor]:
    """Normals with a largest weight of 1, and what they were divided by (1 where all weights are zero)."""
    peak = w.abs().amax(dim=-1)
    peak = torch.where(peak > 0, peak, 1)
    return w / peak.unsqueeze(-1), peak


def _scaled_gap(gap: Tensor, peak: Tensor) -> Tensor:
    """The gap in units of the largest weight, not negative, and finite whatever the weight."""
    return (gap / peak).clamp(0, torch.finfo(gap.dtype).max ** 0.5)


def _distance(w: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """Distances without a box, `(n, k)`; inf where the weights are zero."""
    dual = dual_size(w, norm)
    return torch.where(w.abs().amax(dim=-1) > 0, gap.clamp_min(0) / dual, torch.inf)


def _blocked(w: Tensor, gap: Tensor, low: Tensor, high: Tensor, norm: Norm) -> Tensor:
    """Where the least move without the box, clipped to it, gains next to nothing of the gap, `(n,)`."""
    unit, peak = _unit(w)
    clipped = torch.minimum(torch.maximum(free_move(w, gap, norm), low), high)
    return (unit * clipped).sum(dim=1) < _OPEN * _scaled_gap(gap, peak)


def _scaled(weight: Tensor, direction: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """`min(s * direction, room)` with the scale s for which the gain is the gap; `room` where no s is enough.

    The gain rises concavely and piecewise linearly in s. Newton's step from below never passes the solution, and each
    one meets at least one more bound or ends: it is exact after a few steps, and a row that has ended stays as it is.
    """
    slope, most = weight * direction, weight * room
    met = room <= 0
    while True:
        rest = (gap - most.masked_fill(~met, 0).sum(dim=1)).clamp_min(0)
        left = slope.masked_fill(met, 0).sum(dim=1)
        scale = torch.where(left > 0, rest / left, torch.inf)[:, None]
        grown = torch.where(met, room, scale * direction)
        beyond = grown > room
        if not bool(beyond.any()):
            return grown
        met = met | beyond


def _filled(weight: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """The steepest coordinates moved one after the other, each up to its room, until the gain is the gap."""
    weight, order = weight.sort(dim=1, descending=True, stable=True)
    room = room.gather(1, order)
    gain = weight * room
    missing = (gap[:, None] - (gain.cumsum(dim=1) - gain)).clamp_min(0)
    t = torch.where(weight > 0, torch.minimum(missing / weight, room), 0)
    return torch.zeros_like(t).scatter_(1, order, t)
