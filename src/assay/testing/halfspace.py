r"""The smallest move into a half-space inside a box, and the most that a move of given size can gain there.

All functions work on rows: weights $a = |w| \ge 0$ and `room` $\rho \ge 0$, how far each coordinate can move
in the direction that helps before it meets its bound, both `(b, d)`. Since every coordinate moves in its own
best direction, a move is a vector $0 \le t \le \rho$ with gain $\sum a_i t_i$. Without bounds, the room is
infinite.

At the optimum $t = \min(s, \rho)$ for $L_\infty$ and $t = \min(s a, \rho)$ for $L_2$ (the stationarity
conditions), with a gain that is piecewise linear in $s$: sorting the corners solves it exactly. For $L_1$ and
$L_0$ the best coordinates are filled one after the other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from assay.errors import SettingError


def smallest(a: Tensor, room: Tensor, gap: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """The least size (b,) that gains `gap`, and such a move t (b, d); inf and t = room where none does."""
    a, room, gap = a.double(), room.double(), gap.double().clamp(min=0)
    reachable = _product(a, room).sum(1) >= gap
    if norm in {"linf", "l2"}:
        direction = (a > 0).double() if norm == "linf" else a
        t = torch.minimum(_product(_scale(a, direction, room, gap)[:, None], direction), room)
        size = t.amax(1) if norm == "linf" else t.square().sum(1).sqrt()
    elif norm == "l1":
        t = _fill(a, room, gap, key=a)
        size = t.sum(1)
    elif norm == "l0":
        t = _fill(a, room, gap, key=_product(a, room))
        size = (t > 0).sum(1).double()
    else:
        raise SettingError(f"norm must be 'linf', 'l2', 'l1' or 'l0', got {norm!r}")
    return torch.where(reachable, size, torch.inf), torch.where(reachable[:, None], t, torch.where(a > 0, room, 0.0))


def most(a: Tensor, room: Tensor, eps: Tensor, norm: str) -> Tensor:
    """The largest gain (b,) of a move of size at most `eps` (b,)."""
    a, room, eps = a.double(), room.double(), eps.double()
    if norm == "linf":
        return (a * torch.minimum(eps[:, None], room)).sum(1)
    if norm == "l1":
        order = a.argsort(dim=1, descending=True)
        a, room = a.gather(1, order), room.gather(1, order)
        before = torch.cat([torch.zeros_like(a[:, :1]), room.cumsum(1)[:, :-1]], 1)
        return (a * torch.minimum((eps[:, None] - before).clamp(min=0), room)).sum(1)
    if norm == "l2":
        s = _radius_scale(a, room, eps)
        return _product(a, torch.minimum(_product(s[:, None], a), room)).sum(1)
    raise SettingError(f"norm must be 'linf', 'l2' or 'l1', got {norm!r}")


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The product, with 0 * inf = 0."""
    return torch.where((a == 0) | (b == 0), torch.zeros_like(a * b), a * b)


def _corners(direction: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """The scale at which each coordinate meets its bound, ascending, and the order of the coordinates."""
    moves = direction > 0
    corner = torch.where(moves, room / torch.where(moves, direction, 1.0), 0.0)
    return corner.sort(dim=1)


def _scale(a: Tensor, direction: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """The s with sum_i a_i min(s direction_i, room_i) = gap; the largest corner where none reaches it."""
    corner, order = _corners(direction, room)
    filled = _product(a, room).gather(1, order).cumsum(1)
    slope = (a * direction).gather(1, order)
    left = slope.flip(1).cumsum(1).flip(1)  # slope of the coordinates that are still free before corner k
    before = torch.cat([torch.zeros_like(filled[:, :1]), filled[:, :-1]], 1)
    reached = before + _product(left, corner)  # the gain at corner k
    k = (reached < gap[:, None]).sum(1, keepdim=True).clamp(max=a.shape[1] - 1)
    slope_k = left.gather(1, k)
    s = (gap[:, None] - before.gather(1, k)) / torch.where(slope_k > 0, slope_k, 1.0)
    return torch.minimum(s, corner.gather(1, k)).squeeze(1)


def _radius_scale(a: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """The s with ||min(s a, room)||_2 = eps, or the largest corner where even the whole room is shorter."""
    corner, order = _corners(a, room)
    room_sorted = torch.where(a > 0, room, 0.0).gather(1, order).square()
    left = a.square().gather(1, order).flip(1).cumsum(1).flip(1)
    before = torch.cat([torch.zeros_like(left[:, :1]), room_sorted.cumsum(1)[:, :-1]], 1)
    reached = before + _product(left, corner.square())
    k = (reached < eps.square()[:, None]).sum(1, keepdim=True).clamp(max=a.shape[1] - 1)
    left_k = left.gather(1, k)
    square = (eps.square()[:, None] - before.gather(1, k)) / torch.where(left_k > 0, left_k, 1.0)
    return torch.minimum(square.clamp(min=0).sqrt(), corner.gather(1, k)).squeeze(1)


def _fill(a: Tensor, room: Tensor, gap: Tensor, key: Tensor) -> Tensor:
    """Move coordinates in descending order of `key`, each up to its room, until the gain is `gap`."""
    order = key.argsort(dim=1, descending=True, stable=True)
    a_sorted, room_sorted = a.gather(1, order), room.gather(1, order)
    gain = _product(a_sorted, room_sorted)
    before = torch.cat([torch.zeros_like(gain[:, :1]), gain.cumsum(1)[:, :-1]], 1)
    need = (gap[:, None] - before).clamp(min=0) / torch.where(a_sorted > 0, a_sorted, 1.0)
    t = torch.where(a_sorted > 0, torch.minimum(need, room_sorted), 0.0)
    return torch.zeros_like(a).scatter(1, order, t)
